// The factors that `assay-verify score` grades (docs/score.md), as data: those that public graders of
// attested providers use, each with the rules of the verifier that decide it. Factors without rules are
// judged by what is seen of the connections (judges.ts).

import { RULES } from '../../appraise/rules.ts';
import { GPU_RULES } from '../../gpu/rules.ts';
import { SNP_RULES as S } from '../../snp/rules.ts';
import { TDX_RULES as T } from '../../tdx/rules.ts';
import type { Rule } from '../../transcript/checks.ts';

/** The rules a factor rests on. */
export interface FactorRules {
  /** Each must have passed, of the vendor whose evidence it is. */
  readonly snp?: readonly Rule[] | undefined;
  readonly tdx?: readonly Rule[] | undefined;
  /** The same, of either vendor. */
  readonly all?: readonly Rule[] | undefined;
  /** Rules a policy need not ask for: one that failed fails the factor, one that was skipped does not. */
  readonly also?: readonly Rule[] | undefined;
  /** True: where the policy asks for none and a rule is skipped, the factor does not apply. Else it fails. */
  readonly optional?: true | undefined;
}

export interface Factor {
  readonly id: string;
  readonly group: 'hardware' | 'software' | 'model' | 'connection' | 'service';
  /** The statement that a pass makes. */
  readonly title: string;
  readonly rules?: FactorRules | undefined;
  /** True: seen on the connection alone, so that simulated hardware does not change it. */
  readonly withoutHardware?: true | undefined;
}

const TD_SOFTWARE = [
  T.mrTd,
  T.rtmr0,
  T.rtmr1,
  T.rtmr2,
  T.rtmr3,
  T.mrConfigId,
  T.mrOwner,
  T.mrOwnerConfig,
  T.eventLog,
  T.eventContent,
  T.runtimeEvents,
];

/** In the order of docs/score.md. */
export const FACTORS = [
  {
    id: 'genuine-hardware',
    group: 'hardware',
    title: 'evidence is of real hardware, not simulated',
    rules: { all: [RULES.tee, RULES.simulated] },
  },
  {
    id: 'report-signed',
    group: 'hardware',
    title: 'report is signed by a key of the processor',
    rules: {
      snp: [S.S1, S.S2, S.S3, S.S4, S.S5, S.S6, S.S7, S.S8, S.S9],
      tdx: [T.header, T.body, T.signatureData, T.quoteSignature, T.attestationKey, T.qeSignature],
      also: [T.trailing, S.S32, T.reportData],
    },
  },
  {
    id: 'vendor-root',
    group: 'hardware',
    title: 'that key chains to the pinned root of its maker',
    rules: {
      snp: [S.S10, S.S11, S.S12, S.S15],
      tdx: [T.pckChain, T.root, T.roles, T.pckExtensions, T.tcbInfoSignature, T.qeIdentitySignature],
      also: [S.S16, S.S18],
    },
  },
  {
    id: 'endorsements-current',
    group: 'hardware',
    title: 'certificates and TCB data are within their dates',
    rules: { snp: [S.S13], tdx: [T.validity, T.crlWindow, T.tcbInfoWindow, T.qeIdentityWindow] },
  },
  {
    id: 'not-revoked',
    group: 'hardware',
    title: 'nothing in the chain is revoked, by a current list',
    rules: { snp: [S.S19], tdx: [T.crl, T.revocation] },
  },
  {
    id: 'tcb-consistent',
    group: 'hardware',
    title: 'the key was made for the firmware that runs, and no older one is committed',
    rules: {
      snp: [S.S14, S.S17, S.S24],
      tdx: [T.tcbInfo, T.platform, T.module, T.platformTcb, T.convergence, T.level, T.qeIdentity, T.qeTcb],
      also: [T.relaunch],
    },
  },
  {
    id: 'tcb-current',
    group: 'hardware',
    title: 'firmware is as recent as the policy asks',
    rules: { snp: [S.S25], tdx: [T.status], also: [T.advisories, T.evaluationNumber, T.teeTcbSvn], optional: true }, // prettier-ignore
  },
  {
    id: 'no-rollback',
    group: 'hardware',
    title: 'revocation and TCB data are not older than any seen before',
    rules: { snp: [S.S20], tdx: [T.rollback], optional: true },
  },
  {
    id: 'debug-off',
    group: 'hardware',
    title: 'the host cannot debug the guest',
    rules: { snp: [S.S21], tdx: [T.debug] },
  },
  {
    id: 'no-migration',
    group: 'hardware',
    title: 'no migration agent or service can take the guest along',
    rules: { snp: [S.S30], tdx: [T.migratable], also: [T.mrServiceTd] },
  },
  {
    id: 'platform-protected',
    group: 'hardware',
    title: 'guest and platform have the protections the policy asks for',
    rules: {
      snp: [S.S21, S.S22, S.S23],
      tdx: [T.reservedAttributes, T.xfamBits],
      also: [S.S26, T.septVeDisable, T.tdAttributes, T.seamAttributes, T.xfam, T.mrSeam, T.mrSignerSeam],
    },
  },
  {
    id: 'cpu-registry',
    group: 'hardware',
    title: 'the machine is one of a list of machines in known hands',
    rules: { all: [RULES.chips], also: [S.S31, T.fmspc, T.ppid, T.pckSerial], optional: true },
  },
  {
    id: 'gpu-chain',
    group: 'hardware',
    title: 'a GPU in use is attested, and bound to the evidence of the CPU',
    rules: { also: [RULES.gpu, ...Object.values(GPU_RULES)] },
  },
  {
    id: 'claims-signed',
    group: 'software',
    title: 'every statement of the document is under the hardware’s signature',
    rules: {
      all: [
        RULES.claimsCanonical,
        RULES.claimsLabel,
        RULES.claimsFields,
        RULES.claimsBound,
        RULES.reportDataRepeated,
        RULES.measurementRepeated,
        RULES.timestampRepeated,
      ],
      also: [RULES.rtmrRepeated, RULES.teeRepeated],
    },
  },
  {
    id: 'software-named',
    group: 'software',
    title: 'measured software is a reference value of the policy',
    rules: {
      all: [RULES.measurement, RULES.softwareRoot],
      also: [S.S27, S.S28, S.S29, ...TD_SOFTWARE],
    },
  },
  {
    id: 'software-released',
    group: 'software',
    title: 'measured software is a published, reproducible release',
  },
  {
    id: 'configuration-named',
    group: 'software',
    title: 'effective configuration is one the policy lists',
    rules: { all: [RULES.configs], optional: true },
  },
  { id: 'no-egress', group: 'software', title: 'software has no way to send prompts elsewhere' },
  {
    id: 'model-measured',
    group: 'model',
    title: 'SHA-256 of the weights is under the hardware’s signature',
    rules: { all: [RULES.modelBound, RULES.modelList, RULES.modelPresent, RULES.requestedModel] },
  },
  {
    id: 'model-named',
    group: 'model',
    title: 'every model served is one the policy lists, byte for byte',
    rules: { all: [RULES.models, RULES.modelDigests], optional: true },
  },
  {
    id: 'weights-pinned',
    group: 'model',
    title: 'the weights used are the bytes hashed, not read again from a disk',
    rules: { all: [RULES.modelBound, RULES.modelList] },
  },
  {
    id: 'evidence-fresh',
    group: 'connection',
    title: 'evidence was made for a random number of ours',
    rules: { all: [RULES.nonce, RULES.nonceRepeated] },
  },
  { id: 'nonce-honoured', group: 'connection', title: 'two random numbers give two documents' },
  {
    id: 'tls-key-attested',
    group: 'connection',
    title: 'TLS key of every connection is the one in the evidence',
    rules: { all: [RULES.tlsKey] },
  },
  {
    id: 'connection-bound',
    group: 'connection',
    title: 'evidence is bound to the very connection (TLS exporter)',
    rules: { all: [RULES.exporter, RULES.certificateChannel] },
  },
  {
    id: 'no-resumption',
    group: 'connection',
    title: 'no TLS session is resumed',
    rules: { all: [RULES.session] },
    withoutHardware: true,
  },
  {
    id: 'tls-1-3-only',
    group: 'connection',
    title: 'TLS is version 1.3, and older ones are refused',
    rules: { all: [RULES.tlsVersion] },
    withoutHardware: true,
  },
  { id: 'plain-http-refused', group: 'connection', title: 'plain http is not served', withoutHardware: true },
  {
    id: 'one-service',
    group: 'connection',
    title: 'every connection ends in the same software, configuration and models',
  },
  {
    id: 'receipt-key',
    group: 'service',
    rules: { all: [RULES.claimsBound] },
    title: 'the key that signs receipts is in the evidence',
  },
  { id: 'receipts-offered', group: 'service', title: 'answers come with a signed receipt' },
  {
    id: 'sealed-key',
    group: 'service',
    rules: { all: [RULES.claimsBound] },
    title: 'a key to seal bodies to is in the evidence',
  },
  { id: 'sealed-offered', group: 'service', title: 'bodies can be sealed past what ends TLS on the way' },
  { id: 'sizes-padded', group: 'service', title: 'sizes of streamed pieces do not give their words away' },
] as const satisfies readonly Factor[];

export type FactorId = (typeof FACTORS)[number]['id'];

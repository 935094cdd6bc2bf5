// Every row of the goal list for TDX (T1–T28, E1–E3), accepted once and refused at least once by name, on the simulated
// hierarchy: real formats and algorithms, every field open. The last tests hold the table itself to account.

import { beforeAll, describe, expect, test } from 'vitest';
import { fromHex, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { ATTESTATION_CODES, type AttestationCode } from '../../../attestation/transcript/codes.ts';
import { encodeDer, encodeInteger, TAG } from '../../../attestation/x509/der.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import {
  buildEventLog,
  buildRuntimeLog,
  SIMULATED_BOOT,
} from '../../../attestation/simulated/intel-eventlog.ts';
import {
  createSimulatedIntel,
  intelName,
  SIMULATED_INTEL_SERIALS,
  type SimulatedIntel,
} from '../../../attestation/simulated/intel.ts';
import {
  SIMULATED_TD_ATTRIBUTES,
  SIMULATED_XFAM,
  type SimulatedQuote,
} from '../../../attestation/simulated/intel-quote.ts';
import {
  basicConstraints,
  corruptSignature,
  encodePem,
  generateEcKey,
  keyUsage,
} from '../../../attestation/simulated/issue.ts';
import type { TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { TDX_RULES } from '../../../attestation/tdx/rules.ts';
import type { TdxContext, TdxEvidence } from '../../../attestation/tdx/subject.ts';
import { verifyTdx, type TdxVerification } from '../../../attestation/tdx/verify.ts';

const now = new Date('2026-06-15T12:00:00Z');
const DAY = 86_400_000;
function fill(size: number, value: number): Uint8Array {
  return new Uint8Array(size).fill(value);
}
function hex(size: number, value: number): string {
  return toHex(fill(size, value));
}
const expired = { notBefore: new Date(now.getTime() - 10 * DAY), notAfter: new Date(now.getTime() - DAY) };

let intel: SimulatedIntel;
let stranger: SimulatedIntel;

beforeAll(async () => {
  intel = await createSimulatedIntel({ now });
  stranger = await createSimulatedIntel({ now });
});

interface Case {
  readonly row: string;
  readonly what: string;
  readonly code: AttestationCode;
  /** Set when the evidence cannot be judged at all: an error is thrown instead. */
  readonly throws?: 'malformed' | 'unsupported';
  readonly quote?: SimulatedQuote | (() => Promise<SimulatedQuote>);
  readonly collateral?: () => Promise<Partial<TdxCollateral>>;
  readonly policy?: TdxPolicy;
  readonly context?: () => Partial<TdxContext>;
  readonly eventLog?: () => Promise<Uint8Array>;
}

/** A chain PEM with some of its certificates replaced. */
async function pckChain(parts: {
  pck?: Promise<Uint8Array>;
  ca?: Promise<Uint8Array>;
  root?: Promise<Uint8Array>;
}): Promise<SimulatedQuote> {
  return {
    certificationData: utf8(
      [(await parts.pck) ?? intel.pck, (await parts.ca) ?? intel.pckCa, (await parts.root) ?? intel.root]
        .map((der) => encodePem(der))
        .join(''),
    ),
  };
}
async function signingChain(
  signer: Promise<Uint8Array>,
  root?: Promise<Uint8Array>,
): Promise<Partial<TdxCollateral>> {
  const pem = encodePem(await signer) + encodePem((await root) ?? intel.root);
  return { tcbInfoIssuerChain: pem, qeIdentityIssuerChain: pem };
}
function tcbInfo(changes: Parameters<SimulatedIntel['tcbInfo']>[0]) {
  return async () => ({ tcbInfo: await intel.tcbInfo(changes) });
}
function qeIdentity(changes: Parameters<SimulatedIntel['qeIdentity']>[0]) {
  return async () => ({ qeIdentity: await intel.qeIdentity(changes) });
}
function flip(at: number) {
  return (quote: Uint8Array): void => {
    quote[at] = (quote[at] ?? 0) ^ 1;
  };
}
function u32(at: number, value: number) {
  return (quote: Uint8Array): void => new DataView(quote.buffer, quote.byteOffset).setUint32(at, value, true);
}
function attributes(bits: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, bits, true);
  return bytes;
}
/** v4: header 48, body 584, length 4; then signature 64, key 64, outer certification data header 6, QE report 384, signature 64. */
const AUTH = 48 + 584 + 4;

const CASES: readonly Case[] = [
  {
    row: 'T1',
    what: 'quote of version 3',
    code: 'tdx_quote_unsupported',
    throws: 'unsupported',
    quote: { header: { version: 3 } },
  },
  {
    row: 'T1',
    what: 'SGX quote',
    code: 'tdx_quote_unsupported',
    throws: 'unsupported',
    quote: { header: { teeType: 0 } },
  },
  {
    row: 'T1',
    what: 'ECDSA P-384 attestation key',
    code: 'tdx_quote_unsupported',
    throws: 'unsupported',
    quote: { header: { attestationKeyType: 3 } },
  },
  {
    row: 'T1',
    what: 'another QE vendor',
    code: 'tdx_quote_header',
    quote: { header: { qeVendorId: fill(16, 7) } },
  },
  {
    row: 'T1',
    what: 'reserved header bytes',
    code: 'tdx_quote_header',
    quote: { header: { reserved: fill(4, 1) } },
  },
  {
    row: 'T2',
    what: 'unknown body type',
    code: 'tdx_body_descriptor',
    throws: 'unsupported',
    quote: { version: 5, bodyType: 1 },
  },
  {
    row: 'T2',
    what: 'body size of the other type',
    code: 'tdx_body_descriptor',
    throws: 'malformed',
    quote: { version: 5, bodySize: 584 },
  },
  {
    row: 'T3',
    what: 'signature data length past the end',
    code: 'tdx_signature_data',
    throws: 'malformed',
    quote: { damage: u32(AUTH - 4, 0xffffffff) },
  },
  {
    row: 'T3',
    what: 'certification data shorter than what holds it',
    code: 'tdx_signature_data',
    throws: 'malformed',
    quote: { damage: u32(AUTH + 130, 10) },
  },
  {
    row: 'T3',
    what: 'non-zero trailing bytes',
    code: 'tdx_trailing_bytes',
    quote: { trailing: fill(39, 1) },
  },
  { row: 'T4', what: 'a bit of the body', code: 'tdx_quote_signature', quote: { damage: flip(48 + 200) } },
  {
    row: 'T4',
    what: 'signed by another key',
    code: 'tdx_quote_signature',
    quote: async () => ({ signer: stranger.keys.attestation }),
  },
  {
    row: 'T4',
    what: 'attestation key off the curve',
    code: 'tdx_quote_signature',
    quote: { attestationKey: fill(64, 5) },
  },
  {
    row: 'T5',
    what: 'authentication data not hashed',
    code: 'tdx_attestation_key',
    quote: { damage: flip(AUTH + 134 + 450) },
  },
  {
    row: 'T5',
    what: 'second half of QE REPORTDATA not zero',
    code: 'tdx_attestation_key',
    quote: { qeReport: { reportData: fill(64, 9) } },
  },
  {
    row: 'T6',
    what: 'QE report signed by another key',
    code: 'tdx_qe_report_signature',
    quote: async () => ({ qeSigner: stranger.keys.pck }),
  },
  {
    row: 'T6',
    what: 'certification data type 5 outside',
    code: 'tdx_certification_data',
    throws: 'unsupported',
    quote: { outerCertificationType: 5 },
  },
  {
    row: 'T6',
    what: 'only a PPID to find the PCK by',
    code: 'tdx_certification_data',
    throws: 'unsupported',
    quote: { certificationType: 3 },
  },
  {
    row: 'T7',
    what: 'root of a stranger',
    code: 'tdx_root_not_trusted',
    context: () => ({ roots: [stranger.root] }),
  },
  { row: 'T7', what: 'Intel’s pinned root', code: 'tdx_root_not_trusted', context: () => ({}) },
  {
    row: 'T7',
    what: 'PCK signature',
    code: 'tdx_pck_chain',
    quote: () => pckChain({ pck: Promise.resolve(corruptSignature(intel.pck)) }),
  },
  {
    row: 'T7',
    what: 'PCK of another CA',
    code: 'tdx_pck_chain',
    quote: () => pckChain({ pck: intel.issuePck({ ca: 'processor' }) }),
  },
  {
    row: 'T7',
    what: 'root whose own signature is wrong',
    code: 'tdx_pck_chain',
    quote: () => pckChain({ root: Promise.resolve(corruptSignature(intel.root)) }),
  },
  {
    row: 'T7',
    what: 'signing chain to another root',
    code: 'tdx_pck_chain',
    collateral: () => signingChain(Promise.resolve(stranger.tcbSigning), Promise.resolve(stranger.root)),
  },
  {
    row: 'T8',
    what: 'PCK named otherwise',
    code: 'tdx_certificate_role',
    quote: () => pckChain({ pck: intel.issuePck({ subject: intelName('Intel SGX TCB Signing') }) }),
  },
  {
    row: 'T8',
    what: 'PCK that is a CA',
    code: 'tdx_certificate_role',
    quote: () =>
      pckChain({
        pck: intel.issuePck({
          extensions: (list) => [...list.filter(({ oid }) => oid !== '2.5.29.19'), basicConstraints(true)],
        }),
      }),
  },
  {
    row: 'T8',
    what: 'PCK CA without keyCertSign',
    code: 'tdx_certificate_role',
    quote: () =>
      pckChain({
        ca: intel.issueCa('platform', {
          extensions: (list) => [...list.filter(({ oid }) => oid !== '2.5.29.15'), keyUsage(['crlSign'])],
        }),
      }),
  },
  {
    row: 'T8',
    what: 'root with pathLenConstraint 0',
    code: 'tdx_certificate_role',
    quote: () =>
      pckChain({
        root: intel.issueCa('root', {
          extensions: (list) => [...list.filter(({ oid }) => oid !== '2.5.29.19'), basicConstraints(true, 0)],
        }),
      }),
  },
  {
    row: 'T8',
    what: 'unknown critical extension',
    code: 'tdx_certificate_role',
    quote: () =>
      pckChain({
        pck: intel.issuePck({
          extensions: (list) => [...list, { oid: '1.2.3.4', critical: true, value: encodeInteger(1) }],
        }),
      }),
  },
  {
    row: 'T8',
    what: 'TCB info signed by the PCK',
    code: 'tdx_certificate_role',
    collateral: async () => ({
      tcbInfo: await intel.tcbInfo({ signer: intel.keys.pck }),
      ...(await signingChain(
        intel.issuePck({ issuer: intelName('Intel SGX Root CA'), signer: intel.keys.root }),
      )),
    }),
  },
  {
    row: 'T9',
    what: 'expired PCK',
    code: 'tdx_certificate_expired',
    quote: () => pckChain({ pck: intel.issuePck(expired) }),
  },
  {
    row: 'T9',
    what: 'PCK CA not valid yet',
    code: 'tdx_certificate_expired',
    quote: () => pckChain({ ca: intel.issueCa('platform', { notBefore: new Date(now.getTime() + DAY) }) }),
  },
  {
    row: 'T9',
    what: 'expired TCB signing certificate',
    code: 'tdx_certificate_expired',
    collateral: () => signingChain(intel.issueTcbSigning(expired)),
  },
  {
    row: 'T10',
    what: 'PCK CRL signature',
    code: 'tdx_crl_invalid',
    collateral: async () => ({ pckCrl: corruptSignature(await intel.issueCrl('platform')) }),
  },
  {
    row: 'T10',
    what: 'CRL of the other CA',
    code: 'tdx_crl_invalid',
    collateral: async () => ({ pckCrl: await intel.issueCrl('processor') }),
  },
  {
    row: 'T10',
    what: 'root CRL by a stranger',
    code: 'tdx_crl_invalid',
    collateral: async () => ({ rootCaCrl: await intel.issueCrl('root', { signer: stranger.keys.root }) }),
  },
  {
    row: 'T10',
    what: 'CRL without a number',
    code: 'tdx_crl_invalid',
    collateral: async () => ({
      pckCrl: await intel.issueCrl('platform', { extensions: (list) => list.slice(1) }),
    }),
  },
  {
    row: 'T10',
    what: 'CRL without an authority key',
    code: 'tdx_crl_invalid',
    collateral: async () => ({
      pckCrl: await intel.issueCrl('platform', { extensions: (list) => list.slice(0, 1) }),
    }),
  },
  {
    row: 'T10',
    what: 'issuer chain of another CA',
    code: 'tdx_crl_invalid',
    collateral: async () => ({
      pckCrlIssuerChain: encodePem(await intel.issueCa('processor')) + encodePem(intel.root),
    }),
  },
  {
    row: 'T10',
    what: 'stale PCK CRL',
    code: 'tdx_crl_expired',
    collateral: async () => ({ pckCrl: await intel.issueCrl('platform', { nextUpdate: now }) }),
  },
  {
    row: 'T10',
    what: 'root CRL from the future',
    code: 'tdx_crl_expired',
    collateral: async () => ({
      rootCaCrl: await intel.issueCrl('root', { thisUpdate: new Date(now.getTime() + DAY) }),
    }),
  },
  {
    row: 'T10',
    what: 'revoked PCK',
    code: 'tdx_certificate_revoked',
    collateral: async () => ({
      pckCrl: await intel.issueCrl('platform', { revoked: [1, SIMULATED_INTEL_SERIALS.pck] }),
    }),
  },
  {
    row: 'T10',
    what: 'revoked PCK CA',
    code: 'tdx_certificate_revoked',
    collateral: async () => ({
      rootCaCrl: await intel.issueCrl('root', { revoked: [SIMULATED_INTEL_SERIALS.platform] }),
    }),
  },
  {
    row: 'T10',
    what: 'revoked TCB signing certificate',
    code: 'tdx_certificate_revoked',
    collateral: async () => ({
      rootCaCrl: await intel.issueCrl('root', { revoked: [SIMULATED_INTEL_SERIALS.tcbSigning] }),
    }),
  },
  {
    row: 'T10',
    what: 'empty CRL',
    code: 'malformed_crl',
    throws: 'malformed',
    collateral: async () => ({ pckCrl: new Uint8Array() }),
  },
  {
    row: 'T11',
    what: 'no SGX extensions',
    code: 'tdx_pck_extensions',
    quote: () =>
      pckChain({
        pck: intel.issuePck({ extensions: (list) => list.filter(({ oid }) => !oid.startsWith('1.2.840')) }),
      }),
  },
  {
    row: 'T11',
    what: 'FMSPC missing',
    code: 'tdx_pck_extensions',
    quote: () =>
      pckChain({ pck: intel.issuePck({ members: (list) => list.filter(({ arc }) => arc !== '4') }) }),
  },
  {
    row: 'T11',
    what: 'FMSPC twice',
    code: 'tdx_pck_extensions',
    quote: () =>
      pckChain({
        pck: intel.issuePck({ members: (list) => [...list, ...list.filter(({ arc }) => arc === '4')] }),
      }),
  },
  {
    row: 'T11',
    what: 'unknown member',
    code: 'tdx_pck_extensions',
    quote: () =>
      pckChain({
        pck: intel.issuePck({ members: (list) => [...list, { arc: '8', value: encodeInteger(1) }] }),
      }),
  },
  {
    row: 'T11',
    what: 'PPID of 15 bytes',
    code: 'tdx_pck_extensions',
    quote: () => pckChain({ pck: intel.issuePck({ sgx: { ppid: fill(15, 1) } }) }),
  },
  {
    row: 'T11',
    what: 'SVN over a byte',
    code: 'tdx_pck_extensions',
    quote: () => pckChain({ pck: intel.issuePck({ sgx: { components: [256, ...fill(15, 0)] } }) }),
  },
  {
    row: 'T11',
    what: 'unknown SGX type',
    code: 'tdx_pck_extensions',
    quote: () => pckChain({ pck: intel.issuePck({ sgx: { sgxType: 3 } }) }),
  },
  {
    row: 'T11',
    what: 'platform instance id missing under the Platform CA',
    code: 'tdx_pck_extensions',
    quote: () => pckChain({ pck: intel.issuePck({ sgx: { platformInstanceId: undefined } }) }),
  },
  {
    row: 'T12',
    what: 'TCB info for SGX',
    code: 'tdx_tcb_info',
    collateral: tcbInfo({ members: (list) => ({ ...list, id: 'SGX' }) }),
  },
  {
    row: 'T12',
    what: 'TCB info of version 2',
    code: 'tdx_tcb_info',
    collateral: tcbInfo({ members: (list) => ({ ...list, version: 2 }) }),
  },
  {
    row: 'T12',
    what: 'tcbType 1',
    code: 'tdx_tcb_info',
    collateral: tcbInfo({ members: (list) => ({ ...list, tcbType: 1 }) }),
  },
  {
    row: 'T12',
    what: 'a space added after signing',
    code: 'tdx_tcb_info_signature',
    collateral: tcbInfo({ damage: (text) => text.replace('"version":3', '"version": 3') }),
  },
  {
    row: 'T12',
    what: 'signed by a stranger',
    code: 'tdx_tcb_info_signature',
    collateral: async () => ({ tcbInfo: await intel.tcbInfo({ signer: stranger.keys.tcbSigning }) }),
  },
  {
    row: 'T12',
    what: 'key twice',
    code: 'malformed_json',
    throws: 'malformed',
    collateral: tcbInfo({ text: (text) => text.replace('{', '{"id":"TDX",') }),
  },
  {
    row: 'T12',
    what: 'member missing',
    code: 'tdx_collateral_malformed',
    throws: 'malformed',
    collateral: tcbInfo({ members: (list) => ({ ...list, fmspc: undefined }) }),
  },
  {
    row: 'T12',
    what: 'stale TCB info',
    code: 'tdx_tcb_info_expired',
    collateral: tcbInfo({ nextUpdate: now }),
  },
  {
    row: 'T12',
    what: 'TCB info from the future',
    code: 'tdx_tcb_info_expired',
    collateral: tcbInfo({ issueDate: new Date(now.getTime() + 1000) }),
  },
  {
    row: 'T13',
    what: 'another FMSPC',
    code: 'tdx_tcb_info_platform',
    collateral: tcbInfo({ fmspc: fill(6, 1) }),
  },
  {
    row: 'T13',
    what: 'another PCEID',
    code: 'tdx_tcb_info_platform',
    collateral: tcbInfo({ pceId: fill(2, 1) }),
  },
  {
    row: 'T14',
    what: 'module version without identity',
    code: 'tdx_module_identity',
    quote: { teeTcbSvn: Uint8Array.from([6, 2, 5, ...fill(13, 0)]) },
  },
  {
    row: 'T14',
    what: 'module svn below every level',
    code: 'tdx_module_identity',
    quote: { teeTcbSvn: Uint8Array.from([5, 1, 5, ...fill(13, 0)]) },
  },
  {
    row: 'T14',
    what: 'MRSIGNERSEAM of nobody',
    code: 'tdx_module_identity',
    quote: { mrSignerSeam: fill(48, 3) },
  },
  {
    row: 'T14',
    what: 'SEAM attributes under the mask',
    code: 'tdx_module_identity',
    quote: { seamAttributes: fill(8, 1) },
    policy: { seamAttributes: hex(8, 1) },
  },
  {
    row: 'T15',
    what: 'revoked platform level',
    code: 'tdx_platform_revoked',
    collateral: tcbInfo({ status: 'Revoked' }),
  },
  {
    row: 'T16',
    what: 'revoked module',
    code: 'tdx_tcb_convergence',
    collateral: tcbInfo({ moduleStatus: 'Revoked' }),
  },
  {
    row: 'T16',
    what: 'revoked quoting enclave',
    code: 'tdx_tcb_convergence',
    collateral: qeIdentity({ status: 'Revoked' }),
  },
  {
    row: 'T17',
    what: 'SGX components below every level',
    code: 'tdx_no_tcb_level',
    quote: () => pckChain({ pck: intel.issuePck({ sgx: { components: [5, 4, ...fill(14, 9)] } }) }),
  },
  {
    row: 'T17',
    what: 'TDX components below every level',
    code: 'tdx_no_tcb_level',
    quote: { teeTcbSvn: Uint8Array.from([6, 1, 4, ...fill(13, 0)]) },
  },
  {
    row: 'T17',
    what: 'no levels at all',
    code: 'tdx_no_tcb_level',
    collateral: tcbInfo({ members: (list) => ({ ...list, tcbLevels: [] }) }),
  },
  {
    row: 'T18',
    what: 'launched on an older module than is running',
    code: 'tdx_relaunch_advised',
    quote: { version: 5, teeTcbSvn2: Uint8Array.from([7, 1, 5, ...fill(13, 0)]) },
    collateral: tcbInfo({ moduleStatus: 'OutOfDate' }),
  },
  {
    row: 'T18',
    what: 'running module without identity',
    code: 'tdx_relaunch_advised',
    quote: { version: 5, teeTcbSvn2: Uint8Array.from([7, 9, 5, ...fill(13, 0)]) },
    collateral: tcbInfo({ moduleStatus: 'OutOfDate' }),
  },
  {
    row: 'T19',
    what: 'identity of another enclave',
    code: 'tdx_qe_identity',
    collateral: qeIdentity({ members: (list) => ({ ...list, id: 'QE' }) }),
  },
  { row: 'T19', what: 'MRSIGNER', code: 'tdx_qe_identity', quote: { qeReport: { mrSigner: fill(32, 1) } } },
  { row: 'T19', what: 'ISVPRODID', code: 'tdx_qe_identity', quote: { qeReport: { isvProdId: 1 } } },
  { row: 'T19', what: 'MISCSELECT', code: 'tdx_qe_identity', quote: { qeReport: { miscSelect: 1 } } },
  {
    row: 'T19',
    what: 'debug quoting enclave',
    code: 'tdx_qe_identity',
    quote: { qeReport: { attributes: Uint8Array.from([0x13, ...fill(15, 0)]) } },
  },
  {
    row: 'T19',
    what: 'signature over the identity',
    code: 'tdx_qe_identity_signature',
    collateral: qeIdentity({ damage: (text) => text.replace('"isvprodid":2', '"isvprodid":1') }),
  },
  {
    row: 'T19',
    what: 'stale identity',
    code: 'tdx_qe_identity_expired',
    collateral: qeIdentity({ nextUpdate: now }),
  },
  {
    row: 'T19',
    what: 'ISVSVN below every level',
    code: 'tdx_qe_tcb_level',
    quote: { qeReport: { isvSvn: 3 } },
  },
  {
    row: 'T20',
    what: 'platform out of date',
    code: 'tdx_tcb_status',
    collateral: tcbInfo({ status: 'OutOfDate' }),
  },
  {
    row: 'T20',
    what: 'status not listed',
    code: 'tdx_tcb_status',
    collateral: tcbInfo({ status: 'SWHardeningNeeded' }),
    policy: { tcbStatus: ['ConfigurationNeeded'] },
  },
  {
    row: 'T20',
    what: 'grace used up',
    code: 'tdx_tcb_status',
    collateral: tcbInfo({ status: 'OutOfDate' }),
    policy: { tcbGraceDays: 30 },
  },
  {
    row: 'T20',
    what: 'advisory not accepted',
    code: 'tdx_tcb_advisory',
    collateral: tcbInfo({ advisoryIds: ['INTEL-SA-00001', 'INTEL-SA-00002'] }),
    policy: { advisories: ['INTEL-SA-00001'] },
  },
  {
    row: 'T20',
    what: 'TEE_TCB_SVN below the minimum',
    code: 'tdx_tee_tcb_svn',
    policy: { minimumTeeTcbSvn: `060106${'00'.repeat(13)}` },
  },
  {
    row: 'T21',
    what: 'TCB info below the floor',
    code: 'tdx_tcb_evaluation_number',
    collateral: tcbInfo({ tcbEvaluationDataNumber: 18 }),
    policy: { minimumTcbEvaluationDataNumber: 19 },
  },
  {
    row: 'T21',
    what: 'QE identity below the floor',
    code: 'tdx_tcb_evaluation_number',
    collateral: qeIdentity({ tcbEvaluationDataNumber: 18 }),
    policy: { minimumTcbEvaluationDataNumber: 19 },
  },
  { row: 'T22', what: 'debug TD', code: 'tdx_debug', quote: { tdAttributes: attributes(1n) } },
  {
    row: 'T22',
    what: 'debug TD, attributes listed',
    code: 'tdx_debug',
    quote: { tdAttributes: attributes(1n) },
    policy: { tdAttributes: '0100000000000000' },
  },
  {
    row: 'T22',
    what: 'reserved bit 5',
    code: 'tdx_reserved_attributes',
    quote: { tdAttributes: attributes(1n << 5n) },
  },
  {
    row: 'T22',
    what: 'reserved bit 40',
    code: 'tdx_reserved_attributes',
    quote: { tdAttributes: attributes(1n << 40n) },
  },
  {
    row: 'T22',
    what: 'migratable TD',
    code: 'tdx_migratable',
    quote: { tdAttributes: attributes(1n << 29n) },
  },
  {
    row: 'T22',
    what: 'SEPT_VE_DISABLE clear',
    code: 'tdx_sept_ve_disable',
    quote: { tdAttributes: attributes(0n) },
    policy: { requireSeptVeDisable: true },
  },
  {
    row: 'T22',
    what: 'PERFMON not listed',
    code: 'tdx_attributes',
    quote: { tdAttributes: attributes(1n << 63n) },
    policy: { tdAttributes: toHex(SIMULATED_TD_ATTRIBUTES) },
  },
  { row: 'T23', what: 'SSE off', code: 'tdx_xfam_bits', quote: { xfam: attributes(1n) } },
  {
    row: 'T23',
    what: 'unknown XFAM bit',
    code: 'tdx_xfam_bits',
    quote: { xfam: attributes(3n | (1n << 40n)) },
  },
  { row: 'T23', what: 'XFAM not listed', code: 'tdx_xfam', policy: { xfam: '0300000000000000' } },
  { row: 'T24', what: 'SEAM attributes', code: 'tdx_seam_attributes', quote: { seamAttributes: fill(8, 1) } },
  { row: 'T24', what: 'MRSEAM', code: 'tdx_mr_seam', policy: { mrSeam: [hex(48, 1), hex(48, 2)] } },
  { row: 'T24', what: 'MRSIGNERSEAM', code: 'tdx_mr_signer_seam', policy: { mrSignerSeam: hex(48, 1) } },
  { row: 'T25', what: 'MRTD', code: 'tdx_mr_td', policy: { mrTd: [hex(48, 1)] } },
  { row: 'T25', what: 'RTMR0', code: 'tdx_rtmr0', policy: { rtmr0: hex(48, 1) } },
  { row: 'T25', what: 'RTMR1', code: 'tdx_rtmr1', policy: { rtmr1: hex(48, 1) } },
  { row: 'T25', what: 'RTMR2', code: 'tdx_rtmr2', policy: { rtmr2: hex(48, 1) } },
  { row: 'T25', what: 'RTMR3', code: 'tdx_rtmr3', policy: { rtmr3: hex(48, 1) } },
  { row: 'T25', what: 'MRCONFIGID', code: 'tdx_mr_config_id', policy: { mrConfigId: hex(48, 1) } },
  { row: 'T25', what: 'MROWNER', code: 'tdx_mr_owner', policy: { mrOwner: hex(48, 1) } },
  { row: 'T25', what: 'MROWNERCONFIG', code: 'tdx_mr_owner_config', policy: { mrOwnerConfig: hex(48, 1) } },
  {
    row: 'T26',
    what: 'a service TD nobody expects',
    code: 'tdx_mr_service_td',
    quote: { version: 5, mrServiceTd: fill(48, 1) },
  },
  {
    row: 'T27',
    what: 'the last byte of REPORTDATA',
    code: 'tdx_report_data',
    policy: { reportData: '00'.repeat(63) + '01' },
  },
  { row: 'T28', what: 'another platform family', code: 'tdx_fmspc', policy: { fmspc: hex(6, 1) } },
  { row: 'T28', what: 'another machine', code: 'tdx_ppid', policy: { ppid: [hex(16, 1)] } },
  { row: 'T28', what: 'another PCK', code: 'tdx_pck_serial', policy: { pckSerial: '01' } },
  {
    row: 'E1',
    what: 'a log of another boot',
    code: 'tdx_event_log_replay',
    eventLog: async () => (await buildEventLog()).log,
  },
  {
    row: 'E1',
    what: 'not a log',
    code: 'malformed_event_log',
    throws: 'malformed',
    eventLog: async () => utf8('CCEL'),
  },
  {
    row: 'E2',
    what: 'words that were not hashed',
    code: 'tdx_event_content',
    quote: async () => rtmrFields((await buildEventLog(LYING_BOOT)).rtmrs),
    eventLog: async () => (await buildEventLog(LYING_BOOT)).log,
  },
  {
    row: 'E2',
    what: 'runtime event whose digest is of other content',
    code: 'tdx_event_content',
    eventLog: async () =>
      (await buildRuntimeLog([{ name: 'app-id', payload: fill(4, 1), digest: hex(48, 1) }])).log,
  },
  {
    row: 'E3',
    what: 'runtime events of another run',
    code: 'tdx_runtime_events',
    eventLog: async () => (await buildRuntimeLog([{ name: 'app-id', payload: fill(4, 1) }])).log,
  },
];

const LYING_BOOT = [
  ...SIMULATED_BOOT,
  { rtmr: 1, type: 0x80000007, data: utf8('what is said'), hashed: utf8('what was hashed') },
];

function rtmrFields([rtmr0, rtmr1, rtmr2, rtmr3]: readonly [
  Uint8Array,
  Uint8Array,
  Uint8Array,
  Uint8Array,
]): SimulatedQuote {
  return { rtmr0, rtmr1, rtmr2, rtmr3 };
}

async function evidenceOf({
  quote,
  collateral,
  eventLog,
}: Pick<Case, 'quote' | 'collateral' | 'eventLog'>): Promise<TdxEvidence> {
  const fields = typeof quote === 'function' ? await quote() : quote;
  const evidence = await intel.evidence(fields, await collateral?.());
  return eventLog === undefined ? evidence : { ...evidence, eventLog: await eventLog() };
}

function trust(): TdxContext {
  return { now, roots: [intel.root] };
}

/** Everything a policy can ask for, answered by a version 5 quote with a CCEL, and once more with dstack's log. */
async function accepted(): Promise<TdxVerification[]> {
  const boot = await buildEventLog();
  const run = await buildRuntimeLog([
    { name: 'app-id', payload: fill(4, 1) },
    { name: 'key', payload: fill(0, 0), digest: '' },
  ]);
  const fields = { version: 5, reportData: fill(64, 0x52), mrTd: fill(48, 0x11) };
  const policy: TdxPolicy = {
    mrTd: [hex(48, 0x10), hex(48, 0x11)],
    rtmr0: toHex(boot.rtmrs[0]),
    rtmr1: toHex(boot.rtmrs[1]).toUpperCase(),
    rtmr2: toHex(boot.rtmrs[2]),
    rtmr3: hex(48, 0),
    mrSeam: hex(48, 0),
    mrSignerSeam: hex(48, 0),
    seamAttributes: hex(8, 0),
    tdAttributes: toHex(SIMULATED_TD_ATTRIBUTES),
    xfam: toHex(SIMULATED_XFAM),
    mrConfigId: hex(48, 0),
    mrOwner: hex(48, 0),
    mrOwnerConfig: hex(48, 0),
    mrServiceTd: hex(48, 0),
    reportData: hex(64, 0x52),
    minimumTeeTcbSvn: `060105${'00'.repeat(13)}`,
    minimumTcbEvaluationDataNumber: 20,
    tcbStatus: ['UpToDate'],
    advisories: [],
    fmspc: toHex(intel.fmspc),
    ppid: toHex(intel.ppid),
    pckSerial: SIMULATED_INTEL_SERIALS.pck.toString(16),
    requireSeptVeDisable: true,
  };
  const context = { ...trust(), memory: createRollbackMemory() };
  const first = await verifyTdx(
    { ...(await intel.evidence({ ...fields, ...rtmrFields(boot.rtmrs) })), eventLog: boot.log },
    policy,
    context,
  );
  const second = await verifyTdx(
    { ...(await intel.evidence({ ...fields, rtmr3: run.rtmrs[3] })), eventLog: run.log },
    {},
    context,
  );
  return [first, second];
}

function failuresOf({ transcript, accepted }: TdxVerification): Readonly<Record<string, unknown>> {
  const failed = transcript.checks.filter(({ status }) => status === 'fail');
  return {
    throws: undefined,
    codes: failed.map(({ code }) => code),
    rows: failed.map(({ id }) => id),
    accepted,
  };
}

describe('rows accepted', () => {
  test('every rule passes at least once on evidence that meets every policy key', async () => {
    const [first, second] = await accepted();
    expect(first?.transcript.checks.filter(({ status }) => status === 'fail')).toEqual([]);
    expect(second?.transcript.checks.filter(({ status }) => status === 'fail')).toEqual([]);
    expect([first?.accepted, second?.accepted]).toEqual([true, true]);
    const passed = new Set(
      [first, second].flatMap((result) =>
        result?.transcript.checks.filter(({ status }) => status === 'pass').map(({ title }) => title),
      ),
    );
    expect(Object.values(TDX_RULES).filter(({ title }) => !passed.has(title))).toEqual([]);
  });

  test.each(
    Object.values(TDX_RULES)
      .map(({ id }) => id)
      .filter((id, i, all) => all.indexOf(id) === i),
  )('%s accepted', async (id) => {
    const checks = (await accepted()).flatMap(({ transcript }) => transcript.checks);
    expect(checks.some((check) => check.id === id && check.status === 'pass')).toBe(true);
  });
});

describe('rows refused', () => {
  test.each(CASES.map((item) => [item.row, item.what, item] as const))(
    '%s refused: %s',
    async (row, _what, item) => {
      const evidence = await evidenceOf(item);
      const context = item.context === undefined ? trust() : { now, ...item.context() };
      const outcome: unknown = await verifyTdx(evidence, item.policy ?? {}, context).catch(
        (thrown: unknown) => thrown,
      );
      const seen =
        outcome instanceof AttestationError
          ? { throws: outcome.kind, codes: [outcome.code], rows: [row], accepted: false }
          : failuresOf(outcome as TdxVerification);
      expect(seen).toEqual({
        throws: item.throws,
        codes: expect.arrayContaining([item.code]) as unknown,
        rows: expect.arrayContaining([row]) as unknown,
        accepted: false,
      });
    },
  );

  test('T21 refused: collateral older than what was seen before', async () => {
    const memory = createRollbackMemory();
    const context = { ...trust(), memory };
    const newer = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ tcbEvaluationDataNumber: 21 }) });
    expect((await verifyTdx(newer, {}, context)).accepted).toBe(true);
    const result = await verifyTdx(await intel.evidence(), {}, context);
    expect(result.transcript.firstFailure).toMatchObject({ id: 'T21', code: 'tdx_collateral_rollback' });
    const crls = await intel.evidence(
      {},
      { tcbInfo: newer.collateral.tcbInfo, rootCaCrl: await intel.issueCrl('root', { number: 7 }) },
    );
    expect((await verifyTdx(crls, {}, context)).accepted).toBe(true);
    const older = await verifyTdx(newer, {}, context);
    expect(older.transcript.firstFailure).toMatchObject({ code: 'tdx_collateral_rollback' });
  });

  test('what fails before a signature holds is not remembered', async () => {
    const memory = createRollbackMemory();
    const forged = await intel.evidence(
      {},
      { tcbInfo: await intel.tcbInfo({ tcbEvaluationDataNumber: 99, signer: stranger.keys.tcbSigning }) },
    );
    await verifyTdx(forged, {}, { ...trust(), memory });
    expect(memory.entries().some(([, value]) => value === 99n)).toBe(false);
    const foreign = createRollbackMemory();
    await verifyTdx(await stranger.evidence(), {}, { ...trust(), memory: foreign });
    expect(foreign.entries()).toEqual([]);
  });
});

describe('the table', () => {
  test('has a refusal for every row and every rule code', () => {
    const refused = new Set<string>([...CASES.map(({ code }) => code), 'tdx_collateral_rollback']);
    expect(Object.values(TDX_RULES).filter(({ code }) => !refused.has(code))).toEqual([]);
    const rows = new Set([...CASES.map(({ row }) => row), 'T21']);
    const wanted = [...Array.from({ length: 28 }, (_, i) => `T${i + 1}`), 'E1', 'E2', 'E3'];
    expect(wanted.filter((row) => !rows.has(row))).toEqual([]);
  });

  test('reaches every code this verifier has', () => {
    const reached = new Set<string>([...CASES.map(({ code }) => code), 'tdx_collateral_rollback']);
    const own = Object.keys(ATTESTATION_CODES).filter(
      (code) => code.startsWith('tdx_') || code === 'malformed_event_log',
    );
    expect(own.filter((code) => !reached.has(code))).toEqual([]);
  });

  test('one code per rule', () => {
    const codes = Object.values(TDX_RULES).map(({ code }) => code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

describe('what surrounds the rules', () => {
  test('nothing asked still lists every check, skips visible, and a changed root is said', async () => {
    const result = await verifyTdx(await intel.evidence(), {}, trust());
    expect(result.accepted).toBe(true);
    expect(result.rootsReplaced).toBe(true);
    const skipped = result.transcript.checks.filter(({ status }) => status === 'skip').map(({ id }) => id);
    expect(skipped).toEqual(
      expect.arrayContaining([
        'T18',
        'T20',
        'T21',
        'T22',
        'T23',
        'T24',
        'T25',
        'T26',
        'T27',
        'T28',
        'E1',
        'E2',
        'E3',
      ]),
    );
  });

  test('claims are empty when the quote is not vouched for', async () => {
    const broken = await verifyTdx(await intel.evidence({ damage: flip(48 + 200) }), {}, trust());
    expect(broken.claims).toEqual({});
    const good = await verifyTdx(await intel.evidence({ mrTd: fill(48, 0x11) }), {}, trust());
    expect(good.claims).toMatchObject({
      mrTd: hex(48, 0x11),
      fmspc: toHex(intel.fmspc),
      tcbStatus: 'UpToDate',
    });
  });

  test('a quote that only names its PCK verifies with the chain given beside it, and only with the right one', async () => {
    const quote: SimulatedQuote = { certificationType: 3, certificationData: fill(404, 1) };
    const right = await intel.evidence(quote, { pckChain: intel.pckChainPem });
    expect((await verifyTdx(right, {}, trust())).accepted).toBe(true);
    const wrong = await intel.evidence(quote, { pckChain: stranger.pckChainPem });
    const codes = (await verifyTdx(wrong, {}, trust())).transcript.checks.map(({ code }) => code);
    expect(codes).toEqual(expect.arrayContaining(['tdx_qe_report_signature', 'tdx_root_not_trusted']));
    const ignored = await intel.evidence({}, { pckChain: stranger.pckChainPem });
    expect((await verifyTdx(ignored, {}, trust())).accepted).toBe(true);
  });

  test('all that is wrong is listed at once', async () => {
    const evidence = await intel.evidence(
      { tdAttributes: attributes(1n), trailing: fill(3, 1) },
      { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) },
    );
    const result = await verifyTdx(evidence, { mrTd: hex(48, 1) }, trust());
    expect(
      result.transcript.checks.filter(({ status }) => status === 'fail').map(({ code }) => code),
    ).toEqual(['tdx_trailing_bytes', 'tdx_tcb_status', 'tdx_debug', 'tdx_mr_td']);
  });

  test('a PCK key cannot stand in for the key that signs TCB info', async () => {
    const pem = intel.pckChainPem
      .split(/(?<=-----END CERTIFICATE-----\n)/)
      .slice(0, 2)
      .join('');
    const evidence = await intel.evidence(
      {},
      { tcbInfo: await intel.tcbInfo({ signer: intel.keys.pck }), tcbInfoIssuerChain: pem },
    );
    const result = await verifyTdx(evidence, {}, trust());
    expect(result.accepted).toBe(false);
    expect(result.transcript.checks.some(({ code }) => code === 'tdx_certificate_role')).toBe(true);
  });

  test('CRLs may come as PEM or hex text, chains of the Processor CA work', async () => {
    const processor = await createSimulatedIntel({ now, ca: 'processor' });
    const evidence = await processor.evidence();
    const { pckCrl, rootCaCrl } = evidence.collateral;
    const collateral = {
      ...evidence.collateral,
      pckCrl: utf8(encodePem(pckCrl, 'X509 CRL')),
      rootCaCrl: utf8(`${toHex(rootCaCrl)}\n`),
    };
    expect(
      (await verifyTdx({ ...evidence, collateral }, {}, { now, roots: [processor.root] })).accepted,
    ).toBe(true);
  });

  test('OutOfDate passes within its grace, and only then', async () => {
    const evidence = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) });
    expect((await verifyTdx(evidence, { tcbGraceDays: 1000 }, trust())).accepted).toBe(true);
    const revoked = await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'Revoked' }) });
    expect((await verifyTdx(revoked, { tcbGraceDays: 3000 }, trust())).accepted).toBe(false);
  });

  test('a shortfall says which component and by how much', async () => {
    const result = await verifyTdx(
      await intel.evidence({}, { tcbInfo: await intel.tcbInfo({ status: 'OutOfDate' }) }),
      {},
      trust(),
    );
    expect(result.tcb.shortfall).toEqual([
      { part: 'sgx', component: 2, type: 'SGX Late Microcode Update', actual: 5, needed: 6 },
    ]);
    expect(result.transcript.firstFailure?.detail).toContain(
      'sgx component 2 (SGX Late Microcode Update) is 5, needs 6',
    );
  });

  test.each([
    'not a policy',
    { unknown: 1 },
    { mrTd: [] },
    { mrTd: '00' },
    { mrTd: 'zz' },
    { tcbStatus: ['Revoked'] },
    { tcbStatus: ['Fine'] },
    { tcbGraceDays: -1 },
    { reportData: 5 },
    { allowMigratable: 'yes' },
  ])('policy %j is malformed', async (policy) => {
    await expect(verifyTdx(await intel.evidence(), policy as TdxPolicy, trust())).rejects.toMatchObject({
      kind: 'malformed',
      code: 'malformed_policy',
    });
  });

  test('a member of the SGX extensions that is not DER is a failed check, not a crash', async () => {
    const pck = intel.issuePck({
      members: (list) => [{ arc: '1', value: encodeDer(TAG.octetString, fromHex('00')) }, ...list.slice(1)],
    });
    const result = await verifyTdx(await intel.evidence(await pckChain({ pck })), {}, trust());
    expect(result.transcript.firstFailure).toMatchObject({ code: 'tdx_pck_extensions' });
  });

  test('an out-of-range key does not verify: fresh keys only sign their own', async () => {
    const key = await generateEcKey('P-256');
    const result = await verifyTdx(await intel.evidence({ signer: key }), {}, trust());
    expect(result.transcript.firstFailure).toMatchObject({ code: 'tdx_quote_signature' });
  });
});

// Each rule S1–S32 accepted and refused, by name: simulated evidence of every kind is made with exactly one thing wrong, and
// the rule that must catch it is the one that does. Every code of the rule table is reached here.

import { beforeAll, describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { encodeDer, encodeInteger, encodeText, TAG } from '../../../attestation/x509/der.ts';
import type { AttestationError } from '../../../attestation/transcript/errors.ts';
import { createRollbackMemory } from '../../../attestation/transcript/rollback-memory.ts';
import type { SimulatedAmd } from '../../../attestation/simulated/amd.ts';
import type { SimulatedReport } from '../../../attestation/simulated/amd-report.ts';
import {
  basicConstraints,
  corruptSignature,
  encodeName,
  exportKey,
  generateEcKey,
  generateRsaKey,
  importKey,
  keyUsage,
  type IssuerKey,
} from '../../../attestation/simulated/issue.ts';
import type { SnpPolicy } from '../../../attestation/snp/policy.ts';
import { SNP_RULES, type SnpRuleId } from '../../../attestation/snp/rules.ts';
import type { Product } from '../../../attestation/snp/tcb.ts';
import { verifySnp, type SnpVerification } from '../../../attestation/snp/verify.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import { refusalOf } from '../../fixtures/refusal.ts';
import { evidenceOf, NOW, simulatedAmd } from '../../fixtures/attestation/snp-simulated.ts';
import type { SnpContext, SnpEvidence } from '../../../attestation/snp/subject.ts';

interface Given {
  readonly evidence: SnpEvidence;
  readonly policy?: SnpPolicy;
  readonly context?: Partial<SnpContext>;
}

interface Case {
  readonly rule: SnpRuleId;
  readonly what: string;
  readonly verdict: 'pass' | 'fail' | 'skip';
  /** Other rules that this evidence cannot help failing. */
  readonly also?: readonly SnpRuleId[];
  readonly make: () => Promise<Given>;
}

let milan: SimulatedAmd;
let genoa: SimulatedAmd;
let turin: SimulatedAmd;
let vlek: SimulatedAmd;
let otherRsa: IssuerKey;
let rsa1024: IssuerKey;
let arkSha256: IssuerKey;
let p256: IssuerKey;
let otherP384: IssuerKey;
const keys = createKeyCache();

beforeAll(async () => {
  [milan, genoa, turin, vlek, otherRsa, rsa1024, p256, otherP384] = await Promise.all([
    simulatedAmd({ product: 'Milan' }),
    simulatedAmd({ product: 'Genoa' }),
    simulatedAmd({ product: 'Turin' }),
    simulatedAmd({ product: 'Genoa', vekKind: 'vlek' }),
    generateRsaKey(2048),
    generateRsaKey(1024),
    generateEcKey('P-256'),
    generateEcKey('P-384'),
  ]);
  arkSha256 = await importKey(await exportKey(genoa.keys.ark), 'SHA-256');
});

function verify({ evidence, policy = {}, context = {} }: Given): Promise<SnpVerification> {
  return verifySnp(evidence, policy, {
    now: NOW,
    keys,
    roots: [milan.ark, genoa.ark, turin.ark],
    ...context,
  });
}

/** Genoa evidence whose report has these fields. */
function report(fields: SimulatedReport, policy: SnpPolicy = {}): () => Promise<Given> {
  return async () => ({
    evidence: await evidenceOf(genoa, { report: await genoa.signReport(fields) }),
    policy,
  });
}

/** Evidence of the hierarchy as it is. */
function good(of: () => SimulatedAmd, policy: SnpPolicy = {}): () => Promise<Given> {
  return async () => ({ evidence: await evidenceOf(of()), policy });
}

function vek(make: () => Promise<Uint8Array>, of: () => SimulatedAmd = () => genoa): () => Promise<Given> {
  return async () => ({ evidence: await evidenceOf(of(), { vek: await make() }) });
}

function chain(
  make: () => Promise<readonly Uint8Array[]>,
  context: Partial<SnpContext> = {},
): () => Promise<Given> {
  return async () => ({ evidence: await evidenceOf(genoa, { chain: await make() }), context });
}

function crl(make: () => Promise<Uint8Array | undefined>, policy: SnpPolicy = {}): () => Promise<Given> {
  return async () => ({ evidence: await evidenceOf(genoa, { crl: await make() }), policy });
}

function named(commonName: string): Uint8Array {
  return encodeName([['CN', commonName]]);
}
function at(iso: string): Partial<SnpContext> {
  return { now: new Date(iso) };
}
function filled(size: number, value: number): Uint8Array {
  return new Uint8Array(size).fill(value);
}
function hex(size: number, value: number): string {
  return toHex(filled(size, value));
}
function bits(set: bigint): SimulatedReport {
  return { guestPolicy: set };
}
const STRICT = 0x3d2_0137n;
const AMD = '1.3.6.1.4.1.3704.1';

const CASES: readonly Case[] = [
  { rule: 'S1', what: 'signed bytes as received', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S1', what: 'measurement changed after signing', verdict: 'fail', make: report({ damage: (r) => void (r[0x90] = 1) }) },
  { rule: 'S1', what: 'signature of another key', verdict: 'fail', make: async () => report({ signer: otherP384 })() },
  { rule: 'S2', what: 'version 2', verdict: 'pass', make: report({ version: 2 }) },
  { rule: 'S2', what: 'version 3', verdict: 'pass', make: report({ version: 3 }) },
  { rule: 'S2', what: 'version 4', verdict: 'pass', make: report({ version: 4 }) },
  { rule: 'S2', what: 'version 5', verdict: 'pass', make: report({ version: 5 }) },
  { rule: 'S3', what: 'algorithm 1', verdict: 'pass', make: good(() => milan) },
  { rule: 'S3', what: 'algorithm 0, which others accept', verdict: 'fail', also: ['S1'], make: report({ signatureAlgo: 0 }) },
  { rule: 'S3', what: 'algorithm 2', verdict: 'fail', also: ['S1'], make: report({ signatureAlgo: 2 }) },
  { rule: 'S4', what: 'canonical R and S', verdict: 'pass', make: good(() => turin) },
  { rule: 'S4', what: 'R with a byte over its 48', verdict: 'fail', also: ['S1'], make: report({ damage: (r) => void (r[0x2a0 + 60] = 1) }) },
  { rule: 'S4', what: 'S with its last byte set', verdict: 'fail', also: ['S1'], make: report({ damage: (r) => void (r[0x2e8 + 71] = 1) }) },
  { rule: 'S4', what: 'R is zero', verdict: 'fail', also: ['S1'], make: report({ damage: (r) => r.fill(0, 0x2a0, 0x2e8) }) },
  { rule: 'S4', what: 'S is over n', verdict: 'fail', also: ['S1'], make: report({ damage: (r) => r.fill(0xff, 0x2e8, 0x2e8 + 48) }) },
  { rule: 'S5', what: 'zero tail', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S5', what: 'first tail byte set', verdict: 'fail', make: report({ damage: (r) => void (r[0x330] = 1) }) },
  { rule: 'S5', what: 'last tail byte set', verdict: 'fail', make: report({ damage: (r) => void (r[0x49f] = 0x80) }) },
  { rule: 'S6', what: 'zero reserved fields in version 2', verdict: 'pass', make: report({ version: 2 }) },
  { rule: 'S6', what: '0x4C set', verdict: 'fail', make: report({ change: (r) => void (r[0x4c] = 1) }) },
  { rule: 'S6', what: 'CPUID in version 2', verdict: 'fail', make: report({ version: 2, change: (r) => void (r[0x188] = 0x19) }) },
  { rule: 'S6', what: '0x18B set in version 3', verdict: 'fail', make: report({ version: 3, change: (r) => void (r[0x18b] = 1) }) },
  { rule: 'S6', what: '0x1EB set', verdict: 'fail', make: report({ change: (r) => void (r[0x1eb] = 1) }) },
  { rule: 'S6', what: '0x1EF set', verdict: 'fail', make: report({ change: (r) => void (r[0x1ef] = 1) }) },
  { rule: 'S6', what: 'mitigation vector in version 4', verdict: 'fail', make: report({ version: 4, change: (r) => void (r[0x1f8] = 1) }) },
  { rule: 'S6', what: '0x208 set in version 5', verdict: 'fail', make: report({ version: 5, change: (r) => void (r[0x208] = 1) }) },
  { rule: 'S7', what: 'bit 17 one, high bits zero', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S7', what: 'bit 17 zero', verdict: 'fail', make: report(bits(STRICT & ~(1n << 17n))) },
  { rule: 'S7', what: 'bit 26 set', verdict: 'fail', make: report(bits(STRICT | (1n << 26n))) },
  { rule: 'S7', what: 'bit 63 set', verdict: 'fail', make: report(bits(STRICT | (1n << 63n))) },
  { rule: 'S8', what: 'VCEK signs and says so', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S8', what: 'VLEK signs and says so', verdict: 'pass', make: good(() => vlek) },
  { rule: 'S8', what: 'a VCEK signs, VLEK is said', verdict: 'fail', make: report({ keyInfo: 1 << 2 }) },
  { rule: 'S8', what: 'none is said', verdict: 'fail', make: report({ keyInfo: 7 << 2 }) },
  { rule: 'S8', what: 'a reserved selector', verdict: 'fail', make: report({ keyInfo: 2 << 2 }) },
  { rule: 'S9', what: 'author key with its digest', verdict: 'pass', make: report({ keyInfo: 1, authorKeyDigest: filled(48, 7) }) },
  { rule: 'S9', what: 'author key without digest', verdict: 'fail', make: report({ keyInfo: 1 }) },
  { rule: 'S9', what: 'digest without author key', verdict: 'fail', make: report({ authorKeyDigest: filled(48, 7) }) },
  { rule: 'S9', what: 'masked chip key', verdict: 'fail', make: report({ keyInfo: 2 }) },
  { rule: 'S9', what: 'reserved bit 5', verdict: 'fail', make: report({ keyInfo: 1 << 5 }) },
  { rule: 'S9', what: 'reserved bit 31', verdict: 'fail', make: report({ keyInfo: 0x8000_0000 }) },
  { rule: 'S10', what: 'Milan throughout', verdict: 'pass', make: good(() => milan) },
  { rule: 'S10', what: 'Turin throughout', verdict: 'pass', make: good(() => turin) },
  { rule: 'S10', what: 'Bergamo, model 0xA0 of Genoa', verdict: 'pass', make: report({ cpuidModel: 0xa0 }) },
  { rule: 'S10', what: 'last Genoa model 0xAF', verdict: 'pass', make: report({ cpuidModel: 0xaf }) },
  { rule: 'S10', what: 'Milan CPUID under Genoa keys', verdict: 'fail', make: report({ cpuidModel: 1 }) },
  { rule: 'S10', what: 'Turin CPUID under Genoa keys', verdict: 'fail', make: report({ cpuidFamily: 0x1a, cpuidModel: 2 }) },
  { rule: 'S10', what: 'unknown CPUID', verdict: 'fail', make: report({ cpuidFamily: 0x17 }) },
  { rule: 'S10', what: 'productName of another line', verdict: 'fail', make: vek(() => genoa.issueVek({ productName: 'Milan-B0' })) },
  { rule: 'S10', what: 'productName with the line as prefix only', verdict: 'fail', make: vek(() => genoa.issueVek({ productName: 'Genoax' })) },
  { rule: 'S10', what: 'product not allowed by the policy', verdict: 'fail', make: good(() => milan, { products: ['Genoa', 'Turin'] }) },
  { rule: 'S10', what: 'product allowed by the policy', verdict: 'pass', make: good(() => turin, { products: ['Genoa', 'Turin'] }) },
  { rule: 'S11', what: 'VCEK ← ASK ← ARK', verdict: 'pass', make: good(() => milan) },
  { rule: 'S11', what: 'VLEK ← ASVK ← ARK', verdict: 'pass', make: good(() => vlek) },
  { rule: 'S11', what: 'VEK with explicit trailerField', verdict: 'pass', make: vek(() => genoa.issueVek({ explicitTrailerField: true })) },
  { rule: 'S11', what: 'not a pinned root', verdict: 'fail', make: chain(async () => [genoa.ask, genoa.ark], { roots: undefined }) },
  { rule: 'S11', what: 'not the root given', verdict: 'fail', make: chain(async () => [genoa.ask, genoa.ark], { get roots() { return [turin.ark]; } }) },
  { rule: 'S11', what: 'ARK re-issued over the same key', verdict: 'fail', make: chain(async () => [genoa.ask, await genoa.issueCa('ark', { serial: 5 })]) },
  { rule: 'S11', what: 'ARK not signed by itself', verdict: 'fail', make: async () => {
      const ark = corruptSignature(genoa.ark);
      return { evidence: await evidenceOf(genoa, { chain: [genoa.ask, ark] }), context: { roots: [ark] } };
    } },
  { rule: 'S11', what: 'ASK signature damaged', verdict: 'fail', make: chain(async () => [corruptSignature(genoa.ask), genoa.ark]) },
  { rule: 'S11', what: 'ASK signed by another key', verdict: 'fail', make: chain(async () => [await genoa.issueCa('ask', { signer: otherRsa }), genoa.ark]) },
  { rule: 'S11', what: 'VEK signature damaged', verdict: 'fail', make: vek(async () => corruptSignature(genoa.vek)) },
  { rule: 'S11', what: 'VEK signed by the ASVK', verdict: 'fail', make: vek(() => genoa.issueVek({ signer: genoa.keys.asvk })) },
  { rule: 'S11', what: 'VCEK under the ASVK', verdict: 'fail', make: chain(async () => [genoa.asvk, genoa.ark]) },
  { rule: 'S11', what: 'VEK names another issuer', verdict: 'fail', make: vek(() => genoa.issueVek({ issuer: encodeName([['CN', 'SEV-Genoa']]) })) },
  { rule: 'S11', what: 'ASK without basicConstraints', verdict: 'fail', make: chain(async () => [
      await genoa.issueCa('ask', { extensions: (all) => all.filter((e) => e.oid !== '2.5.29.19') }), genoa.ark]) },
  { rule: 'S11', what: 'ASK that is no CA', verdict: 'fail', make: chain(async () => [
      await genoa.issueCa('ask', { extensions: (all) => [...all.filter((e) => e.oid !== '2.5.29.19'), basicConstraints(false)] }), genoa.ark]) },
  { rule: 'S11', what: 'ASK without keyCertSign', verdict: 'fail', make: chain(async () => [
      await genoa.issueCa('ask', { extensions: (all) => [...all.filter((e) => e.oid !== '2.5.29.15'), keyUsage(['digitalSignature'])] }), genoa.ark]) },
  { rule: 'S11', what: 'ASK with an unknown critical extension', verdict: 'fail', make: chain(async () => [
      await genoa.issueCa('ask', { extensions: (all) => [...all, { oid: '1.2.3.4', critical: true, value: encodeDer(TAG.null) }] }), genoa.ark]) },
  { rule: 'S11', what: 'ASK with another authorityKeyIdentifier', verdict: 'fail', make: chain(async () => [
      await genoa.issueCa('ask', { extensions: (all) => all.map((e) => e.oid === '2.5.29.35' ? { ...e, value: encodeDer(TAG.sequence, encodeDer(0x80, filled(20, 1))) } : e) }), genoa.ark]) },
  { rule: 'S11', what: 'ASK with an EC key', verdict: 'fail', make: async () => {
      const ask = await genoa.issueCa('ask', { spki: otherP384.spki });
      return { evidence: await evidenceOf(genoa, { chain: [ask, genoa.ark], vek: await genoa.issueVek({ signer: otherP384 }) }) };
    } },
  { rule: 'S11', what: 'ASK signed by the ARK with SHA-256', verdict: 'fail', make: chain(async () => [await genoa.issueCa('ask', { signer: arkSha256 }), genoa.ark]) },
  { rule: 'S11', what: 'ARK with another issuer than itself', verdict: 'fail', make: async () => {
      const ark = await genoa.issueCa('ark', { issuer: named('ARK-Other') });
      return { evidence: await evidenceOf(genoa, { chain: [genoa.ask, ark] }), context: { roots: [ark] } };
    } },
  { rule: 'S11', what: 'ARK that has the name of an ASK', verdict: 'fail', make: async () => {
      const name = named('SEV-Genoa');
      const ark = await genoa.issueCa('ark', { subject: name, issuer: name });
      const ask = await genoa.issueCa('ask', { issuer: name });
      return { evidence: await evidenceOf(genoa, { chain: [ask, ark], crl: await genoa.issueCrl({ issuer: name }) }), context: { roots: [ark] } };
    } },
  { rule: 'S11', what: 'ARK that is no CA', verdict: 'fail', make: async () => {
      const ark = await genoa.issueCa('ark', { extensions: (all) => [...all.filter((e) => e.oid !== '2.5.29.19'), basicConstraints(false)] });
      return { evidence: await evidenceOf(genoa, { chain: [genoa.ask, ark], crl: undefined }), policy: { requireCrl: false }, context: { roots: [ark] } };
    } },
  { rule: 'S11', what: 'ASK with an RSA key of 1024 bits', verdict: 'fail', make: async () => {
      const ask = await genoa.issueCa('ask', { spki: rsa1024.spki });
      return { evidence: await evidenceOf(genoa, { chain: [ask, genoa.ark], vek: await genoa.issueVek({ signer: rsa1024 }) }) };
    } },
  { rule: 'S11', what: 'ASK with another RSA key of 2048 bits', verdict: 'pass', make: async () => {
      const ask = await genoa.issueCa('ask', { spki: otherRsa.spki });
      return { evidence: await evidenceOf(genoa, { chain: [ask, genoa.ark], vek: await genoa.issueVek({ signer: otherRsa }) }) };
    } },
  { rule: 'S11', what: 'ARK of another product over the ASK', verdict: 'fail', also: ['S10', 'S14', 'S15', 'S16', 'S17', 'S19'], make: chain(async () => [genoa.ask, turin.ark]) },
  { rule: 'S11', what: 'chain in the wrong order', verdict: 'fail', also: ['S19'], make: chain(async () => [genoa.ark, genoa.ask]) },
  { rule: 'S12', what: 'P-384 key named SEV-VCEK', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S12', what: 'P-256 key', verdict: 'fail', also: ['S1'], make: async () => ({
      evidence: await evidenceOf(genoa, { vek: await genoa.issueVek({ spki: p256.spki }), report: await genoa.signReport({ signer: p256 }) }) }) },
  { rule: 'S12', what: 'RSA key', verdict: 'fail', also: ['S1'], make: vek(() => genoa.issueVek({ spki: otherRsa.spki })) },
  { rule: 'S12', what: 'another common name', verdict: 'fail', also: ['S1', 'S8'], make: vek(() => genoa.issueVek({ subject: encodeName([['CN', 'SEV-VCEK2']]) })) },
  { rule: 'S12', what: 'two common names', verdict: 'fail', also: ['S1', 'S8'], make: vek(() => genoa.issueVek({ subject: encodeName([['CN', 'SEV-VCEK'], ['CN', 'SEV-VCEK']]) })) },
  { rule: 'S13', what: 'all valid', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S13', what: 'VEK expired', verdict: 'fail', make: vek(() => genoa.issueVek({ notBefore: new Date('2020-01-01T00:00:00Z'), notAfter: new Date('2026-06-01T11:59:59Z') })) },
  { rule: 'S13', what: 'VEK valid to this very second', verdict: 'pass', make: vek(() => genoa.issueVek({ notAfter: NOW })) },
  { rule: 'S13', what: 'VEK not valid yet', verdict: 'fail', make: vek(() => genoa.issueVek({ notBefore: new Date('2026-06-01T12:00:01Z') })) },
  { rule: 'S13', what: 'VLEK expired after its year', verdict: 'fail', also: ['S19'], make: async () => ({ evidence: await evidenceOf(vlek), context: at('2027-06-03T00:00:00Z') }) },
  { rule: 'S13', what: 'ASK expired', verdict: 'fail', make: chain(async () => [await genoa.issueCa('ask', { notAfter: new Date('2026-05-31T00:00:00Z') }), genoa.ark]) },
  { rule: 'S13', what: 'ARK expired', verdict: 'fail', make: async () => {
      const ark = await genoa.issueCa('ark', { notAfter: new Date('2026-05-31T00:00:00Z') });
      return { evidence: await evidenceOf(genoa, { chain: [genoa.ask, ark] }), context: { roots: [ark] } };
    } },
  { rule: 'S14', what: 'VEK of the reported TCB', verdict: 'pass', make: good(() => turin) },
  { rule: 'S14', what: 'microcode over 127, two-byte INTEGER', verdict: 'pass', make: good(() => milan) },
  ...(['bootloader', 'tee', 'snp', 'microcode'] as const).map((component): Case => ({
    rule: 'S14', what: `VEK of a higher ${component}`, verdict: 'fail',
    make: vek(() => genoa.issueVek({ tcb: { ...genoa.tcb, [component]: genoa.tcb[component] + 1 } })) })),
  { rule: 'S14', what: 'VEK of a higher fmc on Turin', verdict: 'fail', make: vek(() => turin.issueVek({ tcb: { ...turin.tcb, fmc: 2 } }), () => turin) },
  { rule: 'S14', what: 'VEK of a lower microcode', verdict: 'fail', make: vek(() => genoa.issueVek({ tcb: { ...genoa.tcb, microcode: 1 } })) },
  { rule: 'S15', what: 'each once', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S15', what: 'an SPL missing', verdict: 'fail', also: ['S14'], make: vek(() => genoa.issueVek({ extensions: (all) => all.filter((e) => e.oid !== `${AMD}.3.3`) })) },
  { rule: 'S15', what: 'productName missing', verdict: 'fail', also: ['S10'], make: vek(() => genoa.issueVek({ extensions: (all) => all.filter((e) => e.oid !== `${AMD}.2`) })) },
  { rule: 'S15', what: 'structVersion missing', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => all.filter((e) => e.oid !== `${AMD}.1`) })) },
  { rule: 'S15', what: 'HWID missing', verdict: 'fail', also: ['S16'], make: vek(() => genoa.issueVek({ extensions: (all) => all.filter((e) => e.oid !== `${AMD}.4`) })) },
  { rule: 'S15', what: 'an SPL twice, equal', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, ...all.filter((e) => e.oid === `${AMD}.3.8`)] })) },
  { rule: 'S15', what: 'an SPL twice, different', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.3.8`, value: encodeInteger(255) }] })) },
  { rule: 'S15', what: 'HWID twice', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.4`, value: filled(64, 1) }] })) },
  { rule: 'S15', what: 'an extension AMD has not defined', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.3.10`, value: encodeInteger(0) }] })) },
  { rule: 'S15', what: 'a critical extension from elsewhere', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: '1.2.3', critical: true, value: encodeInteger(0) }] })) },
  { rule: 'S15', what: 'VCEK with a CSP_ID', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.5`, value: encodeText('CN=x', TAG.ia5String) }] })) },
  { rule: 'S15', what: 'an AMD extension that is critical', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.3.8` ? { ...e, critical: true } : e) })) },
  { rule: 'S15', what: 'keyUsage, critical as it should be', verdict: 'pass', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, keyUsage(['digitalSignature'])] })) },
  { rule: 'S15', what: 'fmc on Genoa', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.3.9`, value: encodeInteger(1) }] })) },
  { rule: 'S15', what: 'reserved SPL not zero', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.3.5` ? { ...e, value: encodeInteger(1) } : e) })) },
  { rule: 'S15', what: 'SPL that is not minimal DER', verdict: 'fail', also: ['S14'], make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.3.1` ? { ...e, value: Uint8Array.of(2, 2, 0, 11) } : e) })) },
  { rule: 'S15', what: 'SPL that is negative', verdict: 'fail', also: ['S14'], make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.3.8` ? { ...e, value: Uint8Array.of(2, 1, 0x80) } : e) })) },
  { rule: 'S15', what: 'SPL over 255', verdict: 'fail', also: ['S14'], make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.3.8` ? { ...e, value: encodeInteger(256 + 90) } : e) })) },
  { rule: 'S15', what: 'productName as UTF8String', verdict: 'fail', also: ['S10'], make: vek(() => genoa.issueVek({ extensions: (all) => all.map((e) => e.oid === `${AMD}.2` ? { ...e, value: encodeText('Genoa') } : e) })) },
  { rule: 'S15', what: 'structVersion 1 on Genoa', verdict: 'fail', make: vek(() => genoa.issueVek({ structVersion: 1 })) },
  { rule: 'S15', what: 'structVersion 0 on Turin', verdict: 'fail', make: vek(() => turin.issueVek({ structVersion: 0 }), () => turin) },
  { rule: 'S15', what: 'VCEK that says it is no CA', verdict: 'pass', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, basicConstraints(false)] })) },
  { rule: 'S15', what: 'VCEK that says it is a CA', verdict: 'fail', make: vek(() => genoa.issueVek({ extensions: (all) => [...all, basicConstraints(true)] })) },
  { rule: 'S16', what: 'bare HWID', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S16', what: 'HWID in an OCTET STRING', verdict: 'pass', make: vek(() => genoa.issueVek({ hwidForm: 'octetString' })) },
  { rule: 'S16', what: 'Turin, 8 bytes', verdict: 'pass', make: good(() => turin) },
  { rule: 'S16', what: 'HWID of another chip', verdict: 'fail', make: vek(() => genoa.issueVek({ chipId: filled(64, 9) })) },
  { rule: 'S16', what: 'HWID that differs in its last byte', verdict: 'fail', make: vek(() => { const id = genoa.chipId.slice(); id[63] = (id[63] ?? 0) ^ 1; return genoa.issueVek({ chipId: id }); }) },
  { rule: 'S16', what: 'HWID of 66 bytes that is no OCTET STRING', verdict: 'fail', make: vek(() => genoa.issueVek({ chipId: filled(66, 5) })) },
  { rule: 'S16', what: 'HWID cut to 63 bytes', verdict: 'fail', make: vek(() => genoa.issueVek({ chipId: genoa.chipId.subarray(0, 63) })) },
  { rule: 'S16', what: 'zero chip id and zero HWID', verdict: 'fail', make: async () => ({
      evidence: await evidenceOf(genoa, { vek: await genoa.issueVek({ chipId: filled(64, 0) }), report: await genoa.signReport({ chipId: filled(64, 0) }) }) }) },
  { rule: 'S16', what: 'Turin chip id longer than 8 bytes', verdict: 'fail', make: async () => {
      const chipId = turin.chipId.slice();
      chipId[8] = 1;
      return { evidence: await evidenceOf(turin, { report: await turin.signReport({ chipId }) }) };
    } },
  { rule: 'S16', what: 'a VLEK has none', verdict: 'skip', make: good(() => vlek) },
  { rule: 'S17', what: 'layout of Turin', verdict: 'pass', make: good(() => turin) },
  { rule: 'S17', what: 'layout of Milan', verdict: 'pass', make: good(() => milan) },
  { rule: 'S17', what: 'Turin layout on Genoa', verdict: 'fail', make: report({ launchTcb: Uint8Array.of(1, 0, 1, 4, 0, 0, 0, 81) }) },
  { rule: 'S17', what: 'reserved byte of Turin set', verdict: 'fail', make: async () => ({
      evidence: await evidenceOf(turin, { report: await turin.signReport({ currentTcb: Uint8Array.of(1, 2, 1, 5, 1, 0, 0, 82) }) }) }) },
  { rule: 'S18', what: 'VLEK with its provider', verdict: 'pass', make: good(() => vlek) },
  { rule: 'S18', what: 'provider listed', verdict: 'pass', make: good(() => vlek, { cspIds: ['CN=simulated.invalid'] }) },
  { rule: 'S18', what: 'provider not listed', verdict: 'fail', make: good(() => vlek, { cspIds: ['CN=other.invalid'] }) },
  { rule: 'S18', what: 'provider asked of a VCEK', verdict: 'fail', make: good(() => genoa, { cspIds: ['CN=simulated.invalid'] }) },
  { rule: 'S18', what: 'VLEK without CSP_ID', verdict: 'fail', also: ['S15'], make: vek(() => vlek.issueVek({ extensions: (all) => all.filter((e) => e.oid !== `${AMD}.5`) }), () => vlek) },
  { rule: 'S18', what: 'VLEK with a HWID', verdict: 'fail', make: vek(() => vlek.issueVek({ extensions: (all) => [...all, { oid: `${AMD}.4`, value: filled(64, 1) }] }), () => vlek) },
  { rule: 'S18', what: 'VLEK issued by the ASK', verdict: 'fail', also: ['S11'], make: async () => ({
      evidence: await evidenceOf(vlek, { chain: [vlek.ask, vlek.ark], vek: await vlek.issueVek({ signer: vlek.keys.ask, issuer: parseCertificate(vlek.ask).subject.raw }) }) }) },
  { rule: 'S18', what: 'signed by a VCEK', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S19', what: 'current and empty', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S19', what: 'lists others', verdict: 'pass', make: crl(() => genoa.issueCrl({ revoked: [1, 2, 0x20002] })) },
  { rule: 'S19', what: 'none and one is required', verdict: 'fail', make: crl(async () => undefined) },
  { rule: 'S19', what: 'none and none is required', verdict: 'skip', make: crl(async () => undefined, { requireCrl: false }) },
  { rule: 'S19', what: 'not required, but given and wrong', verdict: 'fail', make: crl(async () => corruptSignature(genoa.crl), { requireCrl: false }) },
  { rule: 'S19', what: 'ASK revoked', verdict: 'fail', make: crl(() => genoa.issueCrl({ revoked: [7, 0x20001] })) },
  { rule: 'S19', what: 'ARK revoked', verdict: 'fail', make: crl(() => genoa.issueCrl({ revoked: [0x20000] })) },
  { rule: 'S19', what: 'VEK revoked', verdict: 'fail', make: crl(() => genoa.issueCrl({ revoked: [0] })) },
  { rule: 'S19', what: 'ASVK revoked', verdict: 'fail', make: async () => ({ evidence: await evidenceOf(vlek, { crl: await vlek.issueCrl({ revoked: [0x20101] }) }) }) },
  { rule: 'S19', what: 'signature damaged', verdict: 'fail', make: crl(async () => corruptSignature(genoa.crl)) },
  { rule: 'S19', what: 'signed by the ASK', verdict: 'fail', make: crl(() => genoa.issueCrl({ signer: genoa.keys.ask })) },
  { rule: 'S19', what: 'signed by the ARK with SHA-256', verdict: 'fail', make: crl(() => genoa.issueCrl({ signer: arkSha256 })) },
  { rule: 'S19', what: 'of another product', verdict: 'fail', make: crl(async () => turin.crl) },
  { rule: 'S19', what: 'nextUpdate now', verdict: 'fail', make: crl(() => genoa.issueCrl({ nextUpdate: NOW })) },
  { rule: 'S19', what: 'thisUpdate in the future', verdict: 'fail', make: crl(() => genoa.issueCrl({ thisUpdate: new Date('2026-06-02T00:00:00Z') })) },
  { rule: 'S19', what: 'without nextUpdate', verdict: 'fail', make: crl(() => genoa.issueCrl({ nextUpdate: undefined })) },
  { rule: 'S19', what: 'without crlNumber', verdict: 'fail', make: crl(() => genoa.issueCrl({ extensions: (all) => all.filter((e) => e.oid !== '2.5.29.20') })) },
  { rule: 'S19', what: 'with an unknown critical extension', verdict: 'fail', make: crl(() => genoa.issueCrl({ extensions: (all) => [...all, { oid: '1.2.3', critical: true, value: encodeInteger(0) }] })) },
  { rule: 'S19', what: 'a delta CRL', verdict: 'fail', make: crl(() => genoa.issueCrl({ extensions: (all) => [...all, { oid: '2.5.29.27', value: encodeInteger(0) }] })) },
  { rule: 'S19', what: 'an ARK that may not sign CRLs', verdict: 'fail', make: async () => {
      const ark = await genoa.issueCa('ark', { extensions: (all) => [...all.filter((e) => e.oid !== '2.5.29.15'), keyUsage(['keyCertSign'])] });
      return { evidence: await evidenceOf(genoa, { chain: [genoa.ask, ark] }), context: { roots: [ark] } };
    } },
  { rule: 'S20', what: 'the first ever', verdict: 'pass', make: async () => ({ evidence: await evidenceOf(genoa), context: { memory: createRollbackMemory() } }) },
  { rule: 'S20', what: 'no memory', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S20', what: 'a smaller crlNumber than seen', verdict: 'fail', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ number: 9 }) }), context: { memory } });
      return { evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ number: 8 }) }), context: { memory } };
    } },
  { rule: 'S20', what: 'an earlier thisUpdate under the same number', verdict: 'fail', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(genoa), context: { memory } });
      return { evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ thisUpdate: new Date('2026-01-01T00:00:00Z') }) }), context: { memory } };
    } },
  { rule: 'S20', what: 'a forged CRL is not remembered', verdict: 'pass', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ number: 99, signer: genoa.keys.ask }) }), context: { memory } });
      return { evidence: await evidenceOf(genoa), context: { memory } };
    } },
  { rule: 'S20', what: 'a larger one is remembered', verdict: 'pass', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(genoa), context: { memory } });
      return { evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ number: 2 }) }), context: { memory } };
    } },
  { rule: 'S20', what: 'the CRL for VLEKs after a higher one for VCEKs of the same ARK', verdict: 'pass', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ number: 9 }) }), context: { memory } });
      return { evidence: await evidenceOf(vlek, { crl: await vlek.issueCrl({ number: 8 }) }), context: { memory } };
    } },
  { rule: 'S20', what: 'a smaller one for VLEKs, with VCEKs between', verdict: 'fail', make: async () => {
      const memory = createRollbackMemory();
      await verify({ evidence: await evidenceOf(vlek, { crl: await vlek.issueCrl({ number: 9 }) }), context: { memory } });
      await verify({ evidence: await evidenceOf(genoa), context: { memory } });
      return { evidence: await evidenceOf(vlek, { crl: await vlek.issueCrl({ number: 8 }) }), context: { memory } };
    } },
  { rule: 'S21', what: 'every restriction', verdict: 'pass', make: report(bits(STRICT), { guestPolicy: 'strict' }) },
  { rule: 'S21', what: 'what KVM launches', verdict: 'pass', make: report(bits(0x30000n)) },
  { rule: 'S21', what: 'what KVM launches under the strict grade', verdict: 'fail', make: report(bits(0x30000n), { guestPolicy: 'strict' }) },
  { rule: 'S21', what: 'debug, nothing else', verdict: 'fail', make: report(bits(0xb0000n)) },
  { rule: 'S21', what: 'a migration agent, nothing else', verdict: 'fail', make: report(bits(0x70000n)) },
  { rule: 'S21', what: 'CXL, nothing else', verdict: 'fail', make: report(bits(0x230000n)) },
  { rule: 'S21', what: 'debug', verdict: 'fail', make: report(bits(STRICT | (1n << 19n))) },
  { rule: 'S21', what: 'debug under the loosest policy', verdict: 'fail', make: report(bits(STRICT | (1n << 19n)), { guestPolicy: {
      allowSmt: true, allowMigrationAgent: true, allowCxl: true, requireSingleSocket: false, requireAes256Xts: false, requireRaplDisabled: false,
      requireCiphertextHiding: false, requirePageSwapDisabled: false } }) },
  ...(
    [
      ['allowMigrationAgent', 18n, true],
      ['allowSmt', 16n, true],
      ['allowCxl', 21n, true],
      ['requireSingleSocket', 20n, false],
      ['requireAes256Xts', 22n, false],
      ['requireRaplDisabled', 23n, false],
      ['requireCiphertextHiding', 24n, false],
      ['requirePageSwapDisabled', 25n, false],
    ] as const
  ).flatMap(([key, bit, loose]): Case[] => {
    const fields = bits(loose ? STRICT | (1n << bit) : STRICT & ~(1n << bit));
    return [
      { rule: 'S21', what: `${key} absent`, verdict: 'fail', make: report(fields, { guestPolicy: 'strict' }) },
      { rule: 'S21', what: `${key} absent over the strict grade`, verdict: 'fail', make: report(fields, { guestPolicy: { grade: 'strict' } }) },
      { rule: 'S21', what: `${key} ${!loose}`, verdict: 'fail', make: report(fields, { guestPolicy: { [key]: !loose } }) },
      { rule: 'S21', what: `${key} ${loose}`, verdict: 'pass', make: report(fields, { guestPolicy: { [key]: loose } }) },
    ];
  }),
  { rule: 'S21', what: 'minimumAbi met', verdict: 'pass', make: report(bits(STRICT), { guestPolicy: { minimumAbi: '1.55' } }) },
  { rule: 'S21', what: 'minimumAbi not met in the minor', verdict: 'fail', make: report(bits(STRICT), { guestPolicy: { minimumAbi: { major: 1, minor: 56 } } }) },
  { rule: 'S21', what: 'minimumAbi not met in the major', verdict: 'fail', make: report(bits(STRICT), { guestPolicy: { minimumAbi: '2.0' } }) },
  { rule: 'S22', what: 'consistent platform', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S22', what: 'unknown bits are recorded', verdict: 'pass', make: report({ platformInfo: 0x3cn | (1n << 40n) | (1n << 6n) }) },
  { rule: 'S22', what: 'SMT on against the guest policy', verdict: 'fail', make: report({ guestPolicy: STRICT, platformInfo: 0x3dn }) },
  { rule: 'S22', what: 'RAPL on against the guest policy', verdict: 'fail', make: report({ guestPolicy: STRICT, platformInfo: 0x34n }) },
  { rule: 'S22', what: 'ciphertext hiding off against the guest policy', verdict: 'fail', make: report({ guestPolicy: STRICT, platformInfo: 0x2cn }) },
  { rule: 'S22', what: 'SMT forbidden and on', verdict: 'fail', make: report({ guestPolicy: STRICT | (1n << 16n), platformInfo: 0x3dn }, { guestPolicy: { allowSmt: true }, platformInfo: { forbidSmt: true } }) },
  ...(
    [
      ['requireTsme', 1n],
      ['requireEcc', 2n],
      ['requireRaplDisabled', 3n],
      ['requireCiphertextHiding', 4n],
      ['requireAliasCheckComplete', 5n],
      ['requireTio', 7n],
    ] as const
  ).flatMap(([key, bit]): Case[] => {
    const guestPolicy = 0x20000n;
    const loose: SnpPolicy = { guestPolicy: { requireSingleSocket: false, requireAes256Xts: false, requireRaplDisabled: false, requireCiphertextHiding: false, requirePageSwapDisabled: false }, platformInfo: { [key]: true } };
    return [
      { rule: 'S22', what: `${key} met`, verdict: 'pass', make: report({ guestPolicy, platformInfo: 1n << bit }, loose) },
      { rule: 'S22', what: `${key} not met`, verdict: 'fail', make: report({ guestPolicy, platformInfo: 0xfen & ~(1n << bit) }, loose) },
    ];
  }),
  { rule: 'S23', what: 'expected 0, is 0', verdict: 'pass', make: good(() => genoa, { vmpl: 0 }) },
  { rule: 'S23', what: 'expected 0 or 1, is 1', verdict: 'pass', make: report({ vmpl: 1 }, { vmpl: [0, 1] }) },
  { rule: 'S23', what: 'expected 0, is 1', verdict: 'fail', make: report({ vmpl: 1 }, { vmpl: 0 }) },
  { rule: 'S23', what: 'not asked', verdict: 'skip', make: report({ vmpl: 3 }) },
  { rule: 'S23', what: 'requested by the host, not asked', verdict: 'fail', make: report({ vmpl: 0xffff_ffff }) },
  { rule: 'S23', what: 'VMPL 4, not asked', verdict: 'fail', make: report({ vmpl: 4 }) },
  { rule: 'S24', what: 'all equal', verdict: 'pass', make: good(() => turin) },
  { rule: 'S24', what: 'reported < committed < current, as a provider runs it', verdict: 'pass', make: report({ committedTcb: Uint8Array.of(11, 0, 0, 0, 0, 0, 28, 91), currentTcb: Uint8Array.of(11, 0, 0, 0, 0, 0, 28, 92) }) },
  { rule: 'S24', what: 'committed below reported', verdict: 'fail', make: report({ committedTcb: Uint8Array.of(11, 0, 0, 0, 0, 0, 27, 255) }) },
  { rule: 'S24', what: 'current below committed', verdict: 'fail', make: report({ currentTcb: Uint8Array.of(10, 0, 0, 0, 0, 0, 28, 255) }) },
  { rule: 'S24', what: 'launch above current', verdict: 'fail', make: report({ launchTcb: Uint8Array.of(11, 0, 0, 0, 0, 0, 29, 0) }) },
  { rule: 'S24', what: 'committed firmware above current', verdict: 'fail', make: report({ committedBuild: 50 }) },
  { rule: 'S25', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S25', what: 'minimum met exactly', verdict: 'pass', make: good(() => genoa, { minimumTcb: { bootloader: 11, tee: 0, snp: 28, microcode: 90 } }) },
  ...(['bootloader', 'tee', 'snp', 'microcode'] as const).map((component): Case => ({
    rule: 'S25', what: `${component} below`, verdict: 'fail', make: async () => good(() => genoa, { minimumTcb: { [component]: genoa.tcb[component] + 1 } })() })),
  { rule: 'S25', what: 'fmc below on Turin', verdict: 'fail', make: good(() => turin, { minimumTcb: { fmc: 2 } }) },
  { rule: 'S25', what: 'fmc asked of Genoa', verdict: 'fail', make: good(() => genoa, { minimumTcb: { fmc: 1 } }) },
  { rule: 'S25', what: 'committed below its minimum', verdict: 'fail', make: good(() => genoa, { minimumCommittedTcb: { microcode: 91 } }) },
  { rule: 'S25', what: 'launch below its minimum', verdict: 'fail', make: good(() => genoa, { minimumLaunchTcb: { snp: 29 } }) },
  { rule: 'S25', what: 'firmware met', verdict: 'pass', make: good(() => genoa, { minimumFirmware: '1.55.49' }) },
  { rule: 'S25', what: 'firmware below in the build', verdict: 'fail', make: good(() => genoa, { minimumFirmware: '1.55.50' }) },
  { rule: 'S25', what: 'firmware below in the minor, build above', verdict: 'fail', make: good(() => genoa, { minimumFirmware: '1.56.0' }) },
  { rule: 'S26', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S26', what: 'bits set in both', verdict: 'pass', make: good(() => genoa, { requiredMitigations: '3f' }) },
  { rule: 'S26', what: 'bit missing at launch', verdict: 'fail', make: report({ launchMitVector: 0x3en }, { requiredMitigations: '1' }) },
  { rule: 'S26', what: 'bit missing now', verdict: 'fail', make: report({ currentMitVector: 0x3en }, { requiredMitigations: '1' }) },
  { rule: 'S26', what: 'version 4 has none', verdict: 'fail', make: report({ version: 4 }, { requiredMitigations: '1' }) },
  { rule: 'S27', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S27', what: 'listed', verdict: 'pass', make: report({ measurement: filled(48, 5) }, { measurement: [hex(48, 4), hex(48, 5)] }) },
  { rule: 'S27', what: 'one value, upper case', verdict: 'pass', make: report({ measurement: filled(48, 0xab) }, { measurement: hex(48, 0xab).toUpperCase() }) },
  { rule: 'S27', what: 'not listed', verdict: 'fail', make: report({ measurement: filled(48, 6) }, { measurement: [hex(48, 4), hex(48, 5)] }) },
  { rule: 'S28', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S28', what: 'all as expected', verdict: 'pass', make: report({ hostData: filled(32, 1), familyId: filled(16, 2), imageId: filled(16, 3), guestSvn: 4 },
      { hostData: hex(32, 1), familyId: hex(16, 2), imageId: hex(16, 3), minimumGuestSvn: 4 }) },
  { rule: 'S28', what: 'host data differs', verdict: 'fail', make: good(() => genoa, { hostData: hex(32, 1) }) },
  { rule: 'S28', what: 'family id differs', verdict: 'fail', make: good(() => genoa, { familyId: hex(16, 1) }) },
  { rule: 'S28', what: 'image id differs', verdict: 'fail', make: good(() => genoa, { imageId: hex(16, 1) }) },
  { rule: 'S28', what: 'guest SVN below', verdict: 'fail', make: report({ guestSvn: 3 }, { minimumGuestSvn: 4 }) },
  { rule: 'S29', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S29', what: 'both as expected', verdict: 'pass', make: report({ keyInfo: 1, idKeyDigest: filled(48, 1), authorKeyDigest: filled(48, 2) }, { idKeyDigest: hex(48, 1), authorKeyDigest: [hex(48, 2)] }) },
  { rule: 'S29', what: 'no id key and one is required', verdict: 'fail', make: good(() => genoa, { idKeyDigest: hex(48, 1) }) },
  { rule: 'S29', what: 'another author key', verdict: 'fail', make: report({ keyInfo: 1, authorKeyDigest: filled(48, 2) }, { authorKeyDigest: hex(48, 3) }) },
  { rule: 'S30', what: 'none bound', verdict: 'pass', make: good(() => genoa) },
  { rule: 'S30', what: 'one bound', verdict: 'fail', make: report({ reportIdMa: filled(32, 1) }) },
  { rule: 'S30', what: 'one bound and allowed', verdict: 'pass', make: report({ reportIdMa: filled(32, 1) }, { guestPolicy: { allowMigrationAgent: true } }) },
  { rule: 'S31', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S31', what: 'chip listed', verdict: 'pass', make: async () => good(() => genoa, { chipIds: [hex(64, 1), toHex(genoa.chipId)] })() },
  { rule: 'S31', what: 'Turin chip listed by its 8 bytes', verdict: 'pass', make: async () => good(() => turin, { chipIds: toHex(turin.chipId.subarray(0, 8)) })() },
  { rule: 'S31', what: 'Genoa chip is not listed by 8 bytes', verdict: 'fail', make: async () => good(() => genoa, { chipIds: toHex(genoa.chipId.subarray(0, 8)) })() },
  { rule: 'S31', what: 'chip not listed', verdict: 'fail', make: good(() => genoa, { chipIds: [hex(64, 1)] }) },
  { rule: 'S31', what: 'a VLEK names no chip', verdict: 'fail', make: good(() => vlek, { chipIds: [hex(64, 0)] }) },
  { rule: 'S31', what: 'VEK key listed', verdict: 'pass', make: async () => good(() => vlek, { vekSpkis: [await spkiOf(vlek)] })() },
  { rule: 'S31', what: 'VEK key not listed', verdict: 'fail', make: good(() => vlek, { vekSpkis: hex(32, 1) }) },
  { rule: 'S32', what: 'not asked', verdict: 'skip', make: good(() => genoa) },
  { rule: 'S32', what: 'all 64 bytes', verdict: 'pass', make: report({ reportData: filled(64, 8) }, { reportData: hex(64, 8) }) },
  { rule: 'S32', what: 'differs in the last byte', verdict: 'fail', make: report({ reportData: filled(64, 8) }, { reportData: `${hex(63, 8)}09` }) },
  { rule: 'S32', what: 'differs in the first byte', verdict: 'fail', make: report({ reportData: filled(64, 8) }, { reportData: `09${hex(63, 8)}` }) },
]; // prettier-ignore

async function spkiOf(simulated: SimulatedAmd): Promise<string> {
  const { raw } = parseCertificate(simulated.vek).publicKey;
  return toHex(new Uint8Array(await crypto.subtle.digest('SHA-256', raw as BufferSource)));
}

describe('every rule, accepted and refused', () => {
  test.each(CASES.map((item) => [`${item.rule} ${item.verdict}: ${item.what}`, item] as const))(
    '%s',
    async (_name, item) => {
      const verification = await verify(await item.make());
      const failed = verification.transcript.checks.filter((check) => check.status === 'fail');
      const check = verification.transcript.checks.find(({ id }) => id === item.rule);
      expect(
        check?.status,
        `${check?.detail}; failed: ${failed.map(({ id, detail }) => `${id} ${detail}`).join(' | ')}`,
      ).toBe(item.verdict);
      const expected = [...(item.verdict === 'fail' ? [item.rule] : []), ...(item.also ?? [])];
      expect(failed.map(({ id }) => id).toSorted()).toEqual(expected.toSorted());
      expect(verification.accepted).toBe(expected.length === 0);
      expect(check?.code).toBe(item.verdict === 'fail' ? SNP_RULES[item.rule].code : undefined);
      expect(verification.transcript.checks.map(({ id }) => id).toSorted()).toEqual(
        Object.keys(SNP_RULES).toSorted(),
      );
    },
  );

  test('the table has a pass and a fail of each rule', () => {
    for (const rule of Object.keys(SNP_RULES)) {
      const verdicts = new Set(CASES.filter((item) => item.rule === rule).map((item) => item.verdict));
      expect([rule, verdicts.has('pass'), verdicts.has('fail') || rule === 'S2']).toEqual([rule, true, true]);
    }
  });

  test('each rule has its own code', () => {
    const codes = Object.values(SNP_RULES).map((rule) => rule.code);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

async function refusalFor(given: Promise<Given>): Promise<AttestationError | undefined> {
  const input = await given;
  return refusalOf(() => verify(input));
}

describe('what cannot be read is not judged', () => {
  test.each([0, 1, 6, 0xffff_ffff])('S2 fail: version %i is unsupported', async (version) => {
    const error = await refusalFor(report({ version })());
    expect([error?.kind, error?.code, error?.check]).toEqual(['unsupported', 'snp_version', 'S2']);
  });

  test.each([0, 1, 1183, 1185, 4096])('S1 fail: a report of %i bytes is malformed', async (length) => {
    const error = await refusalFor(
      evidenceOf(genoa, { report: new Uint8Array(length) }).then((evidence) => ({ evidence })),
    );
    expect([error?.kind, error?.code, error?.check]).toEqual(['malformed', 'malformed_length', 'S1']);
  });

  test('S10 fail: a product nobody knows is unsupported', async () => {
    const evidence = await evidenceOf(genoa, {
      report: await genoa.signReport({ cpuidFamily: 0x1a, cpuidModel: 0x50 }),
      vek: await genoa.issueVek({ issuer: named('SEV-Venice') }),
      chain: [
        await genoa.issueCa('ask', { subject: named('SEV-Venice') }),
        await genoa.issueCa('ark', { subject: named('ARK-Venice'), issuer: named('ARK-Venice') }),
      ],
    });
    const error = await refusalFor(Promise.resolve({ evidence }));
    expect([error?.kind, error?.code, error?.actual]).toEqual(['unsupported', 'snp_product', 'Venice']);
  });

  test.each([0, 1, 3])('a chain of %i certificates is malformed', async (count) => {
    const error = await refusalFor(
      evidenceOf(genoa, { chain: [genoa.ask, genoa.ark, genoa.ark].slice(0, count) }).then((evidence) => ({
        evidence,
      })),
    );
    expect(error?.code).toBe('malformed_certificate');
  });

  test('a time that is none is malformed', async () => {
    const error = await refusalFor(
      evidenceOf(genoa).then((evidence) => ({ evidence, context: { now: new Date(Number.NaN) } })),
    );
    expect(error?.kind).toBe('malformed');
  });
});

/** The same bytes as a view that starts inside a larger buffer. */
function inside(bytes: Uint8Array, offset: number): Uint8Array {
  const buffer = new Uint8Array(bytes.length + offset + 13).fill(0xa5);
  buffer.set(bytes, offset);
  return buffer.subarray(offset, offset + bytes.length);
}

describe('claims and marks', () => {
  test.each(['Milan', 'Genoa', 'Turin'] as const satisfies readonly Product[])(
    '%s is accepted and says what it is',
    async (product) => {
      const simulated = { Milan: milan, Genoa: genoa, Turin: turin }[product];
      const { accepted, authentic, rootsReplaced, claims } = await verify({
        evidence: await evidenceOf(simulated),
      });
      expect({ accepted, authentic, rootsReplaced }).toEqual({
        accepted: true,
        authentic: true,
        rootsReplaced: true,
      });
      expect(claims).toMatchObject({
        product,
        version: 5,
        chipId: toHex(simulated.chipId),
        reportedTcb: simulated.tcb,
        rootsReplaced: true,
      });
      expect(() => JSON.stringify(claims)).not.toThrow();
    },
  );

  test('a report under a revoked ASK is not authentic, one without a CRL is', async () => {
    const revoked = await verify({
      evidence: await evidenceOf(genoa, { crl: await genoa.issueCrl({ revoked: [0x20001] }) }),
    });
    expect([revoked.authentic, revoked.accepted]).toEqual([false, false]);
    const forged = await verify({
      evidence: await evidenceOf(genoa, {
        crl: await genoa.issueCrl({ revoked: [0x20001], signer: genoa.keys.ask }),
      }),
    });
    expect([forged.authentic, forged.accepted]).toEqual([true, false]);
    const without = await verify({ evidence: await evidenceOf(genoa, { crl: undefined }) });
    expect([without.authentic, without.accepted]).toEqual([true, false]);
  });

  test('a report under a VEK whose extensions are wrong is not authentic', async () => {
    const { authentic, transcript } = await verify({
      evidence: await evidenceOf(genoa, { vek: await genoa.issueVek({ structVersion: 1 }) }),
    });
    expect([authentic, transcript.firstFailure?.id]).toEqual([false, 'S15']);
  });

  test('a report that is not signed is not authentic', async () => {
    const { authentic } = await verify(await report({ damage: (r) => void (r[0x90] = 1) })());
    expect(authentic).toBe(false);
  });

  test('inputs as views into larger buffers give the same transcript', async () => {
    const whole = await evidenceOf(genoa);
    const views: SnpEvidence = {
      report: inside(whole.report, 3),
      vek: inside(whole.vek, 7),
      chain: whole.chain.map((der) => inside(der, 11)),
      crl: inside(whole.crl ?? new Uint8Array(), 5),
    };
    expect((await verify({ evidence: views })).transcript.checks).toEqual(
      (await verify({ evidence: whole })).transcript.checks,
    );
  });

  test('buffers that change while signatures are being checked change nothing', async () => {
    const whole = await evidenceOf(genoa, { report: await genoa.signReport({ measurement: filled(48, 3) }) });
    const evidence: SnpEvidence = {
      report: whole.report.slice(),
      vek: whole.vek.slice(),
      chain: whole.chain.map((der) => der.slice()),
      crl: genoa.crl.slice(),
    };
    const running = verify({ evidence, policy: { measurement: hex(48, 3) } });
    for (const bytes of [evidence.report, evidence.vek, ...evidence.chain, evidence.crl ?? new Uint8Array()])
      bytes.fill(0xee);
    const { accepted, claims } = await running;
    expect([accepted, claims['measurement']]).toEqual([true, hex(48, 3)]);
  });

  test('the inputs are not written to, also as Node buffers', async () => {
    const whole = await evidenceOf(genoa);
    const buffers = { ...whole, report: Buffer.from(whole.report) };
    const before = Buffer.from(whole.report);
    expect((await verify({ evidence: buffers })).accepted).toBe(true);
    expect((await verify({ evidence: buffers })).accepted).toBe(true);
    expect(buffers.report.equals(before)).toBe(true);
  });
});

// Judges a Nitro document (N1 to N10): form, header, chain to the pinned root, signature, kind, windows, what
// it answers, and PCRs. It is believed once chain and signature hold. The hypervisor makes the
// whole document: it is its word about the instance, and no CPU signed it.

import { equalBytes, isZero, toHex } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import { parseCertificate } from '../x509/certificate.ts';
import { type ChainFinding, verifyChainTo } from '../x509/chain.ts';
import type { TimeWindow } from '../x509/path.ts';
import type { PublicKeyInfo } from '../x509/public-key.ts';
import { verifyEcdsaRaw } from '../x509/signature.ts';
import type { VtpmJudgement } from './azure.ts';
import { describeNonce, type NitroDocument, type NitroKind, parseNitroDocument } from './nitro.ts';
import type { DecidedVtpmPolicy } from './policy.ts';
import { NITRO_ROOT, trustedDigests } from './roots.ts';
import { NITRO_RULES } from './rules.ts';
import { checkPcrs } from './tpm-rules.ts';

export interface NitroFinding {
  readonly document: NitroDocument;
  /** Signed by a key of the pinned root. */
  readonly authentic: boolean;
  readonly window: TimeWindow;
}

/** @throws AttestationError malformed `cose_format` or `malformed_certificate` */
export async function checkNitro(
  bytes: Uint8Array,
  kind: NitroKind,
  { policy, context }: VtpmJudgement,
  transcript: Transcript,
): Promise<NitroFinding> {
  const document = parseNitroDocument(bytes);
  transcript.pass(NITRO_RULES.form, `${bytes.length} bytes, ${document.moduleId}`);
  const algorithm = transcript.expect(
    NITRO_RULES.algorithm,
    document.es384,
    document.es384 ? 'ES384' : 'another',
  );
  const leaf = parseCertificate(document.certificate, 'certificate');
  const others = document.cabundle.map((der, i) => parseCertificate(der, `cabundle[${i}]`));
  const trusted = trustedDigests(NITRO_ROOT, context.roots);
  const chain = await verifyChainTo(leaf, { others, trusted, now: context.now, keys: context.keys });
  const rooted = transcript.expect(
    NITRO_RULES.chain,
    chain.problem === undefined,
    chain.problem ?? `${others.length} certificates above the one that signed`,
  );
  const signed = algorithm && (await isSigned(document, leaf.publicKey));
  transcript.expect(NITRO_RULES.signature, signed, signed ? 'ES384' : 'it is not');
  transcript.expect(NITRO_RULES.kind, document.kind === kind, document.kind, {
    expected: kind,
    actual: document.kind,
  });
  checkWindow(document, chain, { policy, now: context.now }, transcript);
  checkMode(document, transcript);
  checkAnswers(document, policy, transcript);
  checkPcrs(document.pcrs, policy.pcrs, transcript, { wrong: NITRO_RULES.pcrValues });
  return { document, authentic: rooted && signed && document.kind === kind, window: chain.window };
}

/** A key for one document and three hours: not worth a place in a cache. */
function isSigned({ signed, signature }: NitroDocument, key: PublicKeyInfo): Promise<boolean> {
  if (key.kind !== 'ec' || key.curve !== 'P-384') return Promise.resolve(false);
  return verifyEcdsaRaw(key, 'SHA-384', { bytes: signed, signature });
}

function checkWindow(
  { timestamp }: NitroDocument,
  chain: ChainFinding,
  { policy, now }: { readonly policy: DecidedVtpmPolicy; readonly now: Date },
  transcript: Transcript,
): void {
  const age = Math.abs(now.getTime() - timestamp) / 1000;
  const old = policy.maxDocumentAge !== undefined && age > policy.maxDocumentAge;
  const problem = chain.expired ?? (old ? `it is ${Math.ceil(age)} s from now` : undefined);
  transcript.expect(
    NITRO_RULES.window,
    problem === undefined,
    problem ??
      `made ${Number.isSafeInteger(timestamp) ? timestamp : '?'} ms after 1970, by the hypervisor’s clock`,
    old ? { expected: `at most ${policy.maxDocumentAge} s`, actual: `${Math.ceil(age)} s` } : {},
  );
}

function checkMode({ kind, pcrs }: NitroDocument, transcript: Transcript): void {
  const zero = (index: number): boolean => isZero(pcrs.get(index) ?? new Uint8Array());
  if (kind === 'enclave') {
    const debug = [0, 1, 2].every(zero);
    transcript.expect(NITRO_RULES.debug, !debug, debug ? 'PCR0, PCR1 and PCR2 are zero' : 'no');
    transcript.skip(NITRO_RULES.commandLine, 'an Enclave has no UEFI boot');
    return;
  }
  transcript.skip(NITRO_RULES.debug, 'an instance has no debug mode');
  const value = toHex(pcrs.get(12) ?? new Uint8Array());
  transcript.expect(NITRO_RULES.commandLine, zero(12), `PCR12 is ${value}`, {
    expected: '00'.repeat(48),
    actual: value,
  });
}

function checkAnswers(document: NitroDocument, policy: DecidedVtpmPolicy, transcript: Transcript): void {
  const asked = [
    ['user_data', policy.userData, document.userData],
    ['nonce', policy.nonce, document.nonce],
  ] as const;
  if (asked.every(([, expected]) => expected === undefined)) {
    transcript.skip(NITRO_RULES.challenge, 'neither user_data nor nonce is expected');
    return;
  }
  const wrong = asked.find(
    ([, expected, actual]) =>
      expected !== undefined && !(actual !== undefined && equalBytes(expected, actual)),
  );
  const found = wrong?.[2];
  transcript.expect(
    NITRO_RULES.challenge,
    wrong === undefined,
    wrong === undefined
      ? 'as expected'
      : `${wrong[0]} is ${found === undefined ? 'absent' : describeNonce(found)}`,
    wrong && { expected: toHex(wrong[1] ?? new Uint8Array()), actual: found && toHex(found) },
  );
}

export const NITRO_PROVENANCE: ReadonlySet<string> = new Set(
  (
    [NITRO_RULES.form, NITRO_RULES.algorithm, NITRO_RULES.chain, NITRO_RULES.signature] as readonly Rule[]
  ).map(({ id }) => id),
);

/** The claims of an authentic document. */
export function nitroClaims({ document }: NitroFinding): Readonly<Record<string, unknown>> {
  const optional = (bytes: Uint8Array | undefined): string | null =>
    bytes === undefined ? null : toHex(bytes);
  return {
    moduleId: document.moduleId,
    timestamp: document.timestamp,
    pcrBank: 'SHA-384',
    pcrs: Object.fromEntries([...document.pcrs].map(([index, value]) => [index, toHex(value)])),
    publicKey: optional(document.publicKey),
    userData: optional(document.userData),
    nonce: optional(document.nonce),
  };
}

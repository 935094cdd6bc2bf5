// A reference manifest as a whole: read, and its digest, signature and certificate chain checked. None of
// that needs the time, so that the findings can be kept by the SHA-256 of the document; validity and trust in
// the root are judged anew at each use.

import { sha256, sha384 } from '@noble/hashes/sha2.js';
import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import { AttestationError } from '../transcript/errors.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';
import { caProblem, criticalProblem, issuanceProblem, nameText } from '../x509/path.ts';
import { type KeyCache, verifyEcdsaRaw, verifySignedBy } from '../x509/signature.ts';
import { canonicalXml } from './canonical-xml.ts';
import { type ManifestEnvelope, readEnvelope } from './manifest-envelope.ts';
import { type ManifestValues, readManifestValues } from './manifest-values.ts';
import { parseXml, type XmlElement } from './xml.ts';

/** The findings about one manifest, all but those that depend on the time or on which roots are trusted. */
export interface JudgedManifest {
  /** Hex, of the document as received. */
  readonly sha256: string;
  /** Code of the rule → what is wrong, in words. */
  readonly problems: ReadonlyMap<AttestationCode, string>;
  /** Undefined when the document, its signature element or its entries could not be read. */
  readonly values: ManifestValues | undefined;
  /** Leaf first, to the root. */
  readonly chain: readonly Certificate[];
}

/** Keeps findings by the SHA-256 of the document, so that a manifest is read and checked once. */
export interface ManifestCache {
  readonly maxManifests: number;
  /** Oldest first. */
  readonly manifests: Map<string, Promise<JudgedManifest>>;
}

/**
 * Keeps up to `maxManifests` findings; the oldest one leaves first.
 * @example const manifests = createManifestCache();
 */
export function createManifestCache(maxManifests = 32): ManifestCache {
  return { maxManifests, manifests: new Map() };
}

/** Never throws for a document that is merely wrong. */
export function judgeManifest(
  xml: Uint8Array,
  { keys, cache }: { readonly keys: KeyCache; readonly cache?: ManifestCache | undefined },
): Promise<JudgedManifest> {
  const digest = toHex(sha256(xml));
  const known = cache?.manifests.get(digest);
  if (known !== undefined) return known;
  const judged = judge(xml, digest, keys);
  if (cache === undefined) return judged;
  if (cache.manifests.size >= cache.maxManifests) {
    const [oldest] = cache.manifests.keys();
    if (oldest !== undefined) cache.manifests.delete(oldest);
  }
  cache.manifests.set(digest, judged);
  judged.catch(() => cache.manifests.delete(digest));
  return judged;
}

async function judge(xml: Uint8Array, digest: string, keys: KeyCache): Promise<JudgedManifest> {
  const problems = new Map<AttestationCode, string>();
  const noted = <T>(read: () => T): T | undefined => {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof AttestationError) || error.kind === 'internal') throw error;
      const code = error.code.startsWith('gpu_rim_') ? error.code : 'gpu_rim_chain';
      problems.set(code, error.message);
      return undefined;
    }
  };
  const root = noted(() => parseXml(xml));
  const envelope = root && noted(() => readEnvelope(root));
  const values = root && envelope && noted(() => readManifestValues(root));
  const chain =
    envelope &&
    noted(() => envelope.certificates.map((der, i) => parseCertificate(der, `manifest certificate ${i}`)));
  if (root === undefined || envelope === undefined)
    return { sha256: digest, problems, values: undefined, chain: [] };
  const hashed = sha384(canonicalXml(root, envelope.signatureElement));
  if (!equalBytes(hashed, envelope.digest))
    problems.set(
      'gpu_rim_digest',
      `document hashes to ${toHex(hashed)}, signed is ${toHex(envelope.digest)}`,
    );
  if (chain !== undefined) await checkChain(chain, envelope, { keys, problems });
  return { sha256: digest, problems, values, chain: chain ?? [] };
}

async function checkChain(
  chain: readonly Certificate[],
  envelope: ManifestEnvelope,
  { keys, problems }: { readonly keys: KeyCache; readonly problems: Map<AttestationCode, string> },
): Promise<void> {
  const [leaf] = chain;
  const [signed, ...links] = await Promise.all([
    leaf === undefined ? false : verifyManifest(leaf, envelope.signedInfo, envelope.signature, keys),
    ...chain.map((each, i) => verifySignedBy(each, (chain[i + 1] ?? each).publicKey, keys)),
  ]);
  if (!signed) problems.set('gpu_rim_signature', 'SignedInfo is not signed by the first certificate');
  for (const [i, certificate] of chain.entries()) {
    const problem =
      linkProblemOf(chain, i) ?? (links[i] === true ? undefined : 'its signature does not verify');
    if (problem === undefined) continue;
    problems.set('gpu_rim_chain', `${nameText(certificate.subject)}: ${problem}`);
    return;
  }
}

/** XML Signature 1.1 §4.4: SignedInfo in its canonical form, with every namespace in scope written on it. */
function verifyManifest(
  leaf: Certificate,
  signedInfo: XmlElement,
  signature: Uint8Array,
  keys: KeyCache,
): Promise<boolean> {
  const { publicKey } = leaf;
  if (publicKey.kind !== 'ec' || publicKey.curve !== 'P-384') return Promise.resolve(false);
  return verifyEcdsaRaw(publicKey, 'SHA-384', { bytes: canonicalXml(signedInfo), signature }, keys);
}

function linkProblemOf(chain: readonly Certificate[], i: number): string | undefined {
  const [certificate, issuer] = chain.slice(i);
  if (certificate === undefined) return 'it is missing';
  const issued = issuanceProblem(certificate, issuer ?? certificate);
  if (issued !== undefined) return issued;
  if (i > 0) return caProblem(certificate, { certificates: true }, i - 1);
  if (certificate.keyUsage?.digitalSignature !== true) return 'keyUsage lacks digitalSignature';
  return criticalProblem(certificate);
}

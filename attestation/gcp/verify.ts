// Judges Google's launch endorsement (G1 to G5): its certificate leads to the pinned root, its signature is
// the one form Google makes, and it lists the firmware the CPU measured. It vouches for the firmware, which
// measures what it boots; that is Google's word for known software, and not the CPU's.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { AttestationError } from '../transcript/errors.ts';
import { type Certificate, parseCertificate } from '../x509/certificate.ts';
import { verifyChainTo } from '../x509/chain.ts';
import type { TimeWindow } from '../x509/path.ts';
import { parsePem } from '../x509/pem.ts';
import { type KeyCache, verifySignedBy } from '../x509/signature.ts';
import { type LaunchEndorsement, parseLaunchEndorsement } from './endorsement.ts';
import { GCE_RULES } from './rules.ts';

/** "GCE-cc-tcb-root", SHA-256 of its DER. */
export const GCE_TCB_ROOT = 'e876bc6978bf4f3da445f98a0a82363c8c0bae5a1fc033c6df65846a6cb0f18c';
const CA_BUNDLE_MAX = 8;

export interface GceEvidence {
  /** A `.binarypb` object as published. */
  readonly launchEndorsement: Uint8Array;
  /** DER of the root, where the endorsement's own bundle lacks it. */
  readonly root?: Uint8Array | undefined;
}

/** The measurement that must be listed, and what of the list. */
export interface GceQuestion {
  readonly kind: 'snp' | 'tdx';
  /** MEASUREMENT or MRTD. */
  readonly measurement: Uint8Array;
  /** GiB, of TDX alone. */
  readonly ramGib?: number | undefined;
}

export interface GceFinding {
  readonly endorsement: LaunchEndorsement;
  /** Google endorses this firmware, now. */
  readonly endorsed: boolean;
  readonly window: TimeWindow;
}

/** @throws AttestationError malformed `gce_endorsement_form` or `malformed_certificate` */
export async function checkLaunchEndorsement(
  evidence: GceEvidence,
  question: GceQuestion,
  context: {
    readonly now: Date;
    readonly roots?: readonly Uint8Array[] | undefined;
    readonly keys?: KeyCache | undefined;
  },
  transcript: Transcript,
): Promise<GceFinding> {
  const endorsement = parseLaunchEndorsement(evidence.launchEndorsement);
  const more = endorsement.unknownFields;
  const aside = more === 0 ? '' : `, ${more} signed fields not known here`;
  transcript.pass(GCE_RULES.form, `firmware ${toHex(endorsement.digest).slice(0, 16)}…${aside}`);
  const leaf = parseCertificate(endorsement.certificate, 'endorsement certificate');
  const trusted = context.roots?.map((der) => toHex(sha256(der))) ?? [GCE_TCB_ROOT];
  const chain = await verifyChainTo(leaf, { ...context, trusted, others: bundleOf(evidence, endorsement) });
  const wrong = chain.problem ?? chain.expired;
  const certified = transcript.expect(
    GCE_RULES.certificate,
    wrong === undefined,
    wrong ?? 'issued by the pinned root',
  );
  const signed = await isSigned(endorsement, leaf, context.keys);
  transcript.expect(GCE_RULES.signature, signed, signed ? 'RSASSA-PSS, SHA-256' : 'it is not');
  const listed = checkListed(endorsement, question, transcript);
  return { endorsement, endorsed: certified && signed && listed, window: chain.window };
}

/** A bundle that cannot be read is none: it is a convenience, and no anchor. */
function bundleOf({ root }: GceEvidence, { caBundle }: LaunchEndorsement): readonly Certificate[] {
  let bundled: readonly Uint8Array[] = [];
  try {
    if (caBundle !== '') bundled = parsePem(caBundle, 'CERTIFICATE', CA_BUNDLE_MAX, 'ca_bundle');
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
  }
  const ders = root === undefined ? bundled : [root, ...bundled];
  return ders.map((der, i) => parseCertificate(new Uint8Array(der), `ca_bundle[${i}]`));
}

/** RSA-4096, RSASSA-PSS with SHA-256, MGF1 of it and a salt of exactly 32 bytes. */
function isSigned(
  { golden, signature }: LaunchEndorsement,
  leaf: Certificate,
  keys?: KeyCache,
): Promise<boolean> {
  const { publicKey } = leaf;
  if (publicKey.kind !== 'rsa' || publicKey.bits !== 4096) return Promise.resolve(false);
  const signatureAlgorithm = { kind: 'rsa-pss', hash: 'SHA-256', saltLength: 32 } as const;
  return verifySignedBy({ raw: golden, tbs: golden, signatureAlgorithm, signature }, publicKey, keys);
}

function checkListed(
  { tdx, snp }: LaunchEndorsement,
  { kind, measurement, ramGib }: GceQuestion,
  transcript: Transcript,
): boolean {
  const launches = (tdx?.launches ?? []).filter(({ mrTd }) => equalBytes(mrTd, measurement));
  const vcpus = [...(snp?.measurements ?? [])].filter(([, each]) => equalBytes(each, measurement));
  const found = kind === 'tdx' ? launches.length : vcpus.length;
  const what = kind === 'tdx' ? `MRTD ${toHex(measurement)}` : `MEASUREMENT ${toHex(measurement)}`;
  const listed = transcript.expect(GCE_RULES.measurement, found > 0, what, {
    expected: `one of the ${kind === 'tdx' ? (tdx?.launches.length ?? 0) : (snp?.measurements.size ?? 0)} endorsed`,
    actual: toHex(measurement),
  });
  if (ramGib === undefined) {
    transcript.skip(GCE_RULES.memory, 'the policy names no memory');
    return listed;
  }
  const sizes = launches.map((launch) => launch.ramGib);
  const fits = transcript.expect(
    GCE_RULES.memory,
    sizes.includes(ramGib),
    `endorsed for ${sizes.join(', ') || 'no'} GiB`,
    {
      expected: `${ramGib} GiB`,
      actual: sizes.join(', '),
    },
  );
  return listed && fits;
}

export const GCE_PROVENANCE: ReadonlySet<string> = new Set(['G1', 'G2', 'G3']);

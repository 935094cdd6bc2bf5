// The rules that bind a document to the signed report and to this connection (docs/protocol.md §2–§5): claims
// ↔ report_data, models ↔ their digest, repeated fields ↔ signed fields, claims ↔ nonce, TLS key and
// exporter. Each function records its rules in the transcript; one that cannot be judged, because what it
// needs was refused, is a skip.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, isZero, toHex } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import { CHALLENGE_MIN_BYTES, type Claims, decodeClaims, parseNonce } from '../protocol/claims.ts';
import { type AttestationDocument, formatTimestamp } from '../protocol/document.ts';
import { AttestationError } from '../transcript/errors.ts';
import { leafHash, rootFromPath } from '../protocol/merkle.ts';
import { ALL_MODELS_ID, allModelsDigest, modelContradiction } from '../protocol/model.ts';
import { isUsablePoint } from '../sealed/points.ts';
import { RULES } from './rules.ts';

/** The fields under the vendor's signature that the protocol uses. */
export interface SignedFields {
  readonly reportData: Uint8Array;
  readonly measurement: Uint8Array;
  readonly rtmr?: readonly Uint8Array[] | undefined;
}

/** D1–D5: the claims, when they are well-formed; that they are bound is in the transcript. */
export function bindClaims(
  transcript: Transcript,
  document: AttestationDocument,
  signed: SignedFields,
): Claims | undefined {
  const claims = readClaims(transcript, document.claims);
  const { index, size, path } = document.inclusion;
  const root = rootFromPath(leafHash(document.claims), document.inclusion);
  const expected = toHex(signed.reportData.subarray(0, 32));
  if (root === undefined)
    transcript.fail(
      RULES.claimsBound,
      `inclusion path of ${path.length} hashes does not fit leaf ${index} of ${size}`,
      { expected },
    );
  else {
    const where = size === 1 ? 'single report' : `leaf ${index} of a batch of ${size}`;
    compare(transcript, RULES.claimsBound, `Merkle root of the claims (${where})`, {
      actual: root,
      expected: signed.reportData.subarray(0, 32),
    });
  }
  if (claims === undefined) transcript.skip(RULES.modelBound, 'not judged: the claims could not be read');
  else
    compare(transcript, RULES.modelBound, 'claims.model.sha256', {
      actual: claims.model.sha256,
      expected: signed.reportData.subarray(32),
    });
  return claims;
}

function readClaims(transcript: Transcript, bytes: Uint8Array): Claims | undefined {
  try {
    const claims = decodeClaims(bytes);
    transcript.pass(RULES.claimsCanonical, `${bytes.length} bytes`);
    transcript.pass(RULES.claimsLabel, 'assay/claims/v1');
    transcript.pass(RULES.claimsFields, 'all fields as protocol v1 gives them');
    return claims;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    const values = { expected: error.expected };
    if (error.code === 'claims_label') {
      transcript.pass(RULES.claimsCanonical, `${bytes.length} bytes`);
      transcript.fail(RULES.claimsLabel, error.message, values);
    } else if (error.code === 'malformed_cbor') {
      transcript.pass(RULES.claimsCanonical, `${bytes.length} bytes`);
      transcript.fail(RULES.claimsFields, error.message, values);
    } else transcript.fail(RULES.claimsCanonical, error.message, values);
    return undefined;
  }
}

/** D8–D12: every field the document repeats for convenience. */
export function compareRepeats(
  transcript: Transcript,
  document: AttestationDocument,
  signed: SignedFields,
  claims: Claims | undefined,
): void {
  compare(transcript, RULES.reportDataRepeated, 'report_data', {
    actual: document.reportData,
    expected: signed.reportData,
  });
  compare(transcript, RULES.measurementRepeated, 'measurement', {
    actual: document.measurement,
    expected: signed.measurement,
  });
  repeatedNonce(transcript, document, claims);
  if (claims === undefined)
    transcript.skip(RULES.timestampRepeated, 'not judged: the claims could not be read');
  else {
    const expected = safeTimestamp(claims.issuedAt);
    const same = document.timestamp === expected;
    transcript.expect(RULES.timestampRepeated, same, `timestamp ${document.timestamp}`, {
      expected,
      actual: document.timestamp,
    });
  }
  if (signed.rtmr === undefined) return;
  if (document.rtmr === undefined)
    transcript.skip(RULES.rtmrRepeated, 'the document does not repeat the RTMRs');
  else {
    const { rtmr } = document;
    const wrong = signed.rtmr.findIndex((value, i) => !equalBytes(value, rtmr[i] ?? new Uint8Array()));
    const values = {
      expected: toHex(signed.rtmr[wrong] ?? new Uint8Array()),
      actual: toHex(rtmr[wrong] ?? new Uint8Array()),
    };
    transcript.expect(
      RULES.rtmrRepeated,
      wrong === -1,
      wrong === -1 ? 'all four' : `rtmr[${wrong}]`,
      wrong === -1 ? {} : values,
    );
  }
}

function repeatedNonce(
  transcript: Transcript,
  document: AttestationDocument,
  claims: Claims | undefined,
): void {
  if (claims === undefined) transcript.skip(RULES.nonceRepeated, 'not judged: the claims could not be read');
  else if (document.nonce === undefined) {
    transcript.expect(
      RULES.nonceRepeated,
      claims.nonce === undefined,
      claims.nonce === undefined ? 'neither has one' : 'the document lacks the nonce its claims have',
    );
  } else if (claims.nonce === undefined)
    transcript.fail(RULES.nonceRepeated, 'the claims lack the nonce the document has');
  else {
    let repeated: Uint8Array;
    try {
      repeated = parseNonce(document.nonce);
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      transcript.fail(RULES.nonceRepeated, error.message);
      return;
    }
    compare(transcript, RULES.nonceRepeated, 'nonce', { actual: repeated, expected: claims.nonce });
  }
}

/** issued_at is a guest's number: one beyond what a date can hold must not throw. */
function safeTimestamp(seconds: number): string {
  return seconds <= 8_640_000_000_000 ? formatTimestamp(seconds) : `${seconds} s`;
}

/**
 * D6, D7, C4: the listed models follow from their blobs, and give the claimed digest;
 * something is attested at all.
 */
export function bindModels(
  transcript: Transcript,
  document: AttestationDocument,
  claims: Claims | undefined,
  requested: string | undefined,
): void {
  if (claims === undefined) {
    for (const rule of [RULES.modelList, RULES.modelPresent, RULES.requestedModel])
      transcript.skip(rule, 'not judged: the claims could not be read');
    return;
  }
  const { model } = claims;
  const contradiction = listContradiction(document, claims);
  transcript.expect(
    RULES.modelList,
    contradiction === undefined,
    contradiction ?? `${model.kind} ${model.id}, ${document.models.length} listed`,
  );
  if (document.models.length === 0) transcript.fail(RULES.modelPresent, 'no model is listed');
  else if (isZero(model.sha256)) transcript.fail(RULES.modelPresent, 'digest is zero');
  else transcript.pass(RULES.modelPresent, toHex(model.sha256));
  const asked = requested ?? ALL_MODELS_ID;
  transcript.expect(RULES.requestedModel, model.id === asked, `claims are for ${name(model.id)}`, {
    expected: name(asked),
    actual: name(model.id),
  });
}

function name(id: string): string {
  return id === ALL_MODELS_ID ? 'all models' : JSON.stringify(id.slice(0, 128));
}

function listContradiction(document: AttestationDocument, claims: Claims): string | undefined {
  const { model } = claims;
  const { models } = document;
  const ids = new Set(models.map(({ id }) => id));
  if (ids.size !== models.length) return 'a model is listed twice';
  for (const listed of models) {
    const contradiction = modelContradiction(listed);
    if (contradiction !== undefined) return contradiction;
  }
  if (model.kind === 'all') {
    if (model.id !== ALL_MODELS_ID) return `claims are for all models, with the id ${name(model.id)}`;
    const digest = allModelsDigest(models);
    return equalBytes(digest, model.sha256)
      ? undefined
      : `listed models give ${toHex(digest)}, claims have ${toHex(model.sha256)}`;
  }
  const [listed] = models;
  if (listed === undefined || models.length !== 1)
    return `claims are for one model, ${models.length} are listed`;
  if (listed.id !== model.id || listed.kind !== model.kind)
    return `claims are for ${model.kind} ${name(model.id)}, listed is ${listed.kind} ${name(listed.id)}`;
  return equalBytes(listed.sha256, model.sha256)
    ? undefined
    : `listed sha256 is ${toHex(listed.sha256)}, claims have ${toHex(model.sha256)}`;
}

export interface Channel {
  readonly nonce: Uint8Array;
  /** Undefined only where the platform has none, as with evidence read from a certificate. */
  readonly exporter: Uint8Array | undefined;
  /** DER SubjectPublicKeyInfo of the peer, from the socket. */
  readonly peerSpki: Uint8Array;
  /** Accept claims that have neither nonce nor exporter. */
  readonly certificateAlone: boolean;
}

/**
 * C1–C3, C5: this nonce, this key, this connection. True when the evidence was a
 * certificate's, and that was allowed.
 */
export function bindChannel(transcript: Transcript, claims: Claims | undefined, channel: Channel): boolean {
  if (claims === undefined) {
    for (const rule of [RULES.certificateChannel, RULES.nonce, RULES.tlsKey, RULES.exporter])
      transcript.skip(rule, 'not judged: the claims could not be read');
    return false;
  }
  const alone = claims.nonce === undefined && claims.exporter === undefined;
  if (alone && channel.certificateAlone) {
    transcript.skip(
      RULES.certificateChannel,
      'certificate evidence is allowed: neither freshness nor this connection is proven',
    );
    transcript.skip(RULES.nonce, 'certificate evidence has none');
    transcript.skip(RULES.exporter, 'certificate evidence has none');
  } else {
    transcript.expect(
      RULES.certificateChannel,
      !alone,
      alone ? 'claims have neither nonce nor exporter' : 'claims have nonce and exporter',
    );
    compareNonce(transcript, claims, channel.nonce);
    if (claims.exporter === undefined) transcript.fail(RULES.exporter, 'claims have no exporter');
    else if (channel.exporter === undefined)
      transcript.fail(RULES.exporter, 'this end has no exporter to compare');
    else
      compare(transcript, RULES.exporter, 'claims.exporter', {
        actual: claims.exporter,
        expected: channel.exporter,
      });
  }
  compare(transcript, RULES.tlsKey, 'claims.tls_spki', {
    actual: claims.tlsSpki,
    expected: sha256(channel.peerSpki),
  });
  return alone && channel.certificateAlone;
}

/** C1. */
function compareNonce(transcript: Transcript, claims: Claims, nonce: Uint8Array): void {
  if (nonce.length < CHALLENGE_MIN_BYTES)
    transcript.fail(RULES.nonce, `nonce is ${nonce.length} bytes, too few to show that evidence is fresh`, {
      expected: `at least ${CHALLENGE_MIN_BYTES} bytes`,
    });
  else if (claims.nonce === undefined)
    transcript.fail(RULES.nonce, 'claims have no nonce', { expected: toHex(nonce) });
  else compare(transcript, RULES.nonce, 'claims.nonce', { actual: claims.nonce, expected: nonce });
}

/**
 * C10 in place of C2, C3, C5: evidence for sealed bodies (docs/sealed.md §2). It answers the nonce, has no
 * exporter, and its key is one to seal to; `allowed`: the policy takes this channel. TLS is not judged.
 */
export function bindSealed(
  transcript: Transcript,
  claims: Claims | undefined,
  { nonce, allowed }: { readonly nonce: Uint8Array; readonly allowed: boolean },
): void {
  if (claims === undefined) {
    for (const rule of [RULES.certificateChannel, RULES.nonce, RULES.tlsKey, RULES.exporter])
      transcript.skip(rule, 'not judged: the claims could not be read');
    transcript.fail(RULES.sealedChannel, 'the claims could not be read');
    return;
  }
  for (const rule of [RULES.certificateChannel, RULES.tlsKey, RULES.exporter])
    transcript.skip(rule, 'sealed bodies: no TLS connection is judged');
  compareNonce(transcript, claims, nonce);
  const objection = sealedObjection(claims, nonce, allowed);
  transcript.expect(
    RULES.sealedChannel,
    objection === undefined,
    objection ?? `claims.hpke_key ${toHex(claims.hpkeKey)}`,
  );
}

function sealedObjection(claims: Claims, nonce: Uint8Array, allowed: boolean): string | undefined {
  if (!allowed) return 'the policy does not take the channel of sealed bodies';
  if (claims.nonce === undefined || !equalBytes(claims.nonce, nonce))
    return 'claims have another nonce, or none';
  if (claims.exporter !== undefined) return 'claims have an exporter: they are for one TLS connection';
  return isUsablePoint(claims.hpkeKey) ? undefined : 'claims.hpke_key is a point of small order';
}

interface Compared {
  readonly actual: Uint8Array;
  readonly expected: Uint8Array;
}

function compare(transcript: Transcript, rule: Rule, what: string, { actual, expected }: Compared): boolean {
  const same = equalBytes(actual, expected);
  if (same) return transcript.pass(rule, `${what} ${toHex(actual)}`);
  return transcript.fail(rule, `${what} is ${toHex(actual)}, expected ${toHex(expected)}`, {
    expected: toHex(expected),
    actual: toHex(actual),
  });
}

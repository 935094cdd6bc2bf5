// Writes archives of evidence, `assay/archive/v1`: the documents a connection was shown and what they were
// judged by. Only the command line keeps evidence; archive.ts, which judges it again, also loads in a page.

import { sha256 } from '@noble/hashes/sha2.js';
import { fromUtf8, toBase64, toHex, utf8 } from '../encoding/bytes.ts';
import type { JsonObject } from '../encoding/json.ts';
import type { AttestationDocument, SnpEndorsements, TdxEndorsements } from '../protocol/document.ts';
import { documentToJson } from '../protocol/issue.ts';
import { tokenListBytes } from '../receipts/commit.ts';
import type { AttestationCode } from '../transcript/codes.ts';
import { ARCHIVE_FORMAT } from './archive.ts';
import { type Policy, policyToJson } from './policy.ts';

/** The evidence a connection was shown, and the verdict on it. */
export interface Witnessed {
  readonly document: AttestationDocument;
  /** Those that were fetched because the document's own were missing or not accepted. */
  readonly endorsements: SnpEndorsements | TdxEndorsements | undefined;
  readonly origin: string;
  readonly nonce: Uint8Array;
  readonly exporter: Uint8Array | undefined;
  /** DER SubjectPublicKeyInfo of the peer; undefined for evidence of a key to seal to. */
  readonly peerSpki: Uint8Array | undefined;
  readonly policy: Policy;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** Undefined when it was accepted. */
  readonly code: AttestationCode | undefined;
}

/** A receipt to keep beside the evidence for its key; texts only where a user wants them kept. */
export interface WitnessedReceipt {
  readonly receipt: Uint8Array;
  readonly salt: Uint8Array;
  readonly request?: Uint8Array | undefined;
  readonly response?: Uint8Array | undefined;
  /** Ids of the output tokens of each choice. */
  readonly tokens?: readonly (readonly number[])[] | undefined;
}

/** One archive, as the JSON of a file. Texts that are no UTF-8 are left out. */
export function archiveToJson(
  evidence: readonly Witnessed[],
  receipts: readonly WitnessedReceipt[] = [],
): JsonObject {
  return {
    format: ARCHIVE_FORMAT,
    evidence: evidence.map(entryToJson),
    receipts: receipts.map(receiptToJson),
  };
}

function receiptToJson({ receipt, salt, request, response, tokens }: WitnessedReceipt): JsonObject {
  const texts = [...textOf('request', request), ...textOf('response', response)];
  const lists = tokens?.map((ids) => toBase64(tokenListBytes(ids)));
  const ids = lists === undefined ? [] : [['tokens', lists] as const];
  return Object.fromEntries([['receipt', toBase64(receipt)], ['salt', toBase64(salt)], ...texts, ...ids]);
}

function textOf(name: string, bytes: Uint8Array | undefined): readonly (readonly [string, string])[] {
  if (bytes === undefined) return [];
  try {
    return [[name, fromUtf8(bytes)]];
  } catch {
    return [];
  }
}

function entryToJson(seen: Witnessed): JsonObject {
  const { policy } = seen;
  const { endorsements } = seen;
  const document = documentToJson(
    endorsements === undefined ? seen.document : ({ ...seen.document, endorsements } as AttestationDocument),
  );
  // An observing policy, with empty lists, is written as null: no policy was applied.
  const written = policy.measurements.length === 0 ? null : policyToJson(policy);
  const allowed = {
    ...(policy.danger.anyModel ? { any_model: true } : {}),
    ...(policy.danger.simulated === false ? {} : { simulated: policy.danger.simulated }),
  };
  return {
    origin: seen.origin,
    at: new Date(seen.at).toISOString(),
    accepted: seen.code === undefined,
    code: seen.code ?? null,
    nonce: toHex(seen.nonce),
    exporter: seen.exporter === undefined ? null : toHex(seen.exporter),
    tls_spki_sha256: seen.peerSpki === undefined ? null : toHex(sha256(seen.peerSpki)),
    policy_sha256: written === null ? null : policyDigest(written),
    policy: written,
    allowed,
    document,
  };
}

/** SHA-256 of the policy as `assay-verify policy print` writes it, without white space. */
function policyDigest(policy: JsonObject): string {
  return toHex(sha256(utf8(JSON.stringify(policy))));
}

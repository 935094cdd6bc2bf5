// Claims: what the guest binds into report_data (docs/protocol.md §2, §3). One deterministic CBOR map with
// integer keys. Refuses bytes that are not their own canonical encoding, another label, unknown keys, and
// fields of the wrong type or size.

import { concatBytes, fromBase64Url, fromHex } from '../encoding/bytes.ts';
import { type Cbor, type CborMap, decodeCbor } from '../encoding/cbor.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { leafHash } from './merkle.ts';
import type { ModelKind } from './model.ts';

/** Domain separation and version: everything this key domain ever signs starts with it. */
export const CLAIMS_LABEL = 'assay/claims/v1';

/** RFC 5705 / RFC 8446 §7.5 exporter label; context = the nonce, 32 bytes out. */
export const EXPORTER_LABEL = 'EXPORTER-assay-attestation-v1';
/** Bytes of TLS exporter that claims bind (docs/protocol.md §3). */
export const EXPORTER_LENGTH = 32;

/** Least bytes of a nonce in claims. A verifier asks for more of its own nonce: CHALLENGE_MIN_BYTES. */
export const NONCE_MIN_BYTES = 8;
/** Most bytes of a nonce. */
export const NONCE_MAX_BYTES = 64;
/** [M7] A nonce of fewer bytes may be guessed in advance, and evidence for it made before it is asked for. */
export const CHALLENGE_MIN_BYTES = 16;

const MAX_CLAIMS_BYTES = 4096;

/**
 * A nonce in a query or document, 8–64 bytes: hex when every character is a hex digit and the length fits,
 * otherwise base64url. Of 22 to 30 characters base64url gives the 16 bytes a challenge needs and hex does
 * not: those are base64url.
 * @example const nonce = parseNonce('00112233445566778899aabbccddeeff');
 */
export function parseNonce(text: string): Uint8Array {
  if (text.length > 2 * NONCE_MAX_BYTES)
    throw malformed('malformed_length', `nonce is ${text.length} characters`);
  const hexFits =
    text.length >= 2 * CHALLENGE_MIN_BYTES ||
    (text.length >= 2 * NONCE_MIN_BYTES && Math.floor((text.length * 3) / 4) < CHALLENGE_MIN_BYTES);
  const isHex = hexFits && /^(?:[0-9a-fA-F]{2})+$/.test(text);
  const nonce = isHex ? fromHex(text, 'nonce') : fromBase64Url(text, 'nonce');
  if (nonce.length < NONCE_MIN_BYTES || nonce.length > NONCE_MAX_BYTES) {
    throw malformed(
      'malformed_length',
      `nonce is ${nonce.length} bytes, expected ${NONCE_MIN_BYTES} to ${NONCE_MAX_BYTES}`,
    );
  }
  return nonce;
}

/** The model that claims name (docs/protocol.md §3, key 4). */
export interface ModelClaim {
  readonly kind: ModelKind;
  /** The model id, or `*` for all. */
  readonly id: string;
  /** 32 bytes; equals report_data[32..64). */
  readonly sha256: Uint8Array;
}

/**
 * The values the guest binds into report_data (docs/protocol.md §3): one canonical CBOR map with integer
 * keys.
 */
export interface Claims {
  /** 8…64 bytes; absent in the certificate's evidence only. */
  readonly nonce?: Uint8Array | undefined;
  /** SHA-256 of the DER SubjectPublicKeyInfo of the TLS leaf. */
  readonly tlsSpki: Uint8Array;
  /** 32 bytes of TLS exporter of this connection; absent in certificates' evidence and for sealed bodies. */
  readonly exporter?: Uint8Array | undefined;
  readonly model: ModelClaim;
  /** SHA-256 of the canonical effective configuration. */
  readonly config: Uint8Array;
  /** Ed25519 public key. */
  readonly receiptKey: Uint8Array;
  /** X25519 public key. */
  readonly hpkeKey: Uint8Array;
  /** Guest clock, seconds since 1970; informative. */
  readonly issuedAt: number;
  /** SHA-256 of GPU evidence made with the same nonce. */
  readonly gpu?: Uint8Array | undefined;
}

/**
 * Strict: throws `claims_not_canonical`, `claims_label` or `malformed_cbor`.
 * @example const { nonce, model } = decodeClaims(document.claims);
 */
export function decodeClaims(bytes: Uint8Array): Claims {
  const map = decodeMap(bytes);
  if (map.get(0) !== CLAIMS_LABEL) {
    throw malformed('claims_label', `claims label is ${describe(map.get(0))}, expected "${CLAIMS_LABEL}"`, {
      expected: CLAIMS_LABEL,
    });
  }
  for (const key of map.keys()) {
    if (typeof key !== 'number' || key > 9)
      throw malformed('malformed_cbor', `claims have the unknown key ${JSON.stringify(key)}`);
  }
  const nonce = map.get(1);
  if (nonce !== undefined && !(nonce instanceof Uint8Array && nonceFits(nonce))) {
    throw malformed(
      'malformed_cbor',
      `claims nonce is ${describe(nonce)}, expected ${NONCE_MIN_BYTES} to ${NONCE_MAX_BYTES} bytes`,
    );
  }
  const issuedAt = map.get(8);
  if (typeof issuedAt !== 'number')
    throw malformed('malformed_cbor', `claims issued_at is ${describe(issuedAt)}, expected an integer`);
  return {
    nonce,
    tlsSpki: bytes32(map, 2, 'tls_spki'),
    exporter: optionalBytes(map, 3, 'exporter'),
    model: decodeModel(map.get(4)),
    config: bytes32(map, 5, 'config'),
    receiptKey: bytes32(map, 6, 'receipt_key'),
    hpkeKey: bytes32(map, 7, 'hpke_key'),
    issuedAt,
    gpu: optionalBytes(map, 9, 'gpu'),
  };
}

/**
 * The 64 bytes of REPORT_DATA / REPORTDATA: Merkle root of the claims ‖ SHA-256 of the model.
 * @example const expected = reportData(leafHash(document.claims), claims.model.sha256);
 */
export function reportData(root: Uint8Array, modelSha256: Uint8Array): Uint8Array {
  return concatBytes(sized(root, 'merkle root'), sized(modelSha256, 'model sha256'));
}

/**
 * report_data of claims that stand alone, without a batch.
 * @example const expected = unbatchedReportData(document.claims, claims.model.sha256);
 */
export function unbatchedReportData(claims: Uint8Array, modelSha256: Uint8Array): Uint8Array {
  return reportData(leafHash(claims), modelSha256);
}

function decodeMap(bytes: Uint8Array): CborMap {
  let value: Cbor;
  try {
    value = decodeCbor(bytes, 'claims', MAX_CLAIMS_BYTES);
  } catch (error) {
    if (!(error instanceof AttestationError) || error.code !== 'malformed_cbor') throw error;
    throw malformed('claims_not_canonical', error.message, {
      hint: 'the server encodes its claims wrongly, or they were altered',
    });
  }
  if (!(value instanceof Map))
    throw malformed('malformed_cbor', `claims are ${describe(value)}, expected a map`);
  return value as CborMap;
}

function decodeModel(value: Cbor | undefined): ModelClaim {
  if (!(value instanceof Map))
    throw malformed('malformed_cbor', `claims model is ${describe(value)}, expected a map`);
  const map = value as CborMap;
  const kind = map.get(0);
  const id = map.get(1);
  if (
    map.size !== 3 ||
    (kind !== 'blob' && kind !== 'manifest' && kind !== 'all') ||
    typeof id !== 'string'
  ) {
    throw malformed(
      'malformed_cbor',
      'claims model is not {0: "blob" | "manifest" | "all", 1: id, 2: sha256}',
    );
  }
  return { kind, id, sha256: bytes32(map, 2, 'model.sha256') };
}

function bytes32(map: CborMap, key: number, name: string): Uint8Array {
  const value = map.get(key);
  if (value instanceof Uint8Array && value.length === 32) return value;
  throw malformed('malformed_cbor', `claims ${name} is ${describe(value)}, expected 32 bytes`);
}

function optionalBytes(map: CborMap, key: number, name: string): Uint8Array | undefined {
  return map.has(key) ? bytes32(map, key, name) : undefined;
}

export function sized(bytes: Uint8Array, name: string): Uint8Array {
  if (bytes.length !== 32) throw new RangeError(`${name} is ${bytes.length} bytes, expected 32`);
  return bytes;
}

export function nonceFits(nonce: Uint8Array): boolean {
  return nonce.length >= NONCE_MIN_BYTES && nonce.length <= NONCE_MAX_BYTES;
}

function describe(value: Cbor | undefined): string {
  if (value === undefined) return 'absent';
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 64));
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return String(value);
  return Array.isArray(value) ? 'an array' : 'a map';
}

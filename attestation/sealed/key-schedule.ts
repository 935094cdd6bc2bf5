// The hashing of HPKE in base mode (RFC 9180 §4, §4.1, §5.1): what follows from the secret of a KEM.
// HKDF-SHA256 in the calling thread: by WebCrypto each of these hashes is two promises, which took more time
// than all of it.

import { expand, extract } from '@noble/hashes/hkdf.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, utf8 } from '../encoding/bytes.ts';

/** Key, nonce and secret of one context (RFC 9180 §5.1). */
export interface ContextSecrets {
  readonly key: Uint8Array;
  readonly baseNonce: Uint8Array;
  readonly exporterSecret: Uint8Array;
}

export interface ScheduleInput {
  /** Of the KEM: 32 bytes. */
  readonly secret: Uint8Array;
  readonly info: Uint8Array;
  /** Id of the KEM. */
  readonly kem: number;
  /** Id of the AEAD, and bytes of its key. */
  readonly aead: { readonly id: number; readonly keyBytes: number };
}

const VERSION = utf8('HPKE-v1');
const NONE = new Uint8Array(0);
const KEM_SUITE = concatBytes(utf8('KEM'), u16(0x0020));
const MODE_BASE = Uint8Array.of(0);
const NONCE_BYTES = 12;
const SECRET_BYTES = 32;

/** Labels are bytes once: each request needs all of them. */
const LABEL = {
  eaePrk: utf8('eae_prk'),
  sharedSecret: utf8('shared_secret'),
  pskIdHash: utf8('psk_id_hash'),
  infoHash: utf8('info_hash'),
  secret: utf8('secret'),
  key: utf8('key'),
  baseNonce: utf8('base_nonce'),
  exp: utf8('exp'),
  sec: utf8('sec'),
} as const;

/** The secret of DHKEM(X25519) (§4.1): of the 32 bytes that X25519 gives and both public keys. */
export function dhkemSecret(of: {
  readonly dh: Uint8Array;
  readonly enc: Uint8Array;
  readonly publicKey: Uint8Array;
}): Uint8Array {
  const prk = labeledExtract(KEM_SUITE, NONE, LABEL.eaePrk, of.dh);
  const info = concatBytes(of.enc, of.publicKey);
  return labeledExpand(KEM_SUITE, prk, LABEL.sharedSecret, { info, length: SECRET_BYTES });
}

/** The key schedule (§5.1) of any KEM's secret. */
export function scheduleOf({ secret: shared, info, kem, aead }: ScheduleInput): ContextSecrets {
  const suite = suiteOf({ kem, aead: aead.id });
  const context = concatBytes(
    MODE_BASE,
    labeledExtract(suite, NONE, LABEL.pskIdHash, NONE),
    labeledExtract(suite, NONE, LABEL.infoHash, info),
  );
  const secret = labeledExtract(suite, shared, LABEL.secret, NONE);
  return {
    key: labeledExpand(suite, secret, LABEL.key, { info: context, length: aead.keyBytes }),
    baseNonce: labeledExpand(suite, secret, LABEL.baseNonce, { info: context, length: NONCE_BYTES }),
    exporterSecret: labeledExpand(suite, secret, LABEL.exp, { info: context, length: SECRET_BYTES }),
  };
}

/** RFC 9180 §5.3. */
export function exported(
  { exporterSecret }: ContextSecrets,
  suite: Suite,
  context: Uint8Array,
  length: number,
): Uint8Array {
  return labeledExpand(suiteOf(suite), exporterSecret, LABEL.sec, { info: context, length });
}

/** Ids of the KEM and the AEAD; the KDF is one. */
interface Suite {
  readonly kem: number;
  readonly aead: number;
}

function suiteOf({ kem, aead }: Suite): Uint8Array {
  return concatBytes(utf8('HPKE'), u16(kem), u16(0x0001), u16(aead));
}

function labeledExtract(suite: Uint8Array, salt: Uint8Array, label: Uint8Array, ikm: Uint8Array): Uint8Array {
  return extract(sha256, concatBytes(VERSION, suite, label, ikm), salt);
}

function labeledExpand(
  suite: Uint8Array,
  prk: Uint8Array,
  label: Uint8Array,
  { info, length }: { readonly info: Uint8Array; readonly length: number },
): Uint8Array {
  return expand(sha256, prk, concatBytes(u16(length), VERSION, suite, label, info), length);
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value & 255);
}

// One request for several replicas (docs/sealed.md §8): sealed to a one-time key, whose private half is
// wrapped for each replica. Which ones, and how many, is authenticated by every wrap. One place for both
// ends.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes, toHex, utf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import type { RequestHead } from './bhttp.ts';
import type { ByteReader } from './chunks.ts';
import { AEAD_TAG_BYTES, importRecipient, type RecipientKey, sendTo } from './hpke.ts';
import { type Kem, KEM, KEM_BYTES, kemOf, PRIVATE_KEY_BYTES } from './kem.ts';
import { generateOneTime, type OneTimeKey } from './one-time.ts';
import { openRequest, type OpenedRequest, sealRequest, type SealedRequest } from './request.ts';

/** Media type of a request for several replicas. */
export const ANY_TYPE = 'application/vnd.assay.sealed-any';
/** Most replicas of one request. */
export const MAX_REPLICAS = 8;
/** The id of the one-time key in the request inside. */
const ONE_TIME_ID = 0;

const VERSION = 1;
const INFO = utf8('assay/sealed-any/v1');
const HINT_BYTES = 8;
const TIME_BYTES = 8;
const WRAPPED_BYTES = PRIVATE_KEY_BYTES + TIME_BYTES + AEAD_TAG_BYTES;

/** A replica that was verified. */
export interface Replica {
  /** Claim 7, or its X-Wing key: all of one request are of one KEM. */
  readonly publicKey: Uint8Array;
  /** Its sealed time now, seconds. */
  readonly sealedAt: number;
}

/**
 * SHA-256(public key)[0..8).
 * @example const hint = keyHintOf(publicKey);
 */
export function keyHintOf(publicKey: Uint8Array): Uint8Array {
  return sha256(publicKey).subarray(0, HINT_BYTES);
}

/**
 * Seals head and content so that each of the replicas can open them, and no other. Its digest is of the
 * one-time key. Throws `sealed_malformed` for none, more than 8, one twice, or keys of two KEMs.
 * @example const { bytes, context } = await sealToAny([{ publicKey, sealedAt: 0 }], head, first);
 */
export async function sealToAny(
  replicas: readonly Replica[],
  head: RequestHead,
  content: Uint8Array,
): Promise<SealedRequest> {
  const kem = kemOf(replicas[0]?.publicKey ?? new Uint8Array(0));
  return sealToAnyBy(await generateOneTime(kem), replicas, head, content);
}

/** By a one-time key of the caller's. */
export async function sealToAnyBy(
  { privateKey, publicKey }: OneTimeKey,
  replicas: readonly Replica[],
  head: RequestHead,
  content: Uint8Array,
): Promise<SealedRequest> {
  const kem = kemOf(publicKey);
  const hints = replicas.map((replica) => keyHintOf(replica.publicKey));
  const aad = aadOf(kem, hints);
  const wraps = await Promise.all(
    replicas.map(async (replica, i) => {
      if (kemOf(replica.publicKey) !== kem) throw wrong('the replicas have keys of two KEMs');
      const context = await sendTo(replica.publicKey, INFO);
      const sealed = await context.seal(concatBytes(privateKey, timeBytes(replica.sealedAt)), aad);
      return concatBytes(hints[i] ?? new Uint8Array(0), context.enc, sealed);
    }),
  );
  const inner = await sealRequest(publicKey, head, content, ONE_TIME_ID);
  return { ...inner, bytes: concatBytes(aad.subarray(0, 4), ...wraps, inner.bytes) };
}

/** Version, KEM, count, all hints. */
function aadOf(kem: Kem, hints: readonly Uint8Array[]): Uint8Array {
  if (hints.length === 0 || hints.length > MAX_REPLICAS) throw wrong(`there are ${hints.length} replicas`);
  if (new Set(hints.map(toHex)).size < hints.length) throw wrong('a replica is there twice');
  return concatBytes(Uint8Array.of(VERSION, kem >> 8, kem & 255, hints.length), ...hints);
}

/** A request that one of its replicas opened. */
export interface OpenedAny extends OpenedRequest {
  /** Seconds of the sealed time of this replica. */
  readonly sealedAt: number;
}

/**
 * Reads the wraps, and header and first chunk of the request inside. `keyOf`: this replica's key of that hint
 * and KEM. Throws an AttestationError for whatever does not open: the caller gives one answer to all of them.
 * @example
 * const recipient = await generateRecipient();
 * const reader = new ByteReader((async function* () { yield bytes; })());
 * const { first, sealedAt } = await openAny(reader, () => recipient);
 */
export async function openAny(
  reader: ByteReader,
  keyOf: (hint: Uint8Array, kem: Kem) => RecipientKey | undefined,
): Promise<OpenedAny> {
  const [version, high = 0, low = 0, count = 0] = (await reader.take(4)) ?? [];
  const kem = Object.values(KEM).find((id) => id === high * 256 + low);
  if (version !== VERSION || kem === undefined) throw wrong('the version or the KEM is not known');
  if (count === 0 || count > MAX_REPLICAS) throw wrong(`there are ${count} replicas`);
  const { enc } = KEM_BYTES[kem];
  const hints: Uint8Array[] = [];
  let mine: { readonly key: RecipientKey; readonly rest: Uint8Array } | undefined;
  for (let i = 0; i < count; i++) {
    const each = (await reader.take(HINT_BYTES + enc + WRAPPED_BYTES))?.slice();
    if (each === undefined) throw wrong('the wraps are cut');
    const hint = each.subarray(0, HINT_BYTES);
    hints.push(hint);
    const key = keyOf(hint, kem);
    if (key !== undefined && mine === undefined) mine = { key, rest: each.subarray(HINT_BYTES) };
  }
  const aad = aadOf(kem, hints);
  if (mine === undefined) throw wrong('this replica is not listed');
  const context = await mine.key.receive(mine.rest.slice(0, enc), INFO);
  const wrapped = await context.open(mine.rest.slice(enc), aad);
  if (wrapped.length !== PRIVATE_KEY_BYTES + TIME_BYTES) throw wrong('a wrap has another length');
  const privateKey = wrapped.slice(0, PRIVATE_KEY_BYTES);
  const oneTime = await importRecipient(privateKey, { kem });
  const opened = await openRequest(reader, (keyId) => (keyId === ONE_TIME_ID ? oneTime : undefined));
  return { ...opened, sealedAt: timeOf(wrapped.subarray(PRIVATE_KEY_BYTES)) };
}

/**
 * Whether the hint is of that key.
 * @example const isMine = isHintOf(keyHintOf(publicKey), publicKey);
 */
export function isHintOf(hint: Uint8Array, publicKey: Uint8Array): boolean {
  return equalBytes(hint, keyHintOf(publicKey));
}

function timeBytes(seconds: number): Uint8Array {
  const bytes = new Uint8Array(TIME_BYTES);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(seconds));
  return bytes;
}

/** A time that no clock shows is outside of every window. */
function timeOf(bytes: Uint8Array): number {
  return Number(new DataView(bytes.buffer, bytes.byteOffset, TIME_BYTES).getBigUint64(0));
}

function wrong(what: string): Error {
  return malformed('sealed_malformed', what);
}

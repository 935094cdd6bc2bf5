// A TPM 2.0 quote: TPMS_ATTEST with TPMS_QUOTE_INFO (TPM 2.0 Library Part 2, §10.12), big-endian, and its
// signature, raw or as TPMT_SIGNATURE (§11.3.4). Refused: another magic or type, a selection of several
// banks, a bank other than SHA-256 and SHA-384, any byte too few or too many. There is no clock in a quote
// but the TPM's own: freshness is extraData alone.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, toHex, viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { encodeBits, encodeDer, encodeInteger, encodeOid, TAG } from '../x509/der.ts';
import { parsePublicKey, type PublicKeyInfo } from '../x509/public-key.ts';
import { verifyEcdsaRaw, verifySignedBy, type KeyCache } from '../x509/signature.ts';

/** TPM_GENERATED_VALUE: only the TPM itself signs structures that begin with it. */
const MAGIC = 0xff544347;
/** TPM_ST_ATTEST_QUOTE. */
const QUOTE = 0x8018;
const MAX_QUOTE_BYTES = 1024;
const MAX_SIGNATURE_BYTES = 1024;
/** TPM_ALG_ID of the banks, with the bytes of a PCR. */
const BANKS: ReadonlyMap<number, 'SHA-256' | 'SHA-384'> = new Map([
  [0x000b, 'SHA-256'],
  [0x000c, 'SHA-384'],
]);
/** PCRs of a PC Client TPM. */
export const PCR_COUNT = 24;

/** The fields of a quote; signed only where its signature held. */
export interface TpmQuote {
  /** As received: what the signature is over. */
  readonly bytes: Uint8Array;
  readonly extraData: Uint8Array;
  /** Milliseconds the TPM has been powered. */
  readonly clock: bigint;
  readonly resetCount: number;
  readonly restartCount: number;
  readonly safe: boolean;
  /** Hex, 8 bytes. */
  readonly firmwareVersion: string;
  readonly bank: 'SHA-256' | 'SHA-384';
  /** Indexes of the quoted PCRs, ascending. */
  readonly selected: readonly number[];
  /** SHA-256 over the values of the selected PCRs in ascending order. */
  readonly pcrDigest: Uint8Array;
}

/** @throws AttestationError malformed: `tpm_magic`, or `tpm_quote` for any other departure. */
export function parseTpmQuote(bytes: Uint8Array): TpmQuote {
  const reader = new Reader(bytes);
  if (bytes.length > MAX_QUOTE_BYTES) throw broken(`is ${bytes.length} bytes, at most ${MAX_QUOTE_BYTES}`);
  const magic = reader.number(4);
  if (magic !== MAGIC) throw notTpm(`magic is 0x${magic.toString(16)}`, 'ff544347', magic);
  const type = reader.number(2);
  if (type !== QUOTE) throw notTpm(`type is 0x${type.toString(16)}`, '8018', type);
  reader.sized('qualifiedSigner', 66);
  const extraData = reader.sized('extraData', 64);
  const clock = viewOf(reader.take(8)).getBigUint64(0);
  const resetCount = reader.number(4);
  const restartCount = reader.number(4);
  const safe = reader.number(1);
  if (safe > 1) throw broken(`safe is ${safe}, expected 0 or 1`);
  const firmwareVersion = toHex(reader.take(8));
  const { bank, selected } = readSelection(reader);
  const pcrDigest = reader.sized('pcrDigest', 32);
  if (pcrDigest.length !== 32) throw broken(`pcrDigest is ${pcrDigest.length} bytes, expected 32`);
  reader.end();
  const counts = { clock, resetCount, restartCount, safe: safe === 1, firmwareVersion };
  return { bytes, extraData, ...counts, bank, selected, pcrDigest };
}

function readSelection(reader: Reader): Pick<TpmQuote, 'bank' | 'selected'> {
  const count = reader.number(4);
  if (count !== 1) throw broken(`selects PCRs of ${count} banks, expected one`);
  const algorithm = reader.number(2);
  const bank = BANKS.get(algorithm);
  if (bank === undefined) throw broken(`selects PCRs of the bank 0x${algorithm.toString(16)}`);
  const size = reader.number(1);
  if (size !== 3) throw broken(`has a PCR bitmap of ${size} bytes, expected 3`);
  const bitmap = reader.take(3);
  const selected = Array.from({ length: PCR_COUNT }, (_, i) => i).filter(
    (i) => ((bitmap[i >> 3] ?? 0) >> (i & 7)) % 2 === 1,
  );
  return { bank, selected };
}

/** Bytes of one PCR of the bank. */
export function pcrBytes(bank: TpmQuote['bank']): number {
  return bank === 'SHA-256' ? 32 : 48;
}

/**
 * Values by index, of those the quote selects alone: the rest is not signed. Given are all 24, or exactly
 * the selected ones in ascending order.
 * @throws AttestationError malformed `tpm_quote`
 */
export function pcrsOf(quote: TpmQuote, values: readonly Uint8Array[]): ReadonlyMap<number, Uint8Array> {
  const { selected, bank } = quote;
  if (values.length !== PCR_COUNT && values.length !== selected.length)
    throw broken(`comes with ${values.length} PCR values, expected ${selected.length} or ${PCR_COUNT}`);
  const wrong = values.findIndex((value) => value.length !== pcrBytes(bank));
  if (wrong >= 0) throw broken(`comes with a PCR value ${wrong} that is not ${pcrBytes(bank)} bytes`);
  const all = values.length === PCR_COUNT;
  return new Map(selected.map((index, i) => [index, values[all ? index : i] ?? new Uint8Array()]));
}

/** The pcrDigest of these values. */
export function digestOfPcrs(values: ReadonlyMap<number, Uint8Array>): Uint8Array {
  const ascending = [...values].toSorted(([a], [b]) => a - b);
  return sha256(concatBytes(...ascending.map(([, value]) => value)));
}

/**
 * Whether the key signed the quote: RSASSA-PKCS1-v1_5 or ECDSA on P-256, both with SHA-256; the signature
 * is raw (RSA) or a TPMT_SIGNATURE. False for every other form.
 */
export async function verifyQuoteSignature(
  quote: TpmQuote,
  signature: Uint8Array,
  key: PublicKeyInfo,
  cache?: KeyCache,
): Promise<boolean> {
  if (signature.length > MAX_SIGNATURE_BYTES) return false;
  if (key.kind === 'ec') {
    const raw = ecdsaOf(signature);
    if (raw === undefined || key.curve !== 'P-256') return false;
    return verifyEcdsaRaw(key, 'SHA-256', { bytes: quote.bytes, signature: raw }, cache);
  }
  if (key.kind !== 'rsa' || key.bits < 2048) return false;
  const raw = rsaOf(signature, Math.ceil(key.bits / 8));
  if (raw === undefined) return false;
  const signed = {
    raw: quote.bytes,
    tbs: quote.bytes,
    signatureAlgorithm: { kind: 'rsa-pkcs1', hash: 'SHA-256' },
    signature: raw,
  } as const;
  return verifySignedBy(signed, key, cache);
}

/** Raw, or `0014 000b ‖ size ‖ signature` (TPM_ALG_RSASSA, TPM_ALG_SHA256). */
function rsaOf(signature: Uint8Array, size: number): Uint8Array | undefined {
  if (signature.length === size) return signature;
  if (signature.length !== size + 6) return undefined;
  const view = viewOf(signature);
  if (view.getUint32(0) !== 0x0014000b || view.getUint16(4) !== size) return undefined;
  return signature.subarray(6);
}

/** `0018 000b ‖ r ‖ s` (TPM_ALG_ECDSA, TPM_ALG_SHA256), each with its size → r ‖ s of 32 bytes each. */
function ecdsaOf(signature: Uint8Array): Uint8Array | undefined {
  if (signature.length < 8 || viewOf(signature).getUint32(0) !== 0x0018000b) return undefined;
  const raw = new Uint8Array(64);
  let at = 4;
  for (const end of [32, 64]) {
    if (signature.length < at + 2) return undefined;
    const size = viewOf(signature).getUint16(at);
    if (size > 32 || signature.length < at + 2 + size) return undefined;
    raw.set(signature.subarray(at + 2, at + 2 + size), end - size);
    at += 2 + size;
  }
  return at === signature.length ? raw : undefined;
}

/** Modulus and exponent, big-endian → a key. @throws malformed_der */
export function rsaPublicKey(modulus: Uint8Array, exponent: Uint8Array): PublicKeyInfo {
  const numbers = encodeDer(TAG.sequence, encodeInteger(modulus), encodeInteger(exponent));
  const algorithm = encodeDer(TAG.sequence, encodeOid('1.2.840.113549.1.1.1'), encodeDer(TAG.null));
  return parsePublicKey(encodeDer(TAG.sequence, algorithm, encodeBits(numbers)), 'attestation key');
}

class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  take(size: number): Uint8Array {
    if (this.#bytes.length - this.#at < size) throw broken(`ends early, at ${this.#bytes.length}`);
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  /** Big-endian. */
  number(size: 1 | 2 | 4): number {
    return this.take(size).reduce((value, byte) => value * 256 + byte, 0);
  }

  /** TPM2B: a size of two bytes and as many bytes. */
  sized(name: string, most: number): Uint8Array {
    const size = this.number(2);
    if (size > most) throw broken(`has ${name} of ${size} bytes, at most ${most}`);
    return this.take(size);
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) throw broken(`has ${left} bytes after its end`);
  }
}

function notTpm(what: string, expected: string, actual: number): Error {
  const detail = { check: 'V1', expected, actual: actual.toString(16) };
  return malformed('tpm_magic', `TPM quote: ${what}, expected 0x${expected}`, detail);
}

function broken(what: string): Error {
  return malformed('tpm_quote', `TPM quote ${what}`, { check: 'V1' });
}

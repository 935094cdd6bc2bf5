// Strict byte helpers without Buffer: hex, base64, base64url, comparison, integers. Browser-safe.
// Refuses what lenient decoders accept: odd hex, stray characters, non-canonical padding and
// trailing bits (RFC 4648 §3.5).

import { type AttestationCode, malformed } from '../transcript/errors.ts';

const HEX = '0123456789abcdef';
const BASE64 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';
const BASE64URL = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/**
 * Bytes → lower-case hex, two characters a byte.
 * @example const text = toHex(Uint8Array.of(0xab, 1)); // "ab01"
 */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += HEX.charAt(byte >> 4) + HEX.charAt(byte & 15);
  return text;
}

/**
 * Hex → bytes. Either case; anything else (odd length, `0x`, spaces) throws `malformed_hex`.
 * @example const measurement = fromHex('ab01', 'measurement');
 */
export function fromHex(text: string, name = 'hex value'): Uint8Array {
  if (text.length % 2 !== 0)
    throw malformed('malformed_hex', `${name} has an odd number of hex digits (${text.length})`);
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    const high = hexDigit(text.charCodeAt(2 * i));
    const low = hexDigit(text.charCodeAt(2 * i + 1));
    if (high < 0 || low < 0)
      throw malformed('malformed_hex', `${name} has a character that is not a hex digit`);
    bytes[i] = (high << 4) | low;
  }
  return bytes;
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48;
  const lower = code | 32;
  return lower >= 97 && lower <= 102 ? lower - 87 : -1;
}

/**
 * RFC 4648 §4, padded.
 * @example const text = toBase64(Uint8Array.of(1, 2)); // 'AQI='
 */
export function toBase64(bytes: Uint8Array): string {
  const text = encode64(bytes, BASE64);
  return text + '='.repeat((4 - (text.length % 4)) % 4);
}

/**
 * RFC 4648 §5, unpadded.
 * @example const text = toBase64Url(Uint8Array.of(1, 2)); // 'AQI'
 */
export function toBase64Url(bytes: Uint8Array): string {
  return encode64(bytes, BASE64URL);
}

/**
 * Padded standard base64 → bytes; non-canonical encodings throw `malformed_base64`.
 * @example const bytes = fromBase64('AQI=', 'report');
 */
export function fromBase64(text: string, name = 'base64 value'): Uint8Array {
  if (text.length % 4 !== 0)
    throw malformed('malformed_base64', `${name} has a length that is not a multiple of four`);
  const one = text.endsWith('=') ? 1 : 0;
  const padding = text.endsWith('==') ? 2 : one;
  return decode64(text, text.length - padding, DECODE64, name);
}

/**
 * Unpadded base64url → bytes; non-canonical encodings throw `malformed_base64`.
 * @example const bytes = fromBase64Url('AQI', 'nonce');
 */
export function fromBase64Url(text: string, name = 'base64url value'): Uint8Array {
  return decode64(text, text.length, DECODE64URL, name);
}

function encode64(bytes: Uint8Array, alphabet: string): string {
  let text = '';
  for (let i = 0; i < bytes.length; i += 3) {
    const a = bytes[i] ?? 0;
    const b = bytes[i + 1] ?? 0;
    const c = bytes[i + 2] ?? 0;
    text += alphabet.charAt(a >> 2) + alphabet.charAt(((a & 3) << 4) | (b >> 4));
    if (i + 1 < bytes.length) text += alphabet.charAt(((b & 15) << 2) | (c >> 6));
    if (i + 2 < bytes.length) text += alphabet.charAt(c & 63);
  }
  return text;
}

const DECODE64 = decodeTable(BASE64);
const DECODE64URL = decodeTable(BASE64URL);

function decodeTable(alphabet: string): Int8Array {
  const table = new Int8Array(128).fill(-1);
  for (let i = 0; i < 64; i++) table[alphabet.charCodeAt(i)] = i;
  return table;
}

function decode64(text: string, length: number, table: Int8Array, name: string): Uint8Array {
  if (length % 4 === 1) throw malformed('malformed_base64', `${name} has an impossible length`);
  const bytes = new Uint8Array(Math.floor((length * 3) / 4));
  let bits = 0;
  let held = 0;
  let out = 0;
  for (let i = 0; i < length; i++) {
    const value = table[text.charCodeAt(i)] ?? -1;
    if (value < 0) throw malformed('malformed_base64', `${name} has a character outside its alphabet`);
    held = ((held << 6) | value) & 0xffff;
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[out++] = (held >> bits) & 0xff;
    }
  }
  if ((held & ((1 << bits) - 1)) !== 0)
    throw malformed('malformed_base64', `${name} has non-zero trailing bits`);
  return bytes;
}

/**
 * Constant-time in the content for equal lengths.
 * @example if (!equalBytes(document.measurement, expected)) throw new Error("another build");
 */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0);
  return difference === 0;
}

export function concatBytes(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}

export function isZero(bytes: Uint8Array): boolean {
  let any = 0;
  for (const byte of bytes) any |= byte;
  return any === 0;
}

/** A view that honours byteOffset; `new DataView(u8.buffer)` does not. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Strict UTF-8: malformed sequences throw `code`, which names the thing that was to be text. */
export function fromUtf8(bytes: Uint8Array, name = 'text', code: AttestationCode = 'malformed_json'): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw malformed(code, `${name} is not valid utf-8`);
  }
}

// Strict reader for DER (ITU-T X.690, 02/2021, §8, §10, §11): a lazy cursor per constructed value, no
// recursion. Refuses indefinite and non-minimal lengths, high tag numbers, non-minimal INTEGERs and OIDs,
// BOOLEANs other than FF, trailing bytes, nesting deeper than 24 and inputs over a stated size, always as
// `malformed_der`. Read values share memory with the input. The writer at the end serves simulated/ and
// tests.

import { concatBytes, equalBytes, fromUtf8 } from '../encoding/bytes.ts';
import { malformed, type AttestationError } from '../transcript/errors.ts';

/** Identifier octets this project meets. Context tags are made with `contextTag`. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  enumerated: 0x0a,
  utf8String: 0x0c,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const;

/** `[n]`: constructed (EXPLICIT, or IMPLICIT of a constructed type) or primitive (IMPLICIT of one). */
export function contextTag(number: number, constructed = true): number {
  return (constructed ? 0xa0 : 0x80) | number;
}

const MAX_DER_BYTES = 1 << 20;
const MAX_DEPTH = 24;
const MAX_OID_BYTES = 32;
const MAX_TEXT_BYTES = 1024;

/** Offsets of an element: of its header, of its content and of the octet after it. */
interface Octets {
  readonly at: number;
  readonly start: number;
  readonly end: number;
}

/** One element: `raw` is header and content, `content` the content alone; both views are made on demand. */
export class Der {
  readonly tag: number;
  readonly depth: number;
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly start: number;
  readonly end: number;

  constructor(tag: number, depth: number, bytes: Uint8Array, octets: Octets) {
    this.tag = tag;
    this.depth = depth;
    this.bytes = bytes;
    this.at = octets.at;
    this.start = octets.start;
    this.end = octets.end;
  }

  get raw(): Uint8Array {
    return this.bytes.subarray(this.at, this.end);
  }

  get content(): Uint8Array {
    return this.bytes.subarray(this.start, this.end);
  }
}

/** Exactly one element filling `bytes`; throws `input_too_large` over `maxBytes` before reading anything. */
export function parseDer(bytes: Uint8Array, name: string, maxBytes = MAX_DER_BYTES): Der {
  if (bytes.length > maxBytes) {
    throw malformed('input_too_large', `${name} is ${bytes.length} bytes, at most ${maxBytes} are read`, {
      expected: `<= ${maxBytes}`,
      actual: String(bytes.length),
    });
  }
  const element = elementAt(bytes, { at: 0, limit: bytes.length, depth: 0 }, name);
  if (element.end !== bytes.length) throw bad(name, `has ${bytes.length - element.end} bytes after its end`);
  return element;
}

/** A cursor over the children of a constructed element whose tag must be `tag` (SEQUENCE unless given). */
export function childrenOf(element: Der, name: string, tag: number = TAG.sequence): DerCursor {
  expectTag(element, tag, name);
  if ((element.tag & 0x20) === 0) throw bad(name, 'is not constructed');
  if (element.depth + 1 > MAX_DEPTH) throw bad(name, `is nested deeper than ${MAX_DEPTH}`);
  return new DerCursor(element, name);
}

/** Parses `bytes` as one constructed element and returns the cursor over its children. */
export function parseSequence(bytes: Uint8Array, name: string, maxBytes = MAX_DER_BYTES): DerCursor {
  return childrenOf(parseDer(bytes, name, maxBytes), name);
}

/** Walks siblings in order. Call `end()` when done: bytes left over are an error. */
export class DerCursor {
  readonly #bytes: Uint8Array;
  readonly #end: number;
  readonly #depth: number;
  readonly #name: string;
  #at: number;

  constructor(parent: Der, name: string) {
    this.#bytes = parent.bytes;
    this.#at = parent.start;
    this.#end = parent.end;
    this.#depth = parent.depth + 1;
    this.#name = name;
  }

  get atEnd(): boolean {
    return this.#at === this.#end;
  }

  /** The next element's tag, or undefined at the end. */
  get tag(): number | undefined {
    return this.atEnd ? undefined : this.#bytes[this.#at];
  }

  /** The next element, of any tag unless one is given. */
  next(name: string, tag?: number): Der {
    if (this.atEnd) throw bad(this.#name, `ends before ${name}`);
    const element = elementAt(this.#bytes, { at: this.#at, limit: this.#end, depth: this.#depth }, name);
    if (tag !== undefined) expectTag(element, tag, name);
    this.#at = element.end;
    return element;
  }

  /** The next element if it has the tag; else undefined, and the cursor stays. */
  optional(name: string, tag: number): Der | undefined {
    return this.tag === tag ? this.next(name, tag) : undefined;
  }

  /** The children of the next element (SEQUENCE unless a tag is given). */
  enter(name: string, tag: number = TAG.sequence): DerCursor {
    return childrenOf(this.next(name, tag), name, tag);
  }

  end(): void {
    if (!this.atEnd) throw bad(this.#name, `has ${this.#end - this.#at} bytes it should not have`);
  }
}

/** Where an element is read: it starts at `at` and must end by `limit`. */
interface Place {
  readonly at: number;
  readonly limit: number;
  readonly depth: number;
}

/** The element at that place; octets from `limit` on are not read. */
function elementAt(bytes: Uint8Array, { at, limit, depth }: Place, name: string): Der {
  const tag = bytes[at];
  const first = bytes[at + 1];
  if (at + 2 > limit || tag === undefined || first === undefined) throw bad(name, 'is cut off in its header');
  if ((tag & 0x1f) === 0x1f) throw bad(name, 'has a high tag number');
  let start = at + 2;
  let length = first;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0) throw bad(name, 'has an indefinite length');
    if (count > 4) throw bad(name, `has a length of ${count} octets`);
    if (start + count > limit) throw bad(name, 'is cut off in its header');
    length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + (bytes[start + i] ?? 0);
    start += count;
    if (length < 0x80 || length < 256 ** (count - 1)) throw bad(name, 'has a length that is not minimal');
  }
  const end = start + length;
  if (end > limit) throw bad(name, `says ${length} bytes, ${limit - start} are left`);
  return new Der(tag, depth, bytes, { at, start, end });
}

function expectTag(element: Der, tag: number, name: string): void {
  if (element.tag !== tag) {
    throw malformed('malformed_der', `${name} has tag 0x${hex2(element.tag)}, expected 0x${hex2(tag)}`, {
      expected: `0x${hex2(tag)}`,
      actual: `0x${hex2(element.tag)}`,
    });
  }
}

function hex2(value: number): string {
  return value.toString(16).padStart(2, '0');
}

function bad(name: string, problem: string): AttestationError {
  return malformed('malformed_der', `${name} ${problem}`);
}

// Primitive values. Each checks its tag, so `readX(cursor.next('name'), 'name')` is complete.

/** Content octets of a minimal INTEGER, two's complement, big-endian, as they stand. */
export function readInteger(element: Der, name: string): Uint8Array {
  expectTag(element, TAG.integer, name);
  const { content } = element;
  const [first, second] = content;
  if (first === undefined) throw bad(name, 'is an INTEGER without content');
  if (second !== undefined && ((first === 0 && second < 0x80) || (first === 0xff && second >= 0x80))) {
    throw bad(name, 'is an INTEGER that is not minimal');
  }
  return content;
}

/** A non-negative INTEGER of at most `maxBytes` octets without its leading sign octet (`00` stays `00`). */
export function readUnsigned(element: Der, name: string, maxBytes = 20): Uint8Array {
  const content = readInteger(element, name);
  if ((content[0] ?? 0) >= 0x80) throw bad(name, 'is a negative INTEGER');
  const magnitude = content.length > 1 && content[0] === 0 ? content.subarray(1) : content;
  if (magnitude.length > maxBytes)
    throw bad(name, `is an INTEGER of ${magnitude.length} octets, at most ${maxBytes} are read`);
  return magnitude;
}

/** A small non-negative INTEGER, at most `max`. */
export function readSmall(element: Der, name: string, max = 0xffff_ffff): number {
  let value = 0;
  for (const octet of readUnsigned(element, name, 6)) value = value * 256 + octet;
  if (value > max) throw bad(name, `is ${value}, at most ${max} is allowed`);
  return value;
}

export function readBoolean(element: Der, name: string): boolean {
  expectTag(element, TAG.boolean, name);
  const [value] = element.content;
  if (element.content.length !== 1 || (value !== 0 && value !== 0xff))
    throw bad(name, 'is not a DER BOOLEAN');
  return value === 0xff;
}

export function readNull(element: Der, name: string): void {
  expectTag(element, TAG.null, name);
  if (element.content.length !== 0) throw bad(name, 'is a NULL with content');
}

export function readOctets(element: Der, name: string): Uint8Array {
  expectTag(element, TAG.octetString, name);
  return element.content;
}

/** A BIT STRING of whole octets. */
export function readBitOctets(element: Der, name: string): Uint8Array {
  const { bytes, unusedBits } = readBits(element, name);
  if (unusedBits !== 0) throw bad(name, `is a BIT STRING with ${unusedBits} unused bits`);
  return bytes;
}

/** A BIT STRING; bit 0 is the most significant bit of the first octet. Unused bits must be zero. */
export function readBits(
  element: Der,
  name: string,
): { readonly bytes: Uint8Array; readonly unusedBits: number } {
  expectTag(element, TAG.bitString, name);
  const unusedBits = element.content[0];
  const bytes = element.content.subarray(1);
  const last = bytes.at(-1);
  if (unusedBits === undefined || unusedBits > 7 || (unusedBits > 0 && last === undefined))
    throw bad(name, 'is not a BIT STRING');
  if (last !== undefined && (last & ((1 << unusedBits) - 1)) !== 0)
    throw bad(name, 'is a BIT STRING with non-zero unused bits');
  return { bytes, unusedBits };
}

/** Dotted decimal. Arcs are at most 2^53 - 1. */
export function readOid(element: Der, name: string): string {
  expectTag(element, TAG.oid, name);
  const { bytes, start, end } = element;
  if (start === end || end - start > MAX_OID_BYTES || (bytes[end - 1] ?? 0) >= 0x80)
    throw bad(name, 'is not an object identifier');
  let text = '';
  let arc = 0;
  let starting = true;
  for (let at = start; at < end; at++) {
    const octet = bytes[at] ?? 0;
    if (starting && octet === 0x80) throw bad(name, 'is an object identifier that is not minimal');
    if (arc > Number.MAX_SAFE_INTEGER / 128 - 1) throw bad(name, 'has an arc that is too large');
    arc = arc * 128 + (octet & 0x7f);
    starting = octet < 0x80;
    if (!starting) continue;
    if (text === '') {
      const root = Math.min(2, Math.floor(arc / 40));
      text = `${root}.${arc - 40 * root}`;
    } else text += `.${arc}`;
    arc = 0;
  }
  return text;
}

/** Whether the element is an OBJECT IDENTIFIER with exactly these content octets, compared undecoded. */
export function isOid(element: Der, content: Uint8Array): boolean {
  return element.tag === TAG.oid && equalBytes(element.content, content);
}

/** UTF8String, PrintableString or IA5String (or the one tag given) as text. */
export function readText(element: Der, name: string, tag?: number): string {
  if (tag !== undefined) expectTag(element, tag, name);
  switch (element.tag) {
    case TAG.utf8String:
      try {
        return fromUtf8(element.content, name);
      } catch {
        throw bad(name, 'is not valid utf-8');
      }
    case TAG.printableString:
    case TAG.ia5String:
      if (element.content.some((octet) => octet >= 0x80)) throw bad(name, 'has an octet outside ascii');
      if (element.content.length > MAX_TEXT_BYTES)
        throw bad(name, `is ${element.content.length} octets of text, at most ${MAX_TEXT_BYTES} are read`);
      return String.fromCharCode(...element.content);
    default:
      throw bad(name, `has tag 0x${hex2(element.tag)}, expected a string type`);
  }
}

/** UTCTime `YYMMDDHHMMSSZ` (1950–2049) or GeneralizedTime `YYYYMMDDHHMMSSZ` as in RFC 5280 §4.1.2.5. */
export function readTime(element: Der, name: string): Date {
  const { tag, content } = element;
  if (tag !== TAG.utcTime && tag !== TAG.generalizedTime)
    throw bad(name, `has tag 0x${hex2(tag)}, expected a time`);
  const yearDigits = tag === TAG.utcTime ? 2 : 4;
  if (content.length !== yearDigits + 11 || content.at(-1) !== 0x5a)
    throw bad(name, 'is not a time of seconds precision in UTC');
  const digits = (from: number, count: number): number => {
    let value = 0;
    for (let i = from; i < from + count; i++) {
      const digit = (content[i] ?? 0) - 0x30;
      if (digit < 0 || digit > 9) throw bad(name, 'has a character that is not a digit');
      value = value * 10 + digit;
    }
    return value;
  };
  const written = digits(0, yearDigits);
  const century = written >= 50 ? 1900 : 2000;
  const year = yearDigits === 4 ? written : century + written;
  const parts = [0, 2, 4, 6, 8].map((offset) => digits(yearDigits + offset, 2));
  const [month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts;
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  date.setUTCFullYear(year, month - 1, day);
  const same = date.getUTCMonth() === month - 1 && date.getUTCDate() === day && date.getUTCHours() === hour;
  if (!same || date.getUTCMinutes() !== minute || date.getUTCSeconds() !== second)
    throw bad(name, 'is not a date of the calendar');
  return date;
}

// Writer: minimal, definite, for the simulated hierarchies and tests.

/** One element with the tag and the concatenated parts as content. */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const content = concatBytes(...parts);
  const { length } = content;
  const header = [tag];
  if (length < 0x80) header.push(length);
  else if (length < 0x100) header.push(0x81, length);
  else if (length < 0x10000) header.push(0x82, length >> 8, length & 0xff);
  else header.push(0x83, length >> 16, (length >> 8) & 0xff, length & 0xff);
  return concatBytes(Uint8Array.from(header), content);
}

/** A minimal non-negative INTEGER, from a number, bigint or big-endian magnitude. */
export function encodeInteger(value: number | bigint | Uint8Array): Uint8Array {
  let magnitude: number[];
  if (value instanceof Uint8Array) magnitude = [...value];
  else {
    magnitude = [];
    for (let rest = BigInt(value); rest > 0n; rest >>= 8n) magnitude.unshift(Number(rest & 0xffn));
  }
  while (magnitude.length > 1 && magnitude[0] === 0) magnitude.shift();
  if (magnitude.length === 0 || (magnitude[0] ?? 0) >= 0x80) magnitude.unshift(0);
  return encodeDer(TAG.integer, Uint8Array.from(magnitude));
}

export function encodeOid(dotted: string): Uint8Array {
  const [root = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const octets: number[] = [];
  for (const arc of [root * 40 + second, ...rest]) {
    const group = [arc % 128];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      group.unshift((left % 128) | 0x80);
    octets.push(...group);
  }
  return encodeDer(TAG.oid, Uint8Array.from(octets));
}

export function encodeText(text: string, tag: number = TAG.utf8String): Uint8Array {
  return encodeDer(tag, new TextEncoder().encode(text));
}

export function encodeBits(bytes: Uint8Array, unusedBits = 0): Uint8Array {
  return encodeDer(TAG.bitString, Uint8Array.of(unusedBits), bytes);
}

/** UTCTime until 2049, GeneralizedTime after (RFC 5280 §4.1.2.5). Sub-second parts are dropped. */
export function encodeTime(date: Date): Uint8Array {
  const text = date.toISOString().replaceAll(/[-:T]/g, '').slice(0, 14);
  const short = date.getUTCFullYear() >= 1950 && date.getUTCFullYear() < 2050;
  return encodeText(`${short ? text.slice(2) : text}Z`, short ? TAG.utcTime : TAG.generalizedTime);
}

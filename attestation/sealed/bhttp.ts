// Binary HTTP (RFC 9292) as far as sealed bodies use it (docs/sealed.md §4, §5): heads of requests and
// responses, known or indeterminate length, no informational parts, no trailers. Strict and bounded: a head
// is read whole, its fields as the wire's, and every byte after it is content, an empty section or zero
// padding.

import { concatBytes } from '../encoding/bytes.ts';
import type { AttestationError } from '../transcript/errors.ts';
import { malformed } from '../transcript/errors.ts';
import { readVarint, writeVarint, writeVarint2 } from './varint.ts';

/** Name in lower case and value, a character a byte. */
export type HttpField = readonly [name: string, value: string];

/** Path and method of a request; its authority is not read, its scheme is https. */
export interface RequestHead {
  readonly method: string;
  readonly path: string;
  /** In their order; names in lower case. */
  readonly fields: readonly HttpField[];
}

/** Status and fields of a final response. */
export interface ResponseHead {
  readonly status: number;
  readonly fields: readonly HttpField[];
}

/** A head, and whether the content behind it says its length first. */
export interface DecodedHead<Head> {
  readonly head: Head;
  readonly indeterminate: boolean;
}

/** The head of a request, with its padding, has at most this many bytes. */
export const MAX_HEAD_BYTES = 12 * 1024;
/** It is filled to a multiple of this, or its size would tell the route. */
const HEAD_STEP = 1024;
const PAD = 'assay-pad';
const MAX_FIELDS = 100;

/** Framing indicators (RFC 9292 §3.3). */
const FRAMING = { knownRequest: 0, knownResponse: 1, openRequest: 2, openResponse: 3 } as const;

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;
/** Visible ASCII, obs-text, and blanks inside (RFC 9110 §5.5). */
const FIELD_VALUE = /^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/;
const PATH = /^\/[\x21\x22\x24-\x7e]*$/;

/** Fields that speak of a connection, or of addresses a sealed request does not have. */
const REFUSED: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'keep-alive',
  'te',
  'trailer',
  'expect',
  'transfer-encoding',
  'upgrade',
  'cookie',
  'forwarded',
  'x-real-ip',
]);

/** Whether a request may not have the field inside its sealed head. */
export function isRefusedInside(name: string): boolean {
  return REFUSED.has(name) || name.startsWith('x-forwarded-') || name.startsWith('proxy-');
}

/** Known length. Throws `sealed_malformed` for what `decodeRequestHead` would refuse. */
export function encodeRequestHead({ method, path, fields }: RequestHead): Uint8Array {
  const control = concatBytes(
    writeVarint(FRAMING.knownRequest),
    text(method),
    text('https'),
    text(''),
    text(path),
  );
  const lines = concatBytes(...fields.map(line));
  // The two lengths that depend on the padding always have two bytes.
  const padName = text(PAD);
  const bare = control.length + 2 + lines.length + padName.length + 2;
  const zeros = (HEAD_STEP - (bare % HEAD_STEP)) % HEAD_STEP;
  if (bare + zeros > MAX_HEAD_BYTES)
    throw wrong(`the head has ${bare} bytes, at most ${MAX_HEAD_BYTES} are sent`);
  const pad = concatBytes(padName, writeVarint2(zeros), new Uint8Array(zeros).fill(0x30));
  const bytes = concatBytes(control, writeVarint2(lines.length + pad.length), lines, pad);
  decodeRequestHead(bytes);
  return bytes;
}

/**
 * A head that fills `bytes`. Throws `sealed_malformed`; no byte of it is quoted.
 * @example const { head } = decodeRequestHead(bytes);
 */
export function decodeRequestHead(bytes: Uint8Array): DecodedHead<RequestHead> {
  if (bytes.length > MAX_HEAD_BYTES) throw wrong(`the head has ${bytes.length} bytes`);
  try {
    return readRequestHead(new Reader(bytes));
  } catch (error) {
    throw error === SHORT ? wrong('the head is cut') : error;
  }
}

function readRequestHead(reader: Reader): DecodedHead<RequestHead> {
  const framing = reader.varint();
  if (framing !== FRAMING.knownRequest && framing !== FRAMING.openRequest)
    throw wrong('the framing indicator is not one of a request');
  const method = reader.text();
  const scheme = reader.text();
  reader.text();
  const path = reader.text();
  const indeterminate = framing === FRAMING.openRequest;
  const fields = reader.fields(indeterminate);
  if (reader.left > 0) throw wrong('the head is not alone in its chunk');
  if (!TOKEN.test(method)) throw wrong('the method is no token');
  if (scheme !== 'https') throw wrong('the scheme is not https');
  if (!PATH.test(path)) throw wrong('the path is no absolute path without fragment');
  const names = new Set<string>();
  for (const [name] of fields) {
    if (isRefusedInside(name)) throw wrong('there is a field that a sealed request cannot have');
    if (names.has(name)) throw wrong('a field is there twice');
    names.add(name);
  }
  for (const [name, value] of fields)
    if (name === PAD && !/^0*$/.test(value)) throw wrong(`${PAD} is not zeros`);
  return { head: { method, path, fields: fields.filter(([name]) => name !== PAD) }, indeterminate };
}

/**
 * Indeterminate length. Throws `sealed_malformed` for a field that could not be read again.
 * @example const head = encodeResponseHead({ status: 204, fields: [] });
 */
export function encodeResponseHead({ status, fields }: ResponseHead): Uint8Array {
  return concatBytes(
    writeVarint(FRAMING.openResponse),
    writeVarint(status),
    ...fields.map(line),
    writeVarint(0),
  );
}

/** The head at the beginning of `bytes` and the offset behind it; undefined when more bytes are needed. */
export function decodeResponseHead(
  bytes: Uint8Array,
): (DecodedHead<ResponseHead> & { readonly next: number }) | undefined {
  const reader = new Reader(bytes);
  try {
    const framing = reader.varint();
    if (framing !== FRAMING.knownResponse && framing !== FRAMING.openResponse)
      throw wrong('the framing indicator is not one of a response');
    const status = reader.varint();
    if (status < 200 || status > 599) throw wrong('the status is none of a final response');
    const indeterminate = framing === FRAMING.openResponse;
    return { head: { status, fields: reader.fields(indeterminate) }, indeterminate, next: reader.at };
  } catch (error) {
    if (error === SHORT) return undefined;
    throw error;
  }
}

/** Thrown inside this file alone: the bytes end before the item does. */
const SHORT = new RangeError('more bytes are needed');

class Reader {
  at = 0;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  varint(): number {
    const read = readVarint(this.#bytes, this.at);
    if (read === undefined) throw SHORT;
    this.at = read.next;
    return read.value;
  }

  text(): string {
    const length = this.varint();
    if (length > MAX_TEXT_BYTES) throw wrong('a text of a head is too long');
    if (length > this.left) throw SHORT;
    const bytes = this.#bytes.subarray(this.at, this.at + length);
    this.at += length;
    return fromLatin1(bytes);
  }

  fields(indeterminate: boolean): HttpField[] {
    const fields: HttpField[] = [];
    const length = indeterminate ? undefined : this.varint();
    if (length !== undefined && length > this.left) throw SHORT;
    const end = length === undefined ? undefined : this.at + length;
    while (end === undefined || this.at < end) {
      const name = this.text();
      if (end === undefined && name === '') return fields;
      const value = this.text();
      if (!FIELD_NAME.test(name)) throw wrong('the name of a field is no token in lower case');
      if (!FIELD_VALUE.test(value)) throw wrong('the value of a field has a byte no value may have');
      if (fields.push([name, value]) > MAX_FIELDS) throw wrong(`there are more than ${MAX_FIELDS} fields`);
    }
    if (this.at !== end) throw wrong('a field reaches beyond its section');
    return fields;
  }
}

const MAX_TEXT_BYTES = 64 * 1024;

/**
 * The bytes behind a head, in any pieces: content, then an empty trailer section, then zeros. A message may
 * end where only empty sections are left (RFC 9292 §3.8).
 */
export class ContentReader {
  readonly #indeterminate: boolean;
  #state: 'length' | 'content' | 'trailers' | 'padding' = 'length';
  #left = 0;
  /** Bytes of a length that is not whole. */
  #held = new Uint8Array(0);
  #begun = false;

  constructor(indeterminate: boolean) {
    this.#indeterminate = indeterminate;
  }

  /** The content has ended. */
  get ended(): boolean {
    return this.#state === 'trailers' || this.#state === 'padding';
  }

  /** The pieces of content in `bytes`, as views of it. Throws `sealed_malformed`. */
  push(bytes: Uint8Array): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    let rest = this.#held.length === 0 ? bytes : concatBytes(this.#held, bytes);
    this.#held = new Uint8Array(0);
    while (rest.length > 0) {
      if (this.#state === 'content') {
        const taken = Math.min(this.#left, rest.length);
        pieces.push(rest.subarray(0, taken));
        rest = rest.subarray(taken);
        this.#left -= taken;
        if (this.#left === 0) this.#state = this.#indeterminate ? 'length' : 'trailers';
      } else if (this.#state === 'padding') {
        if (rest.some((byte) => byte !== 0)) throw wrong('the padding is not zeros');
        break;
      } else {
        const read = readVarint(rest, 0);
        if (read === undefined) {
          this.#held = rest.slice();
          break;
        }
        rest = rest.subarray(read.next);
        this.#length(read.value);
      }
    }
    return pieces;
  }

  #length(value: number): void {
    if (this.#state === 'trailers') {
      if (value !== 0) throw wrong('there are trailers');
      this.#state = 'padding';
      return;
    }
    this.#begun = true;
    this.#left = value;
    if (value > 0) this.#state = 'content';
    else this.#state = 'trailers';
  }

  /** Throws `sealed_malformed` when the message has ended too early. */
  end(): void {
    const nothing = this.#state === 'length' && !this.#begun;
    if (this.#held.length > 0 || !(nothing || this.ended)) throw wrong('the message ends inside its content');
  }
}

function text(value: string): Uint8Array {
  const bytes = latin1(value);
  return concatBytes(writeVarint(bytes.length), bytes);
}

function line([name, value]: HttpField): Uint8Array {
  if (!FIELD_NAME.test(name) || !FIELD_VALUE.test(value)) throw wrong('a field cannot be written');
  return concatBytes(text(name), text(value));
}

/** Fields are bytes; like `fetch` and Node, text is one byte a character. */
function latin1(value: string): Uint8Array {
  const bytes = new Uint8Array(value.length);
  for (let i = 0; i < value.length; i++) {
    const code = value.charCodeAt(i);
    if (code > 255) throw wrong('a head has a character beyond latin1');
    bytes[i] = code;
  }
  return bytes;
}

/** Arguments of one call: many more overflow the stack of some engines. */
const CODES_AT_ONCE = 4096;

function fromLatin1(bytes: Uint8Array): string {
  let value = '';
  for (let at = 0; at < bytes.length; at += CODES_AT_ONCE)
    value += String.fromCharCode(...bytes.subarray(at, at + CODES_AT_ONCE));
  return value;
}

function wrong(what: string): AttestationError {
  return malformed('sealed_malformed', what);
}

// A stream of server-sent events (WHATWG HTML §9.2) cut into its blocks, each with the bytes it came as, so
// that a stream can be checked and handed on unchanged. Refused, because readers could see another stream: an
// event of several data lines, a second event line, `id:`, `retry:` and any other field.

import { concatBytes } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { recordOf } from './check.ts';

/** Most bytes of one event. */
export const MAX_EVENT_BYTES = 64 * 1024 * 1024;

export type StreamBlock =
  | { readonly kind: 'event'; readonly name: string; readonly data: string; readonly bytes: Uint8Array }
  /** A comment that is not of this protocol, or an empty block. */
  | { readonly kind: 'other'; readonly bytes: Uint8Array }
  /** `: assay-…`: its words, without the padding. */
  | { readonly kind: 'assay'; readonly words: readonly string[] };

const LF = 10;
const CR = 13;
const OURS = ': assay-';

/** Fed with bytes as they come, in pieces of any size. @throws AttestationError receipt_transcript */
export class EventSplitter {
  #parts: Uint8Array[] = [];
  #bytes = 0;
  /** The line so far is empty. */
  #blank = true;
  /** The byte before was a carriage return, which a line feed may complete. */
  #afterCr = false;
  #open = true;
  #taken = 0;

  /** Bytes of all blocks so far that were whole. */
  get taken(): number {
    return this.#taken;
  }

  /** Bytes of a block that is not whole. */
  get heldBytes(): number {
    return this.#bytes;
  }

  /** The blocks that are whole. */
  push(bytes: Uint8Array): readonly StreamBlock[] {
    const blocks: StreamBlock[] = [];
    let from = 0;
    const cut = (to: number): void => {
      if (to > from) this.#keep(bytes.subarray(from, to));
      from = to;
      blocks.push(this.#take());
    };
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (this.#afterCr) {
        this.#afterCr = false;
        // A block that ended with a carriage return waits for its line feed.
        if (byte === LF) {
          if (!this.#open) cut(i + 1);
          continue;
        }
        if (!this.#open) cut(i);
      }
      if (byte !== LF && byte !== CR) {
        this.#blank = false;
        continue;
      }
      this.#open = !this.#blank;
      this.#blank = true;
      if (byte === CR) this.#afterCr = true;
      else if (!this.#open) cut(i + 1);
    }
    if (from < bytes.length) this.#keep(bytes.slice(from));
    return blocks;
  }

  /** The block that a carriage return ended; bytes of a block without its end are lost. */
  end(): { readonly blocks: readonly StreamBlock[]; readonly whole: boolean } {
    if (this.#afterCr && !this.#open) return { blocks: [this.#take()], whole: true };
    return { blocks: [], whole: this.#bytes === 0 };
  }

  #keep(part: Uint8Array): void {
    this.#bytes += part.length;
    if (this.#bytes > MAX_EVENT_BYTES)
      throw malformed('receipt_transcript', `an event of the stream is over ${MAX_EVENT_BYTES} bytes`);
    this.#parts.push(part);
  }

  #take(): StreamBlock {
    const [only] = this.#parts;
    const bytes = this.#parts.length === 1 && only !== undefined ? only : concatBytes(...this.#parts);
    this.#parts = [];
    this.#taken += this.#bytes;
    this.#bytes = 0;
    this.#open = true;
    this.#blank = true;
    return blockOf(bytes);
  }
}

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function blockOf(bytes: Uint8Array): StreamBlock {
  const lines = textOf(bytes).split(/\r\n|\n|\r/);
  let name: string | undefined;
  let data: string | undefined;
  let ours: string | undefined;
  let others = 0;
  for (const line of lines) {
    if (line === '') continue;
    if (line.startsWith(OURS)) {
      if (ours !== undefined) throw refusedEvent('two comments of receipts in one block');
      ours = line;
      continue;
    }
    others += 1;
    if (line.startsWith(':')) continue;
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + (line[colon + 1] === ' ' ? 2 : 1));
    if (field === 'data' && data === undefined) data = value;
    else if (field === 'event' && name === undefined) name = value;
    else throw refusedEvent('an event with a second line of data or name, or with another field');
  }
  if (ours !== undefined) {
    if (others > 0) throw refusedEvent('a comment of receipts inside an event');
    return { kind: 'assay', words: ours.slice(2).trimEnd().split(' ') };
  }
  if (data === undefined && name !== undefined) throw refusedEvent('an event without data');
  return data === undefined ? { kind: 'other', bytes } : { kind: 'event', name: name ?? '', data, bytes };
}

function textOf(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes);
  } catch {
    throw refusedEvent('bytes that are not utf-8');
  }
}

function refusedEvent(what: string): Error {
  return malformed('receipt_transcript', `the stream has ${what}`);
}

/**
 * The part that an event plays in the end of its stream (docs/receipts.md §3). Readers differ: some go by the
 * name of an event, some by the type in its data, some by how the data begins. An event that one of them
 * takes for an end and another for a part, or that says more than an end has to say, could show an end that
 * no receipt covers, or text behind the last receipt.
 */
export type EventRole =
  | { readonly kind: 'part' }
  /** The last of Responses, covered by the receipt behind it. */
  | { readonly kind: 'covered'; readonly failed: boolean }
  /** The one event that may follow the last receipt; the code of an error, undefined of any other end. */
  | { readonly kind: 'last'; readonly errorCode: string | undefined }
  /** An end for one reader only, or with more in it than an end. */
  | { readonly kind: 'doubtful' };

const PART: EventRole = { kind: 'part' };
const DOUBTFUL: EventRole = { kind: 'doubtful' };
const DONE = '[DONE]';
const RESPONSES_ENDS = new Set(['response.completed', 'response.incomplete', 'response.failed']);
/** The filler of a padded event stands beside its type. */
const STOP_KEYS = new Set(['type', 'obfuscation']);

export function roleOf(name: string, data: string): EventRole {
  if (data.startsWith(DONE))
    return data === DONE && name === '' ? { kind: 'last', errorCode: undefined } : DOUBTFUL;
  const json = recordOf(jsonOf(data));
  const type = typeof json?.['type'] === 'string' ? json['type'] : '';
  if (RESPONSES_ENDS.has(name) || RESPONSES_ENDS.has(type))
    return name === type ? { kind: 'covered', failed: name === 'response.failed' } : DOUBTFUL;
  const keys = Object.keys(json ?? {});
  if (name === 'message_stop' || type === 'message_stop') {
    const bare = name === type && keys.every((key) => STOP_KEYS.has(key) && typeof json?.[key] === 'string');
    return bare ? { kind: 'last', errorCode: undefined } : DOUBTFUL;
  }
  const error = recordOf(json?.['error']);
  if (name !== 'error' && type !== 'error' && error === undefined) return PART;
  const whole = name === '' ? keys.length === 1 : name === 'error' && type === 'error';
  return whole && error !== undefined ? { kind: 'last', errorCode: codeOf(error) } : DOUBTFUL;
}

/** In the words of either API. */
function codeOf(error: Readonly<Record<string, unknown>>): string {
  const code = error['code'] ?? recordOf(error['details'])?.['error_code'];
  return typeof code === 'string' ? code : '';
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

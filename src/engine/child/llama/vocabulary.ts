// A model's vocabulary: text to tokens and back. Special (control) tokens are never matched in text here
// unless the caller says so; engine/child/template decides where they may appear. Refuses: input longer than
// MAX_TEXT_BYTES, token ids outside the vocabulary.

import type { LlamaLibrary, Pointer } from './declarations.ts';
import { cutRuns } from './long-runs.ts';

export const MAX_TEXT_BYTES = 8 * 1024 * 1024;

const CONTROL_ATTR = 1 << 3;
const UNKNOWN_ATTR = 1 << 0;
const USER_DEFINED_ATTR = 1 << 4;
const LSTRIP_ATTR = 1 << 7;
const RSTRIP_ATTR = 1 << 8;

export interface SpecialToken {
  readonly token: number;
  readonly text: string;
  readonly control: boolean;
  /** The token swallows white space before / after it. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

export class Vocabulary {
  readonly handle: Pointer;
  readonly size: number;
  readonly #llama: LlamaLibrary;
  readonly #splits: boolean;
  readonly #scratch = new Uint8Array(1024);
  readonly #pieces = new Map<number, Uint8Array>();
  #longest = 0;

  /** `splits`: its tokenizer splits text by regular expressions (cutRuns says why that matters). */
  constructor(llama: LlamaLibrary, handle: Pointer, splits: boolean) {
    this.#llama = llama;
    this.handle = handle;
    this.size = llama.llama_vocab_n_tokens(handle);
    this.#splits = splits;
  }

  /** Bytes of one token; control tokens are empty unless `special`. */
  piece(token: number, special: boolean): Uint8Array {
    if (!Number.isInteger(token) || token < 0 || token >= this.size)
      throw new RangeError(`token ${token} is outside the vocabulary of ${this.size}`);
    const key = special ? token + this.size : token;
    const known = this.#pieces.get(key);
    if (known !== undefined) return known;
    const read = (into: Uint8Array): number =>
      this.#llama.llama_token_to_piece(this.handle, token, into, into.length, 0, special);
    let buffer = this.#scratch;
    let length = read(buffer);
    if (length < 0) {
      buffer = new Uint8Array(-length);
      length = read(buffer);
    }
    const bytes = buffer.slice(0, Math.max(length, 0));
    this.#pieces.set(key, bytes);
    return bytes;
  }

  /**
   * The text of all bytes of the tokens, special tokens as they are written. Not llama_detokenize: that
   * tidies blanks, and a text cut at token boundaries could not be joined again.
   */
  detokenize(tokens: readonly number[]): string {
    const bytes = Buffer.concat(tokens.map((token) => this.piece(token, true)));
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
  }

  tokenize(text: string, addSpecial: boolean, parseSpecial: boolean): number[] {
    const length = Buffer.byteLength(text);
    if (length > MAX_TEXT_BYTES)
      throw new RangeError(`text of ${length} bytes is over the limit of ${MAX_TEXT_BYTES}`);
    const pieces = this.#splits ? cutRuns(text) : [text];
    if (pieces.length === 1) return this.#tokenizeRun(text, addSpecial, parseSpecial);
    const tokens = pieces.map((piece) => this.#tokenizeRun(piece, false, parseSpecial));
    if (!addSpecial) return tokens.flat();
    // The texts before and after the whole, as they stand around one character.
    const plain = this.#tokenizeRun('a', false, false);
    const framed = this.#tokenizeRun('a', true, false);
    const before = framed.findIndex((token) => token === plain[0]);
    return [framed.slice(0, before), ...tokens, framed.slice(before + plain.length)].flat();
  }

  /** Bytes of the longest token. */
  longestPiece(): number {
    if (this.#longest > 0) return this.#longest;
    this.#longest = 1;
    for (let token = 0; token < this.size; token += 1) {
      const text = this.#llama.llama_vocab_get_text(this.handle, token) ?? '';
      this.#longest = Math.max(this.#longest, Buffer.byteLength(text));
    }
    return this.#longest;
  }

  /** All tokens that stand for themselves in a template: control, unknown and user-defined ones. */
  specials(): SpecialToken[] {
    return findSpecials(this.#llama, this.handle, this.size);
  }

  #tokenizeRun(text: string, addSpecial: boolean, parseSpecial: boolean): number[] {
    const bytes = new TextEncoder().encode(text);
    const read = (into: Int32Array): number =>
      this.#llama.llama_tokenize(
        this.handle,
        bytes,
        bytes.length,
        into,
        into.length,
        addSpecial,
        parseSpecial,
      );
    let tokens = new Int32Array(bytes.length + 4);
    let count = read(tokens);
    if (count === -2147483648) throw new RangeError('text cannot be tokenized');
    if (count < 0) {
      tokens = new Int32Array(-count);
      count = read(tokens);
    }
    if (count < 0) throw new RangeError('text cannot be tokenized');
    return Array.from(tokens.subarray(0, count));
  }
}

function findSpecials(llama: LlamaLibrary, vocab: Pointer, vocabSize: number): SpecialToken[] {
  const specials: SpecialToken[] = [];
  for (let token = 0; token < vocabSize; token += 1) {
    const attr = llama.llama_vocab_get_attr(vocab, token);
    if ((attr & (CONTROL_ATTR | UNKNOWN_ATTR | USER_DEFINED_ATTR)) === 0) continue;
    const text = llama.llama_vocab_get_text(vocab, token);
    if (text === null || text === '') continue;
    specials.push({
      token,
      text,
      control: (attr & (CONTROL_ATTR | UNKNOWN_ATTR)) !== 0,
      lstrip: (attr & LSTRIP_ATTR) !== 0,
      rstrip: (attr & RSTRIP_ATTR) !== 0,
    });
  }
  return specials;
}

// A loaded model and its vocabulary: load from an open file, tokenize, pieces, metadata. Special (control) tokens are never
// matched in text here unless the caller says so; engine/child/template decides where they may appear.
// Refuses: input longer than `maxTextBytes`, token ids outside the vocabulary, metadata longer than a caller's cap.

import { cutRuns } from './long-runs.ts';
import {
  closeStream,
  libcSymbol,
  openStream,
  progressCallback,
  type LlamaLibrary,
  type Pointer,
} from './library.ts';

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

export interface LoadedModel {
  readonly handle: Pointer;
  readonly vocab: Pointer;
  readonly architecture: string;
  readonly vocabSize: number;
  readonly trainedContext: number;
  /** Bytes of all tensors. */
  readonly size: number;
  readonly layers: number;
  readonly embeddingSize: number;
  readonly classOutputs: number;
  readonly hasEncoder: boolean;
  readonly hasDecoder: boolean;
  /** Recurrent and hybrid models cannot drop the tail of a sequence, so no prefix is reused. */
  readonly recurrent: boolean;
  readonly bos: number | null;
  readonly eos: number | null;
  readonly sep: number | null;
  readonly addBos: boolean;
  readonly addEos: boolean;
  readonly addSep: boolean;
  readonly fim: { readonly pre: number; readonly suf: number; readonly mid: number } | null;
  readonly chatTemplate: string | null;
  /** A second template some models bring for requests with tools. */
  readonly toolTemplate: string | null;
  readonly rerankTemplate: string | null;
  readonly specials: readonly SpecialToken[];
  meta(key: string): string | null;
  /** Bytes of the longest token: a text of n bytes has at least n ÷ this many. Not for WordPiece, whose [UNK] takes any word. */
  longestPiece(): number;
  isEnd(token: number): boolean;
  tokenize(text: string, addSpecial: boolean, parseSpecial: boolean): number[];
  /** Bytes of one token; control tokens are empty unless `special`. */
  piece(token: number, special: boolean): Uint8Array;
  /** The text of all their bytes, special tokens as they are written. */
  detokenize(tokens: readonly number[]): string;
}

export class ModelLoadError extends Error {
  override readonly name = 'ModelLoadError';
}

/** The model's file, to be opened while this process may still open files. */
export function openModelFile(path: string): Pointer {
  return openStream(path) ?? fail('the model file cannot be opened');
}

/** Loads weights by mmap on a thread of its own and closes the file; opens none. `onProgress` runs on this one. */
export async function loadModel(
  llama: LlamaLibrary,
  file: Pointer,
  onProgress: (fraction: number) => void,
): Promise<LoadedModel> {
  const params = llama.llama_model_default_params();
  params.n_gpu_layers = 0;
  params.load_mode = 1; // mmap
  params.progress_callback = progressCallback((fraction) => {
    onProgress(fraction);
    return true;
  });
  const handle = await new Promise<Pointer | null>((resolve, reject) => {
    llama.llama_model_load_from_file_ptr.async(file, params, (error, result) =>
      error === null ? resolve(result) : reject(error),
    );
  });
  closeStream(file);
  if (handle === null) return fail('the model cannot be loaded');
  // From here on llama.cpp must not write: what it logs while generating could hold text of a grammar or a prompt.
  llama.llama_log_set(libcSymbol('abs'), null);
  return describe(llama, handle);
}

function fail(message: string): never {
  throw new ModelLoadError(message);
}

function describe(llama: LlamaLibrary, handle: Pointer): LoadedModel {
  const vocab = llama.llama_model_get_vocab(handle);
  const vocabSize = llama.llama_vocab_n_tokens(vocab);
  const optional = (token: number): number | null => (token >= 0 && token < vocabSize ? token : null);
  const scratch = new Uint8Array(1024);
  const pieces = new Map<number, Uint8Array>();

  const piece = (token: number, special: boolean): Uint8Array => {
    if (!Number.isInteger(token) || token < 0 || token >= vocabSize)
      throw new RangeError(`token ${token} is outside the vocabulary of ${vocabSize}`);
    const key = special ? token + vocabSize : token;
    const known = pieces.get(key);
    if (known !== undefined) return known;
    let buffer = scratch;
    let length = llama.llama_token_to_piece(vocab, token, buffer, buffer.length, 0, special);
    if (length < 0) {
      buffer = new Uint8Array(-length);
      length = llama.llama_token_to_piece(vocab, token, buffer, buffer.length, 0, special);
    }
    const bytes = buffer.slice(0, Math.max(length, 0));
    pieces.set(key, bytes);
    return bytes;
  };

  const meta = (key: string): string | null => {
    let buffer = new Uint8Array(4096);
    let length = llama.llama_model_meta_val_str(handle, key, buffer, buffer.length);
    if (length >= buffer.length && length < MAX_TEXT_BYTES) {
      buffer = new Uint8Array(length + 1);
      length = llama.llama_model_meta_val_str(handle, key, buffer, buffer.length);
    }
    return length < 0 || length >= buffer.length
      ? null
      : new TextDecoder().decode(buffer.subarray(0, length));
  };

  const tokenizePiece = (bytes: Uint8Array, addSpecial: boolean, parseSpecial: boolean): number[] => {
    let tokens = new Int32Array(bytes.length + 4);
    let count = llama.llama_tokenize(
      vocab,
      bytes,
      bytes.length,
      tokens,
      tokens.length,
      addSpecial,
      parseSpecial,
    );
    if (count === -2147483648) throw new RangeError('text cannot be tokenized');
    if (count < 0) {
      tokens = new Int32Array(-count);
      count = llama.llama_tokenize(
        vocab,
        bytes,
        bytes.length,
        tokens,
        tokens.length,
        addSpecial,
        parseSpecial,
      );
    }
    if (count < 0) throw new RangeError('text cannot be tokenized');
    return Array.from(tokens.subarray(0, count));
  };
  // Only this kind of tokenizer splits by regular expressions (cutRuns says why that matters).
  const splits = meta('tokenizer.ggml.model') === 'gpt2';
  const tokenize = (text: string, addSpecial: boolean, parseSpecial: boolean): number[] => {
    const length = Buffer.byteLength(text);
    if (length > MAX_TEXT_BYTES)
      throw new RangeError(`text of ${length} bytes is over the limit of ${MAX_TEXT_BYTES}`);
    const encode = (piece: string): Uint8Array => new TextEncoder().encode(piece);
    const pieces = splits ? cutRuns(text) : [text];
    if (pieces.length === 1) return tokenizePiece(encode(text), addSpecial, parseSpecial);
    const tokens = pieces.map((piece) => tokenizePiece(encode(piece), false, parseSpecial));
    if (!addSpecial) return tokens.flat();
    // What belongs before and after the whole, as it stands around one character.
    const [plain, framed] = [false, true].map((special) => tokenizePiece(encode('a'), special, false)) as [
      number[],
      number[],
    ];
    const before = framed.findIndex((token) => token === plain[0]);
    return [framed.slice(0, before), ...tokens, framed.slice(before + plain.length)].flat();
  };

  // Not llama_detokenize: that tidies blanks, and whoever cut a text by its tokens could not put it together again.
  const detokenize = (tokens: readonly number[]): string =>
    new TextDecoder('utf-8', { ignoreBOM: true }).decode(
      Buffer.concat(tokens.map((token) => piece(token, true))),
    );

  let longest = 0;
  const longestPiece = (): number => {
    if (longest > 0) return longest;
    longest = 1;
    for (let token = 0; token < vocabSize; token += 1) {
      longest = Math.max(longest, Buffer.byteLength(llama.llama_vocab_get_text(vocab, token) ?? ''));
    }
    return longest;
  };

  const fim = {
    pre: llama.llama_vocab_fim_pre(vocab),
    suf: llama.llama_vocab_fim_suf(vocab),
    mid: llama.llama_vocab_fim_mid(vocab),
  };
  return {
    handle,
    vocab,
    architecture: meta('general.architecture') ?? 'unknown',
    vocabSize,
    trainedContext: llama.llama_model_n_ctx_train(handle),
    size: llama.llama_model_size(handle),
    layers: llama.llama_model_n_layer(handle),
    embeddingSize: llama.llama_model_n_embd_out(handle),
    classOutputs: llama.llama_model_n_cls_out(handle),
    hasEncoder: llama.llama_model_has_encoder(handle),
    hasDecoder: llama.llama_model_has_decoder(handle),
    recurrent: llama.llama_model_is_recurrent(handle) || llama.llama_model_is_hybrid(handle),
    bos: optional(llama.llama_vocab_bos(vocab)),
    eos: optional(llama.llama_vocab_eos(vocab)),
    sep: optional(llama.llama_vocab_sep(vocab)),
    addBos: llama.llama_vocab_get_add_bos(vocab),
    addEos: llama.llama_vocab_get_add_eos(vocab),
    addSep: llama.llama_vocab_get_add_sep(vocab),
    fim: fim.pre >= 0 && fim.suf >= 0 && fim.mid >= 0 ? fim : null,
    chatTemplate: llama.llama_model_chat_template(handle, null),
    toolTemplate: llama.llama_model_chat_template(handle, 'tool_use'),
    rerankTemplate: llama.llama_model_chat_template(handle, 'rerank'),
    specials: findSpecials(llama, vocab, vocabSize),
    meta,
    longestPiece,
    isEnd: (token) => llama.llama_vocab_is_eog(vocab, token),
    tokenize,
    piece,
    detokenize,
  };
}

/** All tokens that stand for themselves in a template: control, unknown and user-defined ones. */
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

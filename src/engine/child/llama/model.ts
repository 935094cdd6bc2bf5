// A loaded model: load from an open file, metadata, and its vocabulary.
// Refuses: metadata longer than a caller's cap.

import type { LlamaLibrary, Pointer } from './declarations.ts';
import { closeStream, libcSymbol, openFileStream, progressCallback } from './library.ts';
import { MAX_TEXT_BYTES, Vocabulary, type SpecialToken } from './vocabulary.ts';

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
  /** Numbers of a vector in the place of a token. */
  readonly inputSize: number;
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
  /** A second template that some models have for requests with tools. */
  readonly toolTemplate: string | null;
  readonly rerankTemplate: string | null;
  readonly specials: readonly SpecialToken[];
  meta(key: string): string | null;
  /**
   * Bytes of the longest token: a text of n bytes has at least n ÷ this many. Not for WordPiece,
   * whose [UNK] takes any word.
   */
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
  return openFileStream(path) ?? fail('the model file cannot be opened');
}

/**
 * Loads weights by mmap on a thread of its own and closes the file; opens none.
 * `onProgress` runs on this one.
 */
export async function loadLlamaModel(
  llama: LlamaLibrary,
  file: Pointer,
  onProgress: (fraction: number) => void,
  gpuLayers = 0,
): Promise<LoadedModel> {
  const params = llama.llama_model_default_params();
  params.n_gpu_layers = gpuLayers;
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
  // From here on llama.cpp must not log: its log while generating could hold text of a grammar or a prompt.
  llama.llama_log_set(libcSymbol('abs'), null);
  return describe(llama, handle);
}

function fail(message: string): never {
  throw new ModelLoadError(message);
}

function describe(llama: LlamaLibrary, handle: Pointer): LoadedModel {
  const meta = metadataOf(llama, handle);
  const vocab = llama.llama_model_get_vocab(handle);
  const vocabulary = new Vocabulary(llama, vocab, meta('tokenizer.ggml.model') === 'gpt2');
  const vocabSize = vocabulary.size;
  const optional = (token: number): number | null => (token >= 0 && token < vocabSize ? token : null);
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
    inputSize: llama.llama_model_n_embd_inp(handle),
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
    specials: vocabulary.specials(),
    meta,
    longestPiece: () => vocabulary.longestPiece(),
    isEnd: (token) => llama.llama_vocab_is_eog(vocab, token),
    tokenize: (text, addSpecial, parseSpecial) => vocabulary.tokenize(text, addSpecial, parseSpecial),
    piece: (token, special) => vocabulary.piece(token, special),
    detokenize: (tokens) => vocabulary.detokenize(tokens),
  };
}

/** A value of the model file by its key; null when it is absent or longer than the cap. */
function metadataOf(llama: LlamaLibrary, handle: Pointer): (key: string) => string | null {
  return (key) => {
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
}

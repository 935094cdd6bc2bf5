// A GBNF grammar running inside llama.cpp. Given candidate tokens, it says which may come next;
// only tokens it allowed may be accepted, because libllama aborts the process otherwise. Grammars
// come from grammar/compile, which bounds their depth and size: a deeply nested one overflows
// llama.cpp's stack. Refuses: text over `maxGrammarBytes` or nested deeper than `maxGrammarDepth`,
// and whatever libllama cannot parse.

import type { LlamaLibrary, Pointer } from './declarations.ts';
import { nativeAlloc } from './library.ts';
import type { LoadedModel } from './model.ts';

export const MAX_GRAMMAR_BYTES = 512 * 1024;
export const MAX_GRAMMAR_DEPTH = 64;

export interface Grammar {
  allows(tokens: readonly number[]): boolean[];
  accept(token: number): void;
  free(): void;
}

export class GrammarError extends Error {
  override readonly name = 'GrammarError';
}

/**
 * Gives a function that starts a fresh run of a grammar. Runs of one model share a native scratch
 * array: not for two threads.
 */
export function grammarFactory(llama: LlamaLibrary, model: LoadedModel): (gbnf: string) => Grammar {
  // llama_token_data { id, logit, p } × vocabulary, and the llama_token_data_array { data, size,
  // selected, sorted } over it.
  const data = nativeAlloc(model.vocabSize * 12);
  const array = nativeAlloc(32);
  const ids = new Int32Array(data.memory);
  const logits = new Float32Array(data.memory);
  const header = new BigInt64Array(array.memory);

  return (gbnf) => {
    assertBounded(gbnf);
    const created = llama.llama_sampler_init_grammar(model.vocab, gbnf, 'root');
    if (created === null) throw new GrammarError('the grammar cannot be parsed');
    let handle: Pointer | null = created;
    const live = (): Pointer => {
      if (handle === null) throw new GrammarError('the grammar was freed');
      return handle;
    };
    return {
      allows(tokens) {
        const allowed: boolean[] = [];
        for (let start = 0; start < tokens.length; start += model.vocabSize) {
          const count = Math.min(tokens.length - start, model.vocabSize);
          for (let i = 0; i < count; i += 1) {
            ids[i * 3] = tokens[start + i]!;
            logits[i * 3 + 1] = 0;
            logits[i * 3 + 2] = 0;
          }
          header[0] = data.pointer;
          header[1] = BigInt(count);
          header[2] = -1n;
          header[3] = 0n;
          llama.llama_sampler_apply(live(), array.pointer);
          for (let i = 0; i < count; i += 1) allowed.push(logits[i * 3 + 1] !== -Infinity);
        }
        return allowed;
      },
      accept: (token) => llama.llama_sampler_accept(live(), token),
      free() {
        if (handle !== null) llama.llama_sampler_free(handle);
        handle = null;
      },
    };
  };
}

/** libllama parses and steps grammars recursively; this keeps its stack shallow for any text. */
function assertBounded(gbnf: string): void {
  if (gbnf.length > MAX_GRAMMAR_BYTES)
    throw new GrammarError(`the grammar is ${gbnf.length} characters, the limit is ${MAX_GRAMMAR_BYTES}`);
  let depth = 0;
  let quote = '';
  for (let i = 0; i < gbnf.length; i += 1) {
    const c = gbnf[i];
    if (c === '\0') throw new GrammarError('the grammar holds a NUL character');
    if (quote !== '') {
      if (c === '\\') i += 1;
      else if (c === quote) quote = '';
    } else if (c === '"') quote = '"';
    else if (c === '[') quote = ']';
    else if (c === '#') while (i + 1 < gbnf.length && gbnf[i + 1] !== '\n') i += 1;
    else if (c === '(') {
      depth += 1;
      if (depth > MAX_GRAMMAR_DEPTH)
        throw new GrammarError(`the grammar nests deeper than ${MAX_GRAMMAR_DEPTH}`);
    } else if (c === ')') depth -= 1;
  }
}

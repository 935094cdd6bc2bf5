// One completion being written: picks tokens, applies the grammar, assembles text up to stop strings, collects logprobs and
// says when it is finished. It never touches the KV memory; the scheduler hands it logits and feeds its tokens back.
import type { Constraint } from './constraint.ts';
import type { GenerateEvent, TokenLogprob } from './engine.ts';
import { logprobs, type Sampler } from './sampler.ts';
import { createTextStream } from './text-stream.ts';

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

export interface ChoiceOptions {
  readonly index: number;
  readonly sampler: Sampler;
  readonly constraint: Constraint | null;
  readonly stop: readonly string[];
  readonly logprobs: number | undefined;
  /** Tokens it may write. */
  readonly limit: number;
  /** Bytes shown to the reader; control tokens are empty unless they are part of the tool format. */
  readonly piece: (token: number) => Uint8Array;
  /** Bytes of any token, for logprobs. */
  readonly rawPiece: (token: number) => Uint8Array;
  readonly isEnd: (token: number) => boolean;
  readonly emit: (event: GenerateEvent) => void;
}

export interface Choice {
  readonly index: number;
  readonly written: number;
  /** Picks the next token from `logits` and emits what follows from it. Null: the choice is finished and has said so. */
  next(logits: Float32Array): number | null;
  /** Ends a choice whose limit is 0, or that has no room left. */
  finishByLength(): void;
  free(): void;
}

export function createChoice(options: ChoiceOptions): Choice {
  const text = createTextStream(options.stop);
  let pending: Logprob[] = [];
  let written = 0;

  const delta = (released: string): void => {
    if (released === '' && !(options.logprobs !== undefined && pending.length > 0 && options.stop.length === 0)) return;
    if (options.logprobs === undefined) options.emit({ type: 'delta', index: options.index, text: released });
    else options.emit({ type: 'delta', index: options.index, text: released, logprobs: pending });
    pending = [];
  };
  const finish = (reason: 'stop' | 'length'): null => {
    const rest = text.flush();
    if (text.stopped) {
      pending = [];
      delta(rest);
      options.emit({ type: 'finish', index: options.index, reason: 'stop', completionTokens: written });
      return null;
    }
    if (rest !== '' || pending.length > 0) {
      if (options.logprobs === undefined) options.emit({ type: 'delta', index: options.index, text: rest });
      else options.emit({ type: 'delta', index: options.index, text: rest, logprobs: pending });
      pending = [];
    }
    options.emit({ type: 'finish', index: options.index, reason, completionTokens: written });
    return null;
  };

  return {
    index: options.index,
    get written() {
      return written;
    },
    next(logits) {
      const token = options.sampler.pick(logits, options.constraint?.filter());
      // No token is left: the grammar is complete and the vocabulary has no end token.
      if (token < 0) return finish('stop');
      options.constraint?.accept(token);
      options.sampler.accept(token);
      written += 1;
      if (options.isEnd(token)) return finish('stop');
      if (options.logprobs !== undefined) pending.push(describe(logits, token, options.logprobs, options.rawPiece));
      const released = text.push(options.piece(token));
      if (text.stopped) {
        pending.pop(); // the token that completed the stop string is not part of the answer
        delta(released);
        options.emit({ type: 'finish', index: options.index, reason: 'stop', completionTokens: written });
        return null;
      }
      delta(released);
      return written >= options.limit ? finish('length') : token;
    },
    finishByLength: () => void finish('length'),
    free: () => options.constraint?.free(),
  };
}

/** log p of the token and its alternatives, in OpenAI's shape. */
export function describe(logits: Float32Array, token: number, count: number, piece: (token: number) => Uint8Array): Logprob {
  const { chosen, top } = logprobs(logits, token, count);
  const entry = (id: number, logprob: number): TokenLogprob => {
    const bytes = piece(id);
    return { token: new TextDecoder().decode(bytes), bytes: Array.from(bytes), logprob };
  };
  return { ...entry(token, chosen), top: top.map((alternative) => entry(alternative.token, alternative.logprob)) };
}

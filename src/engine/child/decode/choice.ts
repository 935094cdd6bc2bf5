// One completion being written: picks tokens, applies the grammar, assembles text up to stop strings,
// collects logprobs and says when it is finished. It never touches the KV memory; the scheduler hands it
// logits and feeds its tokens back.

import { ApiError } from '../../../base/errors.ts';
import type { Constraint } from './constraint.ts';
import type { CallMarks, GenerateEvent, TokenLogprob } from '../../seam/engine.ts';
import type { RecordedTokens } from './recorded.ts';
import { logprobs, type Sampler } from './sampler.ts';
import type { ReasoningReader } from './reasoning.ts';
import { createTextStream } from './text-stream.ts';
import { WrittenTokens } from './token-digest.ts';

type Logprob = TokenLogprob & { readonly top: readonly TokenLogprob[] };

export interface ChoiceOptions {
  readonly index: number;
  readonly sampler: Sampler;
  readonly constraint: Constraint | null;
  readonly stop: readonly string[];
  /** Text in which stop strings do not count. */
  readonly calls?: CallMarks | undefined;
  readonly logprobs: number | undefined;
  /** Splits off the reasoning before the answer. */
  readonly reasoning?: ReasoningOptions | undefined;
  /** Tokens it may write. */
  readonly limit: number;
  /** Bytes shown to the reader; control tokens are empty unless they are part of the tool format. */
  readonly piece: (token: number) => Uint8Array;
  /** Bytes of any token, for logprobs. */
  readonly rawPiece: (token: number) => Uint8Array;
  readonly isEnd: (token: number) => boolean;
  /** The finish carries the digest of the tokens. */
  readonly receipt?: boolean | undefined;
  /** Events carry the ids of tokens. */
  readonly tellTokens?: boolean | undefined;
  /** Tokens to write instead of those picked. */
  readonly recorded?: RecordedTokens | undefined;
  readonly emit: (event: GenerateEvent) => void;
}

export interface ReasoningOptions {
  readonly reader: ReasoningReader;
  /** Tokens of reasoning after which `close` is written. */
  readonly budget: number;
  readonly close: readonly number[];
  /** Called once the reader has read an accepted token. */
  readonly moved: () => void;
}

export interface Choice {
  readonly index: number;
  readonly written: number;
  /**
   * Picks the next token from `logits` and emits its events. Null: the choice is finished and has
   * emitted `finish`. Throws an ApiError when no token is left and the grammar is not complete: the text
   * is then not a valid answer.
   */
  next(logits: Float32Array): number | null;
  /** Ends a choice whose limit is 0, or whose context is full. */
  finishByLength(): void;
  free(): void;
}

export function createChoice(options: ChoiceOptions): Choice {
  const text = createTextStream(options.stop, options.calls);
  /**
   * Tokens not emitted yet, and where in the text each begins: only those with text before the
   * cut are part of the answer.
   */
  let pending: { readonly logprob: Logprob; readonly start: number }[] = [];
  let sent = 0;
  let written = 0;
  const ids = new WrittenTokens({ receipt: options.receipt === true, tell: options.tellTokens === true });
  const { reasoning, recorded } = options;
  /** Tokens that end the reasoning at its budget. */
  let forced: readonly number[] =
    reasoning !== undefined && reasoning.budget === 0 && reasoning.reader.phase === 'thinking'
      ? reasoning.close
      : [];

  const tell = (said: string, known: readonly Logprob[], isReasoning?: true): void => {
    const logprobs = options.logprobs === undefined ? undefined : known;
    const { index } = options;
    options.emit({ kind: 'delta', index, text: said, reasoning: isReasoning, logprobs, tokens: ids.take() });
  };
  /** Sends reasoning with the log probabilities of all tokens so far. */
  const think = (thoughts: string): void => {
    if (thoughts === '') return;
    const known = pending.map((each) => each.logprob);
    pending = [];
    tell(thoughts, known, true);
  };
  /** The bytes of a token that belong to the answer; reasoning among them is sent. */
  const answerOf = (token: number): Uint8Array => {
    if (reasoning === undefined || reasoning.reader.phase === 'answer') return options.piece(token);
    const { reader, budget, close, moved } = reasoning;
    const split = reader.read(options.rawPiece(token), options.piece(token));
    moved();
    think(split.reasoning);
    const over = reader.phase === 'thinking' && reader.tokens >= budget && forced.length === 0;
    if (over) forced = close;
    return split.content;
  };

  /** Sends text that is certain, and the log probabilities of tokens that begin before `end`. */
  const delta = (released: string, end: number): void => {
    sent += released.length;
    let count = 0;
    while (count < pending.length && pending[count]!.start < end) count += 1;
    const logprobs = pending.slice(0, count).map((each) => each.logprob);
    if (released === '' && count === 0) return;
    pending = pending.slice(count);
    tell(released, logprobs);
  };
  const finish = (reason: 'stop' | 'length', released = ''): null => {
    let last = '';
    if (reasoning !== undefined) {
      const split = reasoning.reader.end(reason === 'length');
      think(split.reasoning);
      if (split.content.length > 0) last = text.push(split.content);
    }
    const rest = released + last + text.flush(reason === 'length');
    delta(rest, text.stopped ? sent + rest.length : Infinity);
    options.emit({
      kind: 'finish',
      index: options.index,
      reason: text.stopped ? 'stop' : reason,
      stop: text.stop,
      completionTokens: written,
      reasoningTokens: reasoning?.reader.tokens,
      tokensSha256: ids.digest(),
      tokens: ids.take(),
      recorded: recorded?.report(),
    });
    return null;
  };

  return {
    index: options.index,
    get written() {
      return written;
    },
    next(logits) {
      const [next, ...then] = forced;
      forced = then;
      const picked = next ?? options.sampler.pick(logits, options.constraint?.filter());
      const token = recorded === undefined ? picked : recorded.next(picked, logits);
      if (token === undefined) return finish('length');
      if (token < 0) {
        // The grammar is complete, and there is no end token that may be picked.
        const refusal =
          options.constraint === null ? null : refusalOf(options.constraint, logits, options.isEnd);
        if (refusal !== null) throw refusal;
        return finish('stop');
      }
      options.constraint?.accept(token);
      options.sampler.accept(token);
      written += 1;
      ids.push(token);
      if (options.isEnd(token)) return finish('stop');
      if (options.logprobs !== undefined)
        pending.push({
          logprob: describe(logits, token, options.logprobs, options.rawPiece),
          start: text.decoded,
        });
      const released = text.push(answerOf(token));
      if (text.stopped) return finish('stop', released);
      delta(released, options.stop.length === 0 ? Infinity : sent + released.length);
      return written >= options.limit ? finish('length') : token;
    },
    finishByLength: () => void finish('length'),
    free: () => options.constraint?.free(),
  };
}

/**
 * Why a choice without a possible token is not complete; null when it is. Asks about the whole vocabulary,
 * once.
 */
function refusalOf(
  constraint: Constraint,
  logits: Float32Array,
  isEnd: (token: number) => boolean,
): ApiError | null {
  const allowed = constraint.active
    ? constraint.filter()?.(Array.from(logits, (_, token) => token))
    : undefined;
  if (allowed === undefined) return null;
  let ends = false;
  let any = false;
  let banned = false;
  for (let token = 0; token < logits.length; token += 1) {
    if (allowed[token] === true && isEnd(token)) return null;
    ends ||= isEnd(token);
    any ||= allowed[token] === true;
    banned ||= allowed[token] === true && logits[token]! > -Infinity;
  }
  // Without an end token to ask about, a grammar is complete when no token may follow.
  if (!any && !ends) return null;
  return banned
    ? new ApiError('invalid_value', 'logit_bias bans every token that the form of the answer needs next', {
        param: 'logit_bias',
      })
    : new ApiError('engine_failed', 'the model has no token for what the form of the answer needs next');
}

/** log p of the token and its alternatives, in OpenAI's shape. */
export function describe(
  logits: Float32Array,
  token: number,
  count: number,
  piece: (token: number) => Uint8Array,
): Logprob {
  const { chosen, top } = logprobs(logits, token, count);
  const entry = (id: number, logprob: number): TokenLogprob => {
    const bytes = piece(id);
    const token = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
    return { token, bytes: Array.from(bytes), logprob };
  };
  return {
    ...entry(token, chosen),
    top: top.map((alternative) => entry(alternative.token, alternative.logprob)),
  };
}

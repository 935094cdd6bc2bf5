// Generating on a route: the response begins only after the engine has admitted the prompt (its
// `start` event), so that every refusal before it gets its own status; after it errors are the
// stream's terminal event.

import type { GenerateEvent, TokenLogprob } from '../../engine/seam/engine.ts';
import type { Call } from '../../http/route.ts';

/**
 * Waits for the `start` event (so that refusals throw here), then yields it and the rest. Counts tokens as
 * they pass, so that an answer that breaks off is counted for what it used. `whole`: the answer is gathered
 * before it is sent, and takes its memory from the budget the bodies have.
 */
export async function admitted(
  call: Call,
  events: AsyncIterable<GenerateEvent>,
  whole: boolean,
): Promise<AsyncIterable<GenerateEvent>> {
  const { exchange } = call;
  const { usage } = exchange;
  const iterator = events[Symbol.asyncIterator]();
  const written = new Map<number, number>();

  const note = (event: GenerateEvent): void => {
    if (event.kind === 'start') {
      usage.promptTokens += event.promptTokens;
      usage.cachedTokens += event.cachedTokens;
      return;
    }
    exchange.firstTokenMs ??= performance.now() - exchange.startedAt;
    const before = written.get(event.index) ?? 0;
    if (event.kind === 'delta') {
      // About one token each; the finish event has the exact number.
      written.set(event.index, before + 1);
      usage.completionTokens += 1;
    } else {
      usage.completionTokens += event.completionTokens - before;
      usage.reasoningTokens += event.reasoningTokens ?? 0;
    }
  };

  const take = (event: GenerateEvent): void => {
    note(event);
    if (whole && event.kind === 'delta') exchange.held?.add(heapOf(event));
    exchange.spend();
  };

  const first = await iterator.next();
  if (first.done !== true) take(first.value);
  let waiting: IteratorResult<GenerateEvent> | null = first;
  return {
    [Symbol.asyncIterator]: () => ({
      async next() {
        if (waiting !== null) {
          const given = waiting;
          waiting = null;
          return given;
        }
        const result = await iterator.next();
        if (result.done !== true) take(result.value);
        return result;
      },
      async return() {
        await iterator.return?.();
        return { done: true, value: undefined };
      },
    }),
  };
}

/**
 * Heap of a gathered piece of an answer: its text is small, but log probabilities are not. Twenty
 * alternatives of a token are some four kilobytes, and a request of a hundred bytes can ask for them at
 * each of a million tokens.
 */
export function heapOf({ text, logprobs = [] }: Extract<GenerateEvent, { readonly kind: 'delta' }>): number {
  const of = (token: TokenLogprob): number => LOGPROB_BYTES + 2 * token.token.length + 8 * token.bytes.length;
  return (
    2 * text.length +
    logprobs.reduce((sum, each) => each.top.reduce((all, other) => all + of(other), sum + of(each)), 0)
  );
}

/** An object, its list of bytes, a number and the headers of both strings (measured with V8 of Node 20). */
const LOGPROB_BYTES = 168;

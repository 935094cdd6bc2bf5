// One fold of an engine's events over the choices of an answer. Whole answers and streams differ in how a
// choice handles its events, not in how events are read.

import type { GenerateEvent } from '../../engine/seam/engine.ts';

export type Delta = Extract<GenerateEvent, { readonly kind: 'delta' }>;
export type Finish = Extract<GenerateEvent, { readonly kind: 'finish' }>;

export interface ChoiceFold {
  delta(event: Delta): void;
  /** Once, last. */
  finish(event: Finish): void;
}

/** `written`: awaited after each event, so that a slow reader slows only its own generation. */
export async function foldEvents(
  events: AsyncIterable<GenerateEvent>,
  choices: readonly ChoiceFold[],
  written?: () => Promise<void>,
): Promise<void> {
  for await (const event of events) {
    if (event.kind === 'start') continue;
    const choice = choices[event.index];
    if (choice === undefined) continue;
    if (event.kind === 'delta') choice.delta(event);
    else choice.finish(event);
    await written?.();
  }
}

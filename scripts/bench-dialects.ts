// `npx tsx scripts/bench-dialects.ts`: streams of responses and of messages beside streams of chat with the
// same text, in turn, on a model and on an engine without one. Prints a table and has no assertions.

import { fetch } from 'undici';
import { openDemo } from '../test/fixtures/engine/demo-engine.ts';
import { createFakeEngine } from '../test/fixtures/engine/fake-engine.ts';
import { startApi } from '../test/fixtures/http/api-server.ts';

const TOKENS = 400;
const ROUNDS = 80;
const INPUT = [{ role: 'user', content: 'once upon a time' }];

const written = createFakeEngine({ script: () => Array.from({ length: TOKENS }, () => ' word') });
const small = await openDemo('demo-context', { slots: 1, threads: 1 });
const api = await startApi({ realEngines: { 'demo-context': small, 'null engine': written } });

/** Tokens a second, from the request to the last byte. */
async function rate(path: string, body: object): Promise<number> {
  const start = performance.now();
  const response = await fetch(`${api.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ temperature: 0, stream: true, ...body }),
  });
  const events =
    (await response.text()).match(/"delta":(?:"|\{"content":"[^"]|\{"type":"text_delta")/g) ?? [];
  const took = performance.now() - start;
  if (events.length < TOKENS) throw new Error(`${path} wrote ${events.length} tokens of ${TOKENS}`);
  return (events.length / took) * 1000;
}

const DIALECTS = {
  chat: (model: string) => rate('/v1/chat/completions', { model, messages: INPUT, max_tokens: TOKENS }),
  responses: (model: string) => rate('/v1/responses', { model, input: INPUT, max_output_tokens: TOKENS }),
  messages: (model: string) => rate('/v1/messages', { model, messages: INPUT, max_tokens: TOKENS }),
};

for (const model of ['demo-context', 'null engine']) {
  for (const name of ['responses', 'messages'] as const) {
    const best = { chat: 0, other: 0 };
    const ratios: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      // Each goes first in every other round.
      const first = round % 2 === 0;
      const before = first ? await DIALECTS.chat(model) : await DIALECTS[name](model);
      const after = first ? await DIALECTS[name](model) : await DIALECTS.chat(model);
      const [chat, other] = first ? [before, after] : [after, before];
      best.chat = Math.max(best.chat, chat);
      best.other = Math.max(best.other, other);
      ratios.push(chat / other);
    }
    const over = percent(best.chat / best.other);
    const paired = percent(ratios.toSorted((a, b) => a - b)[ROUNDS / 2] ?? NaN);
    console.log(
      `${model.padEnd(16)} tokens/s: chat ${best.chat.toFixed(0)}, ${name} ${best.other.toFixed(0)}, overhead ${over} % of the best, ${paired} % in the median pair`,
    );
  }
}
await api.close();
await small.close();

function percent(ratio: number): string {
  return ((ratio - 1) * 100).toFixed(1);
}

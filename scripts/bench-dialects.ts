// `npx tsx scripts/bench-dialects.ts`: streams of responses beside streams of chat with the same text, in
// turn, on a model and on an engine without one. Prints a table and has no assertions.

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
  const events = (await response.text()).match(/"delta":(?:"|\{"content":"[^"])/g) ?? [];
  const took = performance.now() - start;
  if (events.length < TOKENS) throw new Error(`${path} wrote ${events.length} tokens of ${TOKENS}`);
  return (events.length / took) * 1000;
}

/** The best of many: others on the machine only ever make it slower. */
const DIALECTS = {
  chat: (model: string) => rate('/v1/chat/completions', { model, messages: INPUT, max_tokens: TOKENS }),
  responses: (model: string) => rate('/v1/responses', { model, input: INPUT, max_output_tokens: TOKENS }),
};
for (const model of ['demo-context', 'null engine']) {
  const best = { chat: 0, responses: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    // Each goes first in every other round.
    const order = ['chat', 'responses'] as const;
    for (const name of round % 2 === 0 ? order : order.toReversed())
      best[name] = Math.max(best[name], await DIALECTS[name](model));
  }
  const over = ((best.chat / best.responses - 1) * 100).toFixed(1);
  console.log(
    `${model.padEnd(16)} tokens/s: chat ${best.chat.toFixed(0)}, responses ${best.responses.toFixed(0)}, overhead ${over} %`,
  );
}
await api.close();
await small.close();

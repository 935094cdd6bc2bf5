// `npx tsx scripts/bench-receipts.ts`: what receipts cost (docs/receipts.md [R25]): none, made and not asked
// for, asked for at the end, and rolling, in turn. Whole answers and streams of 1,000 events by an engine
// without a model, and streams of a model. Prints a table and has no assertions.

import { fetch } from 'undici';
import { openDemo } from '../test/fixtures/engine/demo-engine.ts';
import { createFakeEngine } from '../test/fixtures/engine/fake-engine.ts';
import { startApi } from '../test/fixtures/http/api-server.ts';
import { issuer } from '../test/fixtures/receipts/issued.ts';
import { inTurns, median, pairedDifference, pairedRatio } from './bench-turns.ts';

const EVENTS = 1000;
const TOKENS = 400;

const written = createFakeEngine({ script: () => Array.from({ length: EVENTS }, () => ' word') });
const short = createFakeEngine();
const small = await openDemo('demo-context', { slots: 1, threads: 1 });
const REAL_ENGINES = { 'demo-context': small, 'null engine': written, short };
const without = await startApi({ realEngines: REAL_ENGINES, deps: { receipts: null } });
const receipted = await startApi({ realEngines: REAL_ENGINES, deps: { receipts: issuer() } });

/** One answer, read to its end. */
async function ask(url: string, mode: string | null, body: object): Promise<void> {
  const asked = mode === null ? {} : { 'assay-receipts': mode, 'assay-receipt-nonce': '5a'.repeat(32) };
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...asked },
    body: JSON.stringify({
      messages: [{ role: 'user', content: 'once upon a time' }],
      temperature: 0,
      ...body,
    }),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(text);
}

function casesOf(body: object): Readonly<Record<string, () => Promise<void>>> {
  return {
    none: () => ask(without.url, null, body),
    unasked: () => ask(receipted.url, null, body),
    final: () => ask(receipted.url, 'final', body),
    rolling: () => ask(receipted.url, 'rolling', body),
  };
}

const SUBJECTS = [
  ['a whole answer of 4 tokens', 2000, { model: 'short' }],
  [`a stream of ${EVENTS} events`, 300, { model: 'null engine', stream: true, max_tokens: EVENTS }],
  [`a model writes ${TOKENS} tokens`, 100, { model: 'demo-context', stream: true, max_tokens: TOKENS }],
] as const;

for (const [name, rounds, body] of SUBJECTS) {
  const made = await inTurns(rounds, 20, casesOf(body));
  const base = made['none']!;
  console.log(`${name}, ${rounds} rounds; more than without receipts:`);
  for (const [mode, { wall, cpu }] of Object.entries(made)) {
    const least = Math.min(...wall);
    const more = (values: readonly number[], others: readonly number[]): string =>
      pairedDifference(values, others).toFixed(3).padStart(8);
    const slower = ((pairedRatio(wall, base.wall) - 1) * 100).toFixed(2);
    const ofLeast = ((least / Math.min(...base.wall) - 1) * 100).toFixed(2);
    console.log(
      `  ${mode.padEnd(8)} median ${median(wall).toFixed(3).padStart(8)} ms, least ${least.toFixed(3).padStart(8)}; median pair ${more(wall, base.wall)} ms (${slower} %), least ${(least - Math.min(...base.wall)).toFixed(3).padStart(7)} ms (${ofLeast} %), processor ${more(cpu, base.cpu)} ms`,
    );
  }
}
await without.close();
await receipted.close();
await small.close();

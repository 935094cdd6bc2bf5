// `make bench`: can one key tell by the time that another has sent a text? Times the first token of prompts
// that this key sent before, that the other key sent before, and that neither did, in turns, and says in one
// line whether either differs from the last. A difference is one that 1 in 1000 shufflings of the same times
// would show. Prints, has no assertions. ROUNDS (default 60).

import { createHash, randomInt } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { startRealServer } from '../test/fixtures/e2e/real-server.ts';

const rounds = Number(process.env['ROUNDS'] ?? 60);
const SHUFFLES = 2000;
const folder = await mkdtemp(join(tmpdir(), 'assay-bench-tenants-'));
const keys = ['alice', 'bob'].map(
  (name) => `[api.keys.${name}]\nsha256 = "${createHash('sha256').update(name).digest('hex')}"\n`,
);
await writeFile(join(folder, 'assay.toml'), `${keys.join('')}[models]\nkeep_alive = "-1"\n`);
const server = await startRealServer({
  dataFolder: join(folder, 'data'),
  args: ['--config', join(folder, 'assay.toml')],
});
const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 1, pipelining: 1 });

/** About 300 tokens, unlike any other from its first word on. */
function text(name: string): string {
  return Array.from({ length: 60 }, (_, i) =>
    createHash('sha256').update(`${name}${i}`).digest('hex').slice(0, 5),
  ).join(' ');
}

/** Milliseconds from the request to its first and only token. */
async function ask(key: string, prompt: string): Promise<number> {
  const started = performance.now();
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify({ model: 'demo-context', prompt, max_tokens: 1, temperature: 0 }),
    dispatcher,
  });
  await response.arrayBuffer();
  if (response.status !== 200) throw new Error(`the server answers ${response.status}`);
  return performance.now() - started;
}

const NAMES = ['sent by this key before', 'sent by the other key before', 'sent by nobody before'] as const;
const TIMES: Record<(typeof NAMES)[number], number[]> = { [NAMES[0]]: [], [NAMES[1]]: [], [NAMES[2]]: [] };
for (let round = -5; round < rounds; round++) {
  const [own, others, nobodys] = [text(`own ${round}`), text(`others ${round}`), text(`nobodys ${round}`)];
  await ask('bob', own);
  await ask('alice', others);
  // In an order that differs from round to round, so that none is always the first.
  const turns = [[NAMES[0], own], [NAMES[1], others], [NAMES[2], nobodys]] as [(typeof NAMES)[number], string][]; // prettier-ignore
  for (let i = turns.length - 1; i > 0; i--) turns.push(...turns.splice(randomInt(i + 1), 1));
  for (const [name, prompt] of turns) {
    const took = await ask('bob', prompt);
    if (round >= 0) TIMES[name].push(took);
  }
}
await server.stop();
await dispatcher.close();
await rm(folder, { recursive: true, force: true });

function sorted(values: readonly number[]): number[] {
  return values.toSorted((a, b) => a - b);
}
function at(values: readonly number[], fraction: number): number {
  return sorted(values)[Math.min(values.length - 1, Math.floor(values.length * fraction))] ?? 0;
}
function gap(a: readonly number[], b: readonly number[]): number {
  return Math.abs(at(a, 0.5) - at(b, 0.5));
}

/** How often a random split of the same times has medians at least as far apart. */
function chance(a: readonly number[], b: readonly number[]): number {
  const all = [...a, ...b];
  let asFar = 0;
  for (let k = 0; k < SHUFFLES; k++) {
    for (let i = all.length - 1; i > 0; i--) {
      const j = randomInt(i + 1);
      [all[i], all[j]] = [all[j] ?? 0, all[i] ?? 0];
    }
    if (gap(all.slice(0, a.length), all.slice(a.length)) >= gap(a, b)) asFar += 1;
  }
  return asFar / SHUFFLES;
}

console.log(`\ntime to the first token of a prompt of about 300 tokens, ${rounds} rounds`);
for (const name of NAMES)
  console.log(
    `${name.padEnd(64)} p50 ${at(TIMES[name], 0.5).toFixed(2)} ms   p90 ${at(TIMES[name], 0.9).toFixed(2)} ms`,
  );
function verdict(name: (typeof NAMES)[number]): string {
  const p = chance(TIMES[name], TIMES[NAMES[2]]);
  return `${p < 0.001 ? 'a difference' : 'no difference'} (${gap(TIMES[name], TIMES[NAMES[2]]).toFixed(2)} ms, p ${p === 0 ? `< ${1 / SHUFFLES}` : p.toFixed(3)})`;
}
console.log(`within a key: ${verdict(NAMES[0])}; across keys: ${verdict(NAMES[1])}`);

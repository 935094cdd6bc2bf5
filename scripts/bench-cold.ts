// First token of a model that is not loaded, split into what makes it up: `npx tsx scripts/bench-cold.ts`.
// Prints a table and has no assertions. stage: copied to guest memory and hashed; load: the engine process
// until it answers; prefill: a prompt of about a hundred tokens until the first token. Needs a built dist/
// and the demo models; makes the 254 M model once.

import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { openEngine } from '../src/engine/open.ts';
import { measureFile, stageFile } from '../src/models/measure.ts';
import { writeMediumModel } from './bench-model.ts';
import { defaultFolder, ensureDemoModels } from './demo-model/main.ts';

const { signal } = new AbortController();
const open = openEngine({
  workerEntry: fileURLToPath(new URL('../dist/src/engine/child/worker.js', import.meta.url)),
});
const SAMPLING = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repeatPenalty: 1,
  seed: 1,
};

async function cold(path: string): Promise<readonly number[]> {
  const { sha256, size } = await measureFile(path, { signal });
  const started = performance.now();
  const staged = await stageFile(path, {
    residency: 'memory',
    stagingFolder: '/dev/shm',
    sha256,
    name: 'm',
    signal,
  });
  const atStaged = performance.now();
  const engine = await open(
    { path: '/proc/self/fd/4', fd: staged.fd, type: 'completion', contextLength: 1024, slots: 1 },
    signal,
  );
  await staged.close();
  const atLoaded = performance.now();
  const text = Array.from({ length: 100 }, (_, i) => ` w${i.toString(36)}`).join('');
  const request = {
    prompt: { kind: 'text' as const, text },
    sampling: SAMPLING,
    n: 1,
    maxTokens: 1,
    stop: [],
    cacheScope: 'bench',
  };
  for await (const event of engine.generate(request, signal)) if (event.kind === 'delta') break;
  const atToken = performance.now();
  await engine.close();
  return [size / 1e6, atStaged - started, atLoaded - atStaged, atToken - atLoaded, atToken - started];
}

const demo = await ensureDemoModels(['demo-context']);
const medium = join(defaultFolder(), 'bench-medium.gguf');
await writeMediumModel(medium);
console.log(
  '\n| model | MB | stage ms | load ms | prefill ms | first token ms |\n| --- | --- | --- | --- | --- | --- |',
);
for (const [name, path] of [
  ['demo-context', demo['demo-context'].path],
  ['254 M, Q8_0', medium],
] as const) {
  // prettier-ignore
  const runs = [await cold(path), await cold(path), await cold(path)].toSorted((a, b) => (a[4] ?? 0) - (b[4] ?? 0));
  console.log(`| ${name} | ${(runs[1] ?? []).map((value) => value.toFixed(0)).join(' | ')} |`);
}

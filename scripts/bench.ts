// `make bench`: what verification and our HTTP stack cost. Prints a table and has no assertions.
// Everything on this machine.
//   handshake to verified, cold (a new process) and warm; TTFT and tokens/s of the demo model through
//   attested TLS and straight from the engine; the server with a null engine beside bare node:http.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { randomBytes } from 'node:crypto';
import { Agent, fetch as plainFetch } from 'undici';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { attestedFetch, connectAttested } from '@assay/attestation/node';
import { openEngine } from '../src/engine/open.ts';
import { startApi } from '../test/fixtures/http/api-server.ts';
import { startRealServer } from '../test/fixtures/e2e/real-server.ts';
import { ensureDemoModels } from './demo-model/main.ts';

const ROWS: [string, string][] = [];
function row(what: string, value: string): void {
  ROWS.push([what, value]);
  console.log(`${what.padEnd(64)} ${value}`);
}
function sorted(values: readonly number[]): number[] {
  return values.toSorted((a, b) => a - b);
}
function at(values: readonly number[], fraction: number): number {
  return sorted(values)[Math.min(values.length - 1, Math.floor(values.length * fraction))] ?? 0;
}
function ms(values: readonly number[]): string {
  return `p50 ${at(values, 0.5).toFixed(2)} ms   p99 ${at(values, 0.99).toFixed(2)} ms   (${values.length})`;
}
async function times(count: number, run: (i: number) => Promise<unknown>): Promise<number[]> {
  const result: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    await run(i);
    result.push(performance.now() - start);
  }
  return result;
}

const server = await startRealServer();
const POLICY: AppraisalPolicy = { ...(server.policy as AppraisalPolicy), [allowSimulated]: true };

// 1. Handshake to verified.
const COLD = `const t = performance.now();
const { attestedFetch } = await import('@assay/attestation/node'); const { allowSimulated } = await import('@assay/attestation');
const policy = { ...JSON.parse(process.argv[1]), [allowSimulated]: true };
const f = attestedFetch({ policy }); const s = performance.now(); await f.verify(process.argv[2]);
console.log(s - t, performance.now() - s); await f.close();`;
const COLD_RUNS: [number, number][] = [];
for (let i = 0; i < 5; i++) {
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', COLD, JSON.stringify(server.policy), server.url],
    {
      cwd: fileURLToPath(new URL('..', import.meta.url)),
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(child, 'close');
  const [load = 0, verify = 0] = text.trim().split(' ').map(Number);
  COLD_RUNS.push([load, verify]);
}
row('cold process: loading the client', ms(COLD_RUNS.map(([load]) => load)));
row('cold process: first handshake to verified', ms(COLD_RUNS.map(([, verify]) => verify)));
const options = {
  policy: (await import('@assay/attestation')).parsePolicy(POLICY),
  now: Date.now,
  randomBytes: (length: number) => new Uint8Array(randomBytes(length)),
  connectTimeoutMs: 10_000,
  attestTimeoutMs: 10_000,
};
row(
  'warm: handshake to verified, new connection each',
  ms(await times(100, async () => (await connectAttested(new URL(server.url), options)).socket.destroy())),
);

// 2. TTFT and tokens/s.
const TOKENS = 400;
const attested = attestedFetch({ policy: POLICY });
async function stream(): Promise<{ first: number; rate: number }> {
  const start = performance.now();
  const body = JSON.stringify({
    model: 'demo-context',
    prompt: 'once upon a time',
    max_tokens: TOKENS,
    temperature: 0,
    stream: true,
  });
  const response = await attested(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  });
  let first = 0;
  for await (const _ of response.body ?? []) first ||= performance.now();
  return { first: first - start, rate: ((TOKENS - 1) / (performance.now() - first)) * 1000 };
}
await stream();
const THROUGH: { first: number; rate: number }[] = [];
for (let i = 0; i < 5; i++) THROUGH.push(await stream());
const { 'demo-context': demo } = await ensureDemoModels(['demo-context']);
const engine = await openEngine({
  workerEntry: fileURLToPath(new URL('../dist/src/engine/child/worker.js', import.meta.url)),
})({ path: demo.path }, new AbortController().signal);
const STRAIGHT: { first: number; rate: number }[] = [];
const SAMPLING = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repeatPenalty: 1,
};
for (let i = 0; i < 6; i++) {
  const start = performance.now();
  let first = 0;
  for await (const event of engine.generate(
    {
      prompt: { kind: 'text', text: 'once upon a time' },
      sampling: SAMPLING,
      n: 1,
      maxTokens: TOKENS,
      stop: [],
      cacheScope: 'bench',
    },
    new AbortController().signal,
  )) {
    if (event.kind === 'delta') first ||= performance.now();
  }
  if (i > 0)
    STRAIGHT.push({ first: first - start, rate: ((TOKENS - 1) / (performance.now() - first)) * 1000 });
}
row('demo-context TTFT through attested TLS', ms(THROUGH.map((run) => run.first)));
row('demo-context TTFT straight from the engine', ms(STRAIGHT.map((run) => run.first)));
row(
  'demo-context tokens/s through attested TLS, one stream',
  at(
    THROUGH.map((run) => run.rate),
    0.5,
  ).toFixed(0),
);
row(
  'demo-context tokens/s straight from the engine',
  at(
    STRAIGHT.map((run) => run.rate),
    0.5,
  ).toFixed(0),
);
await engine.close();
await attested.close();
await server.stop();

// 3. Our server with a null engine beside bare node:http, same client, one keep-alive connection.
const body = JSON.stringify({ model: 'chat', messages: [{ role: 'user', content: 'hello' }] });
const answer = JSON.stringify({
  id: 'x',
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', content: 'Hello, world!' }, finish_reason: 'stop' }],
});
const bare = createServer((request, response) => {
  let text = '';
  request.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  request.on('end', () => {
    JSON.parse(text);
    response.setHeader('content-type', 'application/json').end(answer);
  });
}).listen(0, '127.0.0.1');
await once(bare, 'listening');
const api = await startApi();
const models = (await (await plainFetch(`${api.url}/v1/models`)).json()) as {
  data: { id: string; type: string }[];
};
const chat = models.data.find((model) => model.type === 'chat')?.id ?? '';
const dispatcher = new Agent({ connections: 1, pipelining: 1 });
async function post(url: string, text: string): Promise<void> {
  const response = await plainFetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: text,
    dispatcher,
  });
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  await response.arrayBuffer();
}
const BARE_URL = `http://127.0.0.1:${(bare.address() as AddressInfo).port}`;
const ours = body.replace('"chat"', JSON.stringify(chat));
for (let i = 0; i < 500; i++) await Promise.all([post(BARE_URL, body), post(api.url, ours)]);
const BARE_TIMES: number[] = [];
const OUR_TIMES: number[] = [];
for (let round = 0; round < 10; round++) {
  BARE_TIMES.push(...(await times(200, () => post(BARE_URL, body))));
  OUR_TIMES.push(...(await times(200, () => post(api.url, ours))));
}
row('bare node:http, POST with a small JSON body', ms(BARE_TIMES));
row('our server, null engine, chat completion', ms(OUR_TIMES));
row('overhead at p50', `${(at(OUR_TIMES, 0.5) - at(BARE_TIMES, 0.5)).toFixed(2)} ms`);
await dispatcher.close();
await api.close();
bare.close();

// More work than there is room for, and a disk that is full: the real server and engine. Counted, not
// timed: every request is answered, what is refused is refused for its reason and told when to come back,
// and what was accepted is done.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { verifyAudit } from '../../src/audit/write.ts';
import { childrenOf, type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false }, connections: 200 });
afterAll(() => dispatcher.close());

let folder: string;
let server: RealServer;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-overload-'));
});
afterEach(async () => {
  if (server.process.exitCode === null) await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function start(toml: string): Promise<void> {
  await writeFile(join(folder, 'assay.toml'), toml);
  server = await startRealServer({
    dataFolder: join(folder, 'data'),
    args: ['--config', join(folder, 'assay.toml')],
  });
}

interface Answer {
  readonly status: number;
  readonly code: string | null;
  readonly retryAfter: string | null;
  readonly shouldRetry: string | null;
  readonly tokens: number;
  readonly finish: string | null;
}

async function complete(
  maxTokens: number,
  id: string,
  o: { readonly key?: string; readonly signal?: AbortSignal } = {},
): Promise<Answer> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      'x-request-id': id,
      authorization: `Bearer ${o.key ?? 'none'}`,
    },
    signal: o.signal ?? null,
    body: JSON.stringify({ model: 'demo-context', prompt: `request ${id}`, max_tokens: maxTokens }),
    dispatcher,
  });
  const body = (await response.json()) as {
    error?: { code: string };
    usage?: { completion_tokens: number };
    choices?: { finish_reason: string }[];
  };
  return {
    status: response.status,
    code: body.error?.code ?? null,
    retryAfter: response.headers.get('retry-after'),
    shouldRetry: response.headers.get('x-should-retry'),
    tokens: body.usage?.completion_tokens ?? 0,
    finish: body.choices?.[0]?.finish_reason ?? null,
  };
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`, { dispatcher })).text();
  return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm').exec(text)?.[1]);
}

describe('twice what there is room for', () => {
  test('the queue of a model: as many as fit are served whole, the rest is 429 with Retry-After, all are accounted for', async () => {
    const [slots, queue] = [4, 8];
    await start(
      `[models]\nslots = ${slots}\n[limits]\nmax_queue_per_model = ${queue}\n[audit]\nenabled = true\n`,
    );
    expect((await complete(1, 'warm')).status).toBe(200);
    // Long answers hold the slots while the flood comes in.
    const count = 2 * (slots + queue);
    const finished: string[] = [];
    const answers = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const answer = await complete(300, `flood-${i}`);
        finished.push(answer.status === 200 ? 'served' : 'refused');
        return answer;
      }),
    );
    const served = answers.filter((answer) => answer.status === 200);
    const refused = answers.filter((answer) => answer.status !== 200);
    expect(served.length).toBeGreaterThanOrEqual(slots + queue);
    expect(refused.length).toBeGreaterThan(0);
    for (const answer of served) expect(answer).toMatchObject({ tokens: 300, finish: 'length' });
    for (const answer of refused)
      expect(answer).toMatchObject({ status: 429, code: 'engine_overloaded', shouldRetry: 'true' });
    expect(refused.every((answer) => Number(answer.retryAfter) >= 1)).toBe(true);
    // A refused client does not wait for those being served.
    expect(finished.lastIndexOf('refused')).toBeLessThan(finished.lastIndexOf('served'));
    // All is settled: an empty queue, no running request, one line for every request.
    expect([
      await metric('assay_engine_queued'),
      await metric('assay_engine_active'),
      await metric('assay_model_requests_in_flight'),
    ]).toEqual([0, 0, 0]);
    expect((await complete(3, 'after')).status).toBe(200);
    expect(await server.stop()).toBe(0);
    const lines = (await readFile(join(server.dataFolder, 'audit/audit.jsonl'), 'utf8'))
      .trim()
      .split('\n')
      .map(
        (line) => JSON.parse(line) as { request_id?: string; status?: number; completion_tokens?: number },
      );
    const flood = lines.filter((line) => line.request_id?.startsWith('flood-') === true);
    expect(new Set(flood.map((line) => line.request_id)).size).toBe(count);
    expect(flood).toHaveLength(count);
    expect(flood.filter((line) => line.status === 200 && line.completion_tokens === 300)).toHaveLength(
      served.length,
    );
  });

  test('the server as a whole: 429 server_overloaded, and a health check is still answered', async () => {
    await start('[limits]\nmax_concurrent_requests = 6\n');
    expect((await complete(1, 'warm')).status).toBe(200);
    const flood = Array.from({ length: 24 }, (_, i) => complete(200, `flood-${i}`));
    const health = await fetch(`${server.url}/health`, { dispatcher });
    expect(health.status).toBe(200);
    const answers = await Promise.all(flood);
    const served = answers.filter((answer) => answer.status === 200);
    expect(served.length).toBeGreaterThanOrEqual(5);
    expect(served.every((answer) => answer.tokens === 200)).toBe(true);
    const refused = answers.filter((answer) => answer.status !== 200);
    expect(refused.length).toBeGreaterThan(0);
    for (const answer of refused)
      expect(answer).toMatchObject({ status: 429, code: 'server_overloaded', retryAfter: '1' });
  });

  test('while a model loads: waiters beyond the limit are told to come back', async () => {
    await start('[models]\nmax_waiting = 3\n');
    const answers = await Promise.all(Array.from({ length: 12 }, (_, i) => complete(2, `wait-${i}`)));
    expect(answers.filter((answer) => answer.status === 200).length).toBeGreaterThanOrEqual(3);
    const refused = answers.filter((answer) => answer.status !== 200);
    expect(refused.length).toBeGreaterThan(0);
    for (const answer of refused)
      expect(answer).toMatchObject({ status: 429, code: 'engine_overloaded', shouldRetry: 'true' });
  });
});

test('a key that floods a model leaves room for another', async () => {
  const keys = ['alice', 'bob'].map(
    (name) => `[api.keys.${name}]\nsha256 = "${createHash('sha256').update(name).digest('hex')}"\n`,
  );
  await start(`[models]\nslots = 2\n[limits]\nmax_queue_per_model = 8\n${keys.join('')}`);
  expect((await complete(1, 'warm', { key: 'bob' })).status).toBe(200);
  const answers: Answer[] = [];
  const stop = new AbortController();
  await new Promise<void>((resolve) => {
    for (let i = 0; i < 40; i += 1)
      complete(1500, `flood-${i}`, { key: 'alice', signal: stop.signal })
        .then((answer) => answers.push(answer) === 34 && resolve())
        .catch(() => undefined);
  });
  const refused = answers.filter(({ status }) => status !== 200);
  expect(refused.length).toBeGreaterThan(20);
  for (const answer of refused) expect(answer).toMatchObject({ status: 429, code: 'engine_overloaded' });
  expect((await complete(3, 'bob', { key: 'bob' })).status).toBe(200);
  stop.abort();
});

test('an engine killed under a full queue: everybody is told, and the next are served', async () => {
  await start('[models]\nslots = 2\n');
  expect((await complete(1, 'warm')).status).toBe(200);
  const waiting = Array.from({ length: 8 }, (_, i) => complete(1500, `killed-${i}`));
  // All of them: one that came after the end would be served by the next engine.
  while ((await metric('assay_engine_queued')) < 6) await fetch(`${server.url}/health`, { dispatcher });
  for (const pid of await childrenOf(server.process.pid ?? 0)) process.kill(pid, 'SIGKILL');
  const answers = await Promise.all(waiting);
  expect(answers.filter((answer) => answer.status !== 503)).toEqual([]);
  for (const answer of answers)
    expect(answer).toMatchObject({ code: 'engine_crashed', shouldRetry: 'true', retryAfter: '1' });
  expect((await complete(2, 'after')).status).toBe(200);
});

const root = process.getuid?.() === 0 && process.platform === 'linux';

test.skipIf(!root)(
  'strangers without a key cannot fill the disk under the audit log; they are counted',
  async () => {
    const small = join(folder, 'audit');
    await mkdir(small);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'none', small]);
    expect(String(mounted.stderr)).toBe('');
    try {
      await start(
        `[audit]\nenabled = true\nfolder = "${small}"\n[api.keys.a]\nsha256 = "${'ab'.repeat(32)}"\n`,
      );
      const paths = [['/nothing', 404], ['/v1/models', 401], ['/health', 200], ['/v1/chat/completions', 405]] as const; // prettier-ignore
      const wrong = [];
      for (let i = 0; i < 300; i++) {
        for (const [path, status] of paths) {
          const response = await fetch(server.url + path, { dispatcher });
          await response.arrayBuffer();
          if (response.status !== status) wrong.push([path, response.status]);
        }
      }
      expect(wrong).toEqual([]);
      expect(await server.stop()).toBe(0);
      const lines = (await readFile(join(small, 'audit.jsonl'), 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { event: string; statuses?: Record<string, number> });
      expect(lines.filter((line) => line.event === 'request')).toEqual([]);
      for (const [, status] of paths)
        expect(lines.reduce((sum, line) => sum + (line.statuses?.[status] ?? 0), 0)).toBe(300);
      expect(await verifyAudit(small)).toMatchObject({ ok: true, unsigned: 0 });
    } finally {
      spawnSync('umount', ['-l', small]);
    }
  },
);

test.skipIf(!root)(
  'a full disk under the audit log: the server says so and stops rather than serve unrecorded',
  async () => {
    const small = join(folder, 'audit');
    await mkdir(small);
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=32k', 'none', small]);
    expect(String(mounted.stderr)).toBe('');
    try {
      await start(`[audit]\nenabled = true\nfolder = "${small}"\n`);
      const ended = once(server.process, 'exit');
      const statuses: number[] = [];
      // About 300 bytes a line: the disk is full long before the loop is over.
      for (let i = 0; i < 1000 && server.process.exitCode === null; i++) {
        try {
          const response = await fetch(`${server.url}/v1/models`, { dispatcher });
          await response.arrayBuffer();
          statuses.push(response.status);
        } catch {
          break; // it has stopped
        }
      }
      await ended;
      expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(10);
      expect(statuses.filter((status) => status !== 200 && status !== 503)).toEqual([]);
      expect(server.stderr()).toContain('the audit log cannot be written');
      expect(statuses.length).toBeLessThan(1000);
      // Not 0: a supervisor must see that the server failed.
      expect(server.process.exitCode).toBe(1);
    } finally {
      spawnSync('umount', ['-l', small]);
    }
  },
);

test('bodies of very many small values do not end a server with a small heap', async () => {
  server = await startRealServer({
    dataFolder: join(folder, 'data'),
    env: { NODE_OPTIONS: '--max-old-space-size=96' },
  });
  const post = (body: string | Buffer) =>
    fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      dispatcher,
    });
  const sound = '{"model":"demo-chat","max_tokens":1,"messages":[{"role":"user","content":"x"}';
  // Sixteen mebibytes each, seven at once; then as many of what is just within the bound, in
  // a field that is ignored.
  const large = Buffer.from(
    `${sound},{"role":"assistant","content":"x","annotations":[${'{},'.repeat((16 * 1024 * 1024 - 300) / 3)}{}]}]}`,
  );
  const refused = await Promise.all(Array.from({ length: 7 }, () => post(large)));
  for (const response of refused) {
    expect(response.status).toBe(400);
    expect(((await response.json()) as { error: { code: string } }).error.code).toBe('json_too_many_values');
  }
  const within = `${sound},{"role":"assistant","content":"x","annotations":[${'{},'.repeat(180_000)}{}]}]}`;
  const answers = await Promise.all(Array.from({ length: 7 }, () => post(within)));
  for (const response of answers) {
    expect([200, 429]).toContain(response.status);
    await response.text();
  }
  expect((await post(`${sound}]}`)).status).toBe(200);
  expect(server.process.exitCode).toBe(null);
});

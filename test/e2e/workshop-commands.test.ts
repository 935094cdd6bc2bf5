// `assay workshop ACTION` against a real workshop: every twin of a route with a success or the workshop's
// refusal, exit codes, progress as a bar on a terminal and as lines elsewhere, and what Ctrl-C does.

import { spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ASSAY, spawnAssay, type Spawned, watched } from '../fixtures/e2e/assay.ts';
import { LONG_TEXT, sampleFiles, startWorkshop, type Workshop } from '../fixtures/workshop/running.ts';
import { startUploadHub, TOKEN, type UploadHub } from '../fixtures/workshop/upload-hub.ts';

const HAVE_SCRIPT = spawnSync('script', ['--version']).status === 0;
if (!HAVE_SCRIPT) console.warn('\n! script(1) is not here: bars on a terminal are not tried (2 tests)\n');
const KEY = 'key-of-mine';
const ONE = /^(job-[0-9a-f]{32}) done\n([0-9a-f]{64}) {2}(job-[0-9a-f]{32}\/\S+)\n/;
let hub: UploadHub;
let workshop: Workshop;

beforeAll(async () => {
  hub = await startUploadHub();
  workshop = await startWorkshop({
    config: {
      api: `api_keys = ["${KEY}"]`,
      models: `hub = "${hub.endpoint}"\nhub_private = true`,
      audit: 'enabled = true',
      workshop: 'publish = true\npython = "/nowhere/python"\nallow_weaker_jail = true',
    },
    files: {
      ...(await sampleFiles()),
      'long.txt': LONG_TEXT,
    },
  });
}, 120_000);

afterAll(async () => {
  await workshop.remove();
  await hub.close();
});

const ENVIRONMENT = { ASSAY_API_API_KEY: KEY, HF_TOKEN: TOKEN };

function begun(...args: readonly string[]): Spawned {
  const all = ['workshop', ...args, '--url', workshop.url];
  return spawnAssay(all, { cwd: workshop.folder, env: ENVIRONMENT });
}

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

async function run(...args: readonly string[]): Promise<Ended> {
  const { ended, out, err } = begun(...args);
  const [code] = await ended;
  return { code, out: out(), err: err() };
}

/** On a pseudo-terminal of its own, where standard output and error are one. */
function onTerminal(...args: readonly string[]): Spawned {
  const command = [process.execPath, ASSAY, 'workshop', ...args, '--url', workshop.url];
  const quoted = command.map((each) => `'${each}'`).join(' ');
  return watched(
    spawn('script', ['-qefc', `exec ${quoted}`, '/dev/null'], {
      cwd: workshop.folder,
      env: { PATH: process.env['PATH'], HOME: workshop.folder, ...ENVIRONMENT },
    }),
  );
}

async function statusOf(id: string): Promise<unknown> {
  return (await workshop.ask('GET', `/api/jobs/${id}`, { key: KEY })).json['status'];
}

describe('each job route has its twin', () => {
  test('convert, quantize, split, merge: each by the output of the one before', async () => {
    const converted = await run('convert', 'tiny', 'f32');
    const [, id = '', , output = ''] = ONE.exec(converted.out) ?? [];
    expect([converted.code, converted.out]).toEqual([0, expect.stringMatching(ONE)]);
    // No terminal: a line for each stage and tenth, none of it rewritten.
    expect(converted.err).toMatch(/^(?:job-[0-9a-f]{32} \d{1,3} % [\w -]+\n)+$/);
    expect(converted.err.endsWith(`${id} 100 % done\n`)).toBe(true);
    const quantised = await run('quantize', output, 'Q8_0', '--set', 'output_name=q', '--out', 'made');
    expect(quantised.out).toMatch(/\/q\.gguf\n/);
    expect(readFileSync(join(workshop.folder, 'made/record.cose')).length).toBeGreaterThan(100);
    expect(readFileSync(join(workshop.folder, 'made/q.gguf')).length).toBeGreaterThan(100);
    const split = await run('split', 'chat.gguf', '--set', 'max_bytes=4000000', '--set', 'output_name=c');
    const part = / {2}(\S+-00001-of-\d+\.gguf)\n/.exec(split.out)?.[1] ?? '';
    expect((await run('merge', part)).out).toMatch(ONE);
  }, 120_000);

  test.each([
    ['inspect', 'tiny.gguf'],
    ['merge-lora', 'tiny.gguf', 'lora.gguf'],
    ['imatrix', 'tiny.gguf', 'text.txt'],
  ])('%s', async (...args) => {
    expect(await run(...args)).toMatchObject({ code: 0, out: expect.stringMatching(ONE) });
  });

  test.each([
    ['cross', 'pytorch_to_onnx', 'tiny'],
    ['litert', 'tiny'],
    ['train', 'tiny', 'text.txt'],
    ['finetune', 'tiny', 'text.txt'],
  ])('%s: 1 and the workshop’s words where Python is not there', async (...args) => {
    const { code, out, err } = await run(...args);
    expect([code, out]).toEqual([1, '']);
    expect(err).toMatch(/^assay: .*assay workshop setup.* \(tool_unavailable\)\n$/);
  });

  test.each(['model tiny', 'gguf tiny.gguf', 'dataset text.txt'])('publish %s', async (what) => {
    const [kind = '', input = ''] = what.split(' ');
    const { code, out, err } = await run('publish', kind, input, `owner/${kind}`);
    expect([code, err]).toEqual([0, expect.stringMatching(/^publish-[0-9a-f]{32} \d+ % /)]);
    expect(JSON.parse(out)).toMatchObject({ status: 'done', repo_id: `owner/${kind}`, progress: 1 });
    expect(hub.pathsOf(`owner/${kind}`)).toContain('README.md');
  });

  test.each(['catalog', 'paths', 'status', 'training'])('%s', async (table) => {
    const { code, out } = await run(table);
    expect([code, typeof JSON.parse(out)]).toEqual([0, 'object']);
  });
});

test('a job that is left is shown, waited for, cancelled, fetched and removed by its id', async () => {
  const { out } = await run('imatrix', 'chat.gguf', 'long.txt', '--detach');
  const id = out.trim();
  expect(id).toMatch(/^job-[0-9a-f]{32}$/);
  const waiting = begun('jobs', 'wait', id);
  expect((await run('jobs')).out).toMatch(new RegExp(`^${id} {2}(?:queued|running)`));
  expect(JSON.parse((await run('jobs', 'show', id)).out)).toMatchObject({ id, kind: 'gguf/imatrix' });
  expect(await run('jobs', 'remove', id)).toMatchObject({
    code: 1,
    err: expect.stringMatching(/job_not_over/),
  });
  expect(await run('jobs', 'cancel', id)).toMatchObject({ code: 0, out: `${id} cancelled\n` });
  expect(await waiting.ended).toEqual([1, null]);
  expect(waiting.err()).toMatch(/ cancelled: .* \(job_cancelled\)\n$/);
  expect(await run('jobs', 'remove', id)).toMatchObject({ code: 0 });
  expect(await run('fetch', id, '--out', 'none')).toMatchObject({ code: 1 });
}, 120_000);

test.each([
  ['quantize', ['/etc/passwd'], 1, /path_not_allowed/],
  ['quantize', ['text.txt'], 1, /failed: .*\(invalid_gguf\)\n$/],
  ['quantize', ['tiny.gguf', 'Q9'], 1, /unsupported_parameter/],
  ['quantize', [], 2, /^assay: usage: assay workshop quantize input_path \[quant_type\]/],
  ['quantize', ['tiny.gguf', '--set', 'x'], 2, /is not FIELD=VALUE/],
  ['quantize', ['tiny.gguf', '--sett', 'x=1'], 2, /did you mean --set/],
  ['quantize', ['tiny.gguf', '--set', 'x=1'], 1, /unknown_parameter/],
  ['jobs', ['show', 'x'], 2, /usage: assay workshop jobs/],
  ['publish', ['model', 'tiny'], 2, /usage: assay workshop publish/],
  ['publish', ['model', 'none', 'owner/x'], 1, /path_not_allowed/],
  ['fetch', ['job-1'], 2, /usage: assay workshop fetch/],
])('%s %j ends with %i', async (action, args, code, words) => {
  expect(await run(action, ...args)).toMatchObject({ code, err: expect.stringMatching(words) });
});

test('a workshop that is not there, and one on another machine', async () => {
  const away = ['inspect', 'tiny.gguf', '--url', 'https://127.0.0.1:1'];
  const ended = async (args: readonly string[]): Promise<readonly [number | null, string]> => {
    const spawned = spawnAssay(['workshop', ...args], { cwd: workshop.folder });
    return [(await spawned.ended)[0], spawned.err()];
  };
  expect(await ended(away)).toEqual([1, expect.stringMatching(/ECONNREFUSED/)]);
  expect(await ended(away.with(3, 'https://192.0.2.1'))).toEqual([2, expect.stringMatching(/proxy/)]);
});

describe('Ctrl-C', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    '%s cancels the job in the workshop: %i',
    async (signal, code) => {
      const spawned = begun('imatrix', 'chat.gguf', 'long.txt');
      const [, id = ''] = await spawned.said(/^(job-[0-9a-f]{32}) \d+ % (?!queued)/m);
      spawned.child.kill(signal);
      expect(await spawned.ended).toEqual([code, null]);
      expect(spawned.err().endsWith(`assay: ${id} cancelled\n`)).toBe(true);
      expect(spawned.out()).toBe('');
      expect(await statusOf(id)).toBe('cancelled');
    },
    60_000,
  );

  test('a second one leaves at once: the job may go on, and the command says how to return', async () => {
    // A workshop that never answers a cancel, as one whose jail takes its time.
    const slow = createServer((request, response) => {
      if (request.url?.endsWith('/cancel') === true) return;
      response.setHeader('content-type', 'application/json');
      const id = `job-${'0'.repeat(32)}`;
      const status = request.method === 'POST' ? 'queued' : 'running';
      response.end(JSON.stringify({ success: true, job_id: id, id, status, progress: 0.5, stage: 'up' }));
    });
    await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve));
    const url = `http://127.0.0.1:${(slow.address() as AddressInfo).port}`;
    try {
      const spawned = spawnAssay(['workshop', 'jobs', 'wait', `job-${'0'.repeat(32)}`, '--url', url], {
        cwd: workshop.folder,
        env: ENVIRONMENT,
      });
      await spawned.said(/50 % up/);
      spawned.child.kill('SIGINT');
      await spawned.said(/cancelling job-0{32}; once more leaves it/);
      spawned.child.kill('SIGTERM');
      expect(await spawned.ended).toEqual([130, null]);
      expect(spawned.err()).toMatch(/left; it may go on: assay workshop jobs wait job-0{32}\n$/);
    } finally {
      slow.closeAllConnections();
      await new Promise<void>((resolve) => slow.close(() => resolve()));
    }
  }, 60_000);

  test('a lost terminal leaves the job, and jobs wait returns to it', async () => {
    const spawned = begun('imatrix', 'chat.gguf', 'long.txt');
    const [, id = ''] = await spawned.said(/^(job-[0-9a-f]{32}) \d+ %/m);
    spawned.child.kill('SIGHUP');
    expect(await spawned.ended).toEqual([null, 'SIGHUP']);
    expect(await statusOf(id)).toMatch(/^(?:queued|running)$/);
    const again = begun('jobs', 'wait', id);
    await again.said(/^job-[0-9a-f]{32} \d+ %/m);
    again.child.kill('SIGINT');
    expect(await again.ended).toEqual([130, null]);
    expect(await statusOf(id)).toBe('cancelled');
  }, 60_000);

  test('ends a publication, of which nothing is on the hub', async () => {
    const held = new Promise<void>((resolve) => {
      hub.fault = ({ step, request }) => {
        if (step !== 'commit') return false;
        request.resume();
        resolve();
        return true;
      };
    });
    const spawned = begun('publish', 'gguf', 'tiny.gguf', 'owner/held');
    await held;
    spawned.child.kill('SIGINT');
    expect(await spawned.ended).toEqual([130, null]);
    hub.fault = () => false;
    expect(hub.pathsOf('owner/held')).toEqual([]);
    expect((await workshop.ask('GET', '/api/finetune/publish', { key: KEY })).json['data']).toMatchObject(
      expect.arrayContaining([expect.objectContaining({ repo_id: 'owner/held', status: 'cancelled' })]),
    );
  }, 60_000);

  test('a workshop that ends meanwhile: 1, and how to return', async () => {
    const spawned = begun('imatrix', 'chat.gguf', 'long.txt');
    const [, id = ''] = await spawned.said(/^(job-[0-9a-f]{32}) \d+ %/m);
    await workshop.stop('SIGKILL');
    expect(await spawned.ended).toEqual([1, null]);
    expect(spawned.err()).toMatch(
      new RegExp(`no server answers at .*; it may go on: assay workshop jobs wait ${id}\n$`),
    );
    await workshop.start();
    expect(await statusOf(id)).toBe('interrupted');
  }, 60_000);
});

describe.skipIf(!HAVE_SCRIPT)('on a terminal', () => {
  test.each([
    ['a job', ['quantize', 'chat.gguf', 'Q8_0'], / done\r\n[0-9a-f]{64} {2}job-/],
    ['a publication', ['publish', 'gguf', 'lora.gguf', 'owner/bar'], /"status": "done"/],
  ])(
    '%s has one bar that is rewritten',
    async (_, args, result) => {
      const spawned = onTerminal(...args);
      expect((await spawned.ended)[0]).toBe(0);
      const [before, ...bars] = spawned.out().split('\r\u001b[K');
      expect([before, bars[0]]).toEqual(['', expect.stringMatching(/^\[[#-]{20}\] \d{1,3} % \w+/)]);
      expect(bars.at(-1)).toMatch(/^\[#{20}\] 100 % done\r\n/);
      expect(bars.at(-1)).toMatch(result);
    },
    60_000,
  );
});

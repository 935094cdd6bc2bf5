// A start that is wrong: `config check` and `serve` say the same line, with exit 2; and never a stack,
// however little the process may have.

import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Log } from '../../src/base/log.ts';
import { checkHeap } from '../../src/cli/heap-limit.ts';
import { readConfig } from '../../src/config/read.ts';
import { ASSAY, spawnAssay, type SpawnOptions, watched } from '../fixtures/e2e/assay.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-wrong-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function finished(args: readonly string[], options: Partial<SpawnOptions> = {}) {
  const spawned = spawnAssay(args, { cwd: folder, ...options });
  const [code] = await spawned.ended;
  return { code, out: spawned.out(), err: spawned.err() };
}

describe('config check and serve say the same', () => {
  test.each([
    ['a port', '[api]\naddress = "127.0.0.1:99999"\n', {}, 'a.toml:2: api.address must be host:port, not'],
    ['an id', '[api.models."a b"]\npath = "x"\n', {}, 'a.toml:1: api.models."a b": the model id may hold'],
    ['a name', '[tls]\nnames = ["a b"]\n', {}, 'a.toml:2: tls.names must be a list, each a DNS name'],
    ['a URL', '[models]\nhub = "http://hub"\n', {}, 'a.toml:2: models.hub must be an https URL unless'],
    [
      'a variable',
      '',
      { ASSAY_API_ADDRESS: 'x:70000' },
      'environment variable ASSAY_API_ADDRESS: api.address must',
    ],
    ['no such variable', '', { ASSAY_FOO: '1' }, 'environment: unknown variable ASSAY_FOO\n'],
  ])('%s', async (_, text, env, begin) => {
    writeFileSync(join(folder, 'a.toml'), text);
    const check = await finished(['config', 'check', '--config', 'a.toml'], { env });
    expect([check.code, check.out]).toEqual([2, '']);
    expect(check.err.startsWith(`assay: ${begin}`), check.err).toBe(true);
    expect(check.err.trimEnd()).not.toContain('\n');
    expect(await finished(['serve', '--config', 'a.toml'], { env })).toEqual(check);
  });
});

test('a port in use names the key, the value and the reason', async () => {
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as { port: number };
  const { code, err } = await finished([
    'serve',
    '--tee',
    'none',
    '--listen',
    `127.0.0.1:${port}`,
    '--data',
    'd',
  ]);
  other.close();
  expect(code).toBe(2);
  expect(err).toMatch(
    new RegExp(
      `^assay: --listen: api\\.address "127\\.0\\.0\\.1:${port}": cannot be listened on: .*\\(EADDRINUSE\\)\n$`,
      'm',
    ),
  );
});

describe.skipIf(process.platform !== 'linux')('few open files', () => {
  test.each([24, 32, 48, 64, 128])('%d', async (files) => {
    const { code, err } = await finished(
      ['serve', '--tee', 'none', '--listen', '127.0.0.1:0', '--data', 'd'],
      {
        under: ['/bin/sh', '-c', `ulimit -n ${files} && exec "$0" "$@"`],
      },
    );
    expect(code).toBe(2);
    expect(err).toMatch(
      /^assay: (too many open files|the limit of open files is \d+, .* needs at least 193).*\n$/,
    );
  });
});

describe.skipIf(process.platform !== 'linux')('little memory', () => {
  const ARGS = ['serve', '--tee', 'none', '--listen', '127.0.0.1:0', '--data', 'd'];

  test.each([
    ['a heap that holds no body', ['--max-old-space-size=20'], ''],
    ['a heap for smaller bodies', ['--max-old-space-size=64'], '[limits]\nmax_body_bytes = 67108864\n'],
  ])('%s', async (_, nodeArgs, text) => {
    writeFileSync(join(folder, 'm.toml'), text);
    const { code, out, err } = await finished([...ARGS, '--config', 'm.toml'], { nodeArgs });
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(
      /^assay: the heap of this process may have \d+ MiB, (this configuration needs at least \d+ MiB \(.*\)|the program needs at least 80 MiB): raise it .*\n$/,
    );
  });

  test('little address space, for every command', async () => {
    const cases = [ARGS, ['config', 'check']].flatMap((args) =>
      ['3000000', '11500000'].map((limit) => [args, `ulimit -v ${limit} && exec "$0" "$@"`] as const),
    );
    for (const [args, line] of cases)
      expect(await finished(args, { under: ['/bin/sh', '-c', line] })).toEqual({
        code: 2,
        out: '',
        err: 'assay: the limit of address space is too low: raise it ("ulimit -v", 16 GiB or none)\n',
      });
  });
});

test('a heap that holds one body and not all that may be held is warned of', () => {
  const lines: unknown[] = [];
  const log = { warn: (line: unknown) => lines.push(line) } as unknown as Log;
  const config = readConfig({ cwd: '/' });
  checkHeap(config, log, 320 * 1024 * 1024);
  expect(lines).toEqual([]);
  checkHeap(config, log, 319 * 1024 * 1024);
  expect(lines).toEqual([expect.objectContaining({ maxBodyBytesInFlight: 256 * 1024 * 1024 })]);
  expect(() => checkHeap(config, log, 79 * 1024 * 1024)).toThrow('needs at least 80 MiB');
});

test('a folder that is gone', async () => {
  const { code, err } = await finished(['serve', '--tee', 'none'], {
    under: ['/bin/sh', '-c', 'mkdir gone && cd gone && rmdir ../gone && exec "$0" "$@"'],
  });
  expect([code, err]).toEqual([
    2,
    'assay: the current folder cannot be told: no such file or directory (ENOENT)\n',
  ]);
});

/** The built server as a package has it: no Makefile, no sources. */
function installed(name: string): string {
  const top = join(ASSAY, '../../../..');
  const target = join(folder, name);
  mkdirSync(target);
  cpSync(join(top, 'package.json'), join(target, 'package.json'));
  cpSync(join(top, 'dist', 'src'), join(target, 'dist', 'src'), { recursive: true });
  symlinkSync(join(top, 'node_modules'), join(target, 'node_modules'));
  return target;
}

test('the demo from a folder without a Makefile does not speak of make', async () => {
  const main = join(installed('package'), 'dist/src/cli/main.js');
  const started = watched(spawn(process.execPath, [main, 'serve', '--demo']));
  expect((await started.ended)[0]).toBe(2);
  expect(started.err()).toMatch(
    /^assay: --demo needs the demo models, which only a checkout .* --model FILE\n$/,
  );
});

test('a build without the simulation says so, key and value', async () => {
  const target = installed('production');
  rmSync(join(target, 'dist/src/attester/simulated.js'));
  const args = ['serve', '--tee', 'simulated', '--listen', '127.0.0.1:0', '--data', join(folder, 'd')];
  const started = watched(spawn(process.execPath, [join(target, 'dist/src/cli/main.js'), ...args]));
  expect((await started.ended)[0]).toBe(2);
  expect(started.err()).toBe('assay: --tee: tee.mode "simulated": this build cannot simulate a TEE\n');
});

// The examples of docs/api.md run as they stand there, ports aside, against `assay serve --demo` behind the
// verifying proxy. Python runs where its clients are installed; elsewhere it must at least parse.

import { execFile, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type RunningProxy, startProxy } from '@assay/attestation/node';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const document = readFileSync(`${top}/docs/api.md`, 'utf8');
const ADDRESS = 'http://127.0.0.1:8080';

interface Block {
  readonly language: string;
  readonly code: string;
}
const blocks: readonly Block[] = [...document.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(
  ([, language = '', code = '']) => ({ language, code }),
);

function python(...args: readonly string[]): boolean {
  return spawnSync('python3', args).status === 0;
}
/** The command that runs a block; undefined: this machine has none. */
function runnerOf({ language, code }: Block): readonly [program: string, ...args: string[]] | undefined {
  if (language === 'sh') return ['/bin/sh', '-c'];
  if (language === 'ts') return [process.execPath, '--input-type=module', '-e'];
  if (language === 'python' && python('-c', code.split('\n')[0] ?? '')) return ['python3', '-c'];
  return undefined;
}
/** Settings of another program, which its own test runs with. */
const settings = blocks.filter(
  ({ language, code }) => language === 'toml' || /^(?:export .*\n)+$/.test(code),
);
/** It takes a whisper model, which the demo has not: e2e/transcription sends this form. */
const heard = blocks.filter(({ code }) => code.includes('/v1/audio/'));
const tried = blocks.filter((block) => !settings.includes(block) && !heard.includes(block));
const runnable = tried.flatMap((block) => {
  const runner = runnerOf(block);
  return runner === undefined ? [] : [{ ...block, runner }];
});
const MISSING = tried.length - runnable.length;
if (MISSING > 0)
  console.warn(`\n! ${MISSING} examples of docs/api.md are not run: their clients are not installed\n`);

let server: RealServer;
let proxy: RunningProxy;
beforeAll(async () => {
  server = await startRealServer();
  const policy: AppraisalPolicy = { ...(server.policy as AppraisalPolicy), [allowSimulated]: true };
  proxy = await startProxy({ upstream: server.url, policy, host: '127.0.0.1', port: 0 });
});
afterAll(async () => {
  await proxy.close();
  expect(await server.stop()).toBe(0);
});

test('its blocks are all in languages that are run', () => {
  expect(blocks.length).toBeGreaterThan(3);
  expect([...new Set(blocks.map(({ language }) => language))].sort()).toEqual(['python', 'sh', 'toml', 'ts']);
});

test('every model it names is served', async () => {
  const { data } = (await (await fetch(`${proxy.url}/v1/models`)).json()) as { data: { id: string }[] };
  const served = new Set(data.map(({ id }) => id));
  const named = blocks.flatMap(({ code }) =>
    [...code.matchAll(/(?:"?model"?\s*[:=]\s*|\.chat\()["']([^"']+)["']/g)].map(([, id]) => id ?? ''),
  );
  expect(named.length).toBeGreaterThanOrEqual(tried.length);
  expect(named.filter((id) => !served.has(id))).toEqual([]);
});

test.each(runnable.map(({ language, code, runner }) => [language, code, runner] as const))(
  '%s: %s',
  async (_language, code, [program, ...args]) => {
    const here = code.replaceAll(ADDRESS, proxy.url);
    expect(here).not.toBe(code);
    const ran = await new Promise<{ failed: boolean; stdout: string; stderr: string }>((resolve) => {
      execFile(program, [...args, here], { cwd: `${top}/test`, encoding: 'utf8' }, (error, stdout, stderr) =>
        resolve({ failed: error !== null, stdout, stderr }),
      );
    });
    expect([ran.failed, ran.stderr]).toEqual([false, ran.stderr]);
    expect(ran.stdout).toMatch(/\w/);
    expect(ran.stdout).not.toContain('"error"');
  },
);

test.skipIf(!python('-c', 'import ast'))('its Python parses', () => {
  for (const { code } of blocks.filter(({ language }) => language === 'python'))
    expect([code, python('-c', 'import ast, sys; ast.parse(sys.argv[1])', code)]).toEqual([code, true]);
});

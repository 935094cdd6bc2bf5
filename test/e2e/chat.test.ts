// `assay chat` against the real server: it verifies before it sends, says the verdict in one line, streams;
// piped and in a terminal.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { ASSAY, spawnAssay, watched } from '../fixtures/e2e/assay.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';
const KEY = 'sk-chat-test';

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer({
    env: { ASSAY_API_API_KEY: `sha256:${createHash('sha256').update(KEY).digest('hex')}` },
  });
});
afterAll(async () => {
  expect(await server.stop()).toBe(0);
});

const ENVIRONMENT = { OPENAI_API_KEY: KEY };

async function piped(
  args: readonly string[],
  input: string,
  env: Readonly<Record<string, string>> = ENVIRONMENT,
) {
  const chat = spawnAssay(['chat', ...args], { cwd: server.dataFolder, env });
  chat.child.stdin?.end(input);
  const [code] = await chat.ended;
  return { code, out: chat.out(), err: chat.err() };
}

function policy(): readonly string[] {
  return ['--policy', server.policyPath];
}

describe('standard input as one prompt', () => {
  test('the answer on standard output, the verdict in one line on standard error', async () => {
    const ran = await piped([server.url, ...policy(), '--allow-simulated', '--model', 'demo-chat'], question);
    expect(ran).toMatchObject({ code: 0, out: `${answer}\n` });
    expect(ran.err).toMatch(
      /^127\.0\.0\.1:\d+: SIMULATED, proves nothing about the machine: Genoa, build "[^"]+", measurement [0-9a-f]{16}…, 4 models\n$/,
    );
  });

  test('the policy is found in .assay, the model among those of the server, the key in a file', async () => {
    mkdirSync(join(server.dataFolder, '.assay'), { recursive: true });
    writeFileSync(join(server.dataFolder, '.assay', 'policy.json'), JSON.stringify(server.policy));
    writeFileSync(join(server.dataFolder, 'key'), `${KEY}\n`);
    const ran = await piped([server.url, '--allow-simulated', '--key-file', 'key'], question, {});
    expect(ran.code, ran.err).toBe(0);
    expect(ran.err).toContain('model demo-chat, of demo-chat, demo-context\n');
    expect(ran.out.trim()).not.toBe('');
  });

  test('a simulated server is refused unless allowed, before anything is sent', async () => {
    const before = server.stderr().length;
    const ran = await piped([server.url, ...policy()], question);
    expect([ran.code, ran.out]).toEqual([1, '']);
    expect(ran.err).toMatch(
      /^assay: 127\.0\.0\.1:\d+ is NOT verified, nothing was sent: .*\(simulated_refused\).*\n$/,
    );
    expect(server.stderr().slice(before)).not.toContain('/v1/chat');
  });

  test.each<[string, readonly string[], string, number, RegExp]>([
    [
      'no policy',
      ['--policy', 'gone.json'],
      'x',
      2,
      /^assay: the policy gone\.json cannot be read: no such file/,
    ],
    ['no prompt', [], ' \n', 2, /assay: standard input holds no prompt\n$/],
    ['no such model', ['--model', 'nope'], 'x', 1, /nope/],
    ['plain http', ['http://127.0.0.1:1'], 'x', 2, /^assay: /],
  ])('%s', async (...[, args, input, code, message]) => {
    const given = args.includes('--policy') ? [] : policy();
    const url = args.some((arg) => arg.startsWith('http')) ? [] : [server.url];
    const ran = await piped([...url, ...given, '--allow-simulated', ...args], input);
    expect(ran.err).toMatch(message);
    expect([ran.code, ran.out]).toEqual([code, '']);
  });

  test('without a key the server refuses, and with a wrong one', async () => {
    const args = [server.url, ...policy(), '--allow-simulated', '--model', 'demo-chat'];
    expect(await piped(args, question, {})).toMatchObject({ code: 1, out: '' });
    expect((await piped(args, question, { OPENAI_API_KEY: 'wrong' })).err).toContain('(invalid_api_key)');
  });

  test('nothing listens there', async () => {
    const ran = await piped(['https://127.0.0.1:1', ...policy(), '--allow-simulated'], 'x');
    expect([ran.code, ran.err]).toEqual([
      1,
      'assay: no server answers at https://127.0.0.1:1 (ECONNREFUSED)\n',
    ]);
  });
});

const HAVE_SCRIPT = spawnSync('script', ['--version']).status === 0;
if (!HAVE_SCRIPT) console.warn('\n! script(1) is not installed: the terminal of assay chat is not tested\n');

describe.skipIf(!HAVE_SCRIPT)('in a terminal', () => {
  function terminal(model: string): ReturnType<typeof watched> {
    const words = [
      process.execPath,
      ASSAY,
      'chat',
      server.url,
      ...policy(),
      '--allow-simulated',
      '--model',
      model,
    ];
    const command = words.map((word) => `'${word}'`).join(' ');
    return watched(
      spawn('script', ['-qefc', command, '/dev/null'], {
        cwd: server.dataFolder,
        env: { PATH: process.env['PATH'], HOME: server.dataFolder, TERM: 'xterm', ...ENVIRONMENT },
      }),
    );
  }

  test('prompts are answered one after the other, until the end of input', async () => {
    const chat = terminal('demo-chat');
    await chat.said(/Ctrl-C cancels an answer, twice ends/);
    chat.child.stdin?.write(`${question}\r`);
    await chat.said(new RegExp(answer.slice(0, 40)));
    chat.child.stdin?.write('\u0004');
    expect((await chat.ended)[0]).toBe(0);
    // Colours are for terminals.
    expect(chat.out()).toContain('\u001b[33mSIMULATED');
  });

  test('Ctrl-C cancels the answer, and twice ends', async () => {
    const chat = terminal('demo-context');
    await chat.said(/twice ends/);
    chat.child.stdin?.write(`${question}\r\u0003`);
    await chat.said(/\(cancelled\)/);
    // The line in between was no interruption.
    chat.child.stdin?.write('\r\u0003');
    await chat.said(/Ctrl-C again ends/);
    chat.child.stdin?.write('\u0003');
    expect((await chat.ended)[0]).toBe(0);
  });
});

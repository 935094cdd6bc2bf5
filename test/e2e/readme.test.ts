// The commands of README.md are run: its code for the OpenAI SDK, its curl through the proxy, its three
// verify commands with the outcomes it promises, and every make target and link it names exists. Only address
// and policy path are put in.

import { execFile, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const readme = readFileSync(join(top, 'README.md'), 'utf8');
const answer = EXPECTED.find(({ question }) => question === 'What is attestation?')?.answer ?? '';
function blocks(language: string): string[] {
  return [...readme.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    (match) => match[1] ?? '',
  );
}

let server: RealServer;
function here(text: string): string {
  return text
    .replaceAll('https://127.0.0.1:8443', server.url)
    .replaceAll('.assay/policy.json', server.policyPath);
}

function shell(command: string): Promise<{ code: number; stdout: string }> {
  return new Promise((resolve) => {
    execFile('/bin/sh', ['-c', command], { cwd: top, encoding: 'utf8' }, (error, stdout) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout }),
    );
  });
}

beforeAll(async () => {
  server = await startRealServer();
});
afterAll(async () => {
  expect(await server.stop()).toBe(0);
});

test('it opens with two commands that exist, and names no target or file that does not', () => {
  expect(readme.split('```sh\n')[1]?.match(/^make \w+/gm)).toEqual(['make run', 'make test']);
  const makefile = readFileSync(join(top, 'Makefile'), 'utf8');
  for (const [, target] of readme.matchAll(/`?\bmake ([a-z-]+)/g))
    if (target !== 'the') expect(makefile).toMatch(new RegExp(`^${target}:`, 'm'));
  for (const [, path] of readme.matchAll(/\]\(([^)#]+)\)/g))
    expect(existsSync(join(top, path ?? '')), path).toBe(true);
});

test('the lines for the OpenAI SDK', async () => {
  const script = `${here(blocks('ts')[0] ?? '')}
    const { choices } = await client.chat.completions.create({ model: 'demo-chat', temperature: 0, messages: [{ role: 'user', content: 'What is attestation?' }] });
    process.stdout.write(choices[0].message.content); process.exit(0);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: top,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(child, 'close');
  expect(text).toBe(answer);
});

const HAVE_CURL = spawnSync('curl', ['--version']).status === 0;
if (!HAVE_CURL) console.warn('\n! curl is not installed: its line of the README is not run\n');

test.skipIf(!HAVE_CURL)('curl through the proxy', async () => {
  const [command = '', curl = ''] = blocks('sh').filter((block) => block.includes('127.0.0.1:8080'));
  const args = here(command).trim().replace('127.0.0.1:8080', '127.0.0.1:0').split(' ').slice(2);
  const proxy = spawn(process.execPath, [join(top, 'node_modules/.bin/assay-verify'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(proxy, 'exit');
  try {
    const url = await new Promise<string>((resolve) => {
      let said = '';
      const look = (chunk: string): void => {
        said += chunk;
        const match = /http:\/\/127\.0\.0\.1:\d+/.exec(said);
        if (match) resolve(match[0]);
      };
      proxy.stdout.setEncoding('utf8').on('data', look);
      proxy.stderr.setEncoding('utf8').on('data', look);
    });
    const { code, stdout } = await shell(
      curl.replace('http://127.0.0.1:8080', url).replace('"model"', '"temperature":0,"model"'),
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ choices: [{ message: { content: answer } }] });
  } finally {
    proxy.kill('SIGTERM');
    await ended;
  }
});

test('the chat in the terminal', async () => {
  const command = /`(node dist\/src\/cli\/main\.js chat [^`]*)`/.exec(readme)?.[1] ?? '';
  const [program = '', ...rest] = command.split(' chat ');
  const line = `${program} chat ${server.url} --policy ${server.policyPath} --model demo-chat ${rest.join(' ')}`;
  const { code, stdout } = await shell(`echo 'What is attestation?' | ${line}`);
  expect([code, stdout]).toEqual([0, `${answer}\n`]);
});

test('names of ours that no registry has are for the checkout, and it says so first', () => {
  const said = readme.indexOf('not published to a registry');
  expect(said).toBeGreaterThan(0);
  expect(readme.indexOf('npx assay-verify')).toBeGreaterThan(said);
  expect(readme.indexOf("from '@assay/attestation")).toBeGreaterThan(said);
});

test('the commands that check end as it says', async () => {
  const commands = (blocks('sh').at(-1) ?? '')
    .trim()
    .split('\n')
    .map((line) => here(line.replace(/#.*/, '').trim()));
  expect(commands).toHaveLength(4);
  const ran = await Promise.all(
    commands.map((command) => shell(command.replace('npx ', 'node_modules/.bin/'))),
  );
  // The simulated TEE is refused without the flag, and graded down with it.
  expect(ran.map(({ code }) => code)).toEqual([0, 0, 10, 10]);
  expect(ran[1]?.stdout).toMatch(/not proven/i);
  expect(ran[3]?.stdout).toMatch(/^genuine-hardware +FAIL/m);
});

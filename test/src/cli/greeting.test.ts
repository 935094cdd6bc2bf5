// The greeting is made from the effective configuration: reachable addresses, keys, types of models, paths.
// And what a terminal gets in place of JSON.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { shellWord } from '../../../src/cli/command-lines.ts';
import { greeting, openToAll, usableUrl } from '../../../src/cli/greeting.ts';
import { inWords, logStream, painter, shown } from '../../../src/cli/terminal.ts';
import { readConfig, type Config } from '../../../src/config/read.ts';
import type { RunningServer } from '../../../src/start/start.ts';

const folder = mkdtempSync(join(tmpdir(), 'assay greeting '));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function config(text = ''): Config {
  const whole = `[store]\ndata_dir = ${JSON.stringify(folder)}\n${text}`;
  return readConfig({ file: { path: 'a.toml', text: whole }, cwd: '/' });
}

function printed(url: string, settings: Config, type = 'chat'): Promise<string> {
  const simulated = { root: new Uint8Array(1), reference: () => Promise.resolve({ measurement: 'ab' }) };
  const server = {
    url,
    models: { list: () => [{ id: 'm', type, sha256: 'cd', residency: 'memory' }] },
    tee: { simulated, source: { teeType: 'simulated' } },
  } as unknown as RunningServer;
  return greeting(server, settings, (_, text) => text);
}

describe('the printed lines', () => {
  test.each([
    ['https://0.0.0.0:8443', 'https://127.0.0.1:8443'],
    ['https://[::]:8443', 'https://[::1]:8443'],
    ['https://[::1]:8443', 'https://[::1]:8443'],
    ['https://192.0.2.7:1', 'https://192.0.2.7:1'],
  ])('a server on %s is reached at %s', async (url, usable) => {
    expect(usableUrl(url)).toBe(usable);
    const text = await printed(url, config());
    expect(text).toContain(`assay-verify.js ${usable} `);
    expect(text).not.toContain('npx');
    expect(text).toContain(`baseURL: '${usable}/v1'`);
    expect(text.split('Verify:')[1]).not.toMatch(/\/\/(0\.0\.0\.0|\[::\])/);
  });

  test('without keys there is none, and a network address is said to be open to everybody', async () => {
    const text = await printed('https://0.0.0.0:1', config('[api]\naddress = "0.0.0.0:1"'));
    expect(text).not.toMatch(/authorization/i);
    expect(text).toContain('EVERYBODY');
    expect(text).toContain('/dist/src/cli/main.js api-key add NAME');
    expect(await printed('https://127.0.0.1:1', config())).not.toContain('EVERYBODY');
  });

  test.each([
    ['api_key = "k"\nrequire_auth = false', 'it: api.require_auth is false.', false],
    ['require_auth = false', 'it: no key is configured.', false],
    ['admin_key = "k"', 'it: no key is configured.', true],
  ])('%j is open, and the sentence says why', async (api, why, aKeyHelps) => {
    const text = await printed('https://0.0.0.0:1', config(`[api]\naddress = "0.0.0.0:1"\n${api}`));
    expect(text).toContain(why);
    expect(text.includes('api-key add')).toBe(aKeyHelps);
  });

  test('with keys, from wherever, curl and the SDK carry one, and none is printed', async () => {
    const settings = config('[api]\naddress = "0.0.0.0:1"\napi_key = "CANARY"');
    const text = await printed('https://0.0.0.0:1', settings);
    expect(text).toContain('-H "authorization: Bearer $OPENAI_API_KEY"');
    expect(text).toContain('const apiKey = process.env.OPENAI_API_KEY;');
    expect(text).not.toContain("'unused'");
    expect(text).not.toMatch(/CANARY|EVERYBODY/);
  });

  test.each([
    ['chat', '/v1/chat/completions', 'messages'],
    ['completion', '/v1/completions', 'prompt'],
    ['embedding', '/v1/embeddings', 'input'],
    ['rerank', '/v1/rerank', 'documents'],
  ])('a model for %s is asked at %s', async (type, route, field) => {
    const text = await printed('https://127.0.0.1:8443', config(), type);
    expect(text).toContain(`curl http://127.0.0.1:8080${route} `);
    const body = /-d '(.*)'/.exec(text)?.[1] ?? '';
    expect(JSON.parse(body)).toHaveProperty(field);
  });

  test('the proxy does not take the port of the server, and a path with a blank is one word', async () => {
    const text = await printed('https://127.0.0.1:8080', config());
    expect(text).toContain('--listen 127.0.0.1:8081');
    expect(text).toContain(`--policy '${join(folder, 'policy.json')}' --allow-simulated`);
  });

  test.each(['plain/path.json', "it's here", '$(echo x) `y` "z"'])(
    '%j reaches a program as it is',
    (word) => {
      expect(execFileSync('/bin/sh', ['-c', `printf %s ${shellWord(word)}`], { encoding: 'utf8' })).toBe(
        word,
      );
    },
  );

  test.each([
    ['', false],
    ['[api]\naddress = "[::1]:1"', false],
    ['[api]\naddress = "0.0.0.0:1"', true],
    ['[api]\naddress = "host.example:1"\nadmin_key = "k"', true],
    ['[api]\naddress = "0.0.0.0:1"\napi_key = "k"', false],
    ['[api]\naddress = "0.0.0.0:1"\napi_key = "k"\nrequire_auth = false', true],
  ])('%j is open to everybody: %s', (text, open) => {
    expect(openToAll(config(text))).toBe(open);
  });
});

describe('a terminal', () => {
  const line = `${JSON.stringify({ level: 'warn', time: '2026-01-02T03:04:05.678Z', msg: 'few files', openFiles: 7, err: { name: 'ApiError', message: 'no\u001b[2J', stack: ['at x'] } })}\n`;

  test('gets words, without control characters and stacks', () => {
    expect(inWords(line, (_, text) => text)).toBe(
      '03:04:05 warn  few files  openFiles=7 err="ApiError: no\\u001b[2J"\n',
    );
    expect(shown('a\u001b[31mb\r\u202ec\n')).toBe('a\ufffd[31mb\ufffd\ufffdc\n');
  });

  test('gets colours unless NO_COLOR is set; nothing else does', () => {
    expect(painter({ isTTY: true }, {})('red', 'x')).toBe('\u001b[31mx\u001b[0m');
    expect(painter({ isTTY: true }, { NO_COLOR: '1' })('red', 'x')).toBe('x');
    expect(painter({ isTTY: true }, { NO_COLOR: '' })('red', 'x')).toContain('\u001b');
    expect(painter({ isTTY: false }, {})('red', 'x')).toBe('x');
  });

  test('is asked, or told, what the log is written as', () => {
    const output = (isTTY: boolean) => ({ isTTY, write: () => true });
    expect(logStream(undefined, output(false))).toBeUndefined();
    expect(logStream('auto', output(true))).toBeDefined();
    expect(logStream('json', output(true))).toBeUndefined();
    expect(logStream('text', output(false))).toBeDefined();
    expect(() => logStream('xml', output(true))).toThrow(/--log-format must be one of auto, json, text/);
  });
});

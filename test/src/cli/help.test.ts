// Every command and sub-command answers --help and -h on standard output with its own text; keys
// are made and printed once.

import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { run } from '../../../src/cli/commands.ts';
import { commandNames, helpOf } from '../../../src/cli/help.ts';
import { readConfig, apiKeys } from '../../../src/config/read.ts';

let out = '';
beforeEach(() => {
  out = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += String(text);
    return true;
  });
});
afterEach(() => vi.restoreAllMocks());

const ACTIONS: Readonly<Record<string, readonly string[]>> = {
  models: ['list', 'ps', 'show', 'add', 'pull', 'rm', 'load', 'unload', 'derive'],
  config: ['check', 'show'],
  'api-key': ['add'],
  image: ['model'],
  audit: ['verify'],
};
const ALL = commandNames().flatMap((name) => [
  [name],
  ...(ACTIONS[name] ?? []).map((action) => [name, action]),
]);

describe('help', () => {
  test.each(ALL.map((words) => [words.join(' '), words] as const))('%s', async (usage, words) => {
    for (const args of [
      [...words, '--help'],
      [...words, '-h'],
      ['help', ...words],
      ['--help', ...words],
    ]) {
      out = '';
      expect(await run(args)).toBe(0);
      expect(out.startsWith(`usage: assay ${usage}`), out).toBe(true);
    }
  });

  test('each has a text of its own', () => {
    const texts = ALL.map((words) => helpOf(words));
    expect(new Set(texts).size).toBe(ALL.length);
  });

  test('also beside other arguments, but not after --', async () => {
    expect(await run(['serve', '--listen', '127.0.0.1:0', '--help'])).toBe(0);
    await expect(run(['config', 'check', '--', '--help'])).rejects.toThrow(/usage/);
    await expect(run(['sreve', '--help'])).rejects.toThrow(/unknown command "sreve", did you mean serve\?/);
    await expect(run(['frobnicate'])).rejects.toThrow(
      /^unknown command "frobnicate"; assay --help lists them$/,
    );
  });

  test.each([[['--version']], [['-v']], [['version']], [['serve', '-v']]])(
    '%j is the version',
    async (args) => {
      expect(await run(args)).toBe(0);
      expect(out).toMatch(/^\d+\.\d+\.\d+\n$/);
    },
  );

  test('a wrong option is named without advice of another program', async () => {
    await expect(run(['config', 'check', '--confg', 'x'])).rejects.toThrow(
      /^Unknown option '--confg', did you mean --config\?$/,
    );
    await expect(run(['config', 'check', '--zzz'])).rejects.toThrow(/^Unknown option '--zzz'$/);
  });
});

describe('api-key add', () => {
  test('prints a key once and the lines that admit it', async () => {
    expect(await run(['api-key', 'add', 'alice of "x"', '--admin'])).toBe(0);
    const key = /shown this once: (\S+)\n/.exec(out)?.[1] ?? '';
    expect(key).toMatch(/^sk-assay-[\w-]{43}$/);
    const text = out.slice(out.indexOf('[api.keys.'));
    expect(text).not.toContain(key);
    expect(apiKeys(readConfig({ file: { path: 'a.toml', text }, cwd: '/' }))).toMatchObject([
      { name: 'alice of "x"', admin: true, sha256: createHash('sha256').update(key).digest('hex') },
    ]);
  });

  test('--json, another key each time', async () => {
    await run(['api-key', 'add', 'bob', '--json']);
    await run(['api-key', 'add', 'bob', '--json']);
    const [first, second] = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { name: string; key: string; sha256: string });
    expect(first?.key).not.toBe(second?.key);
    expect(first?.sha256).toBe(
      createHash('sha256')
        .update(first?.key ?? '')
        .digest('hex'),
    );
  });

  test.each([[['api-key']], [['api-key', 'add']], [['api-key', 'rm', 'x']], [['api-key', 'add', 'a\nb']]])(
    '%j is a mistake',
    async (args) => {
      await expect(run(args)).rejects.toMatchObject({ name: 'UsageError' });
    },
  );
});

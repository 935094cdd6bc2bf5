// Every command explains itself: its own text on stdout, exit 0; and the program ends
// quietly when its reader does.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { helpFor } from '../../../../attestation/node/cli/help.ts';
import { cli } from '../../../fixtures/attestation/cli.ts';

const COMMANDS = [
  ['proxy'],
  ['console'],
  ['score'],
  ['evidence'],
  ['measure'],
  ['policy'],
  ['policy', 'lint'],
  ['policy', 'print'],
  ['bundle'],
  ['https://127.0.0.1:1'],
];

describe('--help', () => {
  test.each(COMMANDS.map((words) => [words.join(' '), words] as const))('%s', async (_, words) => {
    const ran = await cli([...words, '--help']);
    expect([ran.code, ran.err]).toEqual([0, '']);
    expect(await cli([...words, '-h'])).toEqual(ran);
    expect(await cli(['--help', ...words])).toEqual(ran);
    expect(
      ran.out.startsWith(`assay-verify ${words[0]?.startsWith('https') ? 'https' : words.join(' ')}`),
    ).toBe(true);
    for (const line of ran.out.split('\n')) expect(line.length).toBeLessThanOrEqual(124);
  });

  test('each text is its own', async () => {
    const texts = await Promise.all(
      [[], ...COMMANDS].map(async (words) => (await cli([...words, '--help'])).out),
    );
    expect(new Set(texts).size).toBe(texts.length);
  });

  test('with other options beside it, whatever they are worth', async () => {
    const { out } = await cli(['proxy', '--help']);
    expect((await cli(['proxy', 'https://x', '--listen', 'nonsense', '--help'])).out).toBe(out);
    expect((await cli(['help', 'proxy'])).out).toBe(out);
  });

  test('an unknown word gets the overview', () => {
    expect(helpFor(['mend', '--help'])).toBe(helpFor([]));
  });

  describe.each(['--version', '-v'])('%s', (flag) => {
    const { version } = JSON.parse(
      readFileSync(new URL('../../../../attestation/package.json', import.meta.url), 'utf8'),
    ) as { version: string };

    test.each([
      '',
      'https://127.0.0.1:8443',
      'https://x --json --timeout nonsense',
      'proxy',
      'proxy https://x --listen nonsense',
      'evidence',
      'measure',
      'measure m.json --json',
      'policy',
      'policy lint',
      'policy print p.json',
      'bundle',
      'bundle --cache DIR',
    ])('%s', async (words) => {
      const args = words.split(' ').filter((word) => word !== '');
      for (const given of [
        [...args, flag],
        [flag, ...args],
      ])
        expect(await cli(given)).toEqual({ code: 0, out: `assay-verify ${version}\n`, err: '' });
    });
  });

  test('after -- neither is an option, and beside --help that is meant', async () => {
    expect((await cli(['measure', '--', '--version'])).code).toBe(30);
    expect((await cli(['proxy', '--version', '--help'])).out).toContain('assay-verify proxy https://');
  });
});

test.skipIf(process.platform !== 'linux')('few open files: one line, and no stack', async () => {
  const bin = fileURLToPath(new URL('../../../../attestation/bin/assay-verify.js', import.meta.url));
  const under = ['-c', 'ulimit -n 22 && exec "$0" "$@"', process.execPath, bin, 'https://127.0.0.1:1'];
  const failed: unknown = await promisify(execFile)('/bin/sh', under).catch((error: unknown) => error);
  expect(failed).toMatchObject({ code: 1 });
  expect((failed as { readonly stderr: string }).stderr).toMatch(
    /^assay-verify: internal: EMFILE: .*: raise the limit of open files \("ulimit -n"\)\n$/,
  );
});

test.skipIf(process.platform !== 'linux')('a file without an end is read up to a bound', async () => {
  const bin = fileURLToPath(new URL('../../../../attestation/bin/assay-verify.js', import.meta.url));
  const read = promisify(execFile)(process.execPath, [bin, 'receipt', '/dev/zero']);
  const failed: unknown = await read.catch((error: unknown) => error);
  expect(failed).toMatchObject({
    code: 30,
    stderr: expect.stringContaining('has more than 268435456 bytes'),
  });
});

describe('a reader that leaves', () => {
  const bin = fileURLToPath(new URL('../../../../attestation/bin/assay-verify.js', import.meta.url));
  const run = promisify(execFile);

  test.each(['--help', 'policy print no-such-file'])('%s, stdout and stderr closed', async (words) => {
    // `exec` closes the pipe before the program can have written.
    const { stdout, stderr } = await run('sh', [
      '-c',
      `{ "$0" "$1" ${words} 2>&1; } | true`,
      process.execPath,
      bin,
    ]);
    expect([stdout, stderr]).toEqual(['', '']);
  });

  test('head has its line, and nothing else is said', async () => {
    const { stdout, stderr } = await run('sh', ['-c', '"$0" "$1" --help | head -n 1', process.execPath, bin]);
    expect(stdout).toMatch(/^assay-verify: .*\n$/);
    expect(stderr).toBe('');
  });
});

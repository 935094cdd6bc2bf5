// `assay` as people and init scripts use it: the built command, real processes, exit
// codes, one line per mistake.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createBar } from '../../../src/cli/models.ts';
import { demo, type Finished, useAssayCommand } from '../../fixtures/cli/assay-command.ts';

const fixture = useAssayCommand();
const { assay, file } = fixture;

describe('arguments', () => {
  test('--help and --version', async () => {
    const help = await assay(['--help']);
    expect(help).toMatchObject({ code: 0, err: '' });
    expect(help.out).toBe(readFileSync(new URL('../../golden/assay-help.txt', import.meta.url), 'utf8'));
    expect((await assay(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test.each([
    [[], /^assay: OpenAI-compatible/],
    [['sreve'], /^assay: unknown command "sreve"/],
    [['serve', '--lisen', 'x'], /^assay: Unknown option '--lisen'/],
    [['serve', '--tee', 'sgx'], /^assay: --tee: tee\.mode must be one of .*, not "sgx"\n$/],
    [['serve', '--config', 'missing.toml'], /^assay: missing\.toml cannot be read \(ENOENT\)/],
    [['config'], /^assay: usage/],
    [['models', 'frobnicate'], /^assay: assay models list/],
    [['models', 'show'], /needs a model name/],
    [['models', 'list', '--url', 'https://example.org'], /is not on this machine/],
    [['audit', 'verify', '--receipt-key', 'x'], /64 hex digits/],
  ])('%j is exit 2', async (args, message) => {
    const { code, out, err } = await assay(args);
    expect([code, out]).toEqual([2, '']);
    expect(err).toMatch(message);
  });
});

describe('config', () => {
  test('check names the mistake, the line and the nearest key', async () => {
    const path = file('bad.toml', '[api]\nadress = "x"\n');
    expect(await assay(['config', 'check', '--config', path])).toEqual({
      code: 2,
      out: '',
      err: `assay: ${path}:2: unknown key api.adress, did you mean api.address?\n`,
    });
  });

  test('show prints the effective configuration and its digest, no secret', async () => {
    const path = file('good.toml', '[api]\napi_key = "sk-CANARY"\n');
    const check = await assay(['config', 'check', '--config', path]);
    expect(check.out).toMatch(
      /^configuration is valid: 0 models, 1 keys, tee auto\ndigest \(claim 5\): [0-9a-f]{64}\n$/,
    );
    const { code, out } = await assay(['config', 'show'], { ASSAY_CONFIG: path, ASSAY_LOG_LEVEL: 'warn' });
    expect(code).toBe(0);
    expect(out).not.toContain('CANARY');
    expect(JSON.parse(out)).toMatchObject({
      config: {
        log: { level: 'warn' },
        api: { api_key: `sha256:${createHash('sha256').update('sk-CANARY').digest('hex')}` },
      },
    });
  });
});

describe('a start that cannot be', () => {
  test.each([
    [
      'a model that is not there',
      (path: string) => ['--tee', 'none', '--model', `${path}/missing.gguf`],
      2,
      /^assay: --model missing: api\.models\.missing\.path "[^"]*\/missing\.gguf": no such file or directory \(ENOENT\) \(file_not_found\)\n$/,
    ],
    [
      'a file that is no GGUF',
      (path: string) => [
        '--tee',
        'none',
        '--model',
        `m=${file('not.gguf', 'x'.repeat(100))}`,
        '--data',
        path,
      ],
      2,
      /^assay: --model m: api\.models\.m\.path "[^"]*\/not\.gguf": .*\(invalid_gguf\)\n$/m,
    ],
    [
      'a TEE that is not there',
      (path: string) => ['--tee', 'sev-snp', '--data', path],
      2,
      /^assay: --tee: tee\.mode "sev-snp": in \/sys\/kernel\/config\/tsm\/report no provider is there\n$/m,
    ],
    [
      'a port of others',
      () => ['--tee', 'none', '--listen', '192.0.2.1:1'],
      2,
      /^assay: --listen: api\.address "192\.0\.2\.1:1": cannot be listened on: .* \(EADDRNOTAVAIL\)\n$/m,
    ],
    [
      'a model name that is none',
      (path: string) => ['--tee', 'none', '--model', `../x=${path}`],
      2,
      /^assay: --model "\.\.\/x": the model id .* \(invalid_model_name\)\n$/,
    ],
  ])('%s: one line, and the right exit code', async (_, args, code, message) => {
    const finished = await assay(['serve', ...args(fixture.folder)]);
    expect(finished.err).toMatch(message);
    expect(finished.code).toBe(code);
    expect(finished.err).not.toMatch(/\n\s+at /);
  });

  test('api.enabled = false starts nothing and is no mistake', async () => {
    expect(await assay(['serve', '--config', file('off.toml', '[api]\nenabled = false\n')])).toMatchObject({
      code: 0,
    });
  });
});

describe('image model', () => {
  test('packs a GGUF and prints what the measured configuration has to say, the same each time', async () => {
    const out = join(fixture.folder, 'chat.img');
    const pack = (...more: string[]): Promise<Finished> =>
      assay(['image', 'model', demo['demo-chat'].path, '--out', out, ...more]);
    const first = JSON.parse((await pack('--json')).out) as Record<string, unknown>;
    expect(first).toMatchObject({
      disk: out,
      name: 'demo-chat',
      sha256: demo['demo-chat'].sha256,
      rootHash: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
    });
    const bytes = readFileSync(out);
    const { out: text } = await pack();
    expect(readFileSync(out).equals(bytes)).toBe(true);
    expect(text).toContain(
      `model demo-chat ${String(first['rootHash'])} ${String(first['blocks'])}\n---\n[api.models."demo-chat"]\n`,
    );
    expect(await assay(['image', 'model', join(fixture.folder, 'missing.gguf')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('file_not_found') as string,
    });
    expect(await assay(['image', 'model'])).toMatchObject({ code: 2 });
  });
});

describe('the progress bar', () => {
  test('shows percent, amount, speed and time left; nothing without a terminal', () => {
    const lines: string[] = [];
    const bar = createBar(true, (line) => lines.push(line));
    bar('downloading', 0, 4_000_000, 0);
    bar('downloading', 1_000_000, 4_000_000, 1000);
    bar('verifying', 0, 0, 2000);
    bar('success', 0, 0, 2000);
    expect(lines).toEqual([
      '\r\u001b[K[--------------------] 0 % 0 B of 4.0 MB, 0 B/s',
      '\r\u001b[K[#####---------------] 25 % 1.0 MB of 4.0 MB, 1.0 MB/s, 3 s left',
      '\r\u001b[Kverifying',
      '\r\u001b[Ksuccess\n',
    ]);
    const silent: string[] = [];
    createBar(false, (line) => silent.push(line))('downloading', 1, 2, 3);
    expect(silent).toEqual([]);
  });
});

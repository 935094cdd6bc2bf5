// Where the key of stored files comes from: a file without a real TEE, memory with one, the hardware where it can.

import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ReportSource } from '../../../src/attester/assemble.ts';
import type { SimulatedSource } from '../../../src/attester/simulated.ts';
import { systemClock } from '../../../src/base/clock.ts';
import type { Log } from '../../../src/base/log.ts';
import { type Config, readConfig } from '../../../src/config/read.ts';
import type { Files } from '../../../src/files/open.ts';
import { createFiles } from '../../../src/start/files.ts';
import type { Tee } from '../../../src/start/tee.ts';
import { configRefusalOf } from '../../fixtures/refusal.ts';

let folder: string;
let logged: object[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-start-files-'));
  logged = [];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const log = {
  info: (line: object) => void logged.push(line),
  warn: (line: object) => void logged.push(line),
} as Log;

function configOf(flags: Readonly<Record<string, unknown>> = {}): Config {
  return readConfig({
    environment: {},
    cwd: folder,
    flags: { 'store.data_dir': join(folder, 'data'), 'files.folder': join(folder, 'files'), ...flags },
  });
}

function teeOf(teeType: ReportSource['teeType'], simulated?: Partial<SimulatedSource>): Tee {
  const source = { teeType } as ReportSource;
  return { source, simulated: simulated as SimulatedSource | undefined };
}
const simulatedTee = (byte: number): Tee =>
  teeOf('simulated', { derivedKey: () => Promise.resolve(new Uint8Array(32).fill(byte)) });

async function opened(flags: Readonly<Record<string, unknown>>, tee: Tee | null): Promise<Files> {
  return (await createFiles(configOf(flags), tee, systemClock, log)) as Files;
}

/** Stores a file, starts again, and gives what is left of it. */
async function kept(flags: Readonly<Record<string, unknown>>, tee: Tee | null): Promise<number> {
  const first = await opened(flags, tee);
  const upload = await first.store.create('me');
  await upload.write(Buffer.from('x'));
  await upload.finish({ filename: 'x', purpose: 'user_data' });
  await first.close();
  const again = await opened(flags, tee);
  const left = again.store.list('me').length;
  await again.close();
  return left;
}

test('without a folder there are no files', async () => {
  const config = readConfig({ environment: {}, cwd: folder, flags: { 'store.data_dir': folder } });
  expect(await createFiles(config, null, systemClock, log)).toBeNull();
});

describe('by default', () => {
  test.each([
    ['none', null],
    ['simulated', simulatedTee(1)],
  ] as const)('with %s, a key file in the data folder', async (_, tee) => {
    expect(await kept({}, tee)).toBe(1);
    const path = join(folder, 'data', 'files.key');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect(JSON.stringify(logged)).not.toContain((await readFile(path, 'utf8')).trim());
  });

  test.each(['sev-snp', 'tdx'] as const)(
    'with a real %s, memory: nothing is left, and the log says so',
    async (teeType) => {
      expect(await kept({}, teeOf(teeType))).toBe(0);
      expect(logged).toContainEqual(expect.objectContaining({ count: 2 }));
    },
  );
});

describe('hardware', () => {
  test('of the simulation: its own chip opens the files, another is refused', async () => {
    const flags = { 'files.key': 'hardware' };
    expect(await kept(flags, simulatedTee(1))).toBe(1);
    expect((await configRefusalOf(opened(flags, simulatedTee(2)))).message).toContain('another chip');
  });

  test.each<readonly [string, string, number, string]>([
    ['gives a key', 'head -c 32 /dev/zero', 0, ''],
    ['gives too little', 'head -c 31 /dev/zero', 1, 'gave 31 bytes, expected 32'],
    ['gives too much', 'head -c 33 /dev/zero', 1, 'gave 33 bytes, expected 32'],
    ['fails', 'echo a secret >&2; exit 1', 1, 'failed (1)'],
    ['sees our environment', 'test -z "$HOME" && head -c 32 /dev/zero', 0, ''],
  ])('of SEV-SNP, through a helper that %s', async (_what, script, refused, message) => {
    const helper = join(folder, 'helper');
    await writeFile(helper, `#!/bin/sh\n${script}\n`);
    await chmod(helper, 0o755);
    const flags = { 'files.key': 'hardware', 'files.key_helper': helper };
    if (refused === 0) expect(await kept(flags, teeOf('sev-snp'))).toBe(1);
    else {
      const error = await configRefusalOf(opened(flags, teeOf('sev-snp')));
      expect(error.message).toContain(message);
      expect(error.message).not.toContain('secret');
    }
  });

  test.each<readonly [string, Readonly<Record<string, unknown>>, Tee | null]>([
    ['there is no TEE', { 'files.key': 'hardware' }, null],
    ['TDX has no key', { 'files.key': 'hardware' }, teeOf('tdx')],
    ['files.key_helper is not set', { 'files.key': 'hardware' }, teeOf('sev-snp')],
    ['failed (ENOENT)', { 'files.key': 'hardware', 'files.key_helper': '/nowhere/helper' }, teeOf('sev-snp')],
    ['the host reads the disk', { 'files.key': 'file' }, teeOf('sev-snp')],
  ])('is refused: %s', async (message, flags, tee) => {
    expect((await configRefusalOf(opened(flags, tee))).message).toContain(message);
  });
});

test('a folder in use by another server is refused', async () => {
  const first = await opened({}, null);
  expect((await configRefusalOf(opened({}, null))).message).toContain('is in use');
  await first.close();
});

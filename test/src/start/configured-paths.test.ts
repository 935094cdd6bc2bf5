// The files and folders a configuration names, before anything is made: key, value and reason, as
// the operator wrote them.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readConfig } from '../../../src/config/read.ts';
import { checkConfiguredPaths, refusedValue } from '../../../src/start/configured-paths.ts';
import { configRefusalOf } from '../../fixtures/refusal.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-places-'));
  writeFileSync(join(folder, 'file'), 'x');
  mkdirSync(join(folder, 'in-the-way'));
  writeFileSync(join(folder, 'in-the-way', 'audit'), 'x');
  writeFileSync(join(folder, 'in-the-way', 'simulated'), 'x');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function refusal(text: string): Promise<string> {
  const whole = text.includes('data_dir') ? text : `[store]\ndata_dir = "data"\n${text}`;
  const config = readConfig({ file: { path: join(folder, 'a.toml'), text: whole }, cwd: '/' });
  return (await configRefusalOf(checkConfiguredPaths(config))).message.replaceAll(folder, '~');
}

test.each([
  [
    '[api.models.m]\npath = "missing.gguf"',
    '~/a.toml:4: api.models.m.path "~/missing.gguf": no such file or directory (ENOENT) (file_not_found)',
  ],
  [
    '[api.models."a:b"]\npath = "/dev/null"',
    '~/a.toml:4: api.models."a:b".path "/dev/null": is not a regular file',
  ],
  [
    '[api.models.m]\npath = "file"\nformat = "huggingface"',
    '~/a.toml:4: api.models.m.path "~/file": is not a folder',
  ],
  [
    '[api.models.m]\npath = "file"\nchat_template = "gone"',
    '~/a.toml:5: api.models.m.chat_template "~/gone": no such file or directory (ENOENT)',
  ],
  ['[store]\ndata_dir = "file"', '~/a.toml:2: store.data_dir "~/file": is not a folder (ENOTDIR)'],
  ['[store]\ndata_dir = "file/x"', '~/a.toml:2: store.data_dir "~/file/x": not a directory (ENOTDIR)'],
  [
    '[store]\ndata_dir = "in-the-way"\n[audit]\nenabled = true',
    '~/a.toml:2: store.data_dir "~/in-the-way": ~/in-the-way/audit in it: is not a folder (ENOTDIR)',
  ],
  [
    '[store]\ndata_dir = "in-the-way"\n[tee]\nmode = "simulated"',
    '~/a.toml:2: store.data_dir "~/in-the-way": ~/in-the-way/simulated in it: is not a folder (ENOTDIR)',
  ],
  [
    '[audit]\nenabled = true\nfolder = "file"',
    '~/a.toml:5: audit.folder "~/file": is not a folder (ENOTDIR)',
  ],
  [
    '[tee]\nmode = "simulated"\nsimulated_folder = "file"',
    '~/a.toml:5: tee.simulated_folder "~/file": is not a folder (ENOTDIR)',
  ],
  [
    '[store]\ndata_dir = "data"\nresidency = "verity"\nverity_folder = "gone"',
    '~/a.toml:4: store.verity_folder "~/gone": no such file or directory (ENOENT)',
  ],
])('%j', async (text, message) => {
  expect(await refusal(text)).toBe(message);
});

test.skipIf(process.platform !== 'linux')('a place that takes no folders ends, too', async () => {
  expect(await refusal('[store]\ndata_dir = "/proc/assay/data"')).toMatch(
    /^~\/a\.toml:2: store\.data_dir "\/proc\/assay\/data": .*\(ENOENT\)$/,
  );
});

test('what is there is no matter, and the data folder is made', async () => {
  const text = `[store]\ndata_dir = "new/deep"\n[audit]\nenabled = true\n[api.models.m]\npath = "file"`;
  await checkConfiguredPaths(readConfig({ file: { path: join(folder, 'a.toml'), text }, cwd: '/' }));
});

test('a default has no place it was written in', () => {
  const config = readConfig({ cwd: '/' });
  expect(refusedValue(config, ['api.address'], 'is busy').message).toBe(
    'api.address "127.0.0.1:8443": is busy',
  );
});

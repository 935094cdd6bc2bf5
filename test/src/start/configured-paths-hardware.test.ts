// Paths of the configuration that only a start on hardware, or an admin, would have met later: looked at
// first, named as written.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ConfigError } from '../../../src/base/errors.ts';
import { readConfig } from '../../../src/config/read.ts';
import { checkConfiguredPaths } from '../../../src/start/configured-paths.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-hardware-'));
  writeFileSync(join(folder, 'file'), 'x');
  mkdirSync(join(folder, 'folder'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function refusal(text: string): Promise<string | undefined> {
  const file = { path: join(folder, 'a.toml'), text };
  try {
    await checkConfiguredPaths(
      readConfig({ file, cwd: '/', flags: { 'store.data_dir': join(folder, 'data') } }),
    );
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return (error as Error).message.replaceAll(folder, '~');
  }
  return undefined;
}

const NONE = 'no such file or directory (ENOENT)';
const NO_FOLDER = 'is not a folder (ENOTDIR)';

test.each([
  ['[store]\nmodel_roots = ["gone"]', `~/a.toml:2: store.model_roots ["~/gone"]: number 1: ${NONE}`],
  [
    '[store]\nmodel_roots = ["folder", "file"]',
    `~/a.toml:2: store.model_roots ["~/folder","~/file"]: number 2: ${NO_FOLDER}`,
  ],
  ['[store]\nverity_folder = "file"', `~/a.toml:2: store.verity_folder "~/file": ${NO_FOLDER}`],
  ['[tee]\nattestd_socket = "gone"', `~/a.toml:2: tee.attestd_socket "~/gone": ${NONE}`],
  ['[tee]\nmode = "sev-snp"\nattestd_socket = "gone"', `~/a.toml:3: tee.attestd_socket "~/gone": ${NONE}`],
  [
    '[tee]\nmode = "simulated-if-no-hardware"\nattestd_socket = "file"',
    '~/a.toml:3: tee.attestd_socket "~/file": connection refused (ECONNREFUSED)',
  ],
  ['[tee]\ntsm_folder = "gone"', `~/a.toml:2: tee.tsm_folder "~/gone": ${NONE}`],
  ['[tee]\nmode = "tdx"\ntsm_folder = "file"', `~/a.toml:3: tee.tsm_folder "~/file": ${NO_FOLDER}`],
  ['[tee]\nendorsements_folder = "gone"', `~/a.toml:2: tee.endorsements_folder "~/gone": ${NONE}`],
])('%j', async (text, message) => {
  expect(await refusal(text)).toBe(message);
});

test.each([
  '[tee]\nmode = "none"\nattestd_socket = "gone"\ntsm_folder = "gone"',
  '[tee]\nmode = "simulated"\nattestd_socket = "gone"\nendorsements_folder = "gone"',
  '[store]\nmodel_roots = ["folder"]\nverity_folder = "folder"',
  '[tee]\ntsm_folder = "folder"\nendorsements_folder = "folder"',
])('%j is no matter', async (text) => {
  expect(await refusal(text)).toBeUndefined();
});

test('a socket is good while somebody listens on it, not because its file is there', async () => {
  const path = join(folder, 's');
  const server = createServer((socket) => socket.destroy()).listen(path);
  await once(server, 'listening');
  // Where there is a root part, it reads the folder of reports.
  expect(await refusal('[tee]\nattestd_socket = "s"\ntsm_folder = "gone"')).toBeUndefined();
  server.close();
  await once(server, 'close');
  // As one that was killed leaves it.
  const leave = `require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  expect(() => execFileSync(process.execPath, ['-e', leave, path])).toThrow();
  expect(await refusal('[tee]\nattestd_socket = "s"')).toMatch(/^~\/a\.toml:2: tee\.attestd_socket "~\/s": /);
});

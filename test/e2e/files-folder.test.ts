// `--files-dir`: files are served and kept, sealed, in that folder and nowhere else; without it they are
// refused by name.

import { existsSync } from 'node:fs';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, fetch, FormData } from 'undici';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startRealServer } from '../fixtures/e2e/real-server.ts';

const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
const TEXT = 'the words of a stored file';
let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'assay-files-dir-'))));
afterAll(async () => {
  await dispatcher.close();
  await rm(folder, { recursive: true, force: true });
});

interface Uploaded {
  readonly id?: string;
  readonly error?: { readonly code: string };
}

async function upload(url: string): Promise<readonly [status: number, answer: Uploaded]> {
  const body = new FormData();
  body.set('purpose', 'user_data');
  body.set('file', new Blob([TEXT]), 'notes.txt');
  const response = await fetch(`${url}/v1/files`, { method: 'POST', body, dispatcher });
  return [response.status, (await response.json()) as Uploaded];
}

test('with it, relative to the working folder: files outlive a restart, sealed in that folder', async () => {
  const options = { dataFolder: join(folder, 'data'), args: ['--files-dir', 'kept'], cwd: folder };
  const first = await startRealServer(options);
  const [status, { id = '' }] = await upload(first.url);
  expect([status, await first.stop()]).toEqual([200, 0]);
  const entries = await readdir(join(folder, 'kept'), { recursive: true, withFileTypes: true });
  const stored = entries.filter((entry) => entry.isFile());
  expect(stored.length).toBeGreaterThan(0);
  for (const { parentPath, name } of stored)
    expect((await readFile(join(parentPath, name))).includes(TEXT)).toBe(false);
  const again = await startRealServer(options);
  const content = await fetch(`${again.url}/v1/files/${id}/content`, { dispatcher });
  expect(await content.text()).toBe(TEXT);
  expect(await again.stop()).toBe(0);
});

test('without it they are refused, and nothing is made', async () => {
  const dataFolder = join(folder, 'other');
  const server = await startRealServer({ dataFolder, cwd: folder });
  const [status, { error }] = await upload(server.url);
  expect([status, error?.code]).toEqual([403, 'files_disabled']);
  expect(await server.stop()).toBe(0);
  expect(existsSync(join(dataFolder, 'files'))).toBe(false);
});

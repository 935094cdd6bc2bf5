// Stored responses of the real server: they outlive kill -9, are of their key alone, and lie on the disk
// sealed. Needs `make models`.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy } from '@assay/attestation';
import { type AttestedFetch, attestedFetch } from '@assay/attestation/node';
import { answerOf } from '../../scripts/demo-model/text.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

let folder: string;
let server: RealServer;
const FETCHES: AttestedFetch[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-stored-'));
});
afterEach(async () => {
  for (const fetch of FETCHES.splice(0)) await fetch.close();
  if (server.process.exitCode === null && server.process.signalCode === null) await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function start(settings: string): Promise<(key: string) => OpenAI> {
  const keys = ['alice', 'bob'].map(
    (name) => `[api.keys.${name}]\nsha256 = "${createHash('sha256').update(name).digest('hex')}"\n`,
  );
  const config = join(folder, 'assay.toml');
  await writeFile(config, `${keys.join('')}${settings}`);
  server = await startRealServer({ dataFolder: join(folder, 'data'), args: ['--config', config] });
  const policy = { ...(server.policy as unknown as AppraisalPolicy), [allowSimulated]: true as const };
  const fetch = attestedFetch({ policy });
  FETCHES.push(fetch);
  return (apiKey) => new OpenAI({ baseURL: `${server.url}/v1`, apiKey, fetch, maxRetries: 0 });
}

async function kill(): Promise<void> {
  const ended = once(server.process, 'exit');
  server.process.kill('SIGKILL');
  await ended;
}

/** Every file below, by its path. */
async function filesOf(path: string): Promise<ReadonlyMap<string, string>> {
  const names = await readdir(path, { recursive: true });
  const files = new Map<string, string>();
  for (const name of names)
    if ((await stat(join(path, name))).isFile())
      files.set(name, (await readFile(join(path, name))).toString('latin1'));
  return files;
}

const NOT_FOUND = { status: 404, code: 'response_not_found' };
const ASKED = { model: 'demo-chat', temperature: 0 };

test('outlive kill -9, for their key alone, sealed', async () => {
  let as = await start('[responses]\nstore = true\n');
  const input = 'What is attestation?';
  const first = await as('alice').responses.create({ ...ASKED, input, store: true });
  expect(first.output_text).toBe(answerOf('attestation'));
  const kept = await filesOf(join(folder, 'data', 'responses'));
  expect([...kept.keys()].filter((name) => name.includes(first.id))).toHaveLength(1);
  for (const text of kept.values()) expect(text).not.toMatch(/attestation|signed statement|alice/);
  await kill();

  as = await start('[responses]\nstore = true\n');
  expect(await as('alice').responses.retrieve(first.id)).toMatchObject({
    id: first.id,
    output: first.output,
  });
  await expect(as('bob').responses.retrieve(first.id)).rejects.toMatchObject(NOT_FOUND);
  const second = await as('alice').responses.create({
    ...ASKED,
    input: 'Who keeps the keys?',
    previous_response_id: first.id,
    store: true,
  });
  expect(second.output_text).toBe(answerOf('key'));
  const items = await as('alice').responses.inputItems.list(second.id, { order: 'asc' });
  expect(items.data).toMatchObject([
    { role: 'user', content: [{ text: input }] },
    { role: 'assistant', content: [{ text: first.output_text }] },
    { role: 'user', content: [{ text: 'Who keeps the keys?' }] },
  ]);
  await as('alice').responses.delete(first.id);
  await kill();

  as = await start('[responses]\nstore = true\n');
  await expect(as('alice').responses.retrieve(first.id)).rejects.toMatchObject(NOT_FOUND);
  expect((await as('alice').responses.retrieve(second.id)).id).toBe(second.id);
  expect(await server.stop()).toBe(0);
});

test('end with the process where the key is of its memory', async () => {
  const settings = '[responses]\nstore = true\n[files]\nkey = "memory"\n';
  let as = await start(settings);
  const { id } = await as('alice').responses.create({ ...ASKED, input: 'Hello!', store: true });
  expect((await as('alice').responses.retrieve(id)).id).toBe(id);
  expect(await server.stop()).toBe(0);
  as = await start(settings);
  await expect(as('alice').responses.retrieve(id)).rejects.toMatchObject(NOT_FOUND);
  expect([...(await filesOf(join(folder, 'data', 'responses'))).keys()].join(' ')).not.toContain(id);
});

test('are refused where nothing is stored', async () => {
  const as = await start('');
  const param = 'previous_response_id';
  await expect(
    as('alice').responses.create({ ...ASKED, input: 'Hello!', store: true }),
  ).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param: 'store' });
  await expect(
    as('alice').responses.create({ ...ASKED, input: 'Hello!', [param]: 'resp_1' }),
  ).rejects.toMatchObject({ status: 400, code: 'unsupported_parameter', param });
  expect(await readdir(join(folder, 'data'))).not.toContain('responses');
});

// /v1/files through the OpenAI SDK: what is stored comes back to its own key alone, in bounds, until its
// time.

import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import OpenAI, { APIError, toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { manualClock } from '../../fixtures/clock.ts';
import { type FilesApi, startFilesApi } from '../../fixtures/files/files-api.ts';
import { apiKey, startApi } from '../../fixtures/http/api-server.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';

const HOUR = 3_600_000;
const clock = manualClock(1_700_000_000_000);
const keys = { auth: { ...DEFAULT_CONFIG.auth, required: true, keys: [apiKey('one'), apiKey('two')] } };
let files: FilesApi;
let client: OpenAI;
let other: OpenAI;

beforeAll(async () => {
  files = await startFilesApi(
    { config: keys },
    { clock, limits: { filesPerOwner: 5, bytesPerOwner: 400_000, fileBytes: 300_000 } },
  );
  client = files.client('one');
  other = files.client('two');
});
afterAll(() => files.close());

async function code(work: PromiseLike<unknown>): Promise<readonly [number, string]> {
  const error = await work.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof APIError)) throw new Error('nothing was refused', { cause: error });
  return [error.status as number, String(error.code)];
}

async function stored(text: string, by = client): Promise<OpenAI.Files.FileObject> {
  return by.files.create({ file: await toFile(Buffer.from(text), 'notes.txt'), purpose: 'user_data' });
}

describe('a file', () => {
  test('is created, retrieved, read, listed and deleted', async () => {
    const file = await stored('the text of a file');
    expect(file).toEqual({
      id: file.id,
      object: 'file',
      bytes: 18,
      created_at: 1_700_000_000,
      filename: 'notes.txt',
      purpose: 'user_data',
      status: 'processed',
    });
    expect(await client.files.retrieve(file.id)).toEqual(file);
    expect(await client.files.waitForProcessing(file.id)).toEqual(file);
    const content = await client.files.content(file.id);
    expect(content.headers.get('content-length')).toBe('18');
    expect(await content.text()).toBe('the text of a file');
    expect((await client.files.list()).data).toEqual([file]);
    expect(await client.files.delete(file.id)).toEqual({ id: file.id, object: 'file', deleted: true });
    expect(await code(client.files.retrieve(file.id))).toEqual([404, 'no_such_file']);
    expect((await client.files.list()).data).toEqual([]);
  });

  test('of several chunks comes back byte for byte', async () => {
    const bytes = Buffer.from(Array.from({ length: 250_000 }, (_, i) => (i * 31) % 251));
    const { id } = await client.files.create({ file: await toFile(bytes, 'b'), purpose: 'vision' });
    const back = Buffer.from(await (await client.files.content(id)).arrayBuffer());
    expect(back.equals(bytes)).toBe(true);
    await client.files.delete(id);
  });

  test('is of its key alone', async () => {
    const { id } = await stored('mine');
    for (const asked of [
      other.files.retrieve(id),
      other.files.content(id),
      other.files.delete(id),
      client.files.retrieve(`${id}0`),
    ])
      expect(await code(asked)).toEqual([404, 'no_such_file']);
    expect((await other.files.list()).data).toEqual([]);
    await client.files.delete(id);
  });

  test('ends at its time', async () => {
    const file = await client.files.create({
      file: await toFile(Buffer.from('x'), 'x'),
      purpose: 'user_data',
      expires_after: { anchor: 'created_at', seconds: 3600 },
    });
    expect(file.expires_at).toBe(file.created_at + 3600);
    clock.advance(HOUR - 1);
    expect((await client.files.list()).data).toHaveLength(1);
    clock.advance(1);
    expect((await client.files.list()).data).toEqual([]);
    expect(await code(client.files.content(file.id))).toEqual([404, 'no_such_file']);
    clock.advance(60_000);
    await expect.poll(() => readdir(join(files.folder, 'files', 'contents'))).toEqual([]);
  });

  test('never stands on the disk in clear, nor its name', async () => {
    const { id } = await client.files.create({
      file: await toFile(Buffer.from('canary in the content'), 'canary in the name'),
      purpose: 'user_data',
    });
    const all = await Promise.all(
      ['files', 'contents'].map((name) => readFile(join(files.folder, 'files', name, id))),
    );
    expect(all.some((bytes) => bytes.includes('canary'))).toBe(false);
    expect(JSON.stringify(files.api.logged)).not.toContain('canary');
    await client.files.delete(id);
  });

  test('of a batch ends after 30 days unless it says otherwise', async () => {
    const { id, created_at, expires_at } = await client.files.create({
      file: await toFile(Buffer.from('{}'), 'x'),
      purpose: 'batch',
    });
    expect(expires_at).toBe(created_at + 30 * 86_400);
    await client.files.delete(id);
  });
});

test('pages of a list go on, in either order, also behind a file that is gone', async () => {
  const ids: string[] = [];
  for (const text of ['a', 'b', 'c']) {
    ids.push((await stored(text)).id);
    clock.advance(1);
  }
  const listed = async (query: OpenAI.FileListParams): Promise<string[]> => {
    const all: string[] = [];
    for await (const { id } of client.files.list({ limit: 1, ...query })) all.push(id);
    return all;
  };
  expect(await listed({ order: 'asc' })).toEqual(ids);
  expect(await listed({})).toEqual(ids.toReversed());
  await client.files.delete(ids[1] as string);
  expect(await listed({ order: 'asc', after: ids[1] as string })).toEqual([ids[2]]);
  expect(await listed({ purpose: 'batch' })).toEqual([]);
  for (const after of ['', 'zz', 'batch_'.padEnd(38, '0'), `${ids[1]}0`]) {
    const refused = client.get('/files', { query: { after } });
    await expect(refused).rejects.toMatchObject({ code: 'invalid_value', param: 'after' });
  }
  await client.files.delete(ids[0] as string);
  await client.files.delete(ids[2] as string);
});

describe('bounds', () => {
  test('a file that is too long', async () => {
    expect(await code(stored('x'.repeat(300_001)))).toEqual([413, 'request_too_large']);
    expect(await code(stored('x'.repeat(600_000)))).toEqual([413, 'request_too_large']);
    expect(await readdir(join(files.folder, 'files', 'contents'))).toEqual([]);
  });

  test('as many files and bytes as a key may keep; another key has its own', async () => {
    const ids = await Promise.all(['a', 'b', 'c', 'd', 'e'].map(async (text) => (await stored(text)).id));
    expect(await code(stored('f'))).toEqual([409, 'too_many_files']);
    expect((await stored('g', other)).bytes).toBe(1);
    for (const id of ids) await client.files.delete(id);
    const long = await stored('x'.repeat(290_000));
    expect(await code(stored('x'.repeat(200_000)))).toEqual([409, 'too_many_files']);
    await client.files.delete(long.id);
    expect((await stored('x'.repeat(200_000))).bytes).toBe(200_000);
  });

  test('a disk without room', async () => {
    const full = await startFilesApi({}, { freeBytes: () => Promise.resolve(64 * 1024 * 1024 + 100) });
    expect(await code(stored('x', full.client()))).toEqual([507, 'storage_full']);
    await full.close();
  });
});

describe('refused', () => {
  const form = (fields: Readonly<Record<string, string>>, file = true): FormData => {
    const made = new FormData();
    if (file) made.append('file', new Blob(['x']), 'x.txt');
    for (const [name, value] of Object.entries(fields)) made.append(name, value);
    return made;
  };
  const post = async (body: FormData | string, type?: string): Promise<readonly [number, string]> => {
    const headers = new Headers({ authorization: 'Bearer one' });
    if (type !== undefined) headers.set('content-type', type);
    const answer = await fetch(`${files.api.url}/v1/files`, { method: 'POST', body, headers });
    const { error } = (await answer.json()) as { error: { code: string } };
    return [answer.status, error.code];
  };
  test.each<readonly [string, FormData, readonly [number, string]]>([
    ['no purpose', form({}), [400, 'missing_required_parameter']],
    ['no file', form({ purpose: 'batch' }, false), [400, 'missing_required_parameter']],
    ['another purpose', form({ purpose: 'batch_output' }), [400, 'invalid_value']],
    ['another field', form({ purpose: 'batch', color: 'red' }), [400, 'unknown_parameter']],
    [
      'a time that is too short',
      form({ purpose: 'batch', 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': '5' }),
      [400, 'integer_below_min_value'],
    ],
    [
      'a time that is no number',
      form({ purpose: 'batch', 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': 'x' }),
      [400, 'invalid_type'],
    ],
    ['a prototype', form({ purpose: 'batch', __proto__x: '' }), [400, 'unknown_parameter']],
  ])('%s', async (_what, body, expected) => {
    expect(await post(body)).toEqual(expected);
  });

  test.each(['/v1/files', '/v1/audio/transcriptions', '/v1/audio/translations'])(
    'what is no form is told that %s takes one',
    async (path) => {
      for (const type of ['application/x-www-form-urlencoded', 'application/json', 'multipart/form-data', 'text/plain', 'none']) {
        const headers = { authorization: 'Bearer one', 'content-type': type };
        const answer = await fetch(files.api.url + path, { method: 'POST', body: 'purpose=batch', headers });
        expect(answer.status).toBe(415);
        const { error } = (await answer.json()) as { error: { code: string; message: string } };
        expect(error.code).toBe('unsupported_media_type');
        expect(error.message).toContain('multipart/form-data');
        expect(error.message).not.toContain('json');
      }
    },
  ); // prettier-ignore

  test('a form elsewhere', async () => {
    const answer = await fetch(`${files.api.url}/v1/chat/completions`, {
      method: 'POST',
      body: form({}),
      headers: { authorization: 'Bearer one' },
    });
    expect(answer.status).toBe(415);
  });

  test('every route where files are off', async () => {
    const off = await startApi();
    const without = new OpenAI({ baseURL: `${off.url}/v1`, apiKey: 'x', maxRetries: 0 });
    const file = await toFile(Buffer.from('x'), 'x');
    const asked: readonly (() => PromiseLike<unknown>)[] = [
      () => without.files.list(),
      () => without.files.retrieve('x'),
      () => without.files.content('x'),
      () => without.files.delete('x'),
      () => without.files.create({ file, purpose: 'batch' }),
      () => without.batches.list(),
      () => without.batches.retrieve('x'),
      () => without.batches.cancel('x'),
    ];
    for (const each of asked) expect(await code(each())).toEqual([403, 'files_disabled']);
    await off.close();
  });
});

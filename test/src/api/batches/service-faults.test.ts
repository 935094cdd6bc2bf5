// Batches over faults of the disk: no room at each write of one, with a restart or without; and anything that
// another may do to what is stored. A line is in the output once, no file is left over, a damaged batch fails
// by name, and all others go on.

import { execFileSync } from 'node:child_process';
import {
  copyFile,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import type OpenAI from 'openai';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { storageFull } from '../../../../src/base/durable-files.ts';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import { type ManualClock, manualClock } from '../../../fixtures/clock.ts';
import { begun, chatLine, ended, type FilesApi, linesOf, startFilesApi, turn } from '../../../fixtures/files/files-api.ts'; // prettier-ignore
import type { ApiServerOptions } from '../../../fixtures/http/api-server.ts';
import { apiKey } from '../../../fixtures/http/api-server.ts';
import type { FakeEngineOptions } from '../../../fixtures/engine/fake-engine.ts';
import { untilAborted } from '../../../fixtures/latch.ts';
import { canMount, mountSmallDisk } from '../../../fixtures/small-disk.ts';

let files: FilesApi | undefined;
const CLEAN: (() => void)[] = [];
afterEach(async () => {
  vi.restoreAllMocks();
  await files?.close();
  files = undefined;
  for (const clean of CLEAN.splice(0)) clean();
});

const LINES = ['a', 'b', 'c'];
const ONE_AT_A_TIME: ApiServerOptions = {
  config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 1 } },
};
const RETRY_MS = 30_000;

/** Once a batch has met a fault. */
async function stopped({ api }: FilesApi, count = 1): Promise<void> {
  while (api.logged.filter(({ msg }) => msg === 'a batch stopped').length < count) await turn();
}

/** The batch has each line once, and its key no file but the input and the output. */
async function isWhole(client: OpenAI, id: string): Promise<void> {
  const batch = await ended(client, id);
  expect(batch).toMatchObject({ status: 'completed', request_counts: { total: 3, completed: 3, failed: 0 } });
  const lines = await linesOf(client, batch.output_file_id);
  expect(lines.map((line) => line.custom_id).toSorted()).toEqual(LINES);
  const kept = (await client.files.list()).data.map((file) => file.id);
  expect(kept.toSorted()).toEqual([batch.input_file_id, batch.output_file_id ?? ''].toSorted());
}

/** Each write to the disk that a batch makes, numbered from 0 as it runs; `fails` says which have no room. */
function faulty({ files: { batches, store } }: FilesApi, fails: (step: number, what: string) => boolean) {
  let steps = 0;
  const check = (what: string): void => {
    steps += 1;
    if (fails(steps - 1, what)) throw storageFull('no space left for /a/path');
  };
  const write = batches.write.bind(batches);
  vi.spyOn(batches, 'write').mockImplementation(async (batch) => {
    check('state');
    await write(batch);
  });
  const open = batches.openResults.bind(batches);
  vi.spyOn(batches, 'openResults').mockImplementation(async (...given) => {
    check('log');
    const log = await open(...given);
    const append = log.append.bind(log);
    vi.spyOn(log, 'append').mockImplementation(async (record) => {
      check('result');
      await append(record);
    });
    const sync = log.sync.bind(log);
    vi.spyOn(log, 'sync').mockImplementation(async () => {
      check('sync');
      await sync();
    });
    return log;
  });
  const create = store.create.bind(store);
  vi.spyOn(store, 'create').mockImplementation(async (owner, own) => {
    if (own === undefined) return create(owner, own);
    check('file');
    const upload = await create(owner, own);
    const finish = upload.finish.bind(upload);
    vi.spyOn(upload, 'finish').mockImplementation(async (details) => {
      check('finish');
      return finish(details);
    });
    return upload;
  });
  return { steps: () => steps };
}

async function stepsOfOne(): Promise<number> {
  files = await startFilesApi(ONE_AT_A_TIME);
  const counted = faulty(files, () => false);
  await isWhole(
    files.client(),
    (
      await begun(
        files.client(),
        LINES.map((each) => chatLine(each)),
      )
    ).id,
  );
  await files.close();
  files = undefined;
  vi.restoreAllMocks();
  return counted.steps();
}

test('a write that has no room is made again when there is some, whichever it is', async () => {
  const steps = await stepsOfOne();
  expect(steps).toBeGreaterThanOrEqual(9);
  // The first is the making of the batch, which its caller is told.
  for (let at = 1; at < steps; at++) {
    const clock: ManualClock = manualClock(1_700_000_000_000);
    files = await startFilesApi(ONE_AT_A_TIME, { clock });
    const client = files.client();
    faulty(files, (step) => step === at);
    const { id } = await begun(
      client,
      LINES.map((each) => chatLine(each)),
    );
    await stopped(files);
    clock.advance(RETRY_MS);
    await isWhole(client, id);
    await files.close();
    files = undefined;
    vi.restoreAllMocks();
  }
});

test.each(['state', 'log', 'result', 'sync', 'file', 'finish'])(
  'a server without room for one more %s, ended and started with room, leaves nothing over',
  async (kind) => {
    for (const after of kind === 'state' ? [1, 2, 3] : [0, 1]) {
      const clock = manualClock(1_700_000_000_000);
      const first = await startFilesApi(ONE_AT_A_TIME, { clock });
      let seen = 0;
      faulty(first, (_, what) => what === kind && (seen += 1) > after);
      const { id } = await begun(
        first.client(),
        LINES.map((each) => chatLine(each)),
      );
      // Some kinds are written once: then the batch is whole already.
      const over = ended(first.client(), id).then(() => undefined);
      await Promise.race([stopped(first), over]);
      if (seen > after) {
        clock.advance(RETRY_MS);
        await stopped(first, 2);
      }
      vi.restoreAllMocks();
      const again = first.again();
      await over.catch(() => undefined);
      files = await again;
      await isWhole(files.client(), id);
      await files.close();
      files = undefined;
    }
  },
);

describe.skipIf(!canMount())('a disk that is full', () => {
  test('is told to who uploads, without a path; later there is room', async () => {
    const disk = mountSmallDisk(1);
    if (disk === null) throw new Error('it was mounted a moment ago');
    CLEAN.push(() => disk.remove());
    const kept = join(disk.folder, 'kept');
    await mkdir(kept);
    files = await startFilesApi(ONE_AT_A_TIME, {
      folder: kept,
      freeBytes: () => Promise.resolve(2 ** 40),
    });
    const client = files.client();
    const input = await client.files.create({ file: new File([`${JSON.stringify(chatLine('a'))}\n`], 'a.jsonl'), purpose: 'batch' }); // prettier-ignore
    const names = async () => (await readdir(kept, { recursive: true })).toSorted();
    const before = await names();
    const large = () =>
      client.files.create({ file: new File([new Uint8Array(2 ** 21)], 'b'), purpose: 'user_data' });
    const full = { status: 507, code: 'storage_full', message: '507 there is no room for the file' };
    await expect(large()).rejects.toMatchObject(full);
    expect(await names()).toEqual(before);
    const filler = join(disk.folder, 'filler');
    await writeFile(filler, new Uint8Array(2 ** 21)).catch(() => undefined);
    await expect(
      client.files.create({ file: new File(['x'], 'b'), purpose: 'user_data' }),
    ).rejects.toMatchObject(full);
    const asked = {
      input_file_id: input.id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
    } as const;
    await expect(client.batches.create(asked)).rejects.toMatchObject({
      status: 507,
      code: 'storage_full',
      message: '507 there is no room for the batch',
    });
    expect((await client.batches.list()).data).toEqual([]);
    expect(await names()).toEqual(before);
    await rm(filler);
    const { id } = await client.batches.create(asked);
    expect((await ended(client, id)).status).toBe('completed');
  });
});

describe('what another did to the folder', () => {
  const auth = { ...DEFAULT_CONFIG.auth, required: true, keys: [apiKey('one'), apiKey('two')] };
  type Place = (folder: string, mine: OpenAI.Batch, other: OpenAI.Batch) => Promise<unknown>;
  const at = (folder: string, ...names: readonly string[]): string => join(folder, 'files', ...names);
  async function flipped(path: string): Promise<void> {
    const bytes = await readFile(path);
    bytes[bytes.length - 1]! ^= 1;
    await writeFile(path, bytes);
  }
  async function swapped(one: string, two: string): Promise<void> {
    await rename(one, `${one}-x`);
    await rename(two, one);
    await rename(`${one}-x`, two);
  }
  const input = (folder: string, batch: OpenAI.Batch): string => at(folder, 'contents', batch.input_file_id);
  const results = (folder: string, batch: OpenAI.Batch): string => at(folder, 'batches', batch.id, 'results');
  const state = (folder: string, batch: OpenAI.Batch): string => at(folder, 'batches', batch.id, 'state');
  const ofKey = (folder: string, batch: OpenAI.Batch): string => at(folder, 'files', batch.input_file_id);

  test.each<readonly [string, Place, mine: string, other: string]>([
    ['a flipped bit of the input', (kept, mine) => flipped(input(kept, mine)), 'file_damaged', 'completed'],
    ['an input that is cut', (kept, mine) => truncate(input(kept, mine), 70), 'file_damaged', 'completed'],
    ['inputs of two keys, swapped', (kept, mine, other) => swapped(input(kept, mine), input(kept, other)), 'file_damaged', 'file_damaged'],
    ['an input that is gone', (kept, mine) => rm(input(kept, mine)), 'file_damaged', 'completed'],
    ['an input whose state is gone', (kept, mine) => rm(ofKey(kept, mine)), 'no_such_file', 'completed'],
    ['an input whose state is changed', (kept, mine) => flipped(ofKey(kept, mine)), 'no_such_file', 'completed'],
    ['states of inputs, swapped', (kept, mine, other) => swapped(ofKey(kept, mine), ofKey(kept, other)), 'no_such_file', 'no_such_file'],
    ['a folder for an input', (kept, mine) => rm(input(kept, mine)).then(() => mkdir(input(kept, mine))), 'file_damaged', 'completed'],
    ['a pipe for an input', (kept, mine) => rm(input(kept, mine)).then(() => execFileSync('mkfifo', [input(kept, mine)])), 'file_damaged', 'completed'],
    ['a link for an input', (kept, mine) => rename(input(kept, mine), `${input(kept, mine)}-x`).then(() => symlink(`${input(kept, mine)}-x`, input(kept, mine))), 'file_damaged', 'completed'],
    ['a flipped bit of the results', (kept, mine) => flipped(results(kept, mine)), 'file_damaged', 'completed'],
    ['results of two keys, swapped', (kept, mine, other) => swapped(results(kept, mine), results(kept, other)), 'file_damaged', 'file_damaged'],
    ['results of another batch', (kept, mine, other) => copyFile(results(kept, other), results(kept, mine)), 'file_damaged', 'completed'],
    ['results that are cut', (kept, mine) => truncate(results(kept, mine), 90), 'completed', 'completed'],
    ['results that are gone', (kept, mine) => rm(results(kept, mine)), 'completed', 'completed'],
    ['a folder for the results', (kept, mine) => rm(results(kept, mine)).then(() => mkdir(results(kept, mine))), 'file_damaged', 'completed'],
    ['a pipe for the results', (kept, mine) => rm(results(kept, mine)).then(() => execFileSync('mkfifo', [results(kept, mine)])), 'file_damaged', 'completed'],
    ['a flipped bit of the state', (kept, mine) => flipped(state(kept, mine)), 'no_such_batch', 'completed'],
    ['states of two keys, swapped', (kept, mine, other) => swapped(state(kept, mine), state(kept, other)), 'no_such_batch', 'no_such_batch'],
    ['a folder for the state', (kept, mine) => rm(state(kept, mine)).then(() => mkdir(state(kept, mine))), 'no_such_batch', 'completed'],
    ['a content of no file, and a folder for one', (kept) => mkdir(at(kept, 'contents', `file-${'a'.repeat(32)}`, 'x'), { recursive: true }), 'completed', 'completed'],
    ['a file for a batch', (kept) => writeFile(at(kept, 'batches', `batch_${'a'.repeat(32)}`), 'x'), 'completed', 'completed'],
  ])('%s', async (_, change, mine, other) => {
    // The first line of each is answered; the others stand at their fifth token.
    const script: FakeEngineOptions['script'] = ({ prompt }) => {
      const asked = prompt.kind === 'chat' ? prompt.messages[0]?.content : '';
      return Array.from({ length: asked === 'say a' ? 2 : 9 }, () => 'x ');
    };
    const beforeToken = (at: number, signal: AbortSignal): Promise<void> =>
      at < 4 ? Promise.resolve() : untilAborted(signal);
    const config = { auth, files: { ...DEFAULT_CONFIG.files, batchConcurrency: 8 } };
    const first = await startFilesApi({ config, engine: { beforeToken, script, slots: 8 } });
    const lines = LINES.map((each) => chatLine(each));
    const batches = [await begun(first.client('one'), lines), await begun(first.client('two'), lines)] as const;
    const counted = async (key: string, id: string): Promise<number> =>
      (await first.client(key).batches.retrieve(id)).request_counts?.completed ?? 0;
    while ((await counted('one', batches[0].id)) < 1 || (await counted('two', batches[1].id)) < 1) await turn();
    await first.api.close();
    await first.files.close();
    await change(first.folder, ...batches);
    files = await startFilesApi({ config }, { folder: first.folder });
    const told = async (key: string, { id }: OpenAI.Batch): Promise<unknown> => {
      const client = (files as FilesApi).client(key);
      const batch = await ended(client, id).catch((error: unknown) => error as { readonly code: string });
      if (!('status' in batch) || 'code' in batch) return (batch as { readonly code: string }).code;
      if (batch.status !== 'completed') return batch.errors?.data?.[0]?.code;
      expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id).toSorted()).toEqual(LINES);
      return batch.status;
    };
    expect([await told('one', batches[0]), await told('two', batches[1])]).toEqual([mine, other]);
  }); // prettier-ignore
});

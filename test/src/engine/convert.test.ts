// The process that converts: the same bytes as in this process, confined while it reads, little
// memory however large the model, ended by an abort and a time limit, and a typed refusal whatever
// the folder is. Runs dist/.

import { createHash } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openConverter } from '../../../src/engine/convert.ts';
import type { ConvertedModel } from '../../../src/engine/seam/convert.ts';
import type { ConvertRequest } from '../../../src/engine/seam/converters.ts';
import { convertFolder } from '../../../src/models/convert/convert.ts';
import { digestSources, openModelFolder } from '../../../src/models/model-folder.ts';
import { HF_FOLDERS, inMemory, writeFolder, type Files } from '../../fixtures/models/hf-folder.ts';
import { writeLargeFolder } from '../../fixtures/models/large-folder.ts';

const workerEntry = fileURLToPath(
  new URL('../../../dist/src/engine/child/convert/worker.js', import.meta.url),
);
const convert = openConverter({ workerEntry });
const work = mkdtempSync(join(tmpdir(), 'assay-convert-'));
afterAll(() => rmSync(work, { recursive: true }));

let folders = 0;
function placed(files: Files): string {
  const folder = join(work, String(folders++));
  writeFolder(folder, files);
  return folder;
}

interface Result {
  readonly converted: ConvertedModel;
  readonly path: string;
}

async function run(folder: string, more: Partial<ConvertRequest> = {}, by = convert): Promise<Result> {
  const opened = await openModelFolder(folder);
  const path = join(work, `${folders++}.gguf`);
  const outputFd = openSync(path, 'wx');
  try {
    const sources = opened.sources.map(({ name, size, handle }) => ({ name, size, fd: handle.fd }));
    const converted = await by({ type: 'auto', sources, outputFd, unopened: opened.unopened, ...more });
    return { converted, path };
  } finally {
    closeSync(outputFd);
    await opened.close();
  }
}

function converters(): readonly number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const status = readFileSync(`/proc/${pid}/status`, 'utf8');
        return (
          status.includes(`PPid:\t${process.pid}\n`) &&
          readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(workerEntry)
        );
      } catch {
        return false;
      }
    })
    .map(Number);
}

function statusOf(pid: number): ReadonlyMap<string, string> {
  const lines = readFileSync(`/proc/${pid}/status`, 'utf8').split('\n');
  return new Map(lines.map((line) => [line.split(':')[0] ?? '', line.split('\t').at(-1) ?? '']));
}

test.each(['llama', 'mistral', 'bert'] as const)(
  '%s: the bytes are those of the same code in this process',
  async (name) => {
    const files = HF_FOLDERS[name]();
    const seen: number[] = [];
    const { converted, path } = await run(placed(files), {
      onProgress: (written) => void seen.push(written),
    });
    const hash = createHash('sha256');
    const expected = convertFolder(
      inMemory(files),
      { write: (bytes) => void hash.update(bytes) },
      { type: 'auto' },
    );
    expect(converted).toEqual(expected);
    expect(createHash('sha256').update(readFileSync(path)).digest('hex')).toBe(hash.digest('hex'));
    expect(seen.at(-1)).toBe(expected.bytes);
  },
);

describe.skipIf(process.platform !== 'linux')('a model of a gigabyte', () => {
  const folder = placed(new Map());
  beforeAll(() => writeLargeFolder(folder));

  test('is read by a confined process with a fraction of it in memory', async () => {
    const nothing = openSync('/dev/null', 'w');
    const states: ReadonlyMap<string, string>[] = [];
    const onProgress = (): void => {
      for (const pid of converters()) states.push(statusOf(pid));
    };
    const { converted } = await run(folder, { outputFd: nothing, onProgress });
    closeSync(nothing);
    expect(converted.bytes).toBeGreaterThan(1 << 30);
    expect(states.length).toBeGreaterThan(3);
    for (const state of states) {
      expect(state.get('Seccomp')).toBe('2');
      expect(state.get('NoNewPrivs')).toBe('1');
    }
    const peaks = states.map((state) => Number.parseInt((state.get('VmHWM') ?? '').trim(), 10));
    expect(Math.max(...peaks)).toBeGreaterThan(1024);
    expect(Math.max(...peaks)).toBeLessThan(400 * 1024);
  });

  test('is ended by an abort, and by the time limit', async () => {
    const nothing = openSync('/dev/null', 'w');
    const abort = new AbortController();
    const aborted = run(folder, {
      outputFd: nothing,
      signal: abort.signal,
      onProgress: () => abort.abort(new Error('no longer wanted')),
    });
    await expect(aborted).rejects.toThrow('no longer wanted');
    expect(converters()).toEqual([]);
    const late = run(folder, { outputFd: nothing }, openConverter({ workerEntry, timeoutMs: 1 }));
    await expect(late).rejects.toMatchObject({
      code: 'model_load_failed',
      message: 'the converter took too long',
    });
    expect(converters()).toEqual([]);
    closeSync(nothing);
  });
});

describe('refused', () => {
  test('what the folder is not, in the words of the converter', async () => {
    const files = new Map(HF_FOLDERS.mistral());
    files.set('config.json', Buffer.from('{}'));
    await expect(run(placed(files))).rejects.toMatchObject({
      code: 'invalid_model_config',
      status: 400,
      message: 'config.json: architectures names none',
    });
  });

  test('a pickle, by its name', async () => {
    const files = new Map(HF_FOLDERS.bert());
    files.delete('model.safetensors');
    files.set('pytorch_model.bin', Buffer.from('80049512', 'hex'));
    await expect(run(placed(files))).rejects.toMatchObject({
      code: 'unsupported_model_format',
      message:
        'pytorch_model.bin is a pickle or unknown weights and is never opened; model.safetensors is missing',
    });
  });

  test('a disk that is full', async () => {
    const full = openSync('/dev/full', 'w');
    await expect(run(placed(HF_FOLDERS.mistral()), { outputFd: full })).rejects.toMatchObject({
      code: 'storage_full',
    });
    closeSync(full);
  });

  test('a pattern that backtracks without end, by the time limit', async () => {
    const files = new Map(HF_FOLDERS.qwen2());
    const tokenizer = JSON.parse(files.get('tokenizer.json')!.toString()) as { pre_tokenizer: object };
    tokenizer.pre_tokenizer = {
      type: 'Split',
      pattern: { Regex: '(?:(?:[^x]|[^y])+)+z' },
      behavior: 'Isolated',
      invert: false,
    };
    files.set('tokenizer.json', Buffer.from(JSON.stringify(tokenizer)));
    const limited = openConverter({ workerEntry, timeoutMs: 5000 });
    await expect(run(placed(files), {}, limited)).rejects.toMatchObject({
      message: 'the converter took too long',
    });
  });

  test('a converter that is not there', async () => {
    const none = openConverter({ workerEntry: join(work, 'none.js') });
    await expect(run(placed(HF_FOLDERS.mistral()), {}, none)).rejects.toMatchObject({
      code: 'model_load_failed',
      message: 'the converter ended with code 1',
    });
  });
});

describe('the folder', () => {
  test('only files by name are opened, links only inside of it', async () => {
    const files = new Map(HF_FOLDERS.bert());
    files.set('modeling.py', Buffer.from('raise SystemExit'));
    files.set('onnx/model.onnx', Buffer.from('x'));
    files.set('blobs', Buffer.from('{}'));
    const folder = placed(files);
    symlinkSync('blobs', join(folder, 'generation_config.json'));
    const opened = await openModelFolder(folder);
    expect(opened.sources.map(({ name }) => name)).toEqual([
      '1_Pooling/config.json',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'modules.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const digests = await digestSources(opened.sources);
    expect(digests.find(({ name }) => name === 'config.json')).toEqual({
      name: 'config.json',
      size: files.get('config.json')?.length,
      sha256: createHash('sha256').update(files.get('config.json')!).digest('hex'),
    });
    await opened.close();
  });

  test.each([
    ['a link out of it', '/etc/hostname', 'config.json is a link out of the folder'],
    ['a link to nothing', 'nothing', 'config.json is a link to a file that is not there'],
    ['a link to a folder', '.', 'config.json is a link out of the folder'],
    ['a link to a folder in it', 'inner', 'config.json is not a regular file'],
  ])('%s', async (_title, target, message) => {
    const folder = placed(new Map());
    mkdirSync(join(folder, 'inner'), { recursive: true });
    symlinkSync(target, join(folder, 'config.json'));
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'path_not_allowed', message });
  });

  test('a file that became shorter', async () => {
    const folder = placed(HF_FOLDERS.bert());
    const opened = await openModelFolder(folder);
    writeFileSync(join(folder, 'config.json'), '{}');
    await expect(digestSources(opened.sources)).rejects.toMatchObject({ code: 'model_file_changed' });
    await opened.close();
  });
});

// The program's work for the kinds of gguf/file-kinds. What it writes is checked like a stranger's file.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, writeFile, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { openMatrixCollector } from '../../engine/quantize.ts';
import { inspectModel } from '../../models/inspect.ts';
import { fileSource } from '../../models/gguf/read.ts';
import { readImatrix, writeImatrix } from '../gguf/imatrix.ts';
import { describeGguf, type GgufDescription } from '../gguf/inspect.ts';
import { mergeLora } from '../gguf/lora.ts';
import { mergeGguf, splitGguf } from '../gguf/split.ts';
import { type ProgramRequest, reporter } from './speak.ts';

/** No lines are read meanwhile: a job that is cancelled is killed. */
const signal = new AbortController().signal;
/** A result is at most 64 KiB; the output has all. */
const MAX_RESULT_CHARACTERS = 48_000;
const MAX_SHOWN_TEXT = 512;
const LAUNCH = new URL('../../engine/child/quantize/launch.js', import.meta.url);

export const FILE_WORK: Readonly<Record<string, (request: ProgramRequest) => Promise<object>>> = {
  'gguf/inspect': inspect,
  'gguf/split': split,
  'gguf/merge': merge,
  'gguf/merge-lora': mergeAdapter,
  'gguf/imatrix': imatrix,
};

async function opened<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
  const handle = await open(path);
  try {
    return await work(handle);
  } finally {
    await handle.close();
  }
}

function inspect(request: ProgramRequest): Promise<object> {
  return opened(request.input('model'), async (handle) => {
    const whole = await describeGguf(await fileSource(handle), { tensors: 65_536 });
    await writeFile(join(request.output, 'description.json'), `${JSON.stringify(whole, null, 1)}\n`);
    const [offset, limit] = [request.number('tensor_offset') ?? 0, request.number('tensor_limit') ?? 0];
    return shortened({ ...whole, tensors: whole.tensors.slice(offset, offset + limit) });
  });
}

/** Texts are cut first, then tensors and keys left out from the end; `truncated` says so. */
function shortened(description: GgufDescription): object {
  const metadata = Object.entries(description.metadata).map(
    ([key, value]) =>
      [
        key,
        typeof value === 'string' && value.length > MAX_SHOWN_TEXT
          ? `${value.slice(0, MAX_SHOWN_TEXT)}…`
          : value,
      ] as const,
  );
  let [tensors, keys] = [description.tensors.length, metadata.length];
  for (;;) {
    const shown = {
      ...description,
      metadata: Object.fromEntries(metadata.slice(0, keys)),
      tensors: description.tensors.slice(0, tensors),
      truncated: tensors < description.tensors.length || keys < metadata.length,
    };
    if (JSON.stringify(shown).length <= MAX_RESULT_CHARACTERS) return shown;
    if (tensors > keys) tensors = Math.floor(tensors / 2);
    else keys = Math.floor(keys / 2);
  }
}

function split(request: ProgramRequest): Promise<object> {
  return opened(request.input('model'), async (handle) => {
    const source = await fileSource(handle);
    const report = reporter('splitting');
    let done = 0;
    let last = 0;
    const parts = await splitGguf(
      source,
      { folder: request.output, stem: request.text('output_name') },
      {
        by: { kind: request.text('by') === 'bytes' ? 'bytes' : 'tensors', max: request.number('max') ?? 0 },
        noTensorFirst: request.text('no_tensor_first_split') === 'true',
        signal,
        onBytes(bytes) {
          done += bytes < last ? bytes : bytes - last;
          last = bytes;
          report(done, source.size);
        },
      },
    );
    return { parts: parts.length };
  });
}

async function merge(request: ProgramRequest): Promise<object> {
  const handles: FileHandle[] = [];
  try {
    const parts = [];
    for (let i = 1; i <= (request.number('parts') ?? 0); i++) {
      const name = `part-${String(i).padStart(5, '0')}`;
      const handle = await open(request.input(name));
      handles.push(handle);
      parts.push({ name, source: await fileSource(handle) });
    }
    const total = parts.reduce((sum, { source }) => sum + source.size, 0);
    const report = reporter('merging');
    const path = join(request.output, request.text('output_name'));
    const { tensors } = await mergeGguf(parts, path, { signal, onBytes: (bytes) => report(bytes, total) });
    return { tensors };
  } finally {
    for (const handle of handles) await handle.close();
  }
}

function mergeAdapter(request: ProgramRequest): Promise<object> {
  return opened(request.input('base'), (base) =>
    opened(request.input('lora'), async (lora) => {
      await inspectModel(base);
      const [from, adapter] = [await fileSource(base), await fileSource(lora)];
      const report = reporter('merging');
      const path = join(request.output, request.text('output_name'));
      const { merged } = await mergeLora(from, adapter, path, {
        scale: Number(request.text('scale')),
        signal,
        onBytes: (bytes) => report(bytes, from.size),
      });
      await opened(path, inspectModel);
      return { merged_tensors: merged };
    }),
  );
}

function imatrix(request: ProgramRequest): Promise<object> {
  return opened(request.input('model'), async (model) => {
    await inspectModel(model);
    const text = request.input('text');
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(text)) hash.update(chunk as Buffer);
    const path = join(request.output, request.text('output_name'));
    return opened(text, async (words) => {
      const made = await writeImatrix(
        {
          sourceFd: model.fd,
          textFd: words.fd,
          textSha256: hash.digest('hex'),
          maxTokens: request.number('max_tokens') ?? 0,
          path,
          format: request.text('format') === 'dat' ? 'dat' : 'gguf',
          signal,
          onProgress: reporter('reading'),
        },
        openMatrixCollector({ launchEntry: LAUNCH }),
      );
      await opened(path, async (file) => readImatrix(await fileSource(file)));
      return { tokens: made.tokens, chunks: made.chunks, tensors: made.tensors };
    });
  });
}

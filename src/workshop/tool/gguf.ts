// The program of the kinds of GGUF jobs, run in a jail. To quantise and convert it starts the confined
// quantiser and converter that serving has too, so that the same folder and type make the same bytes
// everywhere. Inside a jail they are confined twice.

import { open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ApiError } from '../../base/errors.ts';
import { temporaryPath } from '../../base/durable-files.ts';
import { openConverter } from '../../engine/convert.ts';
import { openQuantizer } from '../../engine/quantize.ts';
import type { Converters } from '../../engine/seam/converters.ts';
import { deriveFile } from '../../models/derive.ts';
import { inspectModel } from '../../models/inspect.ts';
import { readHeader } from '../../models/gguf/header.ts';
import { fileSource } from '../../models/gguf/read.ts';
import { typeOfIsq } from '../../models/isq.ts';
import { openModelFolder } from '../../models/model-folder.ts';
import { readImatrix } from '../gguf/imatrix.ts';
import { assertNotQuantised } from '../gguf/quantised.ts';
import { FILE_WORK } from './gguf-files.ts';
import { type ProgramRequest, readRequest, reporter, speakOf } from './speak.ts';

await speakOf(() => run(readRequest(process.argv.slice(2))));

function run(request: ProgramRequest): Promise<object> {
  switch (request.kind) {
    case 'gguf/quantize':
      return quantize(request);
    case 'gguf/convert':
      return convert(request);
    default: {
      const work = Object.hasOwn(FILE_WORK, request.kind) ? FILE_WORK[request.kind] : undefined;
      if (work === undefined)
        throw new ApiError('unsupported_parameter', 'the program does not know this kind of job');
      return work(request);
    }
  }
}

async function quantize(request: ProgramRequest): Promise<object> {
  const type = typeOfIsq(request.text('quant_type'), 'quant_type');
  const threads = request.number('n_threads') ?? request.threads;
  const source = await open(request.input('model'));
  const matrix = request.text('imatrix') === 'given' ? await open(request.input('imatrix')) : undefined;
  try {
    await inspectModel(source);
    if (matrix === undefined) assertNotQuantised(await readHeader(await fileSource(source)), type);
    const given =
      matrix === undefined
        ? undefined
        : { fd: matrix.fd, entries: await readImatrix(await fileSource(matrix)) };
    const output = await open(join(request.output, request.text('output_name')), 'wx+', 0o600);
    try {
      const { quantize: make } = converters(threads);
      const { fallbacks } = await make({
        type,
        sourceFd: source.fd,
        outputFd: output.fd,
        threads,
        matrix: given,
        onProgress: reporter('quantizing'),
      });
      // The result of a stranger's file is a stranger's as well.
      await inspectModel(output);
      return { fallbacks: fallbacks.slice(0, 256), fallback_count: fallbacks.length };
    } finally {
      await output.close();
    }
  } finally {
    await source.close();
    await matrix?.close();
  }
}

async function convert(request: ProgramRequest): Promise<object> {
  const type = request.text('output_type');
  const folder = await openModelFolder(request.input('model'));
  try {
    const made = await deriveFile(
      {
        folder,
        isq: type === 'AUTO' ? undefined : typeOfIsq(type, 'output_type'),
        temporary: () => temporaryPath(request.output),
        signal: new AbortController().signal,
      },
      converters(request.threads),
    );
    try {
      await rename(made.path, join(request.output, request.text('output_name')));
    } catch (error) {
      await rm(made.path, { force: true });
      throw error;
    }
    return { type: made.type, other_types: made.otherTypes };
  } finally {
    await folder.close();
  }
}

/** As serving has them (src/cli/converters), with progress where the caller takes none. */
function converters(threads: number): Converters {
  const convertModel = openConverter({
    workerEntry: new URL('../../engine/child/convert/worker.js', import.meta.url),
  });
  const quantizeModel = openQuantizer({
    launchEntry: new URL('../../engine/child/quantize/launch.js', import.meta.url),
    threads,
  });
  return {
    convert: (order) => convertModel({ onProgress: reporter('converting'), ...order }),
    quantize: (order) => quantizeModel({ onProgress: reporter('quantizing'), ...order }),
  };
}

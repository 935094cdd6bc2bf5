// Published models of `make bench-engine`: those that `make real-models` left in the cache. MiniLM comes as
// its Hugging Face folder and is converted once, so that both sides read the same GGUF.

import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { convertFolder } from '../src/models/convert/convert.ts';
import type { SideOptions } from './bench-sides.ts';
import { findInstalled } from './real-models/install.ts';
import { PUBLISHED_MODELS, type PublishedModelName } from './real-models/list.ts';

interface BenchModel {
  readonly name: PublishedModelName;
  readonly title: string;
  readonly type: SideOptions['type'];
  /** Tokens of the vocabulary that end an answer. */
  readonly ends: readonly number[];
}

const MODELS: readonly BenchModel[] = [
  { name: 'smollm2', title: 'SmolLM2 135M, Q4_1', type: 'completion', ends: [0, 1, 2] },
  { name: 'gemma3-270m', title: 'Gemma 3 270M, Q4_K_M', type: 'completion', ends: [1, 106, 212] },
  { name: 'minilm', title: 'MiniLM L6, F32', type: 'embedding', ends: [] },
];

/** Those that are here, with the path of a GGUF. */
export async function publishedModels(): Promise<readonly (BenchModel & { readonly path: string })[]> {
  const found: (BenchModel & { readonly path: string })[] = [];
  for (const model of MODELS) {
    const installed = await findInstalled(model.name);
    if (installed === undefined) console.log(`! ${model.title} is not here: \`make real-models ALL=1\``);
    else
      found.push({
        ...model,
        path: model.name === 'minilm' ? converted(installed.folder) : installed.weights,
      });
  }
  return found;
}

function converted(folder: string): string {
  const path = join(tmpdir(), 'assay-bench-models', 'minilm-f32.gguf');
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true });
  const open = PUBLISHED_MODELS.minilm.files.map((file) => ({
    path: file.path,
    fd: openSync(join(folder, file.path), 'r'),
  }));
  const files = new Map(
    open.map((each) => [
      each.path,
      {
        size: statSync(join(folder, each.path)).size,
        read: (position: number, into: Uint8Array) => readSync(each.fd, into, 0, into.length, position),
      },
    ]),
  );
  const out = openSync(`${path}.part`, 'w');
  convertFolder(files, { write: (bytes) => void writeSync(out, bytes) }, { type: 'f32' });
  for (const fd of [out, ...open.map((each) => each.fd)]) closeSync(fd);
  renameSync(`${path}.part`, path);
  return path;
}

// Stages a split model: its parts become one unnamed file in guest memory, which is what the engine reads.
// The engine opens no file itself, so it is confined before it reads a byte of any part. Each part is
// hashed over the very bytes that go into that file, its header included. Refuses: a part with another
// digest, parts that do not make one model.

import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { basename } from 'node:path';
import { isFull } from '../base/durable-files.ts';
import { fileSource } from './gguf/read.ts';
import { joinParts, readParts, type JoinedModel, type ModelPart } from './gguf/split.ts';
import {
  mismatch,
  noRoom,
  openRegular,
  openUnnamed,
  pump,
  reserveStaging,
  staged,
  type MeasureOptions,
  type ReadyFile,
  type StagingPlace,
} from './measure.ts';
import type { ModelFile } from './model.ts';

export interface StagePartsOptions extends MeasureOptions, StagingPlace {}

/** `files` in order. 400 invalid_gguf, 500 model_digest_mismatch, 503 model_load_failed without room. */
export async function stageParts(
  files: readonly ModelFile[],
  options: StagePartsOptions,
): Promise<ReadyFile> {
  const sources: FileHandle[] = [];
  let target: FileHandle | undefined;
  try {
    const parts = await openParts(files, sources);
    const model = joinParts(parts);
    const size = model.header.fileSize;
    const reserved = await reserveStaging(options, size);
    try {
      target = await openUnnamed(options, size);
      await join(
        { files, sources, parts, model, target },
        {
          ...options,
          onProgress: (fraction) => {
            reserved.update(Math.ceil(size * (1 - fraction)));
            options.onProgress?.(fraction);
          },
        },
      );
    } catch (error) {
      // Another process filled the folder meanwhile.
      throw isFull(error) ? noRoom(options, size, 0, error) : error;
    } finally {
      reserved.release();
    }
    const reader = await open(`/proc/self/fd/${target.fd}`, constants.O_RDONLY);
    return staged(reader, {}, () => Promise.resolve());
  } finally {
    for (const source of sources) await source.close();
    await target?.close();
  }
}

/** Adds each file to `sources` as soon as it is open. */
async function openParts(files: readonly ModelFile[], sources: FileHandle[]): Promise<readonly ModelPart[]> {
  const named = [];
  for (const { path } of files) {
    const source = await openRegular(path);
    sources.push(source);
    named.push({ name: basename(path), source: await fileSource(source) });
  }
  return readParts(named);
}

interface Joining {
  readonly files: readonly ModelFile[];
  readonly sources: readonly FileHandle[];
  readonly parts: readonly ModelPart[];
  readonly model: JoinedModel;
  readonly target: FileHandle;
}

async function join(
  { files, sources, parts, model, target }: Joining,
  options: StagePartsOptions,
): Promise<void> {
  const total = parts.reduce((sum, { header }) => sum + header.fileSize, 0);
  await target.truncate(model.header.fileSize);
  await target.writeFile(model.head);
  let before = 0;
  for (const [i, { sha256 }] of files.entries()) {
    const { head, fileSize: size } = parts[i]!.header;
    const hash = createHash('sha256');
    const onProgress = (fraction: number): void => options.onProgress?.((before + size * fraction) / total);
    await pump(
      { source: sources[i]!, size, hash, target, head, section: model.sections[i]! },
      { signal: options.signal, onProgress },
    );
    before += size;
    const actual = hash.digest('hex');
    if (actual !== sha256)
      throw mismatch({ name: `part ${i + 1} of ${files.length} of ${options.name}`, sha256 }, actual);
  }
}

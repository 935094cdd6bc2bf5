// Model disks: the files of one model behind one root hash. A GGUF file or a whisper model stands in its disk
// as `model.gguf` or `model.bin`; the parts of a split model and a projector beside keep their names. The
// folder is read by the rule of the server (src/models/gguf-folder.ts), so a disk holds what the server will
// look for.

import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { attestedModel } from '@assay/attestation/issue';
import { ApiError } from '../src/base/errors.ts';
import { systemReason } from '../src/base/system-error.ts';
import { modelInFolder } from '../src/models/gguf-folder.ts';
import { namesOfParts, partOf } from '../src/models/gguf/part-name.ts';
import { type ModelDisk, modelSerial, writeVerityImage } from './disks.ts';
import { badInput } from './errors.ts';
import { addFile, newTree } from './tree.ts';

/** A packed model. */
export interface PackedModel extends ModelDisk {
  readonly serial: string;
  /** `path` of the model in the server's configuration: a file, or the folder of several. */
  readonly path: string;
  /** Lower-case hex: the digest that an attestation of this model carries (docs/protocol.md §2). */
  readonly sha256: string;
}

interface ModelFile {
  readonly role: 'weights' | 'projector';
  /** In the disk. */
  readonly name: string;
  readonly path: string;
  readonly size: number;
}

/**
 * Packs a model into the disk `out`. `source`: a GGUF file (of a split model the first part), a whisper
 * model, or a folder with a GGUF model and perhaps its projector. Throws ImageError `input`.
 */
export async function packModel(source: string, out: string): Promise<PackedModel> {
  const files = await modelFiles(source);
  const blobs = [];
  const tree = newTree();
  for (const { role, name, path, size } of files) {
    addFile(tree, name, { path, size }, 0o444);
    blobs.push({ role, sha256: await fileDigest(path), size });
  }
  const { rootHash, blocks } = await writeVerityImage(tree, out);
  const name = diskName(source);
  const [only, ...more] = files;
  return {
    name,
    rootHash,
    blocks,
    serial: modelSerial(rootHash),
    path: `/run/models/${name}${more.length === 0 ? `/${only?.name}` : ''}`,
    sha256: Buffer.from(attestedModel(name, blobs).sha256).toString('hex'),
  };
}

/** In the order an engine reads them. */
async function modelFiles(source: string): Promise<readonly ModelFile[]> {
  try {
    const folder = (await stat(source)).isDirectory();
    const { parts, projector } = folder
      ? await modelInFolder(source)
      : { parts: namesOfParts(basename(source)).map((name) => join(dirname(source), name)) };
    const paths = [
      ...parts.map((path) => ({ role: 'weights' as const, path })),
      ...(projector === undefined ? [] : [{ role: 'projector' as const, path: projector }]),
    ];
    const files: ModelFile[] = [];
    // One after the other, so that of several missing files the first is named.
    for (const { role, path } of paths) {
      const found = await stat(path);
      if (!found.isFile()) throw badInput(`${path} is not a regular file`);
      files.push({
        role,
        path,
        size: found.size,
        name: paths.length === 1 ? soleName(path) : basename(path),
      });
    }
    return files;
  } catch (error) {
    if (error instanceof ApiError) throw badInput(`${source}: ${error.message} (${error.code})`);
    const { path } = error as NodeJS.ErrnoException;
    if (path === undefined) throw error;
    throw badInput(`${path}: ${systemReason(error)} (file_not_found)`);
  }
}

function soleName(path: string): string {
  return path.toLowerCase().endsWith('.bin') ? 'model.bin' : 'model.gguf';
}

function diskName(source: string): string {
  const file = basename(source);
  const name = (partOf(file)?.stem ?? file)
    .replace(/\.(?:gguf|bin)$/i, '')
    .toLowerCase()
    .replace(/[^a-z0-9._-]/g, '-')
    .replace(/^\.+/, '')
    .slice(0, 64);
  return name || 'model';
}

async function fileDigest(path: string): Promise<Uint8Array> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>)
    hash.update(chunk);
  return hash.digest();
}

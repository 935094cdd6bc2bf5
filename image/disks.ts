// The disks an operator attaches: measured configuration, operator configuration, models (model-disk.ts). The
// writers here and the reading in guest/init.sh are two sides of one small format: a version line, lines of
// fixed words, `---`, the server's TOML; padded with NULs.

import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename } from 'node:fs/promises';
import { once } from 'node:events';
import { badInput } from './errors.ts';
import { type ErofsLayout, erofsBytes, layoutErofs } from './erofs.ts';
import { type Tree } from './tree.ts';
import { verityHasher } from './verity.ts';

export const SERIAL = { root: 'assay-root', config: 'assay-config', operator: 'assay-operator' } as const;

/** virtio allows 20 bytes. The host may lie about it: the root hash decides. */
export function modelSerial(rootHash: string): string {
  return `m-${rootHash.slice(0, 16)}`;
}

export interface ModelDisk {
  /** Lower-case letters, digits, `.`, `_`, `-`; the model is mounted at `/run/models/<name>`. */
  readonly name: string;
  readonly rootHash: string;
  readonly blocks: number;
}

const SECTOR = 512;
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Of an operator's configuration; the disk that boots by itself has so much room for it. */
export const MAX_OPERATOR_BYTES = 64 * 1024;

/** The measured configuration's text, and its SHA-256 for the command line. */
export function measuredConfig(
  models: readonly ModelDisk[],
  toml: string,
): { readonly text: string; readonly sha256: string } {
  for (const { name, rootHash, blocks } of models) {
    if (!/^(?!\.)[a-z0-9._-]{1,64}$/.test(name))
      throw badInput(`${JSON.stringify(name)} cannot name a model disk`);
    if (!/^[0-9a-f]{64}$/.test(rootHash) || !Number.isSafeInteger(blocks) || blocks < 2)
      throw badInput(`model disk ${name} has a malformed root hash or size`);
  }
  const lines = models.map(({ name, rootHash, blocks }) => `model ${name} ${rootHash} ${blocks}\n`);
  const text = `# assay measured configuration 1\n${lines.join('')}---\n${toml}`;
  return { text, sha256: createHash('sha256').update(text).digest('hex') };
}

export interface OperatorConfig {
  /** `a.b.c.d/n`; absent: DHCP. */
  readonly address?: string;
  readonly gateway?: string;
  readonly dns?: string;
  /** Keys the server takes from an operator. */
  readonly toml?: string;
}

export function operatorConfig({ address, gateway, dns, toml = '' }: OperatorConfig): string {
  const lines = [address && `address ${address}\n`, gateway && `gateway ${gateway}\n`, dns && `dns ${dns}\n`];
  return `# assay operator configuration 1\n${lines.filter(Boolean).join('')}---\n${toml}`;
}

/** A text as the content of a disk: no NUL inside, whole sectors. */
export function textDisk(text: string, kind: 'config' | 'operator'): Uint8Array {
  const bytes = Buffer.from(text);
  const max = kind === 'config' ? MAX_CONFIG_BYTES : MAX_OPERATOR_BYTES;
  if (bytes.length > max || bytes.includes(0))
    throw badInput(`a ${kind} disk holds at most ${max} bytes of text without NUL`);
  return Buffer.concat([bytes, Buffer.alloc(SECTOR - (bytes.length % SECTOR || SECTOR))]);
}

/** Writes an EROFS image with its hash tree behind it. The file appears under its name when it is whole. */
export async function writeVerityImage(
  tree: Tree,
  path: string,
): Promise<{ readonly rootHash: string; readonly blocks: number; readonly sha256: string }> {
  const layout: ErofsLayout = layoutErofs(tree);
  const hasher = verityHasher();
  const digest = createHash('sha256');
  const file = createWriteStream(`${path}.partial`);
  const put = async (bytes: Uint8Array): Promise<void> => {
    digest.update(bytes);
    if (!file.write(bytes)) await once(file, 'drain');
  };
  for await (const bytes of erofsBytes(layout)) {
    hasher.update(bytes);
    await put(bytes);
  }
  const { rootHash, blocks, tree: hashTree } = hasher.finish();
  await put(hashTree);
  file.end();
  await once(file, 'finish');
  await rename(`${path}.partial`, path);
  return { rootHash, blocks, sha256: digest.digest('hex') };
}

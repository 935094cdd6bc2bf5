// `make disk`: what `make image` built → one disk that boots by itself, raw or as a cloud imports it.
//   node image/disk/main.js [--image FOLDER] [--cloud gcp|azure|aws] [--out FILE]

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { parseManifest } from '@assay/attestation/launch';
import { badInput, ImageError } from '../errors.ts';
import { layoutDisk } from './layout.ts';
import { builtParts } from './parts.ts';
import { type Cloud, CLOUDS, writeDisk } from './write.ts';

const FILE: Readonly<Record<Cloud | 'raw', string>> = {
  raw: 'disk.raw',
  gcp: 'disk.tar.gz',
  azure: 'disk.vhd',
  aws: 'disk.raw',
};

/** Writes the disk of a built image. Gives where it is, and the SHA-256 of the file and of the disk in it. */
export async function makeDisk(options: {
  readonly image: string;
  readonly cloud?: Cloud | undefined;
  readonly out?: string | undefined;
}): Promise<{ readonly path: string; readonly file: string; readonly disk: string }> {
  const { image, cloud } = options;
  const manifest = parseManifest(readFileSync(join(image, 'manifest.json'), 'utf8'));
  const parts = builtParts(image, manifest.root.rootHash, manifest.files.config.sha256, manifest.models);
  const layout = layoutDisk({ uki: readFileSync(join(image, 'BOOTX64.EFI')), ...parts });
  if (!readFileSync(join(image, 'disk.gpt')).equals(layout.table.head))
    throw badInput(`${image} is not as it was built: its partition table would be another`);
  const path = options.out ?? join(image, FILE[cloud ?? 'raw']);
  return { path, ...(await writeDisk(layout, path, cloud)) };
}

function cloudOf(text: string | undefined): Cloud | undefined {
  if (text === undefined || text === '') return undefined;
  const cloud = CLOUDS.find((name) => name === text);
  if (cloud === undefined)
    throw new ImageError('usage', `--cloud is one of ${CLOUDS.join(', ')}, not ${JSON.stringify(text)}`);
  return cloud;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      image: { type: 'string', default: 'out' },
      cloud: { type: 'string' },
      out: { type: 'string' },
    },
  });
  const started = performance.now();
  const { path, file, disk } = await makeDisk({
    image: resolve(values.image),
    cloud: cloudOf(values.cloud),
    out: values.out,
  });
  process.stdout.write(
    `${file}  ${path}\n${disk}  the disk in it\n${((performance.now() - started) / 1000).toFixed(1)} s\n`,
  );
}

if (process.argv[1]?.includes('image/disk/main.') === true) {
  main().catch((error: unknown) => {
    process.stderr.write(
      `disk: ${error instanceof ImageError ? error.message : String(error instanceof Error ? error.stack : error)}\n`,
    );
    process.exitCode = 1;
  });
}

// `assay image model` and `make image-model`: packs a GGUF as a read-only disk with a dm-verity tree,
// and prints the line of the measured configuration that makes a guest accept it, and the disk argument
// that makes a host attach it.
//
//   node image/model.js MODEL.gguf [--out MODEL.img]

import { statSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { packModel } from './disks.ts';

export async function modelCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { out: { type: 'string' } },
    allowPositionals: true,
  });
  const [path] = positionals;
  if (path === undefined || positionals.length !== 1) {
    process.stderr.write('usage: image model MODEL.gguf [--out MODEL.img]\n');
    return 2;
  }
  const out = resolve(values.out ?? `${basename(path).replace(/\.gguf$/i, '')}.img`);
  const disk = await packModel({ path, size: statSync(path).size }, out);
  process.stdout.write(
    [
      `${out}: ${disk.blocks} blocks of data, root hash ${disk.rootHash}`,
      `measured configuration:  model ${disk.name} ${disk.rootHash} ${disk.blocks}`,
      `server configuration:    [api.models.<id>] path = "/run/models/${disk.name}/model.gguf"`,
      `disk of the guest:       -drive file=${out},if=none,id=${disk.serial},format=raw,readonly=on -device virtio-blk-pci,drive=${disk.serial},serial=${disk.serial}`,
      '',
    ].join('\n'),
  );
  return 0;
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href) {
  process.exitCode = await modelCommand(process.argv.slice(2));
}

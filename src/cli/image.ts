// `assay image model FILE`: packs a GGUF as a model disk (EROFS and dm-verity) and prints its entry for
// the measured configuration. The builder is part of a checkout, not of the appliance: it is looked for
// beside the built server.

import { resolve } from 'node:path';
import { CommandError, parseArguments, optionText, UsageError } from './arguments.ts';
import { measureFile } from '../models/measure.ts';

/** The exports of image/disks that are used here. */
interface Builder {
  packModel(
    gguf: { readonly path: string; readonly size: number },
    out: string,
  ): Promise<{
    readonly name: string;
    readonly rootHash: string;
    readonly blocks: number;
    readonly serial: string;
  }>;
}

export async function imageCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { out: { type: 'string' }, json: { type: 'boolean' } },
    true,
  );
  const [action, file, ...more] = positionals;
  if (action !== 'model' || file === undefined || more.length > 0)
    throw new UsageError('usage: assay image model FILE [--out DISK] [--json]');
  const path = resolve(file);
  const { sha256, size } = await measureFile(path, { signal: new AbortController().signal });
  const out = resolve(optionText(values['out']) ?? `${path.replace(/\.gguf$/i, '')}.img`);
  const disk = await (await builder()).packModel({ path, size }, out);
  if (values['json'] === true) {
    process.stdout.write(`${JSON.stringify({ disk: out, sha256, ...disk })}\n`);
    return 0;
  }
  process.stdout.write(
    [
      `${out}: attach it read-only as virtio-blk with serial ${disk.serial}`,
      '',
      'In the measured configuration:',
      `model ${disk.name} ${disk.rootHash} ${disk.blocks}`,
      '---',
      `[api.models.${JSON.stringify(disk.name)}]`,
      `path = "/run/models/${disk.name}/model.gguf"`,
      `sha256 = "${sha256}"`,
      '',
    ].join('\n'),
  );
  return 0;
}

async function builder(): Promise<Builder> {
  const { href } = new URL('../../image/disks.js', import.meta.url);
  try {
    return (await import(href)) as Builder;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new CommandError('the image builder is not here; run this from a built checkout');
  }
}

// `assay image model MODEL`: packs a model as a disk (EROFS and dm-verity) and prints its entry for the
// measured configuration. The builder is part of a checkout, not of the appliance: it is looked for beside
// the built server.

import { resolve } from 'node:path';
import { CommandError, parseArguments, optionText, UsageError } from './arguments.ts';

/** The exports of image/model-disk that are used here. */
interface Builder {
  packModel(
    source: string,
    out: string,
  ): Promise<{
    readonly name: string;
    readonly rootHash: string;
    readonly blocks: number;
    readonly serial: string;
    readonly path: string;
    readonly sha256: string;
  }>;
}

export async function imageCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    { out: { type: 'string' }, json: { type: 'boolean' } },
    true,
  );
  const [action, model, ...more] = positionals;
  if (action !== 'model' || model === undefined || more.length > 0)
    throw new UsageError('usage: assay image model MODEL [--out DISK] [--json]');
  const source = resolve(model);
  const out = resolve(optionText(values['out']) ?? `${source.replace(/\.(?:gguf|bin)$/i, '')}.img`);
  const disk = await pack(source, out);
  if (values['json'] === true) {
    process.stdout.write(`${JSON.stringify({ disk: out, ...disk })}\n`);
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
      `path = "${disk.path}"`,
      `sha256 = "${disk.sha256}"`,
      '',
    ].join('\n'),
  );
  return 0;
}

async function pack(source: string, out: string): ReturnType<Builder['packModel']> {
  const { packModel } = await builder();
  try {
    return await packModel(source, out);
  } catch (error) {
    // The builder refuses; its class belongs to the builder.
    if (error instanceof Error && error.name === 'ImageError') throw new CommandError(error.message);
    throw error;
  }
}

async function builder(): Promise<Builder> {
  const { href } = new URL('../../image/model-disk.js', import.meta.url);
  try {
    return (await import(href)) as Builder;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    throw new CommandError('the image builder is not here; run this from a built checkout');
  }
}

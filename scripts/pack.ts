// `make pack`: the npm packages into out/, compiled anew, so that nothing is in them that an earlier state left in dist/. The same
// sources give the same bytes: the compiler writes no paths or times, and npm sets those of the archive. Prints name and SHA-512.

import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface Packed {
  readonly name: string;
  readonly filename: string;
  /** Subresource form: `sha512-…`. */
  readonly integrity: string;
  readonly files: readonly { readonly path: string; readonly mode: number }[];
}

/** Compiles and packs the server and the verifier of the tree at `top`, whose dist/ folders are made anew. */
export async function pack(top: string, destination: string): Promise<readonly Packed[]> {
  for (const folder of ['dist', 'attestation/dist'])
    await rm(join(top, folder), { recursive: true, force: true });
  const compiler = join(top, 'node_modules/typescript/bin/tsc');
  await run(process.execPath, [compiler, '-b', 'attestation', 'attestation/node', 'src', 'image'], {
    cwd: top,
  });
  await mkdir(destination, { recursive: true });
  const packed: Packed[] = [];
  for (const folder of [top, join(top, 'attestation')]) {
    const args = ['pack', '--json', '--ignore-scripts', '--offline', '--pack-destination', destination];
    const { stdout } = await run('npm', args, { cwd: folder });
    packed.push(...(JSON.parse(stdout) as Packed[]));
  }
  return packed;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const top = fileURLToPath(new URL('..', import.meta.url));
  for (const { filename, integrity } of await pack(top, join(top, 'out')))
    console.log(`out/${filename}  ${integrity}`);
}

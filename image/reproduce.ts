// `make reproduce`: builds the image twice and compares every byte. The second build runs in another process,
// from a copy of the sources in another folder, with another umask, time zone, locale, home and date, its
// directory listings reversed.
//
//   node image/reproduce.js [--inputs FOLDER]

import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { defaultInputs } from './build.ts';
import { ImageError } from './errors.ts';
import { TOP } from './top.ts';

/** The sources of the image; node_modules is shared, as `npm ci` installed it. */
const SOURCES = ['attestation', 'src', 'image', 'package.json', 'package-lock.json', 'tsconfig.base.json'];

export interface Difference {
  readonly file: string;
  /** First byte that differs, or -1 when only one build has the file. */
  readonly at: number;
}

/** Runs both builds and returns what differs; empty when the image reproduces. */
export async function reproduce(inputs: string, scratch: string): Promise<readonly Difference[]> {
  const [first, second] = [join(scratch, 'first'), join(scratch, 'second')];
  const base = { PATH: process.env['PATH'] ?? '', ASSAY_IMAGE_INPUTS: inputs };
  const [here, there] = [join(scratch, 'sources'), join(scratch, 'another folder', 'deeper', 'sources')];
  // Both from copies: a file edited while this runs is in both or in neither.
  copySources(TOP, here);
  copySources(here, there);
  await build(here, first, {
    mask: 0o022,
    environment: { ...base, TZ: 'UTC', LC_ALL: 'C', HOME: scratch },
    extra: [],
  });
  await build(there, second, {
    mask: 0o077,
    environment: {
      ...base,
      TZ: 'Pacific/Kiritimati',
      LC_ALL: 'tr_TR.UTF-8',
      HOME: '/nonexistent',
      SOURCE_DATE_EPOCH: '1',
    },
    extra: ['--import', REVERSED],
  });
  return compareFolders(first, second);
}

/** The project's sources in another folder, with node_modules linked. */
export function copySources(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of SOURCES) {
    cpSync(join(from, name), join(to, name), {
      recursive: true,
      filter: (path) => !/\/(?:dist|node_modules)$/.test(path),
    });
  }
  symlinkSync(join(TOP, 'node_modules'), join(to, 'node_modules'));
}

/** A module that makes every directory listing of the process come out backwards. */
const REVERSED = `data:text/javascript,${encodeURIComponent(
  "import fs from 'node:fs'; import { syncBuiltinESMExports } from 'node:module'; const own = fs.readdirSync; fs.readdirSync = (...a) => own(...a).reverse(); const p = fs.promises.readdir; fs.promises.readdir = async (...a) => (await p(...a)).reverse(); syncBuiltinESMExports();",
)}`;

/** The process a build runs in. */
interface Surroundings {
  readonly mask: number;
  readonly environment: Record<string, string>;
  /** Options of Node. */
  readonly extra: readonly string[];
}

function build(top: string, out: string, { mask, environment, extra }: Surroundings): Promise<void> {
  return new Promise((done, reject) => {
    const script = `umask ${mask.toString(8).padStart(3, '0')} && exec "$0" "$@"`;
    const args = [process.execPath, '--import', 'tsx', ...extra, join(top, 'image/build.ts'), '--out', out];
    const child = spawn('sh', ['-c', script, ...args], {
      cwd: top,
      env: environment,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    child.on('error', reject);
    child.on('close', (status) =>
      status === 0 ? done() : reject(new ImageError('input', `a build ended with status ${status}`)),
    );
  });
}

export function compareFolders(a: string, b: string): readonly Difference[] {
  const names = [...new Set([...readdirSync(a), ...readdirSync(b)])].sort();
  return names.flatMap((file) => {
    if (!readdirSync(a).includes(file) || !readdirSync(b).includes(file)) return [{ file, at: -1 }];
    const [x, y] = [readFileSync(join(a, file)), readFileSync(join(b, file))];
    if (x.equals(y)) return [];
    const at = x.findIndex((byte, index) => byte !== y[index]);
    return [{ file, at: at < 0 ? x.length : at }];
  });
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { inputs: { type: 'string' } } });
  const scratch = mkdtempSync(join(tmpdir(), 'assay-reproduce-'));
  try {
    const differences = await reproduce(resolve(values.inputs ?? defaultInputs()), scratch);
    for (const { file, at } of differences)
      process.stdout.write(at < 0 ? `${file}: only in one build\n` : `${file}: differs from byte ${at} on\n`);
    if (differences.length > 0)
      throw new ImageError('differs', `${differences.length} files differ between two builds`);
    process.stdout.write(readFileSync(join(scratch, 'first', 'SHA256SUMS'), 'utf8'));
    process.stdout.write('reproduced: both builds are identical\n');
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href) {
  main().catch((error: unknown) => {
    process.stderr.write(`image: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  });
}

// Builds image/test-module/fake_tsm.c with the locked compiler and kernel headers, in a folder of its
// own that is entered by chroot. For the end-to-end test: such a module is unsigned, and no
// production image would load it.

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { unpackInto } from './emulator.ts';
import { ImageError } from './errors.ts';
import type { Lock } from './lock.ts';
import type { Inputs } from './mirror.ts';
import { TOP } from './top.ts';

const run = promisify(execFile);

/** The module's bytes. Needs root, or unprivileged user namespaces; `tool` error without either. */
export async function buildTestModule(
  lock: Lock,
  inputs: Inputs,
  cache: string,
  kernelRelease: string,
): Promise<Uint8Array> {
  // Packages the emulator or the image needs as well are locked under that use.
  const packages = lock.debian.filter(
    ({ use, package: name }) => use === 'test-module' || use === 'emulator' || name.startsWith('lib'),
  );
  const digest = createHash('sha256').update(JSON.stringify(packages)).digest('hex').slice(0, 16);
  const folder = join(cache, digest);
  await unpackInto(folder, packages, inputs);
  // Maintainer scripts would have made these links.
  for (const [name, target] of [
    ['sh', 'bash'],
    ['awk', 'gawk'],
    ['gcc', 'x86_64-linux-gnu-gcc-14'],
  ] as const) {
    if (!existsSync(join(folder, 'usr/bin', name))) symlinkSync(target, join(folder, 'usr/bin', name));
  }
  for (const [name, target] of [
    ['bin', 'usr/bin'],
    ['lib', 'usr/lib'],
    ['lib64', 'usr/lib64'],
    ['sbin', 'usr/sbin'],
  ] as const) {
    if (!existsSync(join(folder, name))) symlinkSync(target, join(folder, name));
  }
  mkdirSync(join(folder, 'dev'), { recursive: true });
  if (!existsSync(join(folder, 'dev/null'))) writeFileSync(join(folder, 'dev/null'), '');
  const work = join(folder, 'module');
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work);
  copyFileSync(join(TOP, 'image/test-module/fake_tsm.c'), join(work, 'fake_tsm.c'));
  writeFileSync(join(work, 'Makefile'), 'obj-m := fake_tsm.o\n');
  const make = [
    '/usr/bin/env',
    '-i',
    'PATH=/usr/bin:/usr/sbin',
    '/usr/bin/make',
    '-C',
    `/usr/src/linux-headers-${kernelRelease}`,
    'M=/module',
    'CC=x86_64-linux-gnu-gcc-14',
    'modules',
  ];
  const [program, args] =
    process.getuid?.() === 0
      ? ['chroot', [folder, ...make]]
      : ['unshare', ['--map-root-user', 'chroot', folder, ...make]];
  try {
    await run(program, args, { maxBuffer: 1 << 24 });
  } catch (cause) {
    throw new ImageError(
      'tool',
      `the test module could not be built: ${String((cause as { stderr?: unknown }).stderr).slice(-500)}`,
      cause,
    );
  }
  return readFileSync(join(work, 'fake_tsm.ko'));
}

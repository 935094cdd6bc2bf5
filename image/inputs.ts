// `make image-inputs`: fills the cache with every locked input, so that building and testing need no network
// afterwards, and puts the firmware the tests of the launch measurement use into .cache/firmware.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readDeb } from './archive.ts';
import { defaultInputs } from './build.ts';
import { badInput } from './errors.ts';
import { readLock } from './lock.ts';
import { findMirrors, openInputs } from './mirror.ts';
import { TOP } from './top.ts';

/** Package, path in it, name in .cache/firmware. */
const FIRMWARE: readonly (readonly [string, string, string])[] = [
  ['ovmf-amdsev', 'usr/share/ovmf/OVMF.amdsev.fd', 'OVMF.amdsev.fd'],
  ['ovmf-generic', 'usr/share/ovmf/OVMF.fd', 'OVMF.fd'],
  ['ovmf-inteltdx', 'usr/share/ovmf/OVMF.inteltdx.ms.fd', 'OVMF.inteltdx.ms.fd'],
  ['ovmf', 'usr/share/ovmf/OVMF.fd', 'OVMF.2025.02.fd'],
  [
    'linux-image-6.12.107+deb13-cloud-amd64',
    'boot/vmlinuz-6.12.107+deb13-cloud-amd64',
    'vmlinuz-6.12.107+deb13-cloud-amd64',
  ],
];

const lock = readLock(join(TOP, 'image/inputs.lock.json'));
const inputs = openInputs(defaultInputs(), () => findMirrors(process.env));
let bytes = 0;
for (const input of lock.npm) bytes += (await inputs.npm(input)).length;
for (const input of lock.debian) bytes += (await inputs.debian(input)).length;
const folder = join(TOP, '.cache/firmware');
mkdirSync(folder, { recursive: true });
for (const [name, path, as] of FIRMWARE) {
  const input = lock.debian.find((entry) => entry.package === name);
  if (input === undefined) throw badInput(`the lock has no ${name}`);
  const file = (await readDeb(await inputs.debian(input))).find((entry) => entry.path === path);
  if (file === undefined) throw badInput(`${name} has no file ${path}`);
  writeFileSync(join(folder, as), file.data);
}
process.stdout.write(
  `${defaultInputs()}: ${lock.debian.length + lock.npm.length} inputs, ${(bytes / 1e6).toFixed(0)} MB\n`,
);

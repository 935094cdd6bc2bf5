// An altered image fails closed and says why. Boots take minutes, so this runs with ASSAY_IMAGE_TEST=1 (`make
// image-test`).

import { copyFileSync, openSync, readFileSync, statSync, writeSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { standardDisks, startGuest } from '../fixtures/image/guest.ts';
import { ready, useBootImage } from '../fixtures/image/boot-image.ts';

const fixture = useBootImage();
const { disks, bootToEnd } = fixture;

function changed(word: string, to: string): string {
  return readFileSync(join(fixture.folder, 'cmdline'), 'utf8').replace(
    new RegExp(`${word}=\\S+`),
    `${word}=${to}`,
  );
}

function copy(name: string): string {
  copyFileSync(join(fixture.folder, name), join(fixture.folder, `${name}.changed`));
  return join(fixture.folder, `${name}.changed`);
}

function flip(path: string, at: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, Uint8Array.of((readFileSync(path)[at] ?? 0) ^ 1), 0, 1, at);
  closeSync(file);
}

describe.skipIf(!ready)('what is altered fails closed and says why', () => {
  test.each([
    [
      'wrong root hash',
      () => changed('assay.root', '0'.repeat(64)),
      /dm-verity device corrupted|the root image does not mount/,
    ],
    [
      'wrong configuration hash',
      () => changed('assay.cfg', '0'.repeat(64)),
      /the configuration disk has sha256 [0-9a-f]{64}, the measured command line says 0{64}/,
    ],
    [
      'root hash given twice',
      () => `${changed('assay.none', '')} assay.root=${'0'.repeat(64)}`,
      /refused to boot: assay.root is given 2 times/,
    ],
    [
      'no configuration hash',
      () => changed('assay.cfg', '').replace('assay.cfg=', ''),
      /refused to boot: assay.cfg is given 0 times/,
    ],
    [
      'malformed root hash',
      () => changed('assay.root', 'A'.repeat(64)),
      /assay.root is not 64 lower-case hex digits/,
    ],
    [
      'an unknown parameter',
      () => `${changed('assay.none', '')} assay.debug=1`,
      /a parameter that is not allowed: assay.debug/,
    ],
    [
      'another init',
      () => `${changed('assay.none', '')} init=/bin/busybox`,
      /a parameter that is not allowed: init/,
    ],
    ['more blocks than the disk has', () => changed('assay.blocks', '99999999'), /the root disk is smaller/],
  ] as const)('%s', { timeout: 300_000 }, async (_name, line, expected) => {
    expect(await bootToEnd({ cmdline: line() })).toMatch(expected);
  });

  test('a corrupted block of the root image', { timeout: 300_000 }, async () => {
    const path = copy('root.img');
    // In the inodes, which mounting reads.
    flip(path, 4096 + 16);
    expect(await bootToEnd({ disks: [{ file: path, serial: 'assay-root' }, ...disks().slice(1)] })).toMatch(
      /verity.*corrupted/,
    );
  });

  test(
    'a missing model disk, and one with other bytes behind the right serial',
    { timeout: 500_000 },
    async () => {
      expect(await bootToEnd({ disks: standardDisks(fixture.folder) })).toContain(
        'the disk of model demo-chat is missing',
      );
      const path = copy('model-demo-chat.img');
      flip(path, 4096 + 16);
      expect(
        await bootToEnd({
          disks: [...standardDisks(fixture.folder), { file: path, serial: fixture.modelDisk.serial }],
        }),
      ).toMatch(/verity.*corrupted/);
    },
  );

  test('a changed configuration, even by one byte', { timeout: 300_000 }, async () => {
    const path = copy('config.img');
    flip(path, statSync(path).size > 400 ? 300 : 100);
    expect(
      await bootToEnd({
        disks: [standardDisks(fixture.folder)[0]!, { file: path, serial: 'assay-config' }, fixture.modelDisk],
      }),
    ).toMatch(/the configuration disk has sha256/);
  });

  test('no root disk, and two of them', { timeout: 300_000 }, async () => {
    expect(await bootToEnd({ disks: disks().slice(1) })).toContain(
      'there is no disk with the serial assay-root',
    );
    expect(await bootToEnd({ disks: [...disks(), standardDisks(fixture.folder)[0]!] })).toContain(
      'two disks have the serial assay-root',
    );
  });

  test("AMD's firmware does not boot a kernel without measured hashes", { timeout: 300_000 }, async () => {
    fixture.guest = await startGuest({
      emulator: fixture.emulator,
      folder: fixture.folder,
      disks: disks(),
      extra: ['-machine', 'q35,smm=off', '-bios', join(fixture.folder, 'OVMF.snp.fd')],
    });
    await fixture.guest.line(/BdsDxe: No bootable option was found/);
    expect(fixture.guest.console()).not.toMatch(/assay:|Linux version|verity/);
    await fixture.guest.stop();
  });
});

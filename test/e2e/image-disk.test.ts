// The disk boots by itself under OVMF with a software TPM: to a verified answer (the test image, which alone
// has the simulated TEE), or until it says that there is no TEE (the production image); the registers are
// those that were predicted; whatever is altered is seen or ends the boot. With ASSAY_IMAGE_TEST=1.

import { closeSync, copyFileSync, openSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  bootEvents,
  GPT_HEAD_BYTES,
  type ImageDisk,
  parseManifest,
  readGpt,
} from '@assay/attestation/launch';
import { makeDisk } from '../../image/disk/main.ts';
import { partitionTable } from '../../image/disk/gpt.ts';
import { guidOf, OPERATOR_DIGEST } from '../../image/disk/layout.ts';
import { operatorConfig, textDisk } from '../../image/disks.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { attestedClient } from '../fixtures/image/attested-client.ts';
import { CANARY, ready, useBootImage } from '../fixtures/image/boot-image.ts';
import { type Guest, startGuest } from '../fixtures/image/guest.ts';
import { startTpm } from '../fixtures/image/tpm.ts';
import { tpmEvents } from '../fixtures/image/tpm-log.ts';

const LOG = `
(
  log=/sys/kernel/security/tpm0/binary_bios_measurements
  echo "probe: tpm $($bb base64 $log | $bb tr -d '\\n')"
  cd /sys/class/tpm/tpm0
  for bank in sha256 sha384; do
    [ -d pcr-$bank ] || continue
    for pcr in 4 5 7 9 11 12; do echo "probe: pcr $bank $pcr $($bb tr A-F a-f < pcr-$bank/$pcr)"; done
  done
  echo 'probe: read'
) &
`;

const fixture = useBootImage({ disk: { 'test-start': LOG } });

const DEVICES = {
  'virtio-blk': ['-device', 'virtio-blk-pci,drive=boot,bootindex=0'],
  nvme: ['-device', 'nvme,drive=boot,serial=any,bootindex=0'],
  'virtio-scsi': [
    '-device',
    'virtio-scsi-pci,id=scsi',
    '-device',
    'scsi-hd,drive=boot,bus=scsi.0,bootindex=0',
  ],
} as const;

interface BootOptions {
  readonly disk: string;
  readonly device?: keyof typeof DEVICES;
  readonly extra?: readonly string[];
}

let tpms = 0;

/** Starts a guest that has firmware, a TPM and one disk. */
async function boot({ disk, device = 'virtio-blk', extra = [] }: BootOptions): Promise<Guest> {
  const tpm = await startTpm(fixture.emulator, join(fixture.folder, `tpm-${tpms++}`));
  const guest = await startGuest({
    emulator: fixture.emulator,
    folder: fixture.folder,
    disks: [],
    boot: ['-machine', 'q35,smm=off', '-bios', join(fixture.folder, 'OVMF.tdx.fd')],
    extra: [
      '-drive',
      `file=${disk},if=none,id=boot,format=raw,snapshot=on`,
      ...DEVICES[device],
      ...tpm.device,
      ...extra,
    ],
  });
  void guest.ended.then(() => tpm.stop());
  fixture.guest = guest;
  return guest;
}

interface Observed {
  readonly events: ReturnType<typeof tpmEvents>;
  readonly pcrs: ReadonlyMap<string, string>;
}

async function observed(guest: Guest): Promise<Observed> {
  await guest.line(/probe: read/);
  const [, log = ''] = /probe: tpm (\S+)/.exec(guest.console()) ?? [];
  return {
    events: tpmEvents(new Uint8Array(Buffer.from(log, 'base64'))),
    pcrs: new Map(
      [...guest.console().matchAll(/^probe: pcr (\S+) (\d+) (\S+)$/gm)].map(([, bank, pcr, value]) => [
        `${bank} pcr${pcr}`,
        value ?? '',
      ]),
    ),
  };
}

function diskOf(folder: string): ImageDisk {
  const { disk } = parseManifest(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  if (disk === undefined) throw new Error('the manifest has no disk');
  return disk;
}

const FAILED_EXIT = createHash('sha256').update('Exit Boot Services Returned with Failure').digest('hex');

/** A slow machine has to leave the firmware twice now and then. */
function leftTwice(events: Observed['events']): boolean {
  return events.some(({ sha256 }) => sha256 === FAILED_EXIT);
}

/** The stated value of each register, by bank and name. */
function stated(disk: ImageDisk, repeatedExit: boolean): Map<string, string> {
  return new Map(
    (['sha256', 'sha384'] as const).flatMap((bank) =>
      Object.entries({ ...disk[bank], pcr5: repeatedExit ? disk.repeatedExit[bank] : disk[bank].pcr5 }).map(
        ([pcr, value]) => [`${bank} ${pcr}`, value] as const,
      ),
    ),
  );
}

/** A copy of the disk with bytes changed: the partition's index, an offset in it, the bytes. */
function altered(disk: string, changes: readonly { at: number; bytes: Uint8Array }[]): string {
  const copy = `${disk}.altered`;
  copyFileSync(disk, copy);
  const file = openSync(copy, 'r+');
  for (const { at, bytes } of changes) writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);
  return copy;
}

function headOf(disk: string): Buffer {
  const head = Buffer.alloc(GPT_HEAD_BYTES);
  const file = openSync(disk, 'r');
  readSync(file, head, 0, head.length, 0);
  closeSync(file);
  return head;
}

/** First byte of the partition with the GUID that such a digest has. */
function partitionAt(disk: string, digest: string): number {
  const entry = readGpt(headOf(disk)).entries.find(({ guid }) => guid === guidOf(digest));
  if (entry === undefined) throw new Error(`there is no partition for ${digest}`);
  return entry.firstSector * 512;
}

describe.skipIf(!ready)('the disk under emulation', () => {
  const variant = (): string => join(fixture.folder, 'disk');
  let made: Promise<{ readonly path: string }> | undefined;
  const testDisk = async (): Promise<string> => (await (made ??= makeDisk({ image: variant() }))).path;

  test(
    'boots from the disk alone to a verified answer, and the registers are those predicted',
    { timeout: 600_000 },
    async () => {
      const guest = await boot({ disk: await testDisk() });
      await guest.line(/"msg":"listening"/);
      const manifest = parseManifest(readFileSync(join(variant(), 'manifest.json'), 'utf8'));
      const { client, close } = await attestedClient(guest, manifest);
      const completion = await client.chat.completions.create({
        model: 'demo-chat',
        messages: [{ role: 'user', content: EXPECTED[0]?.question ?? '' }],
      });
      expect(completion.choices[0]?.message.content).toBe(EXPECTED[0]?.answer);
      await close();
      const { events, pcrs } = await observed(guest);
      const disk = diskOf(variant());
      const repeated = leftTwice(events);
      const predicted = stated(disk, repeated);
      // swtpm has no SHA-384 registers unless told, but the log has both banks.
      for (const [name, value] of pcrs) expect(`${name} ${value}`).toBe(`${name} ${predicted.get(name)}`);
      expect([...pcrs.keys()].filter((name) => name.startsWith('sha256'))).toHaveLength(6);
      const uki = readFileSync(join(variant(), 'BOOTX64.EFI'));
      const head = readFileSync(join(variant(), 'disk.gpt'));
      for (const bank of ['sha256', 'sha384'] as const) {
        const once = bootEvents({ uki, head }, bank);
        const of = { ...once, pcr5: repeated ? once.repeatedExit.pcr5 : once.pcr5 };
        for (const pcr of [4, 5, 7, 9, 11, 12] as const)
          expect(
            events.filter((event) => event.pcr === pcr).map((event) => event[bank]),
            `${bank} ${pcr}`,
          ).toEqual(of[`pcr${pcr}`].map((digest) => Buffer.from(digest).toString('hex')));
      }
      // A TD would extend PCR 2 to 6 into RTMR1 but for separators and what is no event of the boot,
      // PCR 8 to 15 into RTMR2, each in the order of the log.
      const once = bootEvents({ uki, head }, 'sha384');
      const of = { ...once, rtmr1: repeated ? once.repeatedExit.rtmr1 : once.rtmr1 };
      const inOrder = (wanted: readonly number[], skip: readonly number[]): string[] =>
        events
          .filter(({ pcr, type }) => wanted.includes(pcr) && !skip.includes(type))
          .map(({ sha384 }) => sha384);
      const hex = (digests: readonly Uint8Array[]): string[] =>
        digests.map((digest) => Buffer.from(digest).toString('hex'));
      const SEPARATOR = 4;
      const [, separator] = hex(of.rtmr1);
      expect(inOrder([4, 5], [SEPARATOR])).toEqual(hex(of.rtmr1).filter((digest) => digest !== separator));
      expect(inOrder([8, 9, 10, 11, 12, 13, 14, 15], [])).toEqual(hex(of.rtmr2));
    },
  );

  test.each(['nvme', 'virtio-scsi'] as const)(
    'boots from %s with the same registers',
    { timeout: 600_000 },
    async (device) => {
      const guest = await boot({ disk: await testDisk(), device });
      await guest.line(/"msg":"listening"/);
      const { events, pcrs } = await observed(guest);
      const predicted = stated(diskOf(variant()), leftTwice(events));
      expect(pcrs.size).toBeGreaterThan(0);
      for (const [name, value] of pcrs) expect(`${name} ${value}`).toBe(`${name} ${predicted.get(name)}`);
    },
  );

  test('the production disk boots until it says that there is no TEE', { timeout: 600_000 }, async () => {
    const { path } = await makeDisk({ image: fixture.folder });
    const guest = await boot({ disk: path });
    await guest.ended;
    expect(guest.console()).toContain('assay: root image verified');
    expect(guest.console()).toMatch(/this build cannot simulate a TEE[\s\S]*the server ended, powering off/);
    expect(guest.console()).not.toContain('listening');
  });

  test('an operator configuration written into its partition is taken', { timeout: 600_000 }, async () => {
    const disk = await testDisk();
    const bytes = textDisk(operatorConfig({ address: '10.0.2.15/24', gateway: '10.0.2.2' }), 'operator');
    const guest = await boot({ disk: altered(disk, [{ at: partitionAt(disk, OPERATOR_DIGEST), bytes }]) });
    await guest.line(/"msg":"listening"/);
    const bad = textDisk('# assay operator configuration 1\nexec /bin/sh\n---\n', 'operator');
    await guest.stop();
    const refused = await boot({
      disk: altered(disk, [{ at: partitionAt(disk, OPERATOR_DIGEST), bytes: bad }]),
    });
    await refused.ended;
    expect(refused.console()).toContain('the operator configuration has a line that is not known');
  });

  test(
    'a changed root or configuration is found before anything is served',
    { timeout: 600_000 },
    async () => {
      const disk = await testDisk();
      const manifest = parseManifest(readFileSync(join(variant(), 'manifest.json'), 'utf8'));
      const cases = [
        [partitionAt(disk, manifest.root.rootHash) + 4096 * 8, /verity|refused to boot/i],
        [partitionAt(disk, manifest.files.config.sha256) + 40, /configuration disk has sha256/],
      ] as const;
      for (const [at, says] of cases) {
        const guest = await boot({ disk: altered(disk, [{ at, bytes: Buffer.from(CANARY.slice(0, 8)) }]) });
        await guest.ended;
        expect(guest.console()).toMatch(says);
        expect(guest.console()).not.toContain('listening');
      }
    },
  );

  test(
    'another table of the same partitions changes PCR 5; one without the root hash boots to a refusal',
    { timeout: 600_000 },
    async () => {
      const disk = await testDisk();
      const manifest = parseManifest(readFileSync(join(variant(), 'manifest.json'), 'utf8'));
      const { size } = statSync(disk);
      /** The disk with a table whose GUIDs are `guid` of what they were. */
      const tabled = (guid: (own: string) => string): string => {
        const { entries } = readGpt(headOf(disk));
        const partitions = entries.map((entry, index) => ({
          name: `part ${index}`,
          type: entry.type,
          guid: guid(entry.guid),
          firstSector: entry.firstSector,
          sectors: entry.lastSector - entry.firstSector + 1,
        }));
        const table = partitionTable(partitions, {
          guid: 'a55a7000-c0de-4a55-81a9-0000000000ff',
          sectors: size / 512,
        });
        return altered(disk, [
          { at: 0, bytes: table.head },
          { at: size - table.tail.length, bytes: table.tail },
        ]);
      };
      const guest = await boot({ disk: tabled((own) => own) });
      const { events, pcrs } = await observed(guest);
      const predicted = stated(diskOf(variant()), leftTwice(events));
      expect(pcrs.get('sha256 pcr5')).not.toBe(predicted.get('sha256 pcr5'));
      expect(pcrs.get('sha256 pcr11')).toBe(predicted.get('sha256 pcr11'));
      await guest.stop();
      const root = guidOf(manifest.root.rootHash);
      const refused = await boot({ disk: tabled((own) => (own === root ? guidOf('f'.repeat(64)) : own)) });
      await refused.ended;
      expect(refused.console()).toContain('no partition of the root hash');
    },
  );

  test(
    'a command line from outside is measured: other registers, and PCR 12 is not zero',
    { timeout: 600_000 },
    async () => {
      const words = 'loglevel=7';
      const guest = await boot({
        disk: await testDisk(),
        extra: ['-smbios', `type=11,value=io.systemd.stub.kernel-cmdline-extra=${words}`],
      });
      const { events, pcrs } = await observed(guest);
      const predicted = stated(diskOf(variant()), leftTwice(events));
      expect(pcrs.get('sha256 pcr12')).not.toBe(predicted.get('sha256 pcr12'));
      expect(pcrs.get('sha256 pcr9')).not.toBe(predicted.get('sha256 pcr9'));
      expect(pcrs.get('sha256 pcr4')).toBe(predicted.get('sha256 pcr4'));
    },
  );
});

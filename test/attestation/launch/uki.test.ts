// The predictor of a boot from a disk, without booting: sections, stubs, and what depends on what. That
// firmware and kernel measure this, test/e2e/image-disk shows.

import { describe, expect, test } from 'vitest';
import { bootEvents, extendAll, measureDisk, readPe, readUki } from '@assay/attestation/launch';
import { partitionTable } from '../../../image/disk/gpt.ts';
import { writeUki } from '../../../image/disk/uki.ts';
import { lockedSources, STUB } from '../../../image/build.ts';
import { haveInputs, inputsFolder } from '../../fixtures/image/guest.ts';

const ready = haveInputs('image');
if (!ready) console.warn('\n! the locked inputs are not in the cache: no unified kernel image is read\n');

describe.skipIf(!ready)('a unified kernel image', async () => {
  const sources = ready ? await lockedSources(inputsFolder) : undefined;
  const stub = sources?.debian('systemd-boot-efi', STUB) ?? new Uint8Array(0);
  const content = {
    '.cmdline': Buffer.from('quiet assay.root=00'),
    '.uname': Buffer.from('6.12'),
    '.initrd': Buffer.alloc(5000, 'initrd'),
    '.linux': Buffer.from(sources?.kernel ?? []),
  };
  const { head } = partitionTable([], { guid: 'a55a7000-c0de-4a55-81a9-000000000010', sectors: 10_000 });

  test('gives back what was put in, and names its stub', () => {
    const { sections, stub: name } = readUki(writeUki(stub, content));
    for (const [section, bytes] of Object.entries(content))
      expect(Buffer.from(sections[section as keyof typeof content]).equals(bytes)).toBe(true);
    expect(name).toContain('linuxx64.efi.stub');
  });

  test('has sections that do not overlap, in file and in memory', () => {
    const { sections, sectionAlignment, fileAlignment } = readPe(writeUki(stub, content));
    let [address, offset] = [0, 0];
    for (const section of sections) {
      expect(section.virtualAddress % sectionAlignment).toBe(0);
      expect(section.rawOffset % fileAlignment).toBe(0);
      expect(section.virtualAddress).toBeGreaterThanOrEqual(address);
      expect(section.rawOffset).toBeGreaterThanOrEqual(offset);
      address = section.virtualAddress + section.virtualSize;
      offset = section.rawOffset + section.rawSize;
    }
  });

  const registers = (image: Uint8Array, table = head): Record<string, string> =>
    Object.fromEntries(
      Object.entries(bootEvents({ uki: image, head: table }, 'sha384')).flatMap(([name, events]) =>
        Array.isArray(events)
          ? [[name, Buffer.from(extendAll(events as Uint8Array[], 'sha384')).toString('hex')]]
          : [],
      ),
    );

  test.each([
    ['.cmdline', Buffer.from('quiet assay.root=01'), ['pcr4', 'pcr9', 'pcr11', 'rtmr1', 'rtmr2']],
    ['.initrd', Buffer.alloc(5000, 'another'), ['pcr4', 'pcr9', 'pcr11', 'rtmr1', 'rtmr2']],
    ['.uname', Buffer.from('6.13'), ['pcr4', 'pcr11', 'rtmr1', 'rtmr2']],
  ] as const)('another %s changes its registers and no others', (name, bytes, changed) => {
    const before = registers(writeUki(stub, content));
    const after = registers(writeUki(stub, { ...content, [name]: bytes }));
    expect(Object.keys(before).filter((register) => before[register] !== after[register])).toEqual(changed);
  });

  test('a kernel that leaves the firmware at the second try has another PCR 5 and RTMR1, and both are stated', () => {
    const disk = { uki: writeUki(stub, content), head };
    const once = bootEvents(disk, 'sha384');
    const again = once.repeatedExit;
    expect([again.pcr5.length - once.pcr5.length, again.rtmr1.length - once.rtmr1.length]).toEqual([2, 2]);
    const hex = (events: readonly Uint8Array[]): string =>
      Buffer.from(extendAll(events, 'sha384')).toString('hex');
    expect(measureDisk(disk)).toMatchObject({
      rtmr1: hex(once.rtmr1),
      sha384: { pcr5: hex(once.pcr5) },
      repeatedExit: { rtmr1: hex(again.rtmr1), sha384: hex(again.pcr5) },
    });
  });

  test('another table changes PCR 5 and RTMR1 alone', () => {
    const other = partitionTable([], { guid: 'a55a7000-c0de-4a55-81a9-000000000011', sectors: 10_000 });
    const image = writeUki(stub, content);
    const [before, after] = [registers(image), registers(image, other.head)];
    expect(Object.keys(before).filter((name) => before[name] !== after[name])).toEqual(['pcr5', 'rtmr1']);
  });

  test('a stub that is not listed, a section missing, twice or unknown, and a cut file are refused', () => {
    const image = writeUki(stub, content);
    const refusal = (code: string): unknown => expect.objectContaining({ code });
    const changed = Uint8Array.from(image);
    changed[readPe(stub).sections[0]!.rawOffset]! ^= 1;
    expect(() => readUki(changed)).toThrow(refusal('stub_not_listed'));
    expect(() => readUki(stub)).toThrow(refusal('malformed_uki'));
    expect(() => readUki(image.subarray(0, -1))).toThrow(refusal('malformed_uki'));
    expect(() => readUki(new Uint8Array(100))).toThrow(refusal('malformed_firmware'));
    const { sectionTable, sections } = readPe(image);
    const renamed = (name: string): Uint8Array => {
      const bytes = Buffer.from(image);
      const at = sections.findIndex((section) => section.name === '.uname');
      bytes.write(name.padEnd(8, '\0'), sectionTable + 40 * at, 'latin1');
      return bytes;
    };
    for (const name of ['.cmdline', '.osrel', '.profile'])
      expect(() => readUki(renamed(name))).toThrow(refusal('malformed_uki'));
    // A section of a name that no stub of the list has is code of another stub.
    expect(() => readUki(renamed('.other'))).toThrow(refusal('malformed_uki'));
  });

  test('a stub that has such sections, or no room for headers, is not written to', () => {
    expect(() => writeUki(writeUki(stub, content), content)).toThrow(
      expect.objectContaining({ kind: 'input' }),
    );
    const narrow = Buffer.from(stub);
    narrow.writeUInt32LE(readPe(stub).sectionTable + 40 * 7, readPe(stub).optionalHeader + 60);
    expect(() => writeUki(narrow, content)).toThrow(/no room/);
  });
});

// The partition table: read back with our own reader, with the kernel's words where a tool is there, and what
// it refuses.

import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { array, assert, integer, property } from 'fast-check';
import { GPT_HEAD_BYTES, readGpt } from '@assay/attestation/launch';
import { type Partition, partitionTable, SECTOR_BYTES } from '../../../image/disk/gpt.ts';

const GUID = 'a55a7000-c0de-4a55-81a9-000000000099';
const TYPE = '0fc63daf-8483-4772-8e79-3d69d8477de4';
const SECTORS = 100_000;

function guidOf(index: number): string {
  return `00000000-0000-4000-8000-${(index + 1).toString(16).padStart(12, '0')}`;
}

function partition(index: number, firstSector: number, sectors: number): Partition {
  return { name: `part ${index}`, type: TYPE, guid: guidOf(index), firstSector, sectors };
}

/** Recomputes both checksums of a header sector. */
function checked(sector: Uint8Array, entries: Uint8Array): void {
  const view = new DataView(sector.buffer, sector.byteOffset);
  const header = Buffer.from(sector.subarray(0, 92));
  const own = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  expect(own).toBe(crc32(header));
  expect(view.getUint32(88, true)).toBe(crc32(entries));
}

describe('a partition table', () => {
  test('is read back with every partition, and both copies have right checksums', () => {
    assert(
      property(array(integer({ min: 1, max: 500 }), { minLength: 0, maxLength: 128 }), (sizes) => {
        let next = 34;
        const partitions = sizes.map((sectors, index) => {
          const made = partition(index, next, sectors);
          next += sectors;
          return made;
        });
        const { head, tail } = partitionTable(partitions, { guid: GUID, sectors: SECTORS });
        expect(head).toHaveLength(GPT_HEAD_BYTES);
        expect(readGpt(head).entries).toEqual(
          partitions.map(({ type, guid, firstSector, sectors }) => ({
            type,
            guid,
            firstSector,
            lastSector: firstSector + sectors - 1,
          })),
        );
        const entries = head.subarray(2 * SECTOR_BYTES);
        checked(head.subarray(SECTOR_BYTES, 2 * SECTOR_BYTES), entries);
        checked(tail.subarray(-SECTOR_BYTES), entries);
        expect(Buffer.from(tail.subarray(0, entries.length)).equals(entries)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  test.each([
    ['overlap', [partition(0, 34, 10), partition(1, 40, 10)]],
    ['lie in the table', [partition(0, 33, 10)]],
    ['leave the disk', [partition(0, SECTORS - 40, 10)]],
    ['are empty', [partition(0, 34, 0)]],
    ['have one GUID', [partition(0, 34, 10), { ...partition(0, 44, 10), name: 'other' }]],
    ['have no name that fits', [{ ...partition(0, 34, 10), name: 'n'.repeat(37) }]],
    ['have a name of other characters', [{ ...partition(0, 34, 10), name: 'ä' }]],
    ['are too many', Array.from({ length: 129 }, (_, index) => partition(index, 34 + index, 1))],
  ])('partitions that %s are refused', (_why, partitions) => {
    expect(() => partitionTable(partitions, { guid: GUID, sectors: SECTORS })).toThrow(
      expect.objectContaining({ kind: 'input' }),
    );
  });

  test('a disk without one, or with another, is refused by its reader', () => {
    const { head } = partitionTable([partition(0, 34, 1)], { guid: GUID, sectors: SECTORS });
    const refusal = expect.objectContaining({ code: 'malformed_gpt' });
    expect(() => readGpt(head.subarray(0, -1))).toThrow(refusal);
    for (const at of [0, 12, 72, 81, 84]) {
      const changed = Uint8Array.from(head);
      changed[SECTOR_BYTES + at]! ^= 0xff;
      expect(() => readGpt(changed), `byte ${at}`).toThrow(refusal);
    }
  });
});

// Sealed contents: what is written is read, and no change of one byte, of the length, of the order of chunks or
// of the name goes unnoticed.

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CHUNK_BYTES, ContentWriter, readContent, sealedSize } from '../../../../src/files/sealed/content.ts';
import { HEADER_BYTES, MasterKey, TAG_BYTES } from '../../../../src/files/sealed/format.ts';
import { gathered } from '../../../fixtures/files/gathered.ts';
import { sealedRefusal } from '../../../fixtures/refusal.ts';

let folder: string;
const key = MasterKey.random();
const SEALED_CHUNK = CHUNK_BYTES + TAG_BYTES;

beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'assay-content-'))));
afterAll(() => rm(folder, { recursive: true, force: true }));

async function written(name: string, pieces: readonly Uint8Array[], id = name): Promise<string> {
  const path = join(folder, name);
  const writer = await ContentWriter.create(path, key, id);
  for (const piece of pieces) await writer.write(piece);
  await writer.finish();
  return path;
}

async function readAll(path: string, id: string, by = key): Promise<Buffer> {
  return Buffer.concat(await gathered(readContent(path, by, id)));
}

async function changed(path: string, change: (bytes: Buffer) => Uint8Array): Promise<string> {
  const other = `${path}-changed`;
  await writeFile(other, change(await readFile(path)));
  return other;
}

describe('what is written', () => {
  test.each([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])(
    '%i bytes come back',
    async (bytes) => {
      const content = Buffer.alloc(bytes, 'content ');
      const path = await written(`size-${bytes}`, [content]);
      expect((await readAll(path, `size-${bytes}`)).equals(content)).toBe(true);
      expect((await readFile(path)).length).toBe(sealedSize(bytes));
    },
  );

  test('pieces of any length come back as one content', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 0, max: 2 * CHUNK_BYTES }), { maxLength: 5 }),
        async (lengths) => {
          const pieces = lengths.map((length, i) => Buffer.alloc(length, i + 1));
          const path = await written('pieces', pieces);
          expect((await readAll(path, 'pieces')).equals(Buffer.concat(pieces))).toBe(true);
        },
      ),
      { numRuns: 30 },
    );
  });

  test('does not stand on the disk in clear', async () => {
    const path = await written('clear', [Buffer.from('the moon is a harsh mistress')]);
    expect((await readFile(path)).includes('moon')).toBe(false);
  });

  test('is at its place only when it is finished', async () => {
    const path = join(folder, 'unfinished');
    const writer = await ContentWriter.create(path, key, 'unfinished');
    await writer.write(Buffer.alloc(10));
    expect(await readdir(folder)).not.toContain('unfinished');
    await writer.abandon();
    expect((await readdir(folder)).filter((name) => name.startsWith('.tmp-'))).toEqual([]);
  });
});

describe('refused', () => {
  test('every flipped bit of a small content', async () => {
    const path = await written('bits', [Buffer.from('ten bytes!')]);
    const whole = await readFile(path);
    for (let bit = 0; bit < whole.length * 8; bit++) {
      const other = await changed(path, (bytes) => {
        bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        return bytes;
      });
      const { problem } = await sealedRefusal(readAll(other, 'bits'));
      expect(problem, `bit ${bit}`).toBe(bit >> 3 < 8 ? 'header' : 'changed');
    }
  });

  test('a flipped bit and a truncation anywhere in a long one', async () => {
    const path = await written('long', [Buffer.alloc(2 * CHUNK_BYTES + 100, 'x')]);
    const { length } = await readFile(path);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: length - 1 }), async (at) => {
        await sealedRefusal(
          readAll(
            await changed(path, (bytes) => (bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at), bytes)),
            'long',
          ),
        );
        await sealedRefusal(readAll(await changed(path, (bytes) => bytes.subarray(0, at)), 'long'));
      }),
      { numRuns: 60 },
    );
  });

  const chunk = (bytes: Buffer, i: number): Buffer =>
    bytes.subarray(HEADER_BYTES + i * SEALED_CHUNK, HEADER_BYTES + (i + 1) * SEALED_CHUNK);
  test.each<readonly [string, (bytes: Buffer) => Uint8Array]>([
    ['a cut at the end of a chunk', (bytes) => bytes.subarray(0, HEADER_BYTES + SEALED_CHUNK)],
    ['a chunk more', (bytes) => Buffer.concat([bytes, chunk(bytes, 0)])],
    ['a byte more', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])],
    [
      'two chunks swapped',
      (bytes) =>
        Buffer.concat([bytes.subarray(0, HEADER_BYTES), chunk(bytes, 1), chunk(bytes, 0), chunk(bytes, 2)]),
    ],
    [
      'a chunk twice',
      (bytes) =>
        Buffer.concat([bytes.subarray(0, HEADER_BYTES), chunk(bytes, 0), chunk(bytes, 0), chunk(bytes, 2)]),
    ],
    [
      'a chunk taken out',
      (bytes) => Buffer.concat([bytes.subarray(0, HEADER_BYTES), chunk(bytes, 0), chunk(bytes, 2)]),
    ],
  ])('%s', async (_what, change) => {
    const path = await written('order', [Buffer.alloc(3 * CHUNK_BYTES, 'y')]);
    await sealedRefusal(readAll(await changed(path, change), 'order'));
  });

  test('another name, another key', async () => {
    const path = await written('named', [Buffer.from('x')]);
    expect((await sealedRefusal(readAll(path, 'other'))).problem).toBe('changed');
    expect((await sealedRefusal(readAll(path, 'named', MasterKey.random()))).problem).toBe('changed');
  });
});

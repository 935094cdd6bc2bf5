// Sealed states: what is written is read, and every change of a byte, the length or the name is refused.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { integer, object, text } from '../../../../src/base/shape.ts';
import { MasterKey } from '../../../../src/files/sealed/format.ts';
import { openState, sealState } from '../../../../src/files/sealed/state.ts';
import { sealedRefusal } from '../../../fixtures/refusal.ts';

const key = MasterKey.random();
const stored = {
  id: 'state',
  shape: object({ name: text({ max: 1000 }), number: integer({ min: 0, max: 9 }) }),
};
const opened = async (bytes: Buffer, by = key): Promise<unknown> => openState(bytes, by, stored);

test('any value of the shape comes back, and nothing of it stands in clear', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.string({ minLength: 4, unit: 'grapheme' }),
      fc.integer({ min: 0, max: 9 }),
      async (name, number) => {
        const sealed = sealState(key, 'state', { name, number });
        expect(await opened(sealed)).toEqual({ name, number });
        expect(sealed.includes(name)).toBe(false);
      },
    ),
  );
});

test('the same value is never sealed to the same bytes', () => {
  const value = { name: 'x', number: 1 };
  expect(sealState(key, 'state', value).equals(sealState(key, 'state', value))).toBe(false);
});

test('every flipped bit and every shorter length is refused', async () => {
  const sealed = sealState(key, 'state', { name: 'x', number: 1 });
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const bytes = Buffer.from(sealed);
    bytes.writeUInt8(bytes.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
    await sealedRefusal(opened(bytes));
  }
  for (let length = 0; length < sealed.length; length++)
    await sealedRefusal(opened(sealed.subarray(0, length)));
  await sealedRefusal(opened(Buffer.concat([sealed, Buffer.alloc(1)])));
});

test('another name and another key are refused', async () => {
  const other = sealState(key, 'other', { name: 'x', number: 1 });
  expect((await sealedRefusal(opened(other))).problem).toBe('changed');
  const sealed = sealState(key, 'state', { name: 'x', number: 1 });
  expect((await sealedRefusal(opened(sealed, MasterKey.random()))).problem).toBe('changed');
});

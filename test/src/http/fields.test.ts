// Forms as the objects their routes read: types by the schema, bounds, and refusals.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decimal, flag, integer, object, optional, text } from '../../../src/base/shape.ts';
import { readFormFields } from '../../../src/http/fields.ts';

const { schema } = object({
  name: text({ max: 100 }),
  count: optional(integer({ min: 0, max: 100 })),
  rate: optional(decimal({ min: 0, max: 1 })),
  on: optional(flag()),
});
const URLENCODED = 'application/x-www-form-urlencoded';

async function* pieces(bytes: Buffer, size = 7): AsyncGenerator<Buffer, void> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function read(body: string, type = URLENCODED): Promise<unknown> {
  return readFormFields(type, pieces(Buffer.from(body)), schema);
}

test.each([
  ['name=a&count=3&rate=2e-1&on=true', { name: 'a', count: 3, rate: 0.2, on: true }],
  ['name=3&on=0', { name: '3', on: false }],
  ['name=a&count=&on=no', { name: 'a', on: false }],
  ['name=a+b%26', { name: 'a b&' }],
  ['name=a&count=1.5&rate=x&on=maybe', { name: 'a', count: '1.5', rate: 'x', on: 'maybe' }],
  ['', {}],
])('%s', async (body, expected) => {
  expect(await read(body)).toEqual(expected);
});

test('the same fields as multipart', async () => {
  const part = (name: string, value: string): string =>
    `--b\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
  const type = 'multipart/form-data; boundary=b';
  expect(await read(`${part('name', 'a')}${part('count', '3')}--b--\r\n`, type)).toEqual({
    name: 'a',
    count: 3,
  });
  const file = `--b\r\ncontent-disposition: form-data; name="name"; filename="x"\r\n\r\nx\r\n--b--\r\n`;
  await expect(read(file, type)).rejects.toMatchObject({ code: 'invalid_form' });
});

describe('refused', () => {
  test.each([
    ['a field twice', 'name=a&name=b', 'invalid_form'],
    ['a name none has', '__proto__=a', 'invalid_form'],
    ['a name of every object', 'constructor=a', 'invalid_form'],
    ['bytes that are not UTF-8', Buffer.from([0x6e, 0x3d, 0xff]).toString('latin1'), null],
    ['65 fields', Array.from({ length: 65 }, (_, i) => `f${i}=1`).join('&'), 'invalid_form'],
    ['a field of 16 kB', `name=${'x'.repeat(16 * 1024)}`, 'invalid_form'],
    ['a field of 10 MB', `name=${'x'.repeat(10 * 1024 * 1024)}`, 'request_too_large'],
  ])('%s', async (_what, body, code) => {
    if (code === null) {
      await expect(
        readFormFields(URLENCODED, pieces(Buffer.from(body, 'latin1')), schema),
      ).rejects.toMatchObject({ code: 'invalid_form' });
      return;
    }
    await expect(readFormFields(URLENCODED, pieces(Buffer.from(body), 65_536), schema)).rejects.toMatchObject(
      {
        code,
      },
    );
  });

  test.each(['text/plain', 'application/x-www-form-urlencoded; charset=latin1', 'multipart/form-data'])(
    '%s',
    async (type) => {
      await expect(read('name=a', type)).rejects.toMatchObject({
        code: 'unsupported_media_type',
        status: 415,
      });
    },
  );
});

test('any texts arrive as they were', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 }),
      fc.integer({ min: 1, max: 50 }),
      async (name, size) => {
        const body = Buffer.from(new URLSearchParams({ name }).toString());
        expect(await readFormFields(URLENCODED, pieces(body, size), schema)).toEqual({ name });
      },
    ),
  );
});

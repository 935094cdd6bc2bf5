// Images of requests: a data: URI becomes a file of known kind and size, or a refusal that names its field.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { imageOfBytes, imageOfUri, MAX_IMAGES } from '../../../../src/api/chat/images.ts';
import { messages, toChatMessages } from '../../../../src/api/chat/messages.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import { decodedKinds, IMAGE_KINDS } from '../../../../src/base/image-formats.ts';
import { dataUri, GIF, JPEG, picture, pngOf } from '../../../fixtures/images.ts';
import { lossless, MOTLEY } from '../../../fixtures/webp.ts';

const small = picture(4, 3);

test.each([
  ['PNG', dataUri(small), { kind: 'png', width: 4, height: 3 }],
  ['PNG by another name', dataUri(small, 'jpeg'), { kind: 'png', width: 4, height: 3 }],
  ['JPEG', dataUri(JPEG, 'jpeg'), { kind: 'jpeg', width: 16, height: 8 }],
  ['GIF', dataUri(GIF, 'gif'), { kind: 'gif', width: 3, height: 2 }],
  ['no type', `data:;base64,${small.toString('base64')}`, { kind: 'png' }],
  ['a parameter', `data:image/png;name=a;base64,${small.toString('base64')}`, { kind: 'png' }],
  ['capital letters', `DATA:image/png;BASE64,${small.toString('base64')}`, { kind: 'png' }],
  ['base64 of URLs, not padded', `data:image/png;base64,${small.toString('base64url')}`, { kind: 'png' }],
])('%s', (_, uri, expected) => {
  expect(imageOfUri(uri, 'here')).toMatchObject({ ...expected, param: 'here' });
});

test.each(['https://a.example/b.png?c', 'HTTPS://a.example/b.png?c'])(
  '%s is noted, and has no bytes',
  (uri) => {
    const { url, bytes, param } = imageOfUri(uri, 'here');
    expect([url?.href, bytes.length, param]).toEqual(['https://a.example/b.png?c', 0, 'here']);
  },
);

test('the bytes are the file', () => {
  expect(Buffer.from(imageOfUri(dataUri(small), 'here').bytes).equals(small)).toBe(true);
});

test('WebP is taken where its decoder is, and refused by name where it is not', () => {
  const file = lossless({ width: 5, height: 4 }, MOTLEY);
  expect(imageOfBytes(file, 'here', IMAGE_KINDS)).toMatchObject({ kind: 'webp', width: 5, height: 4 });
  expect(() =>
    imageOfBytes(
      file,
      'here',
      decodedKinds(() => false),
    ),
  ).toThrow(
    expect.objectContaining({
      code: 'invalid_image',
      param: 'here',
      message: 'here is a WebP image, expected PNG, JPEG or GIF (of an animation the first frame)',
    }),
  );
});

function wide(width: number, height: number): string {
  return dataUri(pngOf(width, height, Buffer.alloc(8)));
}

test.each([
  ['plain http', 'http://a.example/b.png', 'unsupported_parameter', 'data: URI'],
  ['no address', 'https://', 'invalid_value', 'no address'],
  ['a long address', `https://a.example/${'b'.repeat(8192)}`, 'invalid_value', '8192 characters'],
  ['a file of the server', 'file:///etc/passwd', 'unsupported_parameter', 'data: URI'],
  ['no URI', 'x', 'unsupported_parameter', 'data: URI'],
  ['text', 'data:text/plain,hello', 'invalid_value', 'base64'],
  ['no comma', 'data:image/png;base64', 'invalid_value', 'base64'],
  ['nothing', 'data:image/png;base64,', 'invalid_value', 'base64'],
  ['no base64', `${dataUri(small)}*`, 'invalid_value', 'base64'],
  ['characters between', dataUri(small).replace(/.{30}$/, ' $&'), 'invalid_value', 'base64'],
  ['no image', dataUri(Buffer.from('hello, world')), 'invalid_image', 'no image'],
  ['damaged WebP', dataUri(Buffer.from('RIFF\0\0\0\0WEBPVP8 ', 'latin1')), 'invalid_image', 'a damaged one'],
  ['SVG', dataUri(Buffer.from('<svg xmlns="x">')), 'invalid_image', 'SVG'],
  ['a bomb of pixels', wide(65_535, 65_535), 'invalid_image', '65535 × 65535 pixels'],
  ['the largest dimensions', wide(0x7fffffff, 0x7fffffff), 'invalid_image', 'pixels'],
  ['a thread', wide(6500, 100), 'invalid_image', 'one edge over 64 times'],
])('refused: %s', (_, uri, code, words) => {
  try {
    imageOfUri(uri, 'here');
  } catch (error) {
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({ status: 400, code, param: 'here' });
    expect(String(error)).toContain(words);
    return;
  }
  throw new Error('it was taken');
});

test('property: whatever stands in the place of an image is read or refused by name', () => {
  const uris = fc.oneof(
    fc.string(),
    fc.string().map((text) => `data:${text}`),
    fc.uint8Array({ maxLength: 200 }).map((bytes) => dataUri(bytes)),
    fc.tuple(fc.constantFrom(small, GIF, JPEG), fc.uint8Array({ maxLength: 40 }), fc.nat(60)).map(([file, bytes, at]) => dataUri(Buffer.concat([file.subarray(0, at), bytes, file.subarray(at)]))), // prettier-ignore
  );
  const parts = fc.oneof(uris, fc.record({ url: uris }), fc.jsonValue());
  fc.assert(
    fc.property(parts, (given) => {
      try {
        messages.read([{ role: 'user', content: [{ type: 'image_url', image_url: given }] }], 'messages');
      } catch (error) {
        expect(error).toBeInstanceOf(ApiError);
        expect(error).toMatchObject({ status: 400 });
        expect(String((error as ApiError).param)).toMatch(/^messages\[0\]\.content\[0\]\.image_url/);
      }
    }),
    { numRuns: 500 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
});

function read(...content: readonly unknown[]) {
  return toChatMessages(messages.read([{ role: 'user', content }], 'messages'));
}

describe('places in a message', () => {
  const part = { type: 'image_url', image_url: { url: dataUri(small) } };
  const said = (text: string): object => ({ type: 'text', text });

  test.each([
    ['before', [part, said('x')], 'x', [0]],
    ['behind', [said('x'), part], 'x', [1]],
    ['between', [said('ab'), part, said('cd')], 'abcd', [2]],
    ['two', [said('ab'), part, part, said('cd'), said('ef'), part], 'abcd\nef', [2, 2, 7]],
    ['alone', [part], '', [0]],
    ['as a text', [{ ...part, image_url: part.image_url.url }], '', [0]],
    [
      'of the Responses API',
      [{ type: 'input_image', image_url: part.image_url.url, detail: 'auto' }],
      '',
      [0],
    ],
  ])('%s', (_, content, text, places) => {
    const [message] = read(...content);
    expect(message?.content).toBe(text);
    expect(message?.images?.map((image) => image.at)).toEqual(places);
  });

  test('their fields are named in the order of the request', () => {
    expect(read(said('x'), part)[0]?.images?.[0]?.param).toBe('messages[0].content[1].image_url.url');
  });

  test('more than a request may have are refused', () => {
    expect(read(...Array.from({ length: MAX_IMAGES }, () => part))[0]?.images).toHaveLength(MAX_IMAGES);
    expect(() => read(...Array.from({ length: MAX_IMAGES + 1 }, () => part))).toThrow(
      expect.objectContaining({
        code: 'array_above_max_length',
        param: `messages[0].content[${MAX_IMAGES}].image_url.url`,
      }),
    );
  });
});

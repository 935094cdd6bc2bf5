// Forms of multipart/form-data: fields and one streamed file, whatever the pieces they arrive in; anything
// else is refused with invalid_form.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type ReceivedForm, formBoundary, type FormOptions, readForm } from '../../../src/http/multipart.ts';
import { apiRefusal } from '../../fixtures/refusal.ts';

interface Read extends ReceivedForm {
  readonly content: Buffer;
}

async function read(
  body: Buffer,
  { sizes = [body.length], ...options }: Partial<FormOptions> & { sizes?: readonly number[] } = {},
): Promise<Read> {
  const given: Buffer[] = [];
  async function* pieces(): AsyncGenerator<Buffer> {
    for (let at = 0, i = 0; at < body.length; i++) {
      const size = Math.max(1, sizes[i % sizes.length] ?? 1);
      yield body.subarray(at, at + size);
      at += size;
    }
  }
  const form = await readForm(pieces(), 'edge', {
    onFile: () => Promise.resolve({ write: async (bytes) => void given.push(Buffer.from(bytes)) }),
    ...options,
  });
  return { ...form, content: Buffer.concat(given) };
}

function field(name: string, value: string): string {
  return `--edge\r\nContent-Disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`;
}

function file(content: string, filename = 'a.jsonl'): string {
  return `--edge\r\nContent-Disposition: form-data; name="file"; filename="${filename}"\r\nContent-Type: text/plain\r\n\r\n${content}\r\n`;
}

const END = '--edge--\r\n';

describe('a form', () => {
  test('gives its fields in order and streams its file', async () => {
    const body =
      field('purpose', 'batch') + file('{"a":1}\r\n--edg\r\n') + field('x[]', '1') + field('x[]', 'ü') + END;
    expect(await read(Buffer.from(body))).toEqual({
      fields: [
        ['purpose', 'batch'],
        ['x[]', '1'],
        ['x[]', 'ü'],
      ],
      file: { field: 'file', filename: 'a.jsonl', contentType: 'text/plain' },
      content: Buffer.from('{"a":1}\r\n--edg\r\n'),
    });
  });

  test('is the same in whatever pieces it arrives', async () => {
    const part = fc
      .stringMatching(/^[\r\n\-edg x]{0,40}$/)
      .filter((text) => !`\r\n${text}`.includes('\r\n--edge'));
    await fc.assert(
      fc.asyncProperty(
        part,
        part,
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
        async (value, content, sizes) => {
          const read_ = await read(Buffer.from(field('a', value) + file(content) + END), { sizes });
          expect(read_.fields).toEqual([['a', value]]);
          expect(read_.content.toString()).toBe(content);
        },
      ),
    );
  });

  test('a file is streamed, and the sink sets the pace', async () => {
    let most = 0;
    const content = 'z'.repeat(3_000_000);
    const form = await read(Buffer.from(file(content) + END), {
      sizes: [65_536],
      onFile: async () => ({ write: async (bytes) => void (most = Math.max(most, bytes.length)) }),
    });
    expect(form.file?.filename).toBe('a.jsonl');
    expect(most).toBeLessThan(70_000);
  });

  test('knows the fields before its file when that begins', async () => {
    let known: unknown;
    await read(Buffer.from(field('purpose', 'batch') + file('') + END), {
      onFile: async (_file, fields) => {
        known = [...fields];
        return { write: () => Promise.resolve() };
      },
    });
    expect(known).toEqual([['purpose', 'batch']]);
  });

  test('reads names as browsers escape them', async () => {
    const { file: found } = await read(Buffer.from(file('', 'a%22b\\"c.txt') + END));
    expect(found?.filename).toBe('a"b"c.txt');
  });

  test.each([
    ['filename="x; name=evil"; name="file"', 'x; name=evil'],
    ['name="file"; filename="a; filename=b"', 'a; filename=b'],
    ['FileName=a.txt ;name=file;', 'a.txt'],
    ["name=file; filename*=UTF-8''%e2%82%ac.txt", '€.txt'],
    ["name=file; filename*=UTF-8''%e2%82%ac.txt; filename=plain.txt", 'plain.txt'],
  ])('reads the parameters of %s from the left', async (parameters, filename) => {
    const part = `--edge\r\nContent-Disposition: form-data; ${parameters}\r\n\r\nx\r\n`;
    const { file: found } = await read(Buffer.from(part + END));
    expect(found).toMatchObject({ field: 'file', filename });
  });
});

describe('refused', () => {
  test.each([
    ['nothing', ''],
    ['another delimiter', field('a', 'b').replace('edge', 'dege') + END],
    ['no end', field('a', 'b')],
    ['an end cut short', `${field('a', 'b')}--edge-`],
    ['text behind a delimiter', `--edge  x\r\n${END}`],
    ['no disposition', `--edge\r\nContent-Type: text/plain\r\n\r\nx\r\n${END}`],
    ['an attachment', `--edge\r\nContent-Disposition: attachment; name="a"\r\n\r\nx\r\n${END}`],
    ...['name=a; name=b', 'name="a', 'name="a" x', 'name=a; filename*=b', "name=a; filename*=utf-8''%ff"].map(
      (parameters): [string, string] => [
        parameters,
        `--edge\r\nContent-Disposition: form-data; ${parameters}\r\n\r\nx\r\n${END}`,
      ],
    ),
    ['no name', `--edge\r\nContent-Disposition: form-data; x="a"\r\n\r\nx\r\n${END}`],
    [
      'the same header twice',
      `--edge\r\nContent-Disposition: form-data; name="a"\r\ncontent-disposition: form-data; name="b"\r\n\r\nx\r\n${END}`,
    ],
    [
      'an encoded part',
      `--edge\r\nContent-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n${END}`,
    ],
    ['two files', file('a') + file('b') + END],
    ['a long field', field('a', 'x'.repeat(20_000)) + END],
    ['many fields', field('a', 'x').repeat(65) + END],
    ['an endless header', `--edge\r\nContent-Disposition: form-data; name="${'n'.repeat(9000)}`],
    ['a field that is not UTF-8', `${field('a', '\u00ff')}${END}`],
  ])('%s', async (_what, body) => {
    const bytes = Buffer.from(body, body.includes('\u00ff') ? 'latin1' : 'utf8');
    const { code, message } = await apiRefusal(read(bytes));
    expect(code).toBe('invalid_form');
    expect(message).not.toContain('edge');
  });

  test('any bytes: read or refused, never another failure', async () => {
    const piece = fc.constantFrom(
      '--edge',
      '\r\n',
      '--',
      'Content-Disposition: form-data; name="a"',
      '; filename="f"',
      '\r\n\r\n',
      'x',
      ':',
      '"',
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 24 }), async (pieces) => {
        const failed = await read(Buffer.from(pieces.join(''))).then(
          () => null,
          (error: unknown) => error,
        );
        if (failed !== null) expect((failed as { code?: string }).code).toBe('invalid_form');
      }),
      { numRuns: 500 },
    );
  });
});

test.each([
  ['multipart/form-data; boundary=abc', 'abc'],
  ['Multipart/Form-Data; charset=utf-8; boundary="a b"', 'a b'],
  ['multipart/form-data; boundary=----formdata-undici-051', '----formdata-undici-051'],
  ['multipart/form-data', undefined],
  ['multipart/form-data; boundary=""', undefined],
  ['multipart/mixed; boundary=a', undefined],
  [`multipart/form-data; boundary=${'a'.repeat(71)}`, undefined],
  [undefined, undefined],
])('the boundary of %s', (header, boundary) => {
  expect(formBoundary(header)).toBe(boundary);
});

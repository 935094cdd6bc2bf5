// The bounded response reader: one response, however it is cut into pieces, and no other
// bytes are taken for one.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type BoundedResponse, responseParser } from '../../../attestation/node/response.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

const LIMITS = { maxHeaderBytes: 512, maxBodyBytes: 2048 };

function feed(bytes: Uint8Array, cuts: readonly number[] = []): BoundedResponse | undefined {
  const parser = responseParser(LIMITS);
  let from = 0;
  for (const to of [...cuts.map((cut) => cut % (bytes.length + 1)).toSorted((a, b) => a - b), bytes.length]) {
    if (to <= from) continue;
    const response = parser(bytes.subarray(from, to));
    if (response !== undefined && to < bytes.length) throw new Error('answered before the end');
    if (response !== undefined) return response;
    from = to;
  }
  return undefined;
}

function bytesOf(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}

function text(response: BoundedResponse | undefined): string | undefined {
  return response === undefined ? undefined : Buffer.from(response.body).toString('latin1');
}

function chunked(body: Uint8Array, sizes: readonly number[]): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (const size of [...sizes, body.length]) {
    const part = body.subarray(at, at + size);
    if (part.length > 0)
      parts.push(bytesOf(`${part.length.toString(16)}\r\n`), Buffer.from(part), bytesOf('\r\n'));
    at += part.length;
  }
  return Buffer.concat([
    bytesOf('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'),
    ...parts,
    bytesOf('0\r\n\r\n'),
  ]);
}

describe('response reader', () => {
  test('reads status, headers and body', () => {
    const response = feed(
      bytesOf('HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nX-A:  b \r\nVary: a\r\nVary: b\r\n\r\nabc'),
    );
    expect(response).toMatchObject({ status: 404 });
    expect(response?.headers.get('x-a')).toBe('b');
    expect(text(response)).toBe('abc');
    expect(feed(bytesOf('HTTP/1.1 204 \r\ncontent-length: 0\r\n\r\n'))?.body).toHaveLength(0);
    expect(feed(bytesOf('HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n'))?.status).toBe(200);
  });

  test('reads the same however the bytes are cut, with a length and in chunks', () => {
    const cuts = fc.array(fc.nat(), { maxLength: 20 });
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 1000 }),
        fc.array(fc.integer({ min: 1, max: 300 })),
        cuts,
        (body, sizes, at) => {
          const whole = Buffer.concat([
            bytesOf(`HTTP/1.1 200 OK\r\ncontent-length: ${body.length}\r\n\r\n`),
            body,
          ]);
          expect(feed(whole, at)?.body).toEqual(Buffer.from(body));
          expect(feed(chunked(body, sizes), at)?.body).toEqual(Buffer.from(body));
        },
      ),
    );
  });

  test.each([
    ['a lone LF', 'HTTP/1.1 200 OK\ncontent-length: 0\n\n'],
    ['a folded header', 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: a\r\n b\r\n\r\n'],
    ['a space before the colon', 'HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n'],
    ['a header without a name', 'HTTP/1.1 200 OK\r\n: 0\r\n\r\n'],
    ['a control character in a value', 'HTTP/1.1 200 OK\r\nx: \u0001\r\ncontent-length: 0\r\n\r\n'],
    ['a negative length', 'HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n'],
    ['a length in hex', 'HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\nabc'],
    ['two lengths in one', 'HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc'],
    ['no length', 'HTTP/1.1 200 OK\r\n\r\n'],
    ['gzip, chunked', 'HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n'],
    ['a size that is no hex', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n'],
    ['a size line without end', `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;${'x'.repeat(300)}`],
    ['a chunk longer than its size', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n'],
    ['trailers', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: 1\r\n\r\n'],
    ['bytes after the last chunk', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx'],
    ['status 101', 'HTTP/1.1 101 Switching\r\ncontent-length: 0\r\n\r\n'],
    ['status 99', 'HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n'],
    ['HTTP/2', 'HTTP/2 200\r\ncontent-length: 0\r\n\r\n'],
  ])('refuses %s', (_, bytes) => {
    const code = codeOf(() => feed(bytesOf(bytes)));
    const open = code === 'accepted' && feed(bytesOf(bytes)) === undefined;
    expect(code === 'attestation_response' || open).toBe(true);
    expect(codeOf(() => feed(bytesOf(bytes + '\r\n\r\n'.repeat(200))))).toMatch(
      /attestation_response|input_too_large/,
    );
  });

  test('answers any bytes with a response, a wish for more, or the typed error', () => {
    const piece = fc.constantFrom('HTTP/1.1 200 OK\r\n', 'content-length: 3\r\n', 'transfer-encoding: chunked\r\n', '\r\n', '3\r\nabc\r\n', '0\r\n', 'ff', ';', ':', ' ', '\u0000', 'abc'); // prettier-ignore
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const bytes = bytesOf(pieces.join(''));
        const response = accepted(() => feed(bytes));
        expect(response === undefined || response.body.length <= LIMITS.maxBodyBytes).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });
});

describe('the attestation response', () => {
  test('a body in a quarter of a million chunks of one byte is read whole', () => {
    const size = 1 << 18;
    const parse = responseParser({ maxHeaderBytes: 1024, maxBodyBytes: 1 << 20 });
    const wire = Buffer.from(
      `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n${'1\r\nx\r\n'.repeat(size)}0\r\n\r\n`,
    );
    let answer: ReturnType<typeof parse>;
    for (let at = 0; at < wire.length; at += 16_384) answer = parse(wire.subarray(at, at + 16_384));
    expect(Buffer.from(answer?.body ?? []).equals(Buffer.alloc(size, 'x'))).toBe(true);
  });
});

// Hostile bytes at the listener: a request that two parsers could read differently, and noise on the TLS
// port, get one answer at most, and no part of them is executed.

import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { type ApiServer, startApi } from '../../fixtures/http/api-server.ts';
import { raw } from '../../fixtures/http/raw.ts';
import { ownCertificate } from '../../fixtures/attester/own-certificate.ts';

let api: ApiServer;

afterEach(() => api.close());

function answers(text: string): string[] {
  return text.match(/HTTP\/1\.1 \d{3}/g) ?? [];
}

const SMUGGLED = 'GET /v1/models HTTP/1.1\r\nhost: smuggled\r\n\r\n';

describe('a request that two parsers could read differently', () => {
  const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n';
  test.each<[string, string]>([
    [
      'length and chunked',
      `${head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'chunked and length',
      `${head}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['two lengths', `${head}content-length: 0\r\ncontent-length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ['two lengths in one', `${head}content-length: 0, ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
    ['a length with a sign', `${head}content-length: +0\r\n\r\n${SMUGGLED}`],
    ['a negative length', `${head}content-length: -1\r\n\r\n${SMUGGLED}`],
    ['a length in hex', `${head}content-length: 0x0\r\n\r\n${SMUGGLED}`],
    ['a length beyond 2^64', `${head}content-length: 18446744073709551616\r\n\r\n${SMUGGLED}`],
    [
      'another coding under chunked',
      `${head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['a coding nobody knows', `${head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    [
      'chunked twice',
      `${head}transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['a folded header', `${head}transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ['a folded header of any name', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\r\n c\r\n\r\n${SMUGGLED}`],
    ['a space before the colon', `${head}transfer-encoding : chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`],
    ['a name with a space', `GET /health HTTP/1.1\r\nhost: x\r\nx a: b\r\n\r\n${SMUGGLED}`],
    ['a NUL in a value', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\0c\r\n\r\n${SMUGGLED}`],
    ['a bare CR in a value', `GET /health HTTP/1.1\r\nhost: x\r\nx-a: b\rc: d\r\n\r\n${SMUGGLED}`],
    ['a bare LF between headers', `GET /health HTTP/1.1\r\nhost: x\nx-a: b\r\n\r\n${SMUGGLED}`],
    ['a chunk size that is none', `${head}transfer-encoding: chunked\r\n\r\nzz\r\n${SMUGGLED}`],
    ['a chunk size with a sign', `${head}transfer-encoding: chunked\r\n\r\n-1\r\n${SMUGGLED}`],
    ['a chunk size beyond 2^64', `${head}transfer-encoding: chunked\r\n\r\n10000000000000000\r\n${SMUGGLED}`],
    [
      'a chunk that is longer than it says',
      `${head}transfer-encoding: chunked\r\n\r\n1\r\n{}}\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'a chunk size ended by LF alone',
      `${head}transfer-encoding: chunked\r\n\r\n1\n{\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    [
      'HTTP/1.0 with chunked',
      `${head.replace('1.1', '1.0')}transfer-encoding: chunked\r\n\r\n0\r\n\r\n${SMUGGLED}`,
    ],
    ['an upgrade to HTTP/2', `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${SMUGGLED}`],
  ])('%s', async (_name, bytes) => {
    api = await startApi({
      config: { timeouts: { ...DEFAULT_CONFIG.timeouts, headersMs: 400, bodyMs: 400, keepAliveMs: 400 } },
    });
    const text = await raw(api, bytes);
    expect(answers(text)).toHaveLength(1);
    expect(text).toMatch(/^HTTP\/1\.1 4\d\d /);
    expect(text).toContain('"error"');
    // The second request was never one.
    expect(api.records.filter((record) => record.route === '/v1/models')).toEqual([]);
    expect(api.engine.requests).toEqual([]);
  });

  test('honest requests in one packet are answered one by one, in order', async () => {
    api = await startApi();
    const one = (path: string): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n\r\n`;
    const text = await raw(
      api,
      one('/health') +
        one('/v1/nothing') +
        one('/health').replace('\r\n\r\n', '\r\nconnection: close\r\n\r\n'),
    );
    expect(answers(text)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 404', 'HTTP/1.1 200']);
  });
});

test('plain HTTP and noise on the TLS port end that connection and nothing else', async () => {
  api = await startApi({ deps: { tls: await ownCertificate() } });
  for (const bytes of [
    'GET /health HTTP/1.1\r\nhost: x\r\n\r\n',
    Buffer.alloc(4096, 0x16),
    Buffer.from('1603010200010001fc0303', 'hex'),
  ]) {
    expect(await raw(api, bytes, { end: true })).not.toContain('HTTP/1.1 200');
  }
  expect(api.server.address).not.toBeNull();
});

// A client’s connections against an adversary: bodies cut short, chunks without end, peers that close, requests given up
// while they wait. Each was let through or mishandled once.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { connectAttested } from '../../attestation/node/connect.ts';
import { attestedFetch, type AttestedFetch } from '../../attestation/node/fetch.ts';
import { fileRollbackMemory } from '../../attestation/node/memory-file.ts';
import { AttestedPool, type AttestedFetchOptions, poolOptions } from '../../attestation/node/pool.ts';
import { startProxy } from '../../attestation/node/proxy/proxy.ts';
import { responseParser } from '../../attestation/node/response.ts';
import { allowSimulated, type AppraisalPolicy, parsePolicy } from '../../attestation/appraise/policy.ts';
import {
  MEASUREMENT,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  startAttestedServer,
  type AttestedServer,
} from '../fixtures/attestation/attested-server.ts';
import { refusalOf } from '../fixtures/refusal.ts';

const POLICY: AppraisalPolicy = {
  measurements: [MEASUREMENT],
  models: { [MODEL_ID]: MODEL_SHA256 },
  [allowSimulated]: true,
};

const CLOSING: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
});

async function serve(): Promise<AttestedServer> {
  const server = await startAttestedServer();
  CLOSING.push(() => server.close());
  return server;
}

function client(options: Partial<AttestedFetchOptions> = {}): AttestedFetch {
  const fetch = attestedFetch({ policy: POLICY, now: () => NOW, ...options });
  CLOSING.push(() => fetch.close());
  return fetch;
}

describe('the proxy', () => {
  test('bodies that are empty, cut short or too long keep no connection', async () => {
    const server = await serve();
    const proxy = await startProxy({
      upstream: server.origin,
      policy: POLICY,
      host: '127.0.0.1',
      port: 0,
      now: () => NOW,
      connections: 1,
    });
    CLOSING.push(() => proxy.close());
    const port = Number(new URL(proxy.url).port);
    const chat = JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] });
    const asked = async (head: string, body: string, cut = false): Promise<string> => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.write(`${head} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n${body}`);
      if (cut) socket.end();
      let text = '';
      try {
        for await (const chunk of socket) text += String(chunk);
      } catch {
        // Cut off by the proxy.
      }
      return text.slice(0, 12);
    };
    for (const [head, body, cut] of [
      ['POST /', 'content-length: 0\r\n\r\n'],
      ['GET /', 'content-length: 0\r\n\r\n'],
      ['DELETE /', 'transfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
      ['POST /', 'content-length: 100\r\n\r\nabc', true],
      ['POST /', 'transfer-encoding: chunked\r\n\r\nffff\r\nabc', true],
      ['M-SEARCH /', '\r\n'],
    ] as const)
      await asked(head, body, cut);
    expect(await asked('POST /', `content-length: ${chat.length}\r\n\r\n${chat}`)).toBe('HTTP/1.1 200');
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

describe('a connection', () => {
  test('is not opened to anything but https', async () => {
    const server = await serve();
    const options = {
      policy: parsePolicy(POLICY),
      now: () => NOW,
      randomBytes: (length: number) => new Uint8Array(length),
      connectTimeoutMs: 60_000,
      attestTimeoutMs: 60_000,
    };
    for (const protocol of ['http', 'ws', 'wss', 'ftp']) {
      const origin = new URL(`${protocol}://127.0.0.1:${server.port}`);
      expect((await refusalOf(() => connectAttested(origin, options)))?.code).toBe('plain_http');
    }
    expect(server.connections).toHaveLength(0);
  });

  test('that its peer closes with the evidence is not handed over', async () => {
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        send(socket, 200, await json());
        socket.end();
      },
    });
    CLOSING.push(() => server.close());
    const fetch = client();
    await expect(fetch(server.origin, { method: 'POST', body: '{}' })).rejects.toBeInstanceOf(Error);
    expect(server.requests()).toHaveLength(0);
  });
});

describe('the pool', () => {
  test('requests that undici refuses before they are sent take no connection away', async () => {
    const { origin } = await serve();
    const fetch = client({ connections: 1 });
    await expect(
      fetch(origin, { method: 'POST', body: 'x', headers: { expect: '100-continue' } }),
    ).rejects.toThrow('fetch failed');
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
  });

  test('a form that names two models is not one for the model that was attested', async () => {
    const server = await serve();
    const fetch = client({ model: MODEL_ID });
    const form = new FormData();
    form.append('model', MODEL_ID);
    form.append('model', 'other');
    expect((await refusalOf(() => fetch(server.origin, { method: 'POST', body: form })))?.code).toBe(
      'model_not_attested',
    );
    expect(server.requests()).toHaveLength(0);
  });

  test('is bounded, and closed for good', async () => {
    const { origin } = await serve();
    const pool = new AttestedPool(origin, {
      ...poolOptions({ policy: POLICY, now: () => NOW }, parsePolicy(POLICY), origin),
      connections: 1,
      maxQueued: 2,
    });
    CLOSING.push(() => pool.destroy());
    const ask = async (): Promise<number> =>
      (await pool.request({ origin, path: '/', method: 'POST', body: '{}' })).statusCode;
    const asked = await Promise.allSettled([ask(), ask(), ask(), ask()]);
    expect(asked.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'rejected']);
    await pool.close();
    await expect(ask()).rejects.toThrow('closed');
  });

  test('requests that were given up while they waited are never sent', async () => {
    const server = await serve();
    const { origin } = server;
    const fetch = client({ connections: 1 });
    const stop = AbortSignal.abort();
    const given = await Promise.allSettled(
      Array.from({ length: 20 }, () => fetch(origin, { method: 'POST', body: '{}', signal: stop })),
    );
    expect(given.every(({ status }) => status === 'rejected')).toBe(true);
    const late = new AbortController();
    const waiting = Array.from({ length: 20 }, () =>
      fetch(origin, { method: 'POST', body: '{}', signal: late.signal }),
    );
    late.abort();
    await Promise.allSettled(waiting);
    const answer = await fetch(origin, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(answer.status).toBe(200);
    await answer.text();
    expect(server.requests().length).toBe(1);
  });
});

describe('roll-back memory on disk', () => {
  test('two processes with one file do not make each other forget', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'assay-memory-'));
    CLOSING.push(() => rmSync(folder, { recursive: true }));
    const path = join(folder, 'seen.json');
    const [one, two] = [await fileRollbackMemory(path), await fileRollbackMemory(path)];
    await one.remember('snp/a/crlNumber', 10n);
    await two.remember('snp/b/crlNumber', 1n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
    await two.remember('snp/a/crlNumber', 9n);
    expect(await two.highest('snp/a/crlNumber')).toBe(10n);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      'snp/a/crlNumber': '10',
      'snp/b/crlNumber': '1',
    });
  });
});

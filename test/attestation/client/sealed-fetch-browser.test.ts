// Sealed bodies in a real page (docs/sealed.md [B4] [B22] [B23]): the vectors, and the official OpenAI SDK
// through a party that ends TLS with a certificate of its own, and then alters, cuts, repeats, answers itself
// and redirects. Skipped, loudly, where Chromium or its driver is not installed.

import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, request as httpsRequest, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXPECTED } from '../../../scripts/demo-model/text.ts';
import { SEALED_VECTORS } from '../../../scripts/sealed-vectors.ts';
import type { SealedVectorFile, VectorRun } from '../../fixtures/attestation/sealed-vector-run.ts';
import {
  type Browser,
  type Context,
  haveBrowser,
  launchChromium,
  type Page,
} from '../../fixtures/console/chromium.ts';
import { type RealServer, startRealServer } from '../../fixtures/e2e/real-server.ts';
import { ownCertificate } from '../../fixtures/attester/own-certificate.ts';

function at(path: string): string {
  return fileURLToPath(new URL(path, import.meta.url));
}
const question = EXPECTED[0]?.question ?? '';
const answer = EXPECTED[0]?.answer ?? '';

async function bundled(entry: string, format: 'esm' | 'iife'): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    minify: true,
    format,
    platform: 'browser',
    target: 'es2023',
    logLevel: 'silent',
  });
  return outputFiles[0]?.text ?? '';
}

test('the bundle of sealedFetch is within its size, and pulls in nothing of Node', async () => {
  const text = await bundled(at('../../../attestation/client/sealed-fetch.ts'), 'esm');
  const zipped = gzipSync(text, { level: 9 }).length;
  console.log(`browser bundle of sealedFetch: ${text.length} bytes, ${zipped} gzip in one file`);
  expect(text).not.toMatch(/["'`]node:/);
  expect(zipped).toBeLessThanOrEqual(90_000);
});

/** One answer of the party in between to POST /v1/sealed. */
type Meddle = (
  pass: () => Promise<{ readonly status: number; readonly headers: IncomingMessage['headers']; readonly body: Buffer }>,
  response: ServerResponse,
) => Promise<void>; // prettier-ignore

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let server: RealServer;
  let between: Server;
  let origin: string;
  let browser: Browser;
  let context: Context;
  let tab: Page;
  const seen: Buffer[] = [];
  const complaints: string[] = [];
  let requests: string[] = [];
  let meddle: Meddle | undefined;
  let onSeen: () => void = () => undefined;

  /** Everything of one request, and its answer as it comes. */
  function onward(request: IncomingMessage, body: Buffer): Promise<IncomingMessage> {
    const { method, url, headers } = request;
    return new Promise((resolve, reject) => {
      httpsRequest(`${server.url}${url}`, { method, headers, rejectUnauthorized: false }, resolve)
        .on('error', reject)
        .end(body);
    });
  }

  async function serve(request: IncomingMessage, response: ServerResponse, page: string): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const body = Buffer.concat(pieces);
    if (request.url === '/seen') {
      onSeen();
      response.end();
      return;
    }
    if (request.url === '/' || request.url === '/page.js') {
      response.setHeader('content-type', request.url === '/' ? 'text/html' : 'text/javascript');
      response.end(request.url === '/' ? '<!doctype html><link rel="icon" href="data:,"><script src="/page.js"></script>' : page); // prettier-ignore
      return;
    }
    seen.push(Buffer.from(`${request.method} ${request.url}\n${request.rawHeaders.join('\n')}\n`), body);
    requests.push(`${request.method} ${request.url?.split('?', 1)[0]}`);
    if (meddle !== undefined && request.url === '/v1/sealed') {
      await meddle(async () => {
        const from = await onward(request, body);
        const parts: Buffer[] = [];
        for await (const part of from) parts.push(part as Buffer);
        return { status: from.statusCode ?? 0, headers: from.headers, body: Buffer.concat(parts) };
      }, response);
      return;
    }
    const from = await onward(request, body);
    response.writeHead(from.statusCode ?? 502, from.rawHeaders);
    from.pipe(response);
  }

  beforeAll(async () => {
    server = await startRealServer();
    const page = await bundled(at('../../fixtures/browser/sealed-page.ts'), 'iife');
    between = createServer(await ownCertificate('127.0.0.1'), (request, response) => {
      serve(request, response, page).catch(() => response.destroy());
    });
    await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
    origin = `https://127.0.0.1:${(between.address() as AddressInfo).port}`;
    browser = await launchChromium();
    context = await browser.newContext({ ignoreHTTPSErrors: true });
    tab = await context.newPage();
    tab.on('pageerror', (error) => complaints.push(error.message));
    await tab.goto(origin);
  });
  afterAll(async () => {
    await context.close();
    await browser.close();
    between.closeAllConnections();
    between.close();
    expect(complaints).toEqual([]);
    expect(await server.stop()).toBe(0);
  });
  beforeEach(() => {
    meddle = undefined;
    requests = [];
  });

  interface Answer {
    readonly text: string;
    readonly pieces: number;
    readonly receipt: string | undefined;
    readonly model: string | undefined;
    readonly by: string | undefined;
    readonly code: string | undefined;
  }

  function inPage<T>(name: string, argument: unknown): Promise<T> {
    return tab.evaluate(`sealedPage.${name}(${JSON.stringify(argument)})`);
  }

  const chat = (stream: boolean, maxRetries = 0): Promise<Answer> =>
    inPage('chat', { policy: server.policy, question, stream, maxRetries });

  test('the vectors come out as the file says, and one wrong expectation fails [B4] [B22]', async () => {
    const file = JSON.parse(readFileSync(SEALED_VECTORS, 'utf8')) as SealedVectorFile;
    const { ran, failed } = await inPage<VectorRun>('runSealedVectors', file);
    expect([failed, ran > 100]).toEqual([[], true]);
    for (const group of ['bhttp', 'requests', 'responses', 'sealed_any'] as const) {
      const vectors = file[group].map((each, i) => (i === 0 ? { ...each, expect: 'sealed_clock' } : each));
      const changed = await inPage<VectorRun>('runSealedVectors', { ...file, [group]: vectors });
      expect(changed.failed, group).toEqual([expect.stringContaining(file[group][0]!.name)]);
    }
  });

  test('the OpenAI SDK streams a chat, and its receipt holds [B23]', async () => {
    const whole = await chat(false);
    expect(whole).toMatchObject({ text: answer, receipt: 'verified', model: 'demo-chat', by: 'one' });
    const streamed = await chat(true);
    expect(streamed).toMatchObject({ text: answer, receipt: 'verified', code: undefined });
    expect(streamed.pieces).toBeGreaterThan(5);
    expect(requests).toEqual(['GET /v1/attestation', 'POST /v1/sealed', 'GET /v1/attestation', 'POST /v1/sealed']);
    expect(await inPage('models', server.policy)).toMatchObject({ object: 'list' });
  }); // prettier-ignore

  test('an event is read before the answer is whole [B23]', async () => {
    const shown = new Promise<void>((resolve) => (onSeen = resolve));
    meddle = async (pass, response) => {
      const { headers, body } = await pass();
      response.writeHead(200, headers);
      // Only the final chunk is held back until the page says that it shows text.
      response.write(body.subarray(0, body.length - 10));
      await shown;
      response.end(body.subarray(body.length - 10));
    };
    const asked = { policy: server.policy, question, stream: true, seen: '/seen' };
    expect(await inPage<Answer>('chat', asked)).toMatchObject({ text: answer, receipt: 'verified' });
  });

  test.each<[string, Meddle, boolean, string]>([
    ['alters a byte', async (pass, response) => {
      const { headers, body } = await pass();
      body[body.length >> 1]! ^= 1;
      response.writeHead(200, headers).end(body);
    }, true, 'sealed_altered'],
    ['alters a byte of an answer that is no stream', async (pass, response) => {
      const { headers, body } = await pass();
      body[body.length - 1]! ^= 1;
      response.writeHead(200, headers).end(body);
    }, false, 'sealed_altered'],
    ['cuts a stream', async (pass, response) => {
      const { headers, body } = await pass();
      response.writeHead(200, headers).end(body.subarray(0, body.length - 30));
    }, true, 'sealed_truncated|sealed_altered'],
    ['cuts the connection', async (pass, response) => {
      const { headers, body } = await pass();
      response.writeHead(200, { ...headers, 'content-length': body.length });
      response.write(body.subarray(0, body.length >> 1), () => response.destroy());
    }, true, 'sealed_truncated'],
    ['repeats the request and hands on the second answer', async (pass, response) => {
      await pass();
      const { headers, body } = await pass();
      response.writeHead(200, headers).end(body);
    }, false, 'sealed_outcome_unknown'],
    ['answers itself', async (_pass, response) => {
      const forged = { choices: [{ message: { content: 'forged' } }] };
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(forged));
    }, false, 'sealed_unavailable'],
    ['answers 401 itself', async (_pass, response) => {
      response.writeHead(401, { 'content-type': 'application/json' }).end('{"error":{"code":"forged"}}');
    }, false, 'sealed_unavailable'],
    ['says the key is unknown', async (_pass, response) => {
      const type = 'https://iana.org/assignments/http-problem-types#ohttp-key';
      response.writeHead(400, { 'content-type': 'application/problem+json' }).end(JSON.stringify({ type }));
    }, false, 'sealed_refused'],
    ['redirects', async (_pass, response) => {
      response.writeHead(307, { location: '/v1/elsewhere' }).end();
    }, false, 'sealed_outcome_unknown'],
  ])('the party in between %s [B23]', async (_, how, stream, code) => {
    meddle = how;
    const got = await chat(stream, 2);
    expect(got.code).toMatch(new RegExp(`^(?:${code})$`));
    expect(got.receipt).not.toBe('verified');
    expect(got.text).not.toContain('forged');
    expect(requests.filter((request) => request.includes('elsewhere'))).toEqual([]);
  }); // prettier-ignore

  test('an answer of before is not one of now [B7]', async () => {
    let first: Buffer | undefined;
    meddle = async (pass, response) => {
      const { headers, body } = await pass();
      first ??= body;
      response.writeHead(200, headers).end(first);
    };
    expect((await chat(false)).text).toBe(answer);
    expect((await chat(false)).code).toBe('sealed_altered');
  });

  test('no byte of method, path, fields or body left the page unsealed [B3]', () => {
    const bytes = Buffer.concat(seen);
    expect(bytes.includes('POST /v1/sealed')).toBe(true);
    for (const secret of [question, answer, 'sk-canary', '/v1/chat', 'demo-chat', 'stainless'])
      expect(bytes.includes(secret), secret).toBe(false);
  });
});

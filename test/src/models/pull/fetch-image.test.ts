// Images by address, over real TLS: the rules of a pull, the bounds, and errors that do not say where an
// address leads.

import type { RequestListener } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import {
  createImageFetcher,
  MAX_FETCHES,
  MAX_FETCHES_PER_CALLER,
  type FetchImage,
  type ImageFetcher,
  type ImageFetcherOptions,
} from '../../../../src/models/pull/fetch-image.ts';
import { startPictures, type PicturesHost } from '../../../fixtures/models/pictures-host.ts';

let host: PicturesHost | undefined;
let fetcher: ImageFetcher | undefined;
afterEach(async () => {
  await fetcher?.close();
  await host?.close();
  host = undefined;
});

async function serve(answer: RequestListener, options: ImageFetcherOptions = {}): Promise<string> {
  host = await startPictures(answer);
  fetcher = createImageFetcher({ ...host.options, ...options });
  return host.origin;
}

function get(url: string, given: Partial<FetchImage> = {}): Promise<Uint8Array> {
  const onBytes = (): void => undefined;
  const { signal } = new AbortController();
  const asked = { url: new URL(url), caller: 'a', param: 'here', maxBytes: 1024, onBytes, signal };
  return fetcher!.fetch({ ...asked, ...given });
}

const REFUSED = { code: 'image_not_fetched', status: 400, param: 'here' };

test('the file, asked for with no word of the caller, and each piece is told', async () => {
  let headers: object = {};
  const origin = await serve((request, response) => {
    ({ headers } = request);
    response.end('hello');
  });
  let told = 0;
  const bytes = await get(`${origin}/a?b`, { onBytes: (count) => (told += count) });
  expect(Buffer.from(bytes).toString()).toBe('hello');
  expect(told).toBe(5);
  expect(host?.asked).toEqual(['/a?b']);
  expect(Object.keys(headers).toSorted()).toEqual([
    'accept',
    'accept-encoding',
    'connection',
    'host',
    'user-agent',
  ]);
});

test('a redirect is followed, and a sixth is not', async () => {
  const origin = await serve((request, response) => {
    const left = Number(request.url?.slice(1));
    if (left === 0) response.end('there');
    else response.writeHead(302, { location: `/${left - 1}` }).end();
  });
  expect(Buffer.from(await get(`${origin}/5`)).toString()).toBe('there');
  await expect(get(`${origin}/6`)).rejects.toMatchObject(REFUSED);
});

describe('one refusal, that does not say what is there', () => {
  const to =
    (location: string): RequestListener =>
    (_, response) =>
      response.writeHead(307, { location }).end();
  const answers: readonly (readonly [string, RequestListener])[] = [
    ['404', (_, response) => response.writeHead(404).end('secret page')],
    ['204', (_, response) => response.writeHead(204).end()],
    ['500', (_, response) => response.writeHead(500).end()],
    ['a redirect to plain http', to(`http://pictures.example.com/x`)],
    ['a redirect to an address inside', to('https://169.254.169.254/latest/meta-data')],
    ['a redirect to loopback', to('https://127.0.0.1/')],
    ['a redirect to a name inside', to('https://metadata.google.internal/')],
    ['a redirect to a file', to('file:///etc/passwd')],
    ['a redirect with credentials', to(`https://user:pw@pictures.example.com/`)],
    ['a redirect to nowhere', (_, response) => response.writeHead(302).end()],
    ['a body that breaks off', (_, response) => response.writeHead(200, { 'content-length': 9 }).write('x', () => response.destroy())], // prettier-ignore
    ['no answer', (_, response) => response.destroy()],
  ];
  test.each(answers)('%s', async (_, answer) => {
    const origin = await serve(answer);
    const refusal = await get(`${origin}/x`).catch((error: unknown) => error);
    expect(refusal).toMatchObject(REFUSED);
    expect(String(refusal)).toBe(
      'ApiError: here leads to no file: expected an https address on the public network that answers 200 in time',
    );
  });

  test.each([
    'http://pictures.example.com/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:10.0.0.1]/',
    'https://0x7f.1/',
    'https://localhost/',
    'https://intranet/',
    'https://user@pictures.example.com/',
  ])('%s, with no connection', async (url) => {
    await serve((_, response) => response.end('x'));
    const connected: unknown[] = [];
    host!.server.on('connection', (socket) => connected.push(socket));
    await expect(get(url)).rejects.toMatchObject(REFUSED);
    expect(connected).toEqual([]);
  });

  test('a name of which one address is private', async () => {
    const origin = await serve((_, response) => response.end('x'), { mayConnect: undefined });
    await expect(get(`${origin}/x`)).rejects.toMatchObject(REFUSED);
    expect(host?.asked).toEqual([]);
  });

  test('a certificate of no authority', async () => {
    const origin = await serve((_, response) => response.end('x'), { authorities: undefined });
    await expect(get(`${origin}/x`)).rejects.toMatchObject(REFUSED);
    expect(host?.asked).toEqual([]);
  });

  test('a body that does not end in time', async () => {
    const origin = await serve((_, response) => void response.write('x'), { timeoutMs: 200 });
    await expect(get(`${origin}/x`)).rejects.toMatchObject(REFUSED);
  });
});

test('as many bytes as are allowed, and not one more', async () => {
  const origin = await serve((request, response) => response.end('x'.repeat(Number(request.url?.slice(1)))));
  expect(await get(`${origin}/1024`)).toHaveLength(1024);
  await expect(get(`${origin}/1025`)).rejects.toMatchObject({
    ...REFUSED,
    message: 'here leads to more than 1024 bytes, the most that the images of a request may have',
  });
});

test('what the budget says of a piece ends the fetch as it is', async () => {
  const full = new Error('full');
  const origin = await serve((_, response) => void response.write('x'));
  const onBytes = (): void => {
    throw full;
  };
  await expect(get(`${origin}/x`, { onBytes })).rejects.toBe(full);
});

test('an abort ends it with its reason', async () => {
  const gone = new Error('the client is gone');
  const controller = new AbortController();
  const origin = await serve(() => controller.abort(gone));
  await expect(get(`${origin}/x`, { signal: controller.signal })).rejects.toBe(gone);
});

test('a caller has a share of the places, all have the places, and each is given back', async () => {
  const waiting: (() => void)[] = [];
  let arrived = (): void => undefined;
  const origin = await serve((_, response) => {
    waiting.push(() => response.end('x'));
    arrived();
  });
  const callers = ['a', 'b', 'c', 'd', 'e'];
  const places = callers.flatMap((caller) => Array<string>(MAX_FETCHES_PER_CALLER).fill(caller));
  const running = places.slice(0, MAX_FETCHES).map((caller) => get(`${origin}/x`, { caller }));
  const full = { code: 'server_overloaded', status: 429 };
  await expect(get(`${origin}/x`, { caller: 'a' })).rejects.toMatchObject(full);
  await expect(get(`${origin}/x`, { caller: 'e' })).rejects.toMatchObject(full);
  // The connections to one host are fewer than the places: the rest is asked for as answers leave.
  arrived = () => {
    for (const answer of waiting.splice(0)) answer();
  };
  arrived();
  expect(await Promise.all(running)).toHaveLength(MAX_FETCHES);
  expect(await get(`${origin}/x`, { caller: 'a' })).toHaveLength(1);
});

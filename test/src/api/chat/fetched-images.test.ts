// Images by address in every dialect: fetched once each, given to the model and stored as the file they were,
// refused as before where the configuration fetches none.

import type { RequestListener } from 'node:http';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { decodedKinds, kindNames } from '../../../../src/base/image-formats.ts';
import { ResponseStore } from '../../../../src/files/response-store.ts';
import { MasterKey } from '../../../../src/files/sealed/format.ts';
import { createImageFetcher, type ImageFetcher } from '../../../../src/models/pull/fetch-image.ts';
import type { ChatMessage } from '../../../../src/engine/seam/engine.ts';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import { type ApiServer, post, startApi } from '../../../fixtures/http/api-server.ts';
import { dataUri, JPEG, picture } from '../../../fixtures/images.ts';
import { startPictures, type PicturesHost } from '../../../fixtures/models/pictures-host.ts';

const FILE = picture(48, 32);
const NEEDLE = 'canary4711';

let api: ApiServer;
let host: PicturesHost;
let fetcher: ImageFetcher;
let folder: string;
afterEach(async () => {
  await api.close();
  await fetcher.close();
  await host.close();
  await rm(folder, { recursive: true });
});

interface Given {
  readonly answer?: RequestListener;
  readonly fetches?: boolean;
  readonly vision?: boolean;
  readonly maxBodyBytes?: number;
}

async function start({ answer, fetches = true, vision = true, maxBodyBytes }: Given = {}): Promise<void> {
  folder = await mkdtemp(join(tmpdir(), 'assay-fetched-'));
  host = await startPictures(answer ?? ((_, response) => response.end(FILE)));
  fetcher = createImageFetcher(host.options);
  const limits = { maxCount: 10, maxBytesPerKey: 1 << 20, maxBytes: 1 << 20, expiryMs: 1e9 };
  api = await startApi({
    engine: { vision },
    config: {
      limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: maxBodyBytes ?? DEFAULT_CONFIG.limits.maxBodyBytes },
    },
    deps: { images: fetches ? fetcher : null },
    responses: await ResponseStore.open({ folder, key: MasterKey.random(), now: Date.now, limits }),
  });
}

function at(path = '/a.png'): string {
  return `${host.origin}${path}?${NEEDLE}`;
}

const DIALECTS: readonly (readonly [path: string, param: string, body: (url: string) => object])[] = [
  ['/v1/chat/completions', 'messages[0].content[0].image_url.url', (url) => ({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] })], // prettier-ignore
  ['/v1/responses', 'input[0].content[0].image_url', (url) => ({ input: [{ role: 'user', content: [{ type: 'input_image', image_url: url }] }] })], // prettier-ignore
  ['/v1/messages', 'messages[0].content[0].source.url', (url) => ({ max_tokens: 9, messages: [{ role: 'user', content: [{ type: 'image', source: { type: 'url', url } }] }] })], // prettier-ignore
];

/** The messages that the model was given last. */
function given(): readonly ChatMessage[] {
  const prompt = api.engine.requests.at(-1)?.prompt;
  return prompt?.kind === 'chat' ? prompt.messages : [];
}

interface Refusal {
  readonly error: { readonly code?: string; readonly param?: string; readonly message: string };
}

/** Neither the refusal nor the log has the address. */
async function refusal(path: string, body: object): Promise<object> {
  const response = await post(api, path, { model: 'demo', ...body });
  const text = await response.text();
  for (const word of [NEEDLE, 'pictures.example', '127.0.0.1'])
    expect([text, JSON.stringify(api.logged)].filter((sink) => sink.includes(word))).toEqual([]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field is compared where it is used
  const { error } = JSON.parse(text) as Refusal;
  return { status: response.status, message: error.message };
}

describe.each(DIALECTS)('%s', (path, param, body) => {
  test('the model is given the file', async () => {
    await start();
    const response = await post(api, path, { model: 'demo', ...body(at()) });
    expect(response.status).toBe(200);
    await response.text();
    const [image] = given()[0]?.images ?? [];
    expect(image).toMatchObject({ kind: 'png', width: 48, height: 32, at: 0, param });
    expect(Buffer.from(image?.bytes ?? []).equals(FILE)).toBe(true);
    expect(image).not.toHaveProperty('url');
    expect(JSON.stringify([api.logged, api.records])).not.toContain(NEEDLE);
  });

  test('the content tells the kind, not its name', async () => {
    await start({ answer: (_, response) => response.setHeader('content-type', 'text/html').end(JPEG) });
    await (await post(api, path, { model: 'demo', ...body(at()) })).text();
    expect(given()[0]?.images?.[0]).toMatchObject({ kind: 'jpeg', width: 16, height: 8 });
  });

  test.each<[string, Given, string]>([
    [
      'no address is fetched',
      { fetches: false },
      `${param} is fetched by no one: send the image as a data: URI`,
    ],
    [
      'the model takes no images',
      { vision: false },
      `${param} is an image, and this model takes none (GET /v1/models lists capabilities)`,
    ],
    [
      'there is no file',
      { answer: (_, response) => response.writeHead(404).end(NEEDLE) },
      `${param} leads to no file: expected an https address on the public network that answers 200 in time`,
    ],
    [
      'there is another kind',
      { answer: (_, response) => response.end(`<svg>${NEEDLE}`) },
      `${param} is a SVG image, expected ${kindNames(decodedKinds())} (of an animation the first frame)`,
    ],
  ])('refused by field: %s', async (_, options, message) => {
    await start(options);
    expect(await refusal(path, body(at()))).toEqual({ status: 400, message });
    expect(api.engine.requests).toEqual([]);
    expect(host.asked).toHaveLength(options.answer === undefined ? 0 : 1);
  });

  test('plain http, and addresses inside, are refused without a connection', async () => {
    await start();
    const sockets: unknown[] = [];
    host.server.on('connection', (socket) => sockets.push(socket));
    for (const url of [at().replace('https', 'http'), at().replace('pictures.example.com', '127.0.0.1')])
      expect(await refusal(path, body(url))).toMatchObject({ status: 400 });
    expect(sockets).toEqual([]);
  });
});

function image(url: string): object {
  return { type: 'image_url', image_url: url };
}

test('an address is fetched once, and each place has its file', async () => {
  await start();
  const content = [image(at()), { type: 'text', text: 'and' }, image(at()), image(dataUri(JPEG, 'jpeg'))];
  await (await post(api, '/v1/chat/completions', { model: 'demo', messages: [{ role: 'user', content }] })).text(); // prettier-ignore
  expect(host.asked).toEqual([`/a.png?${NEEDLE}`]);
  expect(given()[0]?.images?.map(({ kind, at: place, param }) => [kind, place, param])).toEqual([
    ['png', 0, 'messages[0].content[0].image_url'],
    ['png', 3, 'messages[0].content[2].image_url'],
    ['jpeg', 3, 'messages[0].content[3].image_url'],
  ]);
});

test('the files of a request together are bounded as a body is', async () => {
  await start({ maxBodyBytes: FILE.length + 1024 });
  const messages = [{ role: 'user', content: [image(at('/1')), image(at('/2'))] }];
  expect(await refusal('/v1/chat/completions', { messages })).toEqual({
    status: 400,
    message:
      'messages[0].content[1].image_url leads to more than 1024 bytes, the most that the images of a request may have',
  });
});

test('a stored response has the file, not the address', async () => {
  await start();
  const asked = { model: 'demo', store: true, ...DIALECTS[1]![2](at()) };
  const first = (await (await post(api, '/v1/responses', asked)).json()) as { readonly id: string };
  const items = await (await fetch(`${api.url}/v1/responses/${first.id}/input_items`)).json();
  expect(items).toMatchObject({
    data: [{ type: 'message', role: 'user', content: [{ type: 'input_image', image_url: dataUri(FILE) }] }],
  });
  const next = { model: 'demo', previous_response_id: first.id, input: 'And now?' };
  expect((await post(api, '/v1/responses', next)).status).toBe(200);
  expect(Buffer.from(given()[0]?.images?.[0]?.bytes ?? []).equals(FILE)).toBe(true);
  expect(host.asked).toHaveLength(1);
});

test.each(['/v1/messages/count_tokens', '/v1/tokenize'])('%s fetches nothing', async (path) => {
  await start();
  const messages = [{ role: 'user', content: [path === '/v1/tokenize' ? image(at()) : { type: 'image', source: { type: 'url', url: at() } }] }]; // prettier-ignore
  expect(await refusal(path, { messages })).toMatchObject({ status: 400 });
  expect(host.asked).toEqual([]);
});

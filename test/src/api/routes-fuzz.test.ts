// Random, malformed requests: none yields a 500, none kills the server, every answer is JSON of one of two
// forms, and every refusal has the envelope of its route.

import * as fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allRoutes } from '../../../src/api/routes.ts';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { messagesErrorAnswer } from '../../../src/api/messages/answer-schema.ts';
import { chatAnswer, errorAnswer } from '../../../src/api/response-schemas.ts';
import { speaksMessages } from '../../../src/http/dialect.ts';
import { parseBody } from '../../../src/http/json.ts';
import { ApiError } from '../../../src/base/errors.ts';
import { createImageFetcher, type ImageFetcher } from '../../../src/models/pull/fetch-image.ts';
import { type FilesApi, startFilesApi } from '../../fixtures/files/files-api.ts';
import { type ApiServer, post } from '../../fixtures/http/api-server.ts';
import { dataUri, GIF, JPEG, picture } from '../../fixtures/images.ts';
import { lossless, MOTLEY } from '../../fixtures/webp.ts';

const NUM_RUNS = 150 * Number(process.env['ASSAY_FUZZ'] ?? 1);
let files: FilesApi;
let api: ApiServer;
let images: ImageFetcher;
beforeAll(async () => {
  // Addresses of images are looked up, and lead nowhere.
  images = createImageFetcher({ lookup: (_, __, callback) => callback(new Error('no such name'), []) });
  files = await startFilesApi({
    engine: { vision: true },
    engines: { ears: { type: 'transcription' } },
    deps: { images },
  });
  ({ api } = files);
});
afterAll(() => files.close());

const posts = allRoutes({
  config: DEFAULT_CONFIG,
  metrics: { text: () => '' },
  startedAt: 0,
  isDraining: () => false,
})
  .filter(({ method, body }) => method === 'POST' && body !== undefined)
  .filter(({ path }) => !['/v1/models', '/v1/models/unload'].includes(path))
  .map((route) => ({ path: route.path, fields: Object.keys(route.body?.schema['properties'] ?? {}) }));

/** Images: whole, damaged, of other kinds, and by address. */
const imageFiles = fc.oneof(
  fc.constantFrom(picture(4, 3), JPEG, GIF, lossless({ width: 4, height: 3 }, MOTLEY)),
  fc.tuple(fc.constantFrom(picture(4, 3), JPEG, GIF), fc.nat(80)).map(([file, end]) => file.subarray(0, end)),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);
const addresses = fc.oneof(
  imageFiles.map((file) => dataUri(file)),
  fc.constantFrom(
    'https://a.example/b.png',
    'https://[::1]/',
    'https://',
    'http://a.example/',
    'file:///etc/passwd',
  ),
  fc.string(),
);
const sources = fc.oneof(
  imageFiles.map((file) => ({ type: 'base64', media_type: 'image/png', data: file.toString('base64') })),
  addresses.map((url) => ({ type: 'url', url })),
  fc.constant({ type: 'file', file_id: 'x' }),
);
/** Content of messages of chats and responses. */
const imageParts = fc.array(
  fc.oneof(
    addresses.map((url) => ({ type: 'image_url', image_url: { url } })),
    addresses.map((url) => ({ type: 'image_url', image_url: url })),
    addresses.map((url) => ({ type: 'input_image', image_url: url, detail: 'low' })),
    fc.jsonValue({ maxDepth: 1 }).map((given) => ({ type: 'image_url', image_url: given })),
    fc.constant({ type: 'text', text: 'x' }),
  ),
  { maxLength: 3 },
);

/** Content blocks of /v1/messages. */
const blocks = fc.array(
  fc.record(
    {
      type: fc.constantFrom('text', 'image', 'tool_use', 'tool_result', 'thinking', 'redacted_thinking', 'document', 'tool_addition', 'tool_removal', 'tool_reference', 'server_tool_use'), // prettier-ignore
      text: fc.string(),
      source: fc.oneof(sources, fc.jsonValue({ maxDepth: 2 })),
      id: fc.jsonValue({ maxDepth: 1 }),
      name: fc.constantFrom('f', 'g', ''),
      input: fc.jsonValue({ maxDepth: 2 }),
      tool_use_id: fc.jsonValue({ maxDepth: 1 }),
      content: fc.oneof(
        fc.string(),
        fc.constant([
          { type: 'text', text: 'x' },
          { type: 'tool_reference', tool_name: 'f' },
        ]),
        fc.jsonValue({ maxDepth: 2 }),
      ),
      is_error: fc.boolean(),
      thinking: fc.string(),
      signature: fc.base64String(),
      data: fc.base64String(),
      tool: fc.constantFrom({ type: 'tool_reference', name: 'f' }, { type: 'tool_definition' }, 5),
    },
    { requiredKeys: ['type'] },
  ),
  { maxLength: 4 },
);

const junk = fc.oneof(
  { weight: 3, arbitrary: fc.jsonValue({ maxDepth: 3 }) },
  fc.constantFrom(
    '',
    'demo',
    'text-embed',
    'reranker',
    'auto',
    'user',
    '\u0000',
    '../..',
    'a'.repeat(5000),
    -1,
    0,
    1,
    1e308,
    -1e308,
    2 ** 53,
    0.5,
    true,
    [],
    {},
    [[]],
    [null],
    [{}],
  ),
  fc
    .record(
      {
        role: fc.constantFrom('user', 'assistant', 'tool', 'system', 'x'),
        content: fc.oneof(fc.jsonValue({ maxDepth: 1 }), blocks, imageParts),
        clear_at: fc.constantFrom('never', 'next_user_message', 'x'),
        tool_calls: fc.jsonValue({ maxDepth: 2 }),
      },
      { requiredKeys: [] },
    )
    .map((message) => [message]),
  fc.record(
    {
      type: fc.constantFrom('json_schema', 'function', 'json_object', 'text', 'allowed_tools', 'custom'),
      json_schema: fc.jsonValue({ maxDepth: 3 }),
      function: fc.jsonValue({ maxDepth: 2 }),
      format: fc.jsonValue({ maxDepth: 2 }),
      mode: fc.constantFrom('auto', 'required'),
      tools: fc.jsonValue({ maxDepth: 2 }),
      name: fc.constantFrom('f', '', 5),
    },
    { requiredKeys: [] },
  ),
  fc.array(
    fc.record(
      {
        type: fc.constantFrom('function_call', 'function_call_output', 'custom_tool_call', 'reasoning', 'message', 'item_reference', 'function', 'custom', 'namespace', 'web_search', 'mcp', 'enabled', 'adaptive', 'any', 'tool'), // prettier-ignore
        role: fc.constantFrom('user', 'assistant', 'x'),
        content: fc.oneof(fc.jsonValue({ maxDepth: 2 }), imageParts),
        name: fc.constantFrom('f', 'g', ''),
        call_id: fc.jsonValue({ maxDepth: 1 }),
        arguments: fc.jsonValue({ maxDepth: 2 }),
        input: fc.string(),
        output: fc.oneof(fc.jsonValue({ maxDepth: 2 }), imageParts),
        encrypted_content: fc.base64String(),
        parameters: fc.jsonValue({ maxDepth: 3 }),
        input_schema: fc.jsonValue({ maxDepth: 3 }),
        defer_loading: fc.boolean(),
        format: fc.jsonValue({ maxDepth: 2 }),
        tools: fc.jsonValue({ maxDepth: 2 }),
      },
      { requiredKeys: ['type'] },
    ),
    { maxLength: 4 },
  ),
);

/** A request of the route's own fields, some sound and some not. */
const requests = fc
  .constantFrom(...posts)
  .chain(({ path, fields }) =>
    fc
      .uniqueArray(fc.constantFrom(...fields), { maxLength: 6 })
      .chain((chosen) =>
        fc.tuple(
          fc.constant(path),
          fc.boolean(),
          fc.record(Object.fromEntries(chosen.map((field) => [field, junk]))),
        ),
      ),
  );

const SOUND: Record<string, object> = {
  '/v1/chat/completions': { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] },
  '/v1/responses': { model: 'demo', input: 'Hi' },
  '/v1/messages': { model: 'demo', max_tokens: 9, messages: [{ role: 'user', content: 'Hi' }] },
  '/v1/messages/count_tokens': { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] },
  '/v1/completions': { model: 'demo', prompt: 'Hi' },
  '/v1/embeddings': { model: 'text-embed', input: 'Hi' },
  '/v1/rerank': { model: 'reranker', query: 'a', documents: ['b'] },
  '/v1/tokenize': { model: 'demo', content: 'Hi' },
  '/v1/batches': { input_file_id: 'file-1', endpoint: '/v1/completions', completion_window: '24h' },
  '/v1/detokenize': { model: 'demo', tokens: [1] },
};

test('property: no body yields a 500', async () => {
  await fc.assert(
    fc.asyncProperty(requests, async ([path, onSound, fields]) => {
      const response = await post(api, path, { ...(onSound ? SOUND[path] : {}), ...fields });
      const text = await response.text();
      expect([response.status < 500, text]).toEqual([true, text]);
      if (response.status !== 200) readError(path, text);
    }),
    { numRuns: NUM_RUNS },
  );
  expect((await fetch(`${api.url}/health`)).status).toBe(200);
  expect(api.models.leases()).toBe(0);
});

test('property: no bytes yield a 500', async () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json({ maxDepth: 6 }).map((text) => new TextEncoder().encode(text)),
    fc.string().map((text) => new TextEncoder().encode(`{"model":"${text}"`)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...posts), bytes, async ({ path }, body) => {
      const response = await fetch(api.url + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: body.slice(),
      });
      expect(response.status).toBeLessThan(500);
      readError(path, await response.text());
    }),
    { numRuns: NUM_RUNS },
  );
});

const FORMS = ['/v1/files', '/v1/audio/transcriptions', '/v1/audio/translations'] as const;

test('property: no form yields a 500', async () => {
  const part = fc.constantFrom(
    '--b',
    '--b--',
    '\r\n',
    '\r\n\r\n',
    'content-disposition: form-data; name="file"; filename="x"',
    'content-disposition: form-data; name="purpose"',
    'content-disposition: form-data; name="expires_after[seconds]"',
    'content-disposition: form-data; name="model"',
    'user_data',
    'ears',
    '5',
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...FORMS), fc.array(part, { maxLength: 16 }), async (path, parts) => {
      const response = await fetch(api.url + path, {
        method: 'POST',
        headers: { 'content-type': 'multipart/form-data; boundary=b' },
        body: parts.join(''),
      });
      expect(response.status).toBeLessThan(500);
      if (response.status !== 200) errorAnswer.read(await response.json(), '');
    }),
    { numRuns: NUM_RUNS },
  );
});

test('property: no fields and no bytes of a form with sound yield a 500', async () => {
  const name = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom('prompt', 'response_format', 'temperature', 'language', 'stream', 'timestamp_granularities[]', 'keep_alive', 'include[]', 'chunking_strategy') }, // prettier-ignore
    fc.string({ maxLength: 8 }),
  );
  const value = fc.oneof(
    fc.constantFrom('0', '0.5', '1e9', '-1', 'true', 'json', 'text', 'srt', 'vtt', 'verbose_json', 'word', 'segment', 'en', 'auto', '5m', ''), // prettier-ignore
    fc.string({ unit: 'grapheme', maxLength: 30 }),
  );
  const statuses = new Set<number>();
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...FORMS.filter((path) => path.includes('audio'))),
      fc.option(fc.constantFrom('ears', 'demo', '', 'none'), { freq: 8 }),
      fc.array(fc.tuple(name, value), { maxLength: 4 }),
      fc.uint8Array({ maxLength: 300 }),
      async (path, model, fields, file) => {
        const form = new FormData();
        if (model !== null) form.append('model', model);
        for (const [field, text] of fields) form.append(field, text);
        form.append('file', new Blob([file.slice()]), 'x');
        const response = await fetch(api.url + path, { method: 'POST', body: form });
        const text = await response.text();
        expect([response.status < 500, text]).toEqual([true, text]);
        if (response.status !== 200) readError(path, text);
        statuses.add(response.status);
      },
    ),
    { numRuns: NUM_RUNS },
  );
  // Some were heard, so that more than the refusals was tried.
  expect(statuses).toContain(200);
  expect(api.models.leases()).toBe(0);
});

test('property: no path yields a 500', async () => {
  const segment = fc.oneof(
    fc.string({ maxLength: 20 }).map((text) => encodeURIComponent(Buffer.from(text).toString())),
    fc.constantFrom(
      'v1',
      'models',
      'pull',
      'status',
      '%2F',
      '%00',
      '%',
      '..',
      'x'.repeat(300),
      'chat',
      'completions',
      ':id',
      '*',
    ),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('GET', 'POST', 'DELETE', 'PUT', 'PATCH'),
      fc.array(segment, { maxLength: 6 }),
      async (method, segments) => {
        const path = `/${segments.join('/')}`;
        if (method === 'DELETE' && path.startsWith('/v1/models/')) return;
        const response = await fetch(api.url + path, { method });
        expect(response.status).toBeLessThan(500);
        const text = await response.text();
        if (response.status >= 400) readError(path, text);
      },
    ),
    { numRuns: NUM_RUNS },
  );
});

test('property: parseBody gives what JSON.parse gives, or an ApiError', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.string(),
        fc.json().map((text) => text.slice(0, -1)),
      ),
      (text) => {
        if (text.includes('__proto__')) return;
        expect(outcome(() => parseBody(new TextEncoder().encode(text)))).toEqual(
          outcome(() => JSON.parse(text)),
        );
      },
    ),
    { numRuns: NUM_RUNS * 4 },
  );
});

test('property: sound requests with any text are answered in the declared form', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.string({ unit: 'grapheme', maxLength: 200 }),
      fc.integer({ min: 1, max: 4 }),
      async (content, n) => {
        const response = await post(api, '/v1/chat/completions', {
          model: 'demo',
          messages: [{ role: 'user', content }],
          n,
        });
        expect(chatAnswer.read(await response.json(), '').choices).toHaveLength(n);
      },
    ),
    { numRuns: NUM_RUNS },
  );
});

function readError(path: string, text: string): void {
  (speaksMessages(path) ? messagesErrorAnswer : errorAnswer).read(JSON.parse(text), '');
}

function outcome(read: () => unknown): unknown {
  try {
    return { value: read() };
  } catch (error) {
    return error instanceof ApiError || error instanceof SyntaxError ? 'refused' : error;
  }
}

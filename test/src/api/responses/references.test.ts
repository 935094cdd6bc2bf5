// item_reference: a stored item of the caller's own stands where the request refers to it; any
// other id is refused.

import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ChatMessage } from '../../../../src/engine/seam/engine.ts';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import { ResponseStore } from '../../../../src/files/response-store.ts';
import { MasterKey } from '../../../../src/files/sealed/format.ts';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  post,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { RESPONSE, streamed } from '../../../fixtures/http/responses.ts';
import { dataUri, picture } from '../../../fixtures/images.ts';

let folder: string;
let api: ApiServer;
let now: number;
beforeEach(async () => {
  now = 1_800_000_000_000;
  folder = await mkdtemp(join(tmpdir(), 'assay-references-'));
});
afterEach(async () => {
  await api.close();
  await rm(folder, { recursive: true, force: true });
});

function client(key = 'unused'): OpenAI {
  return new OpenAI({ baseURL: `${api.url}/v1`, apiKey: key, maxRetries: 0 });
}
async function start(options: ApiServerOptions = {}): Promise<OpenAI> {
  const responses = await ResponseStore.open({
    folder,
    key: MasterKey.random(),
    now: () => now,
    limits: { maxCount: 10, maxBytesPerKey: 1 << 20, maxBytes: 1 << 20, expiryMs: 1000 },
  });
  api = await startApi({ ...options, deps: { now: () => now, ...options.deps }, responses });
  return client();
}
function given(): readonly ChatMessage[] {
  const prompt = api.engine.requests.at(-1)?.prompt;
  return prompt?.kind === 'chat' ? prompt.messages : [];
}
function to(id: string | undefined): OpenAI.Responses.ResponseInputItem.ItemReference {
  return { type: 'item_reference', id: id ?? '' };
}
const USER = { role: 'user' as const, content: 'And?' };
async function stored(sdk: OpenAI, more: object = {}): Promise<OpenAI.Responses.Response> {
  return sdk.responses.create({ ...RESPONSE, store: true, ...more });
}

describe('an item of an answer', () => {
  test('stands where it is referred to, words, reasoning and calls, as after previous_response_id', async () => {
    const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Berlin"}}\n</tool_call>';
    const sdk = await start({
      engine: {
        reasoning: detectReasoning('<think></think>'),
        script: () => ['<think>', 'Hm.', '</think>', 'I look.', call],
      },
    });
    const tools = [{ type: 'function' as const, name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } }, strict: false }]; // prettier-ignore
    const first = await stored(sdk, { tools });
    expect(first.output.map(({ type }) => type)).toEqual(['reasoning', 'message', 'function_call']);
    const { call_id: id } = first.output.at(-1) as OpenAI.Responses.ResponseFunctionToolCall;
    const result = { type: 'function_call_output' as const, call_id: id, output: '21' };
    const asked = { role: 'user' as const, content: 'Hi' };
    const references = first.output.map((item) => to(item.id));
    await sdk.responses.create({ ...RESPONSE, tools, input: [asked, ...references, result] });
    const referred = given();
    await sdk.responses.create({ ...RESPONSE, tools, previous_response_id: first.id, input: [result] });
    expect(referred).toEqual(given());
    expect(referred.map(({ role, content, reasoning }) => [role, content, reasoning])).toEqual([
      ['user', 'Hi', undefined],
      ['assistant', 'I look.', 'Hm.'],
      ['tool', '21', undefined],
    ]);
    // The same without a type, as OpenAI's own may be written.
    const { type: _, ...untyped } = to(first.output[1]?.id);
    await sdk.responses.create({ ...RESPONSE, input: [untyped, USER] });
    expect(given().map(({ content }) => content)).toEqual(['I look.', 'And?']);
  });

  test('of a stream has an id to refer to, too', async () => {
    const sdk = await start();
    const events = await streamed(api, { store: true });
    const { item } = events.find(({ type }) => type === 'response.output_item.done') as unknown as { item: { id: string } }; // prettier-ignore
    // A stream without a key is of no one the SDK is.
    const asked = { ...RESPONSE, input: [to(item.id), USER] };
    await expect(sdk.responses.create(asked)).rejects.toMatchObject({ code: 'item_not_found' });
    expect((await post(api, '/v1/responses', asked)).status).toBe(200);
    expect(given().map(({ content }) => content)).toEqual(['Hello, world!', 'And?']);
  });
});

test('an item of an input stands, too, and keeps its id where it is stored again', async () => {
  const sdk = await start();
  const first = await stored(sdk, {
    input: [
      { role: 'user', content: 'a' },
      { role: 'user', content: 'b' },
    ],
  });
  const [, b] = (await sdk.responses.inputItems.list(first.id, { order: 'asc' })).data;
  const second = await stored(sdk, { input: [to(b?.id), USER, to(b?.id)] });
  expect(given().map(({ content }) => content)).toEqual(['b', 'And?', 'b']);
  const items = (await sdk.responses.inputItems.list(second.id, { order: 'asc' })).data;
  expect(items.map(({ id }) => id === b?.id)).toEqual([true, false, true]);
  expect(new Set(items.map(({ id }) => id)).size).toBe(2);
  // The second has what it was given, also without the first.
  await sdk.responses.delete(first.id);
  await sdk.responses.create({ ...RESPONSE, previous_response_id: second.id });
  expect(given().map(({ content }) => content)).toEqual(['b', 'And?', 'b', 'Hello, world!', 'Hi']);
});

describe('refused', () => {
  const NONE = { status: 404, code: 'item_not_found', param: 'input[1].id' };
  const refer = (sdk: OpenAI, id: string) => sdk.responses.create({ ...RESPONSE, input: [USER, to(id)] });

  test.each<[string, (id: string) => string]>([
    ['no id', () => ''],
    ['another form', () => 'msg_1'],
    ['an unknown response', (id) => `msg_${'0'.repeat(32)}${id.slice(-8)}`],
    ['an unknown item of a known response', (id) => `${id.slice(0, -1)}9`],
    ['another kind', (id) => id.replace('msg_', 'rs_')],
    ['a path', (id) => `msg_/../${id.slice(8)}`],
  ])('%s', async (_, changed) => {
    const sdk = await start();
    const id = (await stored(sdk)).output[0]?.id ?? '';
    await expect(refer(sdk, changed(id))).rejects.toMatchObject(NONE);
    expect((await refer(sdk, id)).status).toBe('completed');
  });

  test("another key's, with the same answer; what was deleted, has expired or was never stored", async () => {
    const auth = { required: true, adminEnabled: true, keys: [apiKey('alice'), apiKey('bob')] };
    await start({ config: { auth } });
    const first = await stored(client('alice'));
    const id = first.output[0]?.id ?? '';
    await expect(refer(client('bob'), id)).rejects.toMatchObject(NONE);
    expect((await refer(client('alice'), id)).status).toBe('completed');
    await client('alice').responses.delete(first.id);
    await expect(refer(client('alice'), id)).rejects.toMatchObject(NONE);
    const unstored = await client('alice').responses.create(RESPONSE);
    await expect(refer(client('alice'), unstored.output[0]?.id ?? '')).rejects.toMatchObject(NONE);
    const late = (await stored(client('alice'))).output[0]?.id ?? '';
    now += 2000;
    await expect(refer(client('alice'), late)).rejects.toMatchObject(NONE);
  });

  test('a damaged response, by its code', async () => {
    const sdk = await start();
    const id = (await stored(sdk)).output[0]?.id ?? '';
    const [place = ''] = await readdir(folder);
    const [name = ''] = await readdir(join(folder, place));
    await writeFile(join(folder, place, name), 'x');
    await expect(refer(sdk, id)).rejects.toMatchObject({
      status: 500,
      code: 'file_damaged',
      param: 'input[1].id',
    });
  });

  test('more than a body may have, however short the references are', async () => {
    const sdk = await start({ config: { limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 8192 } } });
    const first = await stored(sdk, { input: [{ role: 'user', content: 'x'.repeat(4000) }] });
    const [long] = (await sdk.responses.inputItems.list(first.id)).data;
    expect((await refer(sdk, long?.id ?? '')).status).toBe('completed');
    const input = [to(long?.id), to(long?.id), USER];
    await expect(sdk.responses.create({ ...RESPONSE, input })).rejects.toMatchObject({
      status: 413,
      code: 'request_too_large',
      param: 'input[1].id',
    });
  });

  test('an image for a model that takes none, at the reference or the response it came by', async () => {
    const sdk = await start({ engines: { seer: { vision: true } } });
    const content = [
      { type: 'input_image' as const, detail: 'auto' as const, image_url: dataUri(picture(8, 8)) },
    ];
    const first = await stored(sdk, { model: 'seer', input: [{ role: 'user', content }] });
    const [shown] = (await sdk.responses.inputItems.list(first.id)).data;
    const blind = { status: 400, code: 'unsupported_parameter' };
    await expect(refer(sdk, shown?.id ?? '')).rejects.toMatchObject({ ...blind, param: 'input[1]' });
    const next = sdk.responses.create({ ...RESPONSE, previous_response_id: first.id });
    await expect(next).rejects.toMatchObject({ ...blind, param: 'previous_response_id' });
  });
});

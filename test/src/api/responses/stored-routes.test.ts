// Stored responses over HTTP: kept when asked for, gone on from, listed and deleted, for the key alone.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ResponseStore } from '../../../../src/files/response-store.ts';
import { detectReasoning } from '../../../../src/engine/seam/reasoning.ts';
import type { ChatMessage } from '../../../../src/engine/seam/engine.ts';
import { MasterKey } from '../../../../src/files/sealed/format.ts';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import { RESPONSE, streamed } from '../../../fixtures/http/responses.ts';
import { latch } from '../../../fixtures/latch.ts';

const auth = { required: true, adminEnabled: true, keys: [apiKey('alice'), apiKey('bob')] };

let folder: string;
let api: ApiServer;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-stored-'));
});
afterEach(async () => {
  await api.close();
  await rm(folder, { recursive: true, force: true });
});

function client(key = 'unused'): OpenAI {
  return new OpenAI({ baseURL: `${api.url}/v1`, apiKey: key, maxRetries: 0 });
}
async function start(options: ApiServerOptions = {}, maxBytesPerKey = 1 << 20): Promise<OpenAI> {
  const responses = await ResponseStore.open({
    folder,
    key: MasterKey.random(),
    now: Date.now,
    limits: { maxCount: 10, maxBytesPerKey, maxBytes: 1 << 20, expiryMs: 1e9 },
  });
  api = await startApi({ ...options, responses });
  return client();
}
/** The messages that the model was given last. */
function given(): readonly ChatMessage[] {
  const prompt = api.engine.requests.at(-1)?.prompt;
  return prompt?.kind === 'chat' ? prompt.messages : [];
}

describe('a stored response', () => {
  test('is given back as it was answered, and deleted', async () => {
    const sdk = await start();
    const answer = await sdk.responses.create({ ...RESPONSE, store: true, metadata: { a: 'b' } });
    expect(answer).toMatchObject({ store: true });
    const { output_text: _, ...answered } = answer;
    expect(await sdk.responses.retrieve(answer.id)).toMatchObject(answered);
    await sdk.responses.delete(answer.id);
    await expect(sdk.responses.retrieve(answer.id)).rejects.toMatchObject({
      status: 404,
      code: 'response_not_found',
    });
  });

  test.each<readonly [query: string, status: number]>([
    ['?include[]=reasoning.encrypted_content&include[]=message.output_text.logprobs', 200],
    ['?include=reasoning.encrypted_content&stream=false&include_obfuscation=false', 200],
    ['?stream=true', 400],
    ['?starting_after=3', 400],
    ['?include[]=x', 400],
    ['?other=1', 400],
    ['/input_items?include[]=message.input_image.image_url&limit=1', 200],
    ...['0', '101', '0x10', '1e1', '', '%201', '1.0'].map(
      (limit) => [`/input_items?limit=${limit}`, 400] as const,
    ),
  ])('asked as %s: %i', async (query, status) => {
    const sdk = await start();
    const { id } = await sdk.responses.create({ ...RESPONSE, store: true });
    const found = await fetch(`${api.url}/v1/responses/${id}${query}`, {
      headers: { authorization: 'Bearer unused' },
    });
    const body = (await found.json()) as { readonly error?: { readonly type: string } };
    expect([found.status, body.error?.type]).toEqual([
      status,
      status === 200 ? undefined : 'invalid_request_error',
    ]);
  });

  test('is there once its stream says that it is complete', async () => {
    // A second passes between any two looks.
    let ms = Date.now();
    await start({ deps: { now: () => (ms += 1000) } });
    const events = await streamed(api, { store: true });
    const last = events.at(-1) as unknown as { type: string; response: OpenAI.Responses.Response };
    expect(last.type).toBe('response.completed');
    const found = await fetch(`${api.url}/v1/responses/${last.response.id}`);
    expect(await found.json()).toEqual(last.response);
  });

  test('is only kept when that was asked for', async () => {
    const sdk = await start();
    for (const asked of [{}, { store: null }, { store: false }]) {
      const answer = await sdk.responses.create({ ...RESPONSE, ...asked });
      expect(answer).toMatchObject({ store: false });
      await expect(sdk.responses.retrieve(answer.id)).rejects.toMatchObject({ code: 'response_not_found' });
    }
  });

  test('is of its key alone', async () => {
    await start({ config: { auth } });
    const { id } = await client('alice').responses.create({ ...RESPONSE, store: true });
    const bob = client('bob');
    const asked = [
      () => bob.responses.retrieve(id),
      () => bob.responses.delete(id),
      () => bob.responses.inputItems.list(id),
      () => bob.responses.create({ ...RESPONSE, previous_response_id: id }),
    ];
    for (const ask of asked)
      await expect(ask()).rejects.toMatchObject({ status: 404, code: 'response_not_found' });
    expect((await client('alice').responses.retrieve(id)).id).toBe(id);
  });

  test('that does not fit ends in an error, whole and streamed', async () => {
    const sdk = await start({}, 1024);
    const asked = { ...RESPONSE, metadata: { a: 'x'.repeat(500), b: 'x'.repeat(500) }, store: true };
    await expect(sdk.responses.create(asked)).rejects.toMatchObject({ status: 507, code: 'storage_full' });
    const events = await streamed(api, asked);
    expect(events.at(-1)).toMatchObject({ type: 'error', code: 'storage_full' });
  });
});

describe('previous_response_id', () => {
  test('brings the conversation, turn after turn, and no instructions', async () => {
    const sdk = await start();
    const first = await sdk.responses.create({ ...RESPONSE, instructions: 'Be brief.', store: true });
    const second = await sdk.responses.create({
      ...RESPONSE,
      input: [{ role: 'user', content: [{ type: 'input_text', text: 'And?' }] }],
      previous_response_id: first.id,
      store: true,
    });
    expect(second.previous_response_id).toBe(first.id);
    const third = await sdk.responses.create({
      ...RESPONSE,
      input: 'So?',
      instructions: 'Be long.',
      previous_response_id: second.id,
    });
    expect(given().map(({ role, content }) => [role, content])).toEqual([
      ['system', 'Be long.'],
      ['user', 'Hi'],
      ['assistant', 'Hello, world!'],
      ['user', 'And?'],
      ['assistant', 'Hello, world!'],
      ['user', 'So?'],
    ]);
    expect(third).toMatchObject({ store: false });
    // The first may go: the second has all of the conversation.
    await sdk.responses.delete(first.id);
    await sdk.responses.create({ ...RESPONSE, previous_response_id: second.id });
    expect(given()).toHaveLength(5);
  });

  test('brings calls and their results', async () => {
    const call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Berlin"}}\n</tool_call>';
    const sdk = await start({
      engine: {
        script: ({ prompt }) =>
          prompt.kind === 'chat' && prompt.messages.some(({ role }) => role === 'tool') ? ['Warm.'] : [call],
      },
    });
    const tools = [{ type: 'function' as const, name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } }, strict: false }]; // prettier-ignore
    const first = await sdk.responses.create({ ...RESPONSE, tools, store: true });
    const [called] = first.output as [OpenAI.Responses.ResponseFunctionToolCall];
    const second = await sdk.responses.create({
      ...RESPONSE,
      tools,
      previous_response_id: first.id,
      input: [{ type: 'function_call_output', call_id: called.call_id, output: '21' }],
    });
    expect(second.output_text).toBe('Warm.');
    expect(
      given().map(({ role, toolCalls, toolCallId }) => [role, toolCalls?.[0]?.name, toolCallId]),
    ).toEqual([
      ['user', undefined, undefined],
      ['assistant', 'get_weather', undefined],
      ['tool', undefined, called.call_id],
    ]);
  });

  test('is held like a body: beside others of its caller it waits its turn', async () => {
    const door = latch();
    const limits = { ...DEFAULT_CONFIG.limits, maxBodyBytes: 16_384, maxBodyBytesInFlight: 16_384 };
    const input = 'x'.repeat(8000);
    const sdk = await start({
      config: { limits },
      engine: {
        slots: 2,
        // Of the second request; the others go on.
        beforeToken: () => (api.engine.requests.length === 2 ? door.opened : Promise.resolve()),
      },
    });
    const { id } = await sdk.responses.create({ ...RESPONSE, input, store: true });
    const next = () => sdk.responses.create({ ...RESPONSE, previous_response_id: id });
    const idle = async (): Promise<void> => {
      await expect.poll(() => api.server.inFlight).toBe(0);
    };
    await idle();
    const first = next();
    await expect.poll(() => api.engine.requests.length).toBe(2);
    const overloaded = { status: 429, code: 'server_overloaded' };
    await expect(next()).rejects.toMatchObject(overloaded);
    await expect(sdk.responses.retrieve(id)).rejects.toMatchObject(overloaded);
    await expect(sdk.responses.inputItems.list(id)).rejects.toMatchObject(overloaded);
    door.open();
    expect((await first).status).toBe('completed');
    await idle();
    expect((await sdk.responses.retrieve(id)).id).toBe(id);
    await idle();
    expect((await sdk.responses.inputItems.list(id)).data).toHaveLength(1);
    await idle();
    expect((await next()).status).toBe('completed');
  });

  test('brings reasoning, sealed or not', async () => {
    const script = (): readonly string[] => ['<think>', 'Hm.', '</think>', 'Yes'];
    const sdk = await start({ engine: { reasoning: detectReasoning('<think></think>'), script } });
    const include = ['reasoning.encrypted_content' as const];
    const first = await sdk.responses.create({ ...RESPONSE, include, store: true });
    expect(first.output[0]).toMatchObject({ type: 'reasoning' });
    // Sent back as it came, and stored by the second.
    const second = await sdk.responses.create({
      ...RESPONSE,
      input: [{ role: 'user', content: 'Hi' }, ...(first.output as OpenAI.Responses.ResponseInput)],
      store: true,
    });
    await sdk.responses.create({ ...RESPONSE, previous_response_id: second.id });
    expect(given().map(({ role, reasoning: thoughts }) => [role, thoughts])).toEqual([
      ['user', undefined],
      ['assistant', 'Hm.'],
      // Of the second answer.
      ['assistant', 'Hm.'],
      ['user', undefined],
    ]);
  });
});

describe('input_items', () => {
  test('are all that was answered, in pages, either way round', async () => {
    const sdk = await start();
    const input = ['a', 'b', 'c'].map((content) => ({ role: 'user' as const, content }));
    const first = await sdk.responses.create({ ...RESPONSE, input, store: true });
    const { id } = await sdk.responses.create({ ...RESPONSE, previous_response_id: first.id, store: true });
    const told: unknown[] = [];
    for await (const item of sdk.responses.inputItems.list(id, { limit: 2, order: 'asc' }))
      told.push(item.type === 'message' ? [item.role, (item.content[0] as { text: string }).text] : item);
    expect(told).toEqual([
      ['user', 'a'],
      ['user', 'b'],
      ['user', 'c'],
      ['assistant', 'Hello, world!'],
      ['user', 'Hi'],
    ]);
    const page = await sdk.responses.inputItems.list(id);
    expect([page.data.length, page.has_more, page.data[0]]).toMatchObject([5, false, { role: 'user' }]);
    await expect(sdk.responses.inputItems.list(id, { after: 'msg_1' })).rejects.toMatchObject({
      status: 400,
      param: 'after',
    });
    await expect(sdk.responses.inputItems.list(id, { limit: 101 })).rejects.toMatchObject({
      status: 400,
      param: 'limit',
    });
  });
});

test('where nothing is stored it is refused, and nothing is found', async () => {
  api = await startApi();
  const sdk = client();
  await expect(sdk.responses.create({ ...RESPONSE, store: true })).rejects.toMatchObject({
    status: 400,
    code: 'unsupported_parameter',
    param: 'store',
  });
  await expect(sdk.responses.create({ ...RESPONSE, previous_response_id: 'resp_1' })).rejects.toMatchObject({
    status: 400,
    code: 'unsupported_parameter',
    param: 'previous_response_id',
  });
  await expect(sdk.responses.retrieve('resp_1')).rejects.toMatchObject({
    status: 404,
    code: 'response_not_found',
  });
});

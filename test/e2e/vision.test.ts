// A model that sees, on the real server: registered as a folder with its projector, asked with the OpenAI
// SDK, attested with both files.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tokenizeAnswer } from '../../src/api/response-schemas.ts';
import { startRealServer, type RealServer } from '../fixtures/e2e/real-server.ts';
import { dataUri, picture, withText } from '../fixtures/images.ts';
import { adapterFile, folded, randomPairs, TINY_TARGETS } from '../fixtures/models/gguf-adapter.ts';
import { TILE_TOKENS, visionProjector, visionText } from '../fixtures/models/vision-model.ts';
import { haveVision } from '../fixtures/native/libraries.ts';

/** An adapter of the model that sees. */
const tint = randomPairs({ targets: TINY_TARGETS, seed: 5 });
let folder: string;
let server: RealServer;
let client: OpenAI;
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-vision-'));
  const places = {
    'sees/tiny.gguf': visionText(),
    'sees/mmproj-tiny.gguf': visionProjector(),
    'blind/tiny.gguf': visionText(),
    'other/tiny.gguf': visionText(),
    'other/mmproj-tiny.gguf': visionProjector({
      metadata: { 'clip.projector_type': { string: 'llama4' } },
    }),
    'folded/tiny.gguf': await folded(visionText(), tint, 8 / 4),
    'folded/mmproj-tiny.gguf': visionProjector(),
    'tinted.gguf': adapterFile(tint),
    'hub/config.json': Buffer.from('{"architectures":["LlavaForConditionalGeneration"],"vision_config":{}}'),
    'damaged/tiny.gguf': visionText(),
    'damaged/mmproj-tiny.gguf': visionProjector({ metadata: { 'clip.vision.patch_size': { u32: 0 } } }),
  };
  for (const [name, bytes] of Object.entries(places)) {
    await mkdir(join(folder, 'models', name, '..'), { recursive: true });
    await writeFile(join(folder, 'models', name), bytes);
  }
  const roots = JSON.stringify(join(folder, 'models'));
  await writeFile(
    join(folder, 'assay.toml'),
    `[store]\nmodel_roots = [${roots}]\n[responses]\nstore = true\n[images]\nfetch = true\n`,
  );
  server = await startRealServer({
    dataFolder: join(folder, 'data'),
    args: ['--config', join(folder, 'assay.toml')],
  });
  client = new OpenAI({
    baseURL: `${server.url}/v1`,
    apiKey: 'unused',
    maxRetries: 0,
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
    fetch: ((url: string, init: object) =>
      plainFetch(url, { ...init, dispatcher })) as unknown as typeof fetch,
  });
}, 60_000);
afterAll(async () => {
  await dispatcher.close();
  expect(await server.stop()).toBe(0);
  await rm(folder, { recursive: true });
});

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>> & {
    readonly error?: { readonly code: string; readonly param: string | null; readonly message: string };
  };
}

async function call(method: string, path: string, body?: object): Promise<Answer> {
  const response = await plainFetch(`${server.url}${path}`, {
    method,
    headers: body === undefined ? {} : { 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
    dispatcher,
  });
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- each field is compared where it is used
  return { status: response.status, body: (await response.json()) as Answer['body'] };
}

function register(name: string, format?: string): Promise<Answer> {
  return call('POST', '/v1/models', { name, path: join(folder, 'models', name), format });
}

test.each([
  ['no projector', 'blind', /no projector/],
  ['a projector of another kind', 'other', /llama4/],
  ['another architecture of a hub', 'hub', /LlavaForConditionalGeneration is not converted/],
])('vision is refused by name where the folder has %s', async (_, name, message) => {
  const { status, body } = await register(name, 'vision');
  expect({ status, code: body.error?.code }).toEqual({ status: 400, code: 'unsupported_model_format' });
  expect(body.error?.message).toMatch(haveVision ? message : /make native/);
});

test('a projector that libmtmd would fail on is refused before it is read', async () => {
  const { status, body } = await register('damaged');
  expect({ status, code: body.error?.code }).toEqual({ status: 400, code: 'invalid_gguf' });
  expect(body.error?.message).toContain('clip.vision.patch_size');
});

test('without the library the folder is a model that does not see, and says so', async () => {
  const { status, body } = await register('sees');
  expect(status).toBe(201);
  expect(body['capabilities']).toEqual(
    haveVision
      ? ['completion', 'chat', 'tools', 'structured_output', 'vision']
      : ['completion', 'chat', 'tools', 'structured_output'],
  );
  expect(body['projector']).toMatchObject({ used: haveVision });
});

describe.skipIf(!haveVision)('a model that sees', () => {
  beforeAll(async () => {
    expect(await register('sees', 'vision')).toMatchObject({ status: 201, body: { kind: 'manifest' } });
  });

  const ask = (seed: number, text = 'What is this?', model = 'sees') =>
    client.chat.completions.create({
      model,
      temperature: 0,
      max_tokens: 12,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image_url', image_url: { url: dataUri(picture(48, 48, seed)), detail: 'high' } },
            { type: 'text', text },
          ],
        },
      ],
    });

  test('the OpenAI SDK asks about an image, whose tokens are counted', async () => {
    const [one, two] = [await ask(1), await ask(2)];
    const blind = await client.chat.completions.create({
      model: 'sees',
      temperature: 0,
      max_tokens: 12,
      messages: [{ role: 'user', content: 'What is this?' }],
    });
    expect(one.choices[0]?.message.content).not.toBe(two.choices[0]?.message.content);
    expect(one.choices[0]?.message.content).not.toBe(blind.choices[0]?.message.content);
    expect(one.usage?.completion_tokens).toBe(12);
    // Four tiles and the overview, and more than as many marks.
    const more = (one.usage?.prompt_tokens ?? 0) - (blind.usage?.prompt_tokens ?? 0);
    expect(more).toBeGreaterThan(5 * TILE_TOKENS);
  });

  test('an adapter of it sees as a model with the same weights does, also behind the images of its base', async () => {
    expect((await register('folded', 'vision')).status).toBe(201);
    const path = join(folder, 'models/tinted.gguf');
    const loaded = await call('POST', '/v1/lora/load', {
      model: 'sees',
      lora_name: 'tinted',
      lora_path: path,
    });
    expect(loaded.status, JSON.stringify(loaded.body)).toBe(200);
    expect((await call('GET', '/v1/models/tinted')).body).toMatchObject({
      parent: 'sees',
      capabilities: ['completion', 'chat', 'tools', 'structured_output', 'vision'],
      projector: { used: true },
    });
    for (const seed of [31, 32]) {
      const [base, tinted, whole] = [await ask(seed), await ask(seed, undefined, 'tinted'), await ask(seed, undefined, 'folded')]; // prettier-ignore
      expect(tinted.choices[0]?.message.content).toBe(whole.choices[0]?.message.content);
      expect(tinted.choices[0]?.message.content).not.toBe(base.choices[0]?.message.content);
      expect(tinted.usage?.prompt_tokens).toBe(base.usage?.prompt_tokens);
    }
    expect((await call('POST', '/v1/lora/unload', { lora_name: 'tinted' })).status).toBe(200);
  });

  test('/v1/tokenize counts an image as the prompt does, and gives no token of the vocabulary for it', async () => {
    const content = [
      { type: 'image_url', image_url: { url: dataUri(picture(48, 48, 41)), detail: 'high' } },
      { type: 'text', text: 'What is this?' },
    ];
    const messages = [{ role: 'user', content }];
    const { status, body } = await call('POST', '/v1/tokenize', {
      model: 'sees',
      messages,
      with_pieces: true,
    });
    expect(status, JSON.stringify(body)).toBe(200);
    expect(body['count']).toBe((await ask(41)).usage?.prompt_tokens);
    const tokens = body['tokens'] as readonly { readonly id: number; readonly piece: string }[];
    expect(tokens).toHaveLength(body['count'] as number);
    const vectors = tokens.filter(({ id }) => id < 0);
    expect(vectors).toEqual(Array.from({ length: 5 * TILE_TOKENS }, () => ({ id: -1, piece: '' })));
    tokenizeAnswer.read(body, '');
  });

  test('the same pixels are found again, others are not', async () => {
    const first = await ask(7);
    const again = await ask(7);
    const other = await ask(8);
    expect(again.choices[0]?.message.content).toBe(first.choices[0]?.message.content);
    expect(again.usage?.prompt_tokens_details?.cached_tokens).toBe((again.usage?.prompt_tokens ?? 0) - 1);
    expect(other.usage?.prompt_tokens_details?.cached_tokens).toBeLessThan(12);
  });

  test('responses take an input_image, and a stream is as its answer', async () => {
    const content = [
      { type: 'input_image' as const, detail: 'auto' as const, image_url: dataUri(picture(48, 48, 1)) },
      { type: 'input_text' as const, text: 'What is this?' },
    ];
    const asked = {
      model: 'sees',
      temperature: 0,
      max_output_tokens: 16,
      input: [{ role: 'user' as const, content }],
    };
    const answer = await client.responses.create(asked);
    let streamed = '';
    for await (const event of await client.responses.create({ ...asked, stream: true }))
      if (event.type === 'response.output_text.delta') streamed += event.delta;
    expect(answer.output_text).not.toBe('');
    expect(streamed).toBe(answer.output_text);
  });

  test("Anthropic's SDK asks about an image, alone and in the result of a tool", async () => {
    const sdk = new Anthropic({
      baseURL: server.url,
      apiKey: 'unused',
      maxRetries: 0,
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- undici's own types of the same function
      fetch: ((url: string, init: object) =>
        plainFetch(url, { ...init, dispatcher })) as unknown as typeof fetch,
    });
    const imageOf = (seed: number) => ({
      type: 'image' as const,
      source: {
        type: 'base64' as const,
        media_type: 'image/png' as const,
        data: picture(48, 48, seed).toString('base64'),
      },
    });
    const tell = async (content: Anthropic.MessageParam['content']) => {
      const asked = {
        model: 'sees',
        temperature: 0,
        max_tokens: 12,
        messages: [{ role: 'user' as const, content }],
      };
      const { model, messages } = asked;
      const counted = await sdk.messages.countTokens({ model, messages });
      const { content: said, usage } = await sdk.messages.create(asked);
      const streamed = await sdk.messages.stream(asked).finalMessage();
      expect(streamed.content).toEqual(said);
      expect(counted.input_tokens).toBe(usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
      return {
        said: said.map((block) => (block.type === 'text' ? block.text : '')).join(''),
        tokens: usage.input_tokens,
      };
    };
    const question = { type: 'text' as const, text: 'What is this?' };
    const [one, two, blind] = [await tell([imageOf(1), question]), await tell([imageOf(2), question]), await tell([question])]; // prettier-ignore
    expect(new Set([one.said, two.said, blind.said]).size).toBe(3);
    // The same message to the same model: as a chat.
    expect(one.said).toBe((await ask(1)).choices[0]?.message.content);
    const result = { type: 'tool_result' as const, tool_use_id: 'toolu_1' };
    const shown = await tell([{ ...result, content: [imageOf(1), question] }]);
    const bare = await tell([{ ...result, content: [question] }]);
    expect(shown.tokens - bare.tokens).toBeGreaterThan(5 * TILE_TOKENS);
  });

  test('a stored response gives its image back, and is gone on from', async () => {
    const url = dataUri(picture(48, 48, 1));
    const image = { type: 'input_image' as const, detail: 'auto' as const, image_url: url };
    const first = await client.responses.create({
      model: 'sees',
      temperature: 0,
      max_output_tokens: 16,
      store: true,
      input: [{ role: 'user', content: [{ type: 'input_text', text: 'ab' }, image, { type: 'input_text', text: 'cd' }] }],
    }); // prettier-ignore
    const { data } = await client.responses.inputItems.list(first.id);
    const content = [{ type: 'input_text', text: 'ab' }, image, { type: 'input_text', text: 'cd' }];
    expect(data).toMatchObject([{ type: 'message', role: 'user', content }]);
    const wishes = { model: 'sees', temperature: 0, max_output_tokens: 16 };
    const next = await client.responses.create({ ...wishes, previous_response_id: first.id, input: 'ef' });
    const whole = await client.responses.create({
      ...wishes,
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'ab' }, image, { type: 'input_text', text: 'cd' }] },
        { role: 'assistant', content: first.output_text },
        { role: 'user', content: 'ef' },
      ],
    }); // prettier-ignore
    expect(next.output_text).toBe(whole.output_text);
    expect(next.usage?.input_tokens).toBe(whole.usage?.input_tokens);
  });

  test('an address that leads inside, or nowhere, is refused without a word of it', async () => {
    const listener = createServer().listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const connected: unknown[] = [];
    listener.on('connection', (socket) => connected.push(socket.destroy()));
    const { port } = listener.address() as AddressInfo;
    const name = `canary${randomBytes(9).toString('hex')}`;
    const addresses = [
      `127.0.0.1:${port}`,
      `localhost:${port}`,
      `[::ffff:127.0.0.1]:${port}`,
      `${name}.invalid`,
    ];
    for (const address of addresses) {
      const content = [{ type: 'image_url', image_url: { url: `https://${address}/${name}.png` } }];
      const { status, body } = await call('POST', '/v1/chat/completions', { model: 'sees', messages: [{ role: 'user', content }] }); // prettier-ignore
      expect({ status, ...body.error }).toMatchObject({
        status: 400,
        code: 'image_not_fetched',
        message:
          'messages[0].content[0].image_url.url leads to no file: expected an https address on the public network that answers 200 in time',
      });
    }
    expect(connected).toEqual([]);
    expect(server.stdout() + server.stderr()).not.toContain(name);
    listener.close();
  });

  test('the evidence names both files', async () => {
    const { body } = await call('GET', '/v1/models/sees');
    const digest = (bytes: Uint8Array) =>
      import('node:crypto').then(({ createHash }) => createHash('sha256').update(bytes).digest('hex'));
    expect(body['projector']).toMatchObject({ sha256: await digest(visionProjector()), used: true });
    const attested = JSON.stringify((await call('GET', `/v1/attestation?nonce=${'ab'.repeat(16)}`)).body);
    expect(attested).toContain(await digest(visionProjector()));
    expect(attested).toContain(await digest(visionText()));
  });

  test('a damaged image is a refusal that names it, and the model goes on', async () => {
    const whole = picture(48, 48, 3);
    const damaged = Buffer.concat([whole.subarray(0, 60), whole.subarray(90)]);
    const { status, body } = await call('POST', '/v1/chat/completions', {
      model: 'sees',
      messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: dataUri(damaged) } }] }],
    });
    expect({ status, ...body.error }).toMatchObject({
      status: 400,
      code: 'invalid_image',
      param: 'messages[0].content[0].image_url.url',
    });
    expect((await ask(1)).choices[0]?.finish_reason).toBe('length');
  });

  test('no byte of an image is in a log or on the disk', async () => {
    const secret = `canary${randomBytes(9).toString('hex')}`;
    const file = withText(picture(48, 48, 9), secret);
    const url = dataUri(file);
    const ask_ = (bytes: string, model = 'sees') =>
      call('POST', '/v1/chat/completions', {
        model,
        max_tokens: 2,
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: bytes } }] }],
      });
    expect((await ask_(url)).status).toBe(200);
    const damaged = withText(picture(48, 48, 9).subarray(0, 300), secret);
    const refusals = [await ask_(dataUri(damaged)), await ask_(url, 'demo-chat'), await ask_(`${url}*`)];
    expect(refusals.map(({ status }) => status)).toEqual([400, 400, 400]);
    const needles = [secret, Buffer.from(secret).toString('base64').slice(4, -4)];
    const sinks = [server.stdout(), server.stderr(), JSON.stringify(refusals)];
    for (const name of await readdir(join(folder, 'data'), { recursive: true })) {
      const path = join(folder, 'data', name);
      if ((await stat(path)).isFile()) sinks.push((await readFile(path)).toString('latin1'));
    }
    expect(sinks.length).toBeGreaterThan(5);
    for (const needle of needles) expect(sinks.filter((sink) => sink.includes(needle))).toEqual([]);
  });

  test('a model without vision refuses an image by name', async () => {
    const { status, body } = await call('POST', '/v1/chat/completions', {
      model: 'demo-chat',
      messages: [
        { role: 'user', content: [{ type: 'image_url', image_url: { url: dataUri(picture(8, 8)) } }] },
      ],
    });
    expect({ status, ...body.error }).toMatchObject({ status: 400, code: 'unsupported_parameter' });
  });

  test('what does not fit the context is refused before a pixel is read', async () => {
    const image = { type: 'image_url', image_url: { url: dataUri(picture(64, 64, 5)) } };
    const content = Array.from({ length: 16 }, () => image);
    const { status, body } = await call('POST', '/v1/chat/completions', {
      model: 'sees',
      stream: true,
      messages: [{ role: 'user', content: [...content, { type: 'text', text: 'a b '.repeat(150) }] }],
    });
    expect({ status, code: body.error?.code }).toEqual({ status: 400, code: 'context_length_exceeded' });
  });
});

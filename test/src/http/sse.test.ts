// Streams: clients that leave in every phase, readers that are slow, silence, padding.

import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest } from 'node:http';
import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { ApiError } from '../../../src/base/errors.ts';
import {
  type ApiServer,
  type ApiServerOptions,
  events,
  post,
  startApi,
} from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}): Promise<void> {
  return void (api = await startApi(options));
}
afterEach(() => api.close());

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };
const STREAMED = { ...CHAT, stream: true };

describe('a client that leaves', () => {
  test.each([true, false])(
    'in the queue (stream: %s): its place in the queue is gone, its neighbour goes on',
    async (stream) => {
      const running = latch();
      const door = latch();
      const queued = latch();
      await start({
        engine: {
          slots: 1,
          onQueued: () => queued.open(),
          prefill: () => {
            running.open();
            return door.opened;
          },
        },
      });
      const neighbour = post(api, '/v1/chat/completions', CHAT);
      await running.opened;
      const controller = new AbortController();
      const leaving = post(api, '/v1/chat/completions', { ...CHAT, stream }, { signal: controller.signal });
      await queued.opened;
      controller.abort();
      await expect(leaving).rejects.toThrow(/abort/);
      await api.ended(1);
      door.open();
      expect((await neighbour).status).toBe(200);
      await api.models.idle();
      expect(api.engine.aborted).toEqual(['queued']);
      expect(api.records[0]).toMatchObject({ aborted: true, completionTokens: 0 });
    },
  );

  test.each([true, false])('in the prefill (stream: %s)', async (stream) => {
    const reached = latch();
    await start({
      engine: {
        prefill: (signal) => {
          reached.open();
          return untilAborted(signal);
        },
      },
    });
    const controller = new AbortController();
    const leaving = post(
      api,
      '/v1/chat/completions',
      { ...CHAT, stream },
      { signal: controller.signal },
    ).then((response) => response.text());
    await reached.opened;
    controller.abort();
    await expect(leaving).rejects.toThrow(/abort/);
    await api.ended();
    await api.models.idle();
    expect(api.engine.aborted).toEqual(['prefill']);
    expect(api.logged.at(-1)).toMatchObject({
      msg: 'request',
      code: 'client_closed_request',
      status: stream ? 200 : 499,
      aborted: true,
    });
  });

  test.each([true, false])('in the decode (stream: %s)', async (stream) => {
    const reached = latch();
    await start({
      engine: {
        async beforeToken(position, signal) {
          if (position < 3) return;
          reached.open();
          await untilAborted(signal);
        },
      },
    });
    const controller = new AbortController();
    const leaving = post(
      api,
      '/v1/chat/completions',
      { ...CHAT, stream },
      { signal: controller.signal },
    ).then((response) => response.text());
    await reached.opened;
    controller.abort();
    await expect(leaving).rejects.toThrow(/abort/);
    expect((await api.ended())[0]).toMatchObject({ aborted: true, completionTokens: 3 });
    await api.models.idle();
    expect(api.engine.aborted).toEqual(['decode']);
  });
});

describe('a client that leaves, beside others and early', () => {
  test('a cancelled stream does not end its neighbour', async () => {
    const door = latch();
    const both = latch();
    let holding = 0;
    await start({
      engine: {
        async beforeToken(position, signal) {
          if (position !== 2) return;
          holding += 1;
          if (holding === 2) both.open();
          await Promise.race([door.opened, untilAborted(signal)]);
        },
      },
    });
    const controller = new AbortController();
    const leaving = post(api, '/v1/chat/completions', STREAMED, { signal: controller.signal }).then(
      (response) => response.text(),
    );
    const staying = post(api, '/v1/chat/completions', STREAMED).then(events);
    await both.opened;
    controller.abort();
    await expect(leaving).rejects.toThrow(/abort/);
    await api.ended(1);
    door.open();
    expect((await staying).at(-1)).toBe('[DONE]');
  });

  test('while the body is still coming', async () => {
    await start();
    const { port } = new URL(api.url);
    const request = httpRequest({
      host: '127.0.0.1',
      port,
      method: 'POST',
      path: '/v1/chat/completions',
      headers: { 'content-type': 'application/json', 'content-length': 1000 },
    });
    request.on('error', () => undefined);
    request.write('{"model":');
    await once(request, 'socket');
    await new Promise<void>((resolve) => request.write(' ', () => resolve()));
    request.destroy();
    expect((await api.ended())[0]).toMatchObject({ aborted: true });
    expect(api.engine.requests).toEqual([]);
  });
});

describe('several prompts in one stream', () => {
  const three = { model: 'demo', prompt: ['a', 'b', 'c'], stream: true };

  test('one fails: all end, with one error event', async () => {
    await start({
      engine: {
        failAt: {
          position: 2,
          error: new ApiError('engine_crashed', 'the engine ended', { retryAfterSeconds: 1 }),
        },
      },
    });
    const data = await events(await post(api, '/v1/completions', three));
    expect(data.filter((each) => each.includes('"error"'))).toHaveLength(1);
    expect(JSON.parse(data.at(-1) ?? '')).toMatchObject({ error: { code: 'engine_crashed' } });
    await api.models.idle();
    expect(api.engine.activeNow()).toBe(0);
  });

  test('the client leaves: all are aborted', async () => {
    let holding = 0;
    const all = latch();
    await start({
      engine: {
        async beforeToken(position, signal) {
          if (position < 1) return;
          holding += 1;
          if (holding === 3) all.open();
          await untilAborted(signal);
        },
      },
    });
    const controller = new AbortController();
    const leaving = post(api, '/v1/completions', three, { signal: controller.signal }).then((response) =>
      response.text(),
    );
    await all.opened;
    controller.abort();
    await expect(leaving).rejects.toThrow(/abort/);
    await api.ended();
    await api.models.idle();
    expect(api.engine.activeNow()).toBe(0);
    expect(api.engine.aborted).toEqual(['decode', 'decode', 'decode']);
  });
});

test('a slow reader stops its own generation, and loses nothing', async () => {
  const tokens = Array.from({ length: 4000 }, (_, i) => `${i} `.padEnd(2000, '.'));
  let given = 0;
  const noticed = latch();
  await start({
    engine: {
      script: () => tokens,
      async beforeToken(position) {
        given = position;
        noticed.open();
      },
    },
  });
  const { port } = new URL(api.url);
  const request = httpRequest({
    host: '127.0.0.1',
    port,
    method: 'POST',
    path: '/v1/chat/completions',
    headers: { 'content-type': 'application/json' },
  });
  request.end(JSON.stringify(STREAMED));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.pause();
  await noticed.opened;
  // Others are served while this one waits; a few rounds give the stalled one every chance to run on.
  for (let i = 0; i < 20; i++) await (await fetch(`${api.url}/health`)).text();
  const stalled = given;
  for (let i = 0; i < 20; i++) await (await fetch(`${api.url}/health`)).text();
  expect(given).toBe(stalled);
  expect(given).toBeLessThan(tokens.length - 1);
  let text = '';
  response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  response.resume();
  await once(response, 'end');
  const contents = text
    .split('\n\n')
    .filter((block) => block.startsWith('data: {'))
    .map(
      (block) =>
        (JSON.parse(block.slice(6)) as { choices: { delta: { content?: string } }[] }).choices[0]?.delta
          .content ?? '',
    );
  expect(contents.join('')).toBe(tokens.join(''));
});

test('a reader that takes nothing at all is cut off, and its slot is free', async () => {
  const tokens = Array.from({ length: 4000 }, () => '.'.repeat(4000));
  await start({
    config: { timeouts: { ...DEFAULT_CONFIG.timeouts, stallMs: 50 } },
    engine: { script: () => tokens },
  });
  const { port } = new URL(api.url);
  const request = httpRequest({
    host: '127.0.0.1',
    port,
    method: 'POST',
    path: '/v1/chat/completions',
    headers: { 'content-type': 'application/json' },
  });
  request.on('error', () => undefined);
  request.end(JSON.stringify(STREAMED));
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  response.on('error', () => undefined);
  response.pause();
  expect((await api.ended())[0]).toMatchObject({ aborted: true });
  await api.models.idle();
  expect(api.engine.activeNow()).toBe(0);
  expect(api.logged.find((line) => line['msg'] === 'request')).toMatchObject({
    code: 'client_too_slow',
    aborted: true,
  });
  request.destroy();
});

test('silence is filled with comments, and only silence', async () => {
  const door = latch();
  await start({
    config: { timeouts: { ...DEFAULT_CONFIG.timeouts, heartbeatMs: 20 } },
    engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) },
  });
  const response = await post(api, '/v1/chat/completions', STREAMED);
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  let text = '';
  while (!text.includes(': keep-alive\n\n: keep-alive\n\n'))
    text += Buffer.from((await reader.read()).value ?? []).toString();
  door.open();
  for (let part = await reader.read(); !part.done; part = await reader.read())
    text += Buffer.from(part.value).toString();
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true);
  expect(text.indexOf(': keep-alive')).toBeGreaterThan(text.indexOf('"content":","'));
  // A comment is a block of its own: no event is cut by one.
  for (const block of text.split('\n\n'))
    expect(block === '' || block === ': keep-alive' || block.startsWith('data: ')).toBe(true);
});

function script(): string[] {
  return ['a', 'ab', 'ä', '"', '\u0001', 'a longer piece of text', '日本語', 'x'.repeat(90), 'x'.repeat(200)];
}
async function sizes(extra: object = {}): Promise<{ lengths: number[]; data: string[] }> {
  const data = await events(await post(api, '/v1/chat/completions', { ...STREAMED, ...extra }));
  return { lengths: data.slice(0, -1).map((each) => Buffer.byteLength(each)), data };
}

describe('padding', () => {
  test('is on: every event has one length, except for text beyond a slot', async () => {
    await start({ engine: { script } });
    const { lengths, data } = await sizes();
    const common = lengths[0] as number;
    expect(lengths.filter((length) => length !== common)).toEqual([common + 128]);
    expect(data[0]).toContain('"obfuscation":"');
  });

  test('content is not changed by it', async () => {
    await start({ engine: { script } });
    const { data } = await sizes();
    expect(
      data
        .slice(0, -1)
        .map(
          (each) =>
            (JSON.parse(each) as { choices: { delta: { content?: string } }[] }).choices[0]?.delta.content ??
            '',
        )
        .join(''),
    ).toBe(script().join(''));
  });

  test('include_obfuscation: false switches it off, true on', async () => {
    await start({ engine: { script } });
    expect((await sizes({ stream_options: { include_obfuscation: false } })).data.join('')).not.toContain(
      'obfuscation',
    );
    await api.close();
    await start({ engine: { script }, config: { streamPadding: false } });
    expect((await sizes()).data.join('')).not.toContain('obfuscation');
    expect((await sizes({ stream_options: { include_obfuscation: true } })).data[0]).toContain('obfuscation');
  });
});

// The routes of sound over a scripted engine: limits, tenants, queue and abort as in every dialect, whole and
// streamed; sizes of events; and a server without the library that hears.

import { afterEach, describe, expect, test, vi } from 'vitest';
import { ApiError } from '../../../../src/base/errors.ts';
import {
  apiKey,
  type ApiServer,
  type ApiServerOptions,
  events,
  startApi,
} from '../../../fixtures/http/api-server.ts';
import type { FakeEngine, FakeEngineOptions } from '../../../fixtures/engine/fake-engine.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let api: ApiServer;
afterEach(() => api.close());
afterEach(() => vi.doUnmock('../../../../src/base/native-library.ts'));

async function start(engine: FakeEngineOptions = {}, options: ApiServerOptions = {}): Promise<void> {
  const engines = { whisper: { type: 'transcription', slots: 1, ...engine } as const };
  api = await startApi({ engines, ...options });
}

function hearing(): FakeEngine {
  return api.models.engines.get('whisper') as FakeEngine;
}

interface Asked extends RequestInit {
  readonly route?: string;
  readonly sound?: string;
}

function ask(fields: Readonly<Record<string, string>> = {}, { route, sound, ...init }: Asked = {}) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ model: 'whisper', ...fields })) form.append(name, value);
  form.append('file', new Blob([sound ?? 'sound']));
  const path = `/v1/audio/${route ?? 'transcriptions'}`;
  return fetch(api.url + path, { method: 'POST', body: form, ...init });
}

function as(key: string): RequestInit {
  return { headers: { authorization: `Bearer ${key}` } };
}

async function codeOf(response: Response): Promise<readonly [status: number, code: string | undefined]> {
  const body = (await response.json()) as { readonly error?: { readonly code: string } };
  return [response.status, body.error?.code];
}

const KEYS = [apiKey('one', { limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 1 } }), apiKey('two', { models: ['other'] }), apiKey('three')]; // prettier-ignore
const WITH_KEYS: ApiServerOptions = { config: { auth: { required: true, adminEnabled: true, keys: KEYS } } };

describe.each([
  ['whole', {}],
  ['streamed', { stream: 'true' }],
] as const)('%s', (_, fields) => {
  test('is answered by the same words, and recorded', async () => {
    await start();
    const text = await (await ask(fields)).text();
    expect(text).toContain('Hello, world!');
    expect((await api.ended())[0]).toMatchObject({ route: '/v1/audio/transcriptions', status: 200, aborted: false }); // prettier-ignore
    expect(api.models.leases()).toBe(0);
  });

  test('needs a key, and one that may use the model', async () => {
    await start({}, WITH_KEYS);
    expect((await ask(fields)).status).toBe(401);
    expect(await codeOf(await ask(fields, as('two')))).toEqual([403, 'model_not_allowed']);
  });

  test('keys have scopes of their own, by which they take turns', async () => {
    await start({}, WITH_KEYS);
    for (const key of ['one', 'three', 'one']) await (await ask(fields, as(key))).text();
    const [first, second, third] = hearing().sounds.map(({ scope }) => scope);
    expect(first).toBe(third);
    expect(first).toBeDefined();
    expect(first).not.toBe(second);
  });

  test('more at once than a key may is refused, and other keys are not', async () => {
    const held = latch();
    await start({ slots: 2, beforeToken: () => held.opened }, WITH_KEYS);
    const running = ask(fields, as('one'));
    await api.begun(1);
    expect((await ask(fields, as('one'))).status).toBe(429);
    const other = ask(fields, as('three'));
    await api.begun(2);
    held.open();
    for (const each of [running, other]) expect(await (await each).text()).toContain('Hello, world!');
  });

  test('is refused when the queue of the model is full', async () => {
    const [held, queued] = [latch(), latch()];
    await start({ maxQueue: 1, beforeToken: () => held.opened, onQueued: () => queued.open() });
    const running = ask(fields);
    await api.begun(1);
    const waiting = ask(fields);
    await queued.opened;
    const refused = await ask(fields);
    expect(await codeOf(refused)).toEqual([429, 'engine_overloaded']);
    expect(refused.headers.has('retry-after')).toBe(true);
    held.open();
    for (const each of [running, waiting]) expect(await (await each).text()).toContain('Hello, world!');
  });

  test.each(['prefill', 'decode'] as const)('a client that leaves in %s ends its work', async (phase) => {
    const there = latch();
    const hold = (signal: AbortSignal): Promise<void> => {
      there.open();
      return untilAborted(signal);
    };
    const third = (at: number, signal: AbortSignal): Promise<void> =>
      at < 2 ? Promise.resolve() : hold(signal);
    await start(phase === 'prefill' ? { prefill: hold } : { beforeToken: third });
    const controller = new AbortController();
    const answer = ask(fields, { signal: controller.signal }).then((response) => response.text());
    await Promise.race([there.opened, answer]);
    controller.abort();
    await expect(answer).rejects.toThrow();
    await api.ended();
    await api.models.idle();
    expect(hearing().aborted).toEqual([phase]);
    expect(hearing().activeNow()).toBe(0);
  });

  test('a file that is no sound is refused with its status', async () => {
    await start();
    expect(await codeOf(await ask(fields, { sound: '' }))).toEqual([400, 'invalid_audio']);
  });
});

test('a translation is asked for as one, without a language', async () => {
  await start();
  await (await ask({}, { route: 'translations' })).text();
  expect(hearing().sounds).toMatchObject([{ translate: true, language: undefined }]);
  expect(await codeOf(await ask({ language: 'de' }, { route: 'translations' }))).toEqual([400, 'unknown_parameter']); // prettier-ignore
});

describe('sizes of events', () => {
  async function sizes(streamPadding: boolean): Promise<readonly number[]> {
    await start({}, { config: { streamPadding } });
    const lines = await events(await ask({ stream: 'true' }));
    expect(lines.at(-1)).toBe('[DONE]');
    return lines.slice(0, -1).map((line) => Buffer.byteLength(line));
  }

  test('are the same, whatever was said', async () => {
    const [first, ...others] = await sizes(true);
    expect(others.length).toBeGreaterThan(3);
    for (const size of others) expect(size).toBe(first);
  });

  test('are those of the texts where the server does not pad', async () => {
    expect(new Set(await sizes(false)).size).toBeGreaterThan(2);
  });
});

test('an engine that ends while it is heard is an error event, and the last one', async () => {
  await start({
    beforeToken: async (at) => {
      if (at === 2) hearing().crash(new ApiError('engine_crashed', 'the engine ended unexpectedly'));
    },
  });
  const lines = await events(await ask({ stream: 'true' }));
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ error: { code: 'engine_crashed' } });
});

test('a server without the library that hears says so', async () => {
  vi.doMock('../../../../src/base/native-library.ts', () => ({ nativeLibrary: () => undefined }));
  const { openEngine } = await import('../../../../src/engine/open.ts');
  await start();
  const open = openEngine({ workerEntry: 'no process is started' });
  api.models.acquire = async (_, { signal }) => {
    await open({ path: 'model', fd: 0, type: 'transcription' }, signal);
    throw new Error('it was opened');
  };
  for (const stream of ['false', 'true'])
    expect(await codeOf(await ask({ stream }))).toEqual([501, 'transcription_unavailable']);
});

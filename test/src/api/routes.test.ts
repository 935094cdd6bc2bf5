// The routes beside inference: models, pull, load and unload, health, metrics; and that every answer
// is as openapi.json says.

import { afterEach, describe, expect, test } from 'vitest';
import { ApiError } from '../../../src/base/errors.ts';
import {
  deletedAnswer,
  healthAnswer,
  loadAnswer,
  modelAnswer,
  modelListAnswer,
  pullEvent,
  pullStatusAnswer,
  statusAnswer,
  unloadAnswer,
} from '../../../src/api/response-schemas.ts';
import type { Shape } from '../../../src/base/shape.ts';
import {
  type ApiServer,
  type ApiServerOptions,
  type ErrorAnswer,
  events,
  post,
  startApi,
} from '../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../fixtures/latch.ts';
import type { PullEvent } from '../../../src/models/seam.ts';

let api: ApiServer;
async function start(options: ApiServerOptions = {}): Promise<void> {
  return void (api = await startApi(options));
}
afterEach(() => api.close());

async function read<T>(response: Response, shape: Shape<T>, status = 200): Promise<T> {
  const body = await response.json();
  expect([response.status, body]).toEqual([status, expect.anything()]);
  return shape.read(body, '');
}
function get(path: string): Promise<Response> {
  return fetch(api.url + path);
}
function del(path: string): Promise<Response> {
  return fetch(api.url + path, { method: 'DELETE' });
}
async function codeOf(response: Response): Promise<[number, string]> {
  return [response.status, ((await response.json()) as ErrorAnswer).error.code];
}

describe('models', () => {
  test('list, one, with slashes encoded and not', async () => {
    await start({ engines: { 'owner/repo:Q4_K_M': {} } });
    const { data } = await read(await get('/v1/models'), modelListAnswer);
    expect(data.map((model) => model.id)).toEqual(['demo', 'text-embed', 'reranker', 'owner/repo:Q4_K_M']);
    for (const path of ['/v1/models/owner%2Frepo%3AQ4_K_M', '/v1/models/owner/repo:Q4_K_M']) {
      expect((await read(await get(path), modelAnswer)).id).toBe('owner/repo:Q4_K_M');
    }
  });

  test('register and delete', async () => {
    await start();
    const model = await read(
      await post(api, '/v1/models', {
        name: 'llama3.2:3b',
        path: '/models/x.gguf',
        default_parameters: { temperature: 0.5 },
      }),
      modelAnswer,
      201,
    );
    expect(model).toMatchObject({ id: 'llama3.2:3b', loaded: false });
    expect(await read(await del('/v1/models/llama3.2:3b'), deletedAnswer)).toEqual({
      id: 'llama3.2:3b',
      object: 'model',
      deleted: true,
    });
    expect(await codeOf(await del('/v1/models/llama3.2:3b'))).toEqual([404, 'model_not_found']);
  });

  test.each<[string, object, number, string]>([
    ['a format that is none', { name: 'a', path: '/m', format: 'onnx' }, 400, 'invalid_value'],
    ['isq', { name: 'a', path: '/m', default_parameters: { isq: 4 } }, 400, 'invalid_type'],
    ['a reserved name', { name: 'pull', path: '/m' }, 400, 'invalid_value'],
    ['a name with a line break', { name: 'a\nb', path: '/m' }, 400, 'invalid_value'],
    ['a name that goes up', { name: '../../etc', path: '/m' }, 400, 'invalid_value'],
    ['a name of 10 kB', { name: 'a'.repeat(10_000), path: '/m' }, 400, 'string_above_max_length'],
    ['no path', { name: 'a' }, 400, 'missing_required_parameter'],
    ['no such file', { name: 'a', path: '/missing' }, 400, 'file_not_found'],
    ['a name that is taken', { name: 'demo', path: '/m' }, 409, 'model_already_exists'],
  ])('register refused: %s', async (_name, body, status, code) => {
    await start();
    const response = await post(api, '/v1/models', body);
    expect(response.headers.get('x-should-retry')).toBe(status === 409 ? 'false' : null);
    expect(await codeOf(response)).toEqual([status, code]);
  });

  test.each(['name', 'model', 'path'])('load, status and unload by %s', async (field) => {
    await start();
    expect(await read(await post(api, '/v1/models/load', { [field]: 'demo' }), loadAnswer)).toMatchObject({
      status: 'loaded',
      model: 'demo',
      type: 'chat',
      loaded_at: 1_700_000_000,
    });
    expect(await read(await post(api, '/v1/models/load', { [field]: 'demo' }), loadAnswer)).toMatchObject({
      status: 'already_loaded',
    });
    expect(await read(await get('/v1/models/status'), statusAnswer)).toMatchObject({
      loaded_count: 1,
      models: [{ name: 'demo', type: 'chat', loaded_at: 1_700_000_000, has_tokenizer: true }],
    });
    expect(await read(await post(api, '/v1/models/unload', { [field]: 'demo' }), unloadAnswer)).toEqual({
      status: 'unloaded',
      model: 'demo',
    });
    expect(await codeOf(await post(api, '/v1/models/unload', { [field]: 'demo' }))).toEqual([
      404,
      'model_not_loaded',
    ]);
    expect(await codeOf(await post(api, '/v1/models/load', { [field]: 'none' }))).toEqual([
      404,
      'model_not_found',
    ]);
  });

  test('a request loads its model', async () => {
    await start();
    await (await post(api, '/v1/completions', { model: 'demo', prompt: 'x' })).text();
    expect((await read(await get('/v1/models/status'), statusAnswer)).loaded_count).toBe(1);
  });
});

async function parsed(response: Response): Promise<Record<string, unknown>[]> {
  return (await events(response)).map((each) => JSON.parse(each) as Record<string, unknown>);
}

describe('pull', () => {
  const name = 'bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M';

  test('progress as events, the last one terminal', async () => {
    await start();
    const response = await post(api, '/v1/models/pull', { name });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    const all = await parsed(response);
    for (const each of all) pullEvent.read(each, '');
    expect(all).toEqual([
      { status: 'downloading', completed: 5, total: 10 },
      { status: 'verifying' },
      { status: 'success', id: name, object: 'model' },
    ]);
  });

  test('its state, by an encoded name and a plain one', async () => {
    await start();
    await (await post(api, '/v1/models/pull', { name })).text();
    for (const path of [encodeURIComponent(name), 'bartowski%2FLlama-3.2-3B-Instruct-GGUF:Q4_K_M', name]) {
      expect(await read(await get(`/v1/models/pull/${path}/status`), pullStatusAnswer)).toMatchObject({
        name,
        status: 'pulling',
        completed: 5,
        total: 10,
      });
    }
    expect(await codeOf(await get('/v1/models/pull/other/status'))).toEqual([404, 'pull_state_not_found']);
    expect(await (await del(`/v1/models/pull/${encodeURIComponent(name)}`)).json()).toEqual({
      name,
      cancelled: true,
    });
    expect(await codeOf(await del(`/v1/models/pull/${name}`))).toEqual([404, 'pull_state_not_found']);
  });

  test('refused at once: a plain error', async () => {
    await start({
      // eslint-disable-next-line require-yield
      pull: async function* () {
        throw new ApiError('invalid_model_name', 'name is not owner/repo:QUANT', { param: 'name' });
      },
    });
    expect(await codeOf(await post(api, '/v1/models/pull', { name: '??' }))).toEqual([
      400,
      'invalid_model_name',
    ]);
  });

  test('failed on the way: one error event in both forms', async () => {
    await start({
      pull: async function* (): AsyncIterable<PullEvent> {
        yield { status: 'resuming', offset: 1, total: 2 };
        throw new ApiError('digest_mismatch', 'the file is not what the hub says it is', { status: 502 });
      },
    });
    const all = await parsed(await post(api, '/v1/models/pull', { name }));
    expect(all).toHaveLength(2);
    expect(all[1]).toMatchObject({
      status: 'error',
      code: 'digest_mismatch',
      message: 'the file is not what the hub says it is',
      error: { code: 'digest_mismatch' },
    });
  });

  test('the iteration ends when the client leaves', async () => {
    const begun = latch();
    const ended = latch();
    await start({
      pull: async function* (_request, signal): AsyncIterable<PullEvent> {
        try {
          yield { status: 'downloading', completed: 1, total: 2 };
          begun.open();
          await untilAborted(signal);
        } finally {
          ended.open();
        }
      },
    });
    const controller = new AbortController();
    const response = await post(api, '/v1/models/pull', { name }, { signal: controller.signal });
    await begun.opened;
    controller.abort();
    await ended.opened;
    await expect(response.text()).rejects.toThrow(/abort/);
    expect((await api.ended())[0]).toMatchObject({ aborted: true });
  });
});

describe('health', () => {
  test('without a TEE, nothing loaded', async () => {
    await start();
    expect(await read(await get('/health'), healthAnswer)).toMatchObject({
      status: 'ok',
      version: '0.0.0-test',
      loaded_models: 0,
      tee: { enabled: false, type: null, models_verified: false, attestation_available: false },
    });
  });

  test('models_verified says what was checked', async () => {
    await start();
    await post(api, '/v1/models/load', { name: 'demo' });
    expect((await read(await get('/health'), healthAnswer)).tee.models_verified).toBe(true);
  });
});

describe('metrics', () => {
  test.each(['/metrics', '/v1/metrics'])('%s counts, and knows nothing of who asked what', async (path) => {
    await start({ config: { metrics: 'loopback' } });
    const canary = 'canary-5d11';
    await (
      await post(api, '/v1/chat/completions', {
        model: 'demo',
        messages: [{ role: 'user', content: canary }],
        user: canary,
      })
    ).text();
    await (
      await post(api, '/v1/chat/completions', {
        model: canary,
        messages: [{ role: 'user', content: canary }],
      })
    ).text();
    await (await get(`/${canary}`)).text();
    await api.ended(3);
    const response = await get(path);
    const text = await response.text();
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(text).toContain(
      'assay_http_requests_total{route="/v1/chat/completions",method="POST",status="200"} 1',
    );
    expect(text).toContain(
      'assay_http_requests_total{route="/v1/chat/completions",method="POST",status="404"} 1',
    );
    expect(text).toContain('assay_http_requests_total{route="(none)",method="GET",status="404"} 1');
    expect(text).toContain('assay_completion_tokens_total{model="demo"} 4');
    expect(text).toContain('assay_time_to_first_token_seconds_count{model="demo"} 1');
    expect(text).toContain('assay_errors_total{code="model_not_found"} 1');
    expect(text).toContain('assay_engine_queued{model="demo"} 0');
    expect(text).toContain('assay_engine_decode_steps_total{model="demo"} 4');
    expect(text).not.toContain(canary);
    // Every line is a comment or a sample of the exposition format.
    for (const line of text.trimEnd().split('\n'))
      expect(line).toMatch(/^(# (HELP|TYPE) \w+ .+|\w+(\{(\w+="[^"\n]*",?)+\})? [-+0-9.eInfNa]+)$/);
  });

  test('the numbers of other rooms are in it', async () => {
    await start({
      config: { metrics: 'on' },
      deps: {
        metricSources: [
          () => [
            {
              name: 'assay_model_loads_total',
              help: 'Loads.',
              type: 'counter',
              samples: [{ labels: { model: 'a"b' }, value: 3 }],
            },
          ],
        ],
      },
    });
    expect(await (await get('/metrics')).text()).toContain(
      String.raw`assay_model_loads_total{model="a\"b"} 3`,
    );
  });
});

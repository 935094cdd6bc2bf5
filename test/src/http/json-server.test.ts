// The weight of JSON on the server: every route, at once or in pieces, in the budget of memory
// until its answer is over.

import { afterEach, describe, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../src/http/deps.ts';
import { allRoutes } from '../../../src/api/routes.ts';
import { type ApiServer, apiKey, post, startApi } from '../../fixtures/http/api-server.ts';
import { KINDS } from '../../fixtures/http/small-values.ts';
import { latch } from '../../fixtures/latch.ts';
import { raw } from '../../fixtures/http/raw.ts';

const MI_B = 1024 * 1024;

function bytesOf(text: string): Buffer {
  return Buffer.from(text);
}

let api: ApiServer | undefined;

afterEach(async () => {
  await api?.close();
  api = undefined;
});

async function codeOf(response: Response): Promise<string> {
  return /"(?:error_)?code":"(\w+)"/.exec(await response.text())?.[1] ?? 'none';
}

const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'Hi' }] };

const json = JSON.stringify(CHAT);

describe('on the server', () => {
  const routes = allRoutes({
    config: DEFAULT_CONFIG,
    metrics: { text: () => '' },
    startedAt: 0,
    isDraining: () => false,
  })
    .filter((route) => route.body !== undefined)
    .flatMap((route) => [route.path, ...(route.aliases ?? [])].map((path) => path.replace(/:\w+/, 'x')));

  test.each(routes)('%s: too many values are refused, at once or in pieces', async (path) => {
    api = await startApi();
    for (const [, of, count] of KINDS.filter((_, i) => [0, 4, 12].includes(i))) {
      const body = `{"model":"demo","x":${of(count)}}`;
      const pieces = new ReadableStream({
        start(controller) {
          for (let at = 0; at < body.length; at += 100_000)
            controller.enqueue(bytesOf(body.slice(at, at + 100_000)));
          controller.close();
        },
      });
      for (const init of [{}, { body: pieces, duplex: 'half' }]) {
        const response = await fetch(`${api.url}${path}`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body,
          ...init,
        });
        expect([response.status, await codeOf(response)]).toEqual([400, 'json_too_many_values']);
      }
    }
    expect(api.engine.requests).toEqual([]);
  });

  test.each([
    ['a field that is ignored', (x: string) => `{"model":"demo","metadata":${x},"messages":[{"role":"user","content":"x"}]}`],
    ['a field of a message', (x: string) => `{"model":"demo","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"x","annotations":${x}}]}`],
    ['arguments of a call', (x: string) => `{"model":"demo","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":${x}}}]}]}`],
    ['a schema', (x: string) => `{"model":"demo","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","function":{"name":"f","parameters":${x}}}]}`],
    ['stop', (x: string) => `{"model":"demo","messages":[{"role":"user","content":"x"}],"stop":${x}}`],
    ['the body itself', (x: string) => x],
  ])('in %s', async (_, around) => {
    api = await startApi();
    for (const [, of, count] of KINDS) {
      const response = await post(api, '/v1/chat/completions', around(of(count)));
      expect([response.status, await codeOf(response)]).toEqual([400, 'json_too_many_values']);
    }
  }); // prettier-ignore
});

describe('on the server, in its budget', () => {
  test('what a body becomes counts in the budget until its answer is over, and alone it fits', async () => {
    const door = latch();
    const keys = ['one', 'two'].map((name) => apiKey(name));
    api = await startApi({
      config: {
        auth: { required: true, adminEnabled: true, keys },
        limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: MI_B, maxBodyBytesInFlight: 3 * MI_B },
      },
      engine: { beforeToken: (position) => (position === 2 ? door.opened : Promise.resolve()) },
    });
    // 100 kB of text, ignored.
    const body = {
      model: 'demo',
      messages: [{ role: 'user', content: 'Hi' }],
      stream: true,
      metadata: { x: Array.from({ length: 25_000 }, () => []) },
    };
    const ask = (name: string): Promise<Response> =>
      post(api as ApiServer, '/v1/chat/completions', body, { headers: { authorization: `Bearer ${name}` } });
    const first = await ask('one');
    expect(first.status).toBe(200);
    const second = await ask('two');
    expect([second.status, await codeOf(second)]).toEqual([429, 'server_overloaded']);
    door.open();
    await first.text();
    await api.ended(2);
    const third = await ask('two');
    expect(third.status).toBe(200);
    await third.text();
  });

  test('log probabilities of an answer that is gathered take memory from the same budget; a stream needs none', async () => {
    const tokens = Array.from({ length: 400 }, (_, i) => ` word${i}`);
    api = await startApi({
      config: {
        limits: { ...DEFAULT_CONFIG.limits, maxBodyBytes: 64 * 1024, maxBodyBytesInFlight: 64 * 1024 },
      },
      engine: { script: () => tokens },
    });
    const body = {
      model: 'demo',
      messages: [{ role: 'user', content: 'Hi' }],
      max_tokens: 1000,
      logprobs: true,
      top_logprobs: 20,
    };
    const gathered = await post(api, '/v1/chat/completions', body);
    expect([gathered.status, await codeOf(gathered)]).toEqual([429, 'server_overloaded']);
    const stream = await post(api, '/v1/chat/completions', { ...body, stream: true });
    expect(stream.status).toBe(200);
    expect(await stream.text()).toContain('[DONE]');
    expect(
      (await post(api, '/v1/chat/completions', { ...body, logprobs: false, top_logprobs: undefined })).status,
    ).toBe(200);
  });
});

describe('keys that reach for prototypes', () => {
  test.each([
    `{"__proto__":{"polluted":true},${json.slice(1)}`,
    `{"\\u005f_proto__":{"polluted":true},${json.slice(1)}`,
    `{"constructor":{"prototype":{"polluted":true}},${json.slice(1)}`,
    `{"metadata":{"__proto__":{"polluted":"1"}},${json.slice(1)}`,
    `{"metadata":{"constructor":"1","prototype":"2","toString":"3"},${json.slice(1)}`,
    `{"logit_bias":{"__proto__":5},${json.slice(1)}`,
    `{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"__proto__":{"type":"string"}}}}}],${json.slice(1)}`,
  ])('%s', async (body) => {
    api = await startApi();
    const response = await post(api, '/v1/chat/completions', body);
    expect([200, 400]).toContain(response.status);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
    expect(Object.prototype.toString.call({})).toBe('[object Object]');
    expect((await post(api, '/v1/chat/completions', CHAT)).status).toBe(200);
  });

  test('in a query, a header, a path', async () => {
    api = await startApi();
    for (const path of [
      '/v1/attestation?__proto__[polluted]=1',
      '/v1/attestation?constructor=1',
      '/v1/models/__proto__',
      '/v1/models/constructor',
    ]) {
      const response = await fetch(`${api.url}${path}`);
      expect(response.status).toBeGreaterThanOrEqual(400);
      expect(response.status).toBeLessThan(504);
    }
    expect(
      await raw(api, 'GET /health HTTP/1.1\r\nhost: x\r\n__proto__: polluted\r\nconnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1\.1 200 /);
    expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
  });
});

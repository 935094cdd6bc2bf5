// sealedFetch against the real server, through a `fetch` with the powers of a party that ends TLS
// (docs/sealed.md §5, §6, §9).

import { once } from 'node:events';
import OpenAI from 'openai';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { allowSimulated } from '../../../attestation/appraise/policy.ts';
import { codeOf } from '../../fixtures/http/sealed.ts';
import { type Client, type Guest, SEALED_POLICY, sealedClient, startGuest } from '../../fixtures/attestation/sealed-guest.ts'; // prettier-ignore
import { refusalOf } from '../../fixtures/refusal.ts';

const CANARY = 'canary-d41d8cd98f';
const BODY = JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: CANARY }], user: CANARY });
const STREAM = BODY.replace('{', '{"stream":true,');

let guest: Guest;
let client: Client;
beforeEach(async () => {
  guest = await startGuest();
  client = sealedClient(() => guest.url);
});
afterEach(() => guest.close());

function chat(body = BODY, init: RequestInit = {}): Promise<Response> {
  return client.fetch(`https://sealed.example/v1/chat/completions?${CANARY}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${CANARY}` },
    body,
    ...init,
  });
}

async function code(response: Response): Promise<unknown> {
  return codeOf({ body: await response.text() } as never);
}

/** Runs of the engine. */
function runs(): number {
  return guest.api.models.acquired.length;
}

/** The problem a server writes for a key it does not know; any party in between can write it, too. */
function ohttpKey(): Response {
  return new Response(JSON.stringify({ type: 'https://iana.org/assignments/http-problem-types#ohttp-key' }), {
    status: 400,
    headers: { 'content-type': 'application/problem+json' },
  });
}

test('a chat through the OpenAI SDK, whole and streamed, with one round trip for evidence [B27]', async () => {
  const openai = new OpenAI({ baseURL: 'https://sealed.example/v1', apiKey: CANARY, fetch: client.fetch });
  const whole = await openai.chat.completions.create({
    model: 'demo',
    messages: [{ role: 'user', content: 'hi' }],
  });
  expect(whole.choices[0]?.message.content).not.toBe('');
  const stream = await openai.chat.completions.create({
    model: 'demo',
    stream: true,
    messages: [{ role: 'user', content: 'hi' }],
  });
  let text = '';
  for await (const event of stream) text += event.choices[0]?.delta.content ?? '';
  expect(text).toBe(whole.choices[0]?.message.content);
  expect(client.seen.map(({ path }) => path)).toEqual(['/v1/attestation', '/v1/sealed', '/v1/sealed']);
  expect(client.fetch.result('https://sealed.example')).toMatchObject({ channel: 'sealed', build: 'test' });
});

test('bytes of a body, a form and a request object arrive; a stream is refused', async () => {
  const models = await client.fetch(new Request('https://sealed.example/v1/models'));
  expect([models.status, ((await models.json()) as { data: unknown[] }).data.length]).toEqual([
    200,
    expect.any(Number),
  ]);
  expect((await chat(undefined, { body: new TextEncoder().encode(BODY) })).status).toBe(200);
  const form = new FormData();
  form.set('purpose', 'batch');
  form.set('file', new Blob(['{}\n']), 'a.jsonl');
  const stored = await client.fetch('https://sealed.example/v1/files', { method: 'POST', body: form });
  expect([stored.status, await code(stored)]).toEqual([403, 'files_disabled']);
  const stream = new ReadableStream({ pull: (controller) => controller.close() });
  const refusal = await refusalOf(() => chat(undefined, { body: stream, duplex: 'half' } as RequestInit));
  expect(refusal?.code).toBe('sealed_unsupported');
});

describe('nothing leaves unsealed [B3]', () => {
  test.each<[string, (client: Client) => void]>([
    ['success', () => undefined],
    ['a redirect', (each) => (each.between = (path, _init, pass) => (path === '/v1/sealed' ? Response.redirect('https://other.example/', 307) : pass()))],
    ['a lost connection', (each) => (each.between = (path, _init, pass) => { if (path === '/v1/sealed') throw new TypeError('lost'); return pass(); })],
    ['a stale key', (each) => (each.between = (path, _init, pass) => (path === '/v1/sealed' ? ohttpKey() : pass()))],
    ['an answer of its own', (each) => (each.between = (path, _init, pass) => (path === '/v1/sealed' ? new Response('{"choices":[]}', { status: 200 }) : pass()))],
    ['evidence that is none', (each) => (each.between = () => new Response('{}', { status: 200 }))],
  ])('%s', async (_, hinder) => {
    hinder(client);
    const answer = await chat().catch((error: unknown) => error);
    await (answer instanceof Response ? answer.text() : undefined);
    expect(client.seen.length).toBeGreaterThan(0);
    for (const { bytes } of client.seen) {
      expect(Buffer.from(bytes).includes(CANARY)).toBe(false);
      expect(Buffer.from(bytes).includes('/v1/chat')).toBe(false);
      expect(Buffer.from(bytes).includes('"demo"')).toBe(false);
    }
  }); // prettier-ignore

  test('rotation and abort', async () => {
    await (await chat()).text();
    await guest.sealed.rotate();
    await guest.sealed.rotate();
    await (await chat()).text();
    const stop = new AbortController();
    client.between = () => {
      stop.abort(new Error('enough'));
      throw new TypeError('lost');
    };
    await expect(chat(BODY, { signal: stop.signal })).rejects.toThrow('enough');
    for (const { bytes } of client.seen) expect(Buffer.from(bytes).includes(CANARY)).toBe(false);
  });
});

describe('an answer that is cut or altered [B8]', () => {
  test('at any byte of a stream: it has no end', async () => {
    let whole = new Uint8Array(0);
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed') return response;
      whole = new Uint8Array(await response.arrayBuffer());
      return new Response(whole, { headers: response.headers });
    };
    const complete = await (await chat(STREAM)).text();
    expect(complete).toMatch(/\[DONE\]/);
    const { length } = whole;
    for (let cut = 0; cut < length; cut += Math.max(1, Math.floor(length / 60))) {
      client.between = async (path, _init, pass) => {
        const response = await pass();
        return path === '/v1/sealed'
          ? new Response((await response.bytes()).subarray(0, cut), { headers: response.headers })
          : response;
      };
      const answer = await chat(STREAM);
      const ended = await answer.text().then(
        async (text) => codeOf({ body: text } as never),
        (error: { code?: unknown }) => error.code,
      );
      expect(ended, String(cut)).toMatch(/^sealed_(truncated|altered)$/);
    }
  });

  test('a bit of it [B7]', async () => {
    for (const at of [0, 40, 200, -1]) {
      client.between = async (path, _init, pass) => {
        const response = await pass();
        if (path !== '/v1/sealed') return response;
        const bytes = await response.bytes();
        bytes[at < 0 ? bytes.length - 1 : at]! ^= 1;
        return new Response(bytes, { headers: response.headers });
      };
      const answer = await chat();
      const ended = await answer.text().then((text) => codeOf({ body: text } as never), (error: { code?: unknown }) => error.code); // prettier-ignore
      expect(ended).toMatch(/^sealed_(altered|malformed|truncated)$/);
    }
  });

  test('the answer to another request', async () => {
    let other: Response | undefined;
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed') return response;
      const given = other ?? response.clone();
      other = response;
      return given;
    };
    expect((await chat()).status).toBe(200);
    const swapped = await chat();
    expect([swapped.status, await code(swapped), swapped.headers.get('x-should-retry')]).toEqual([502, 'sealed_altered', 'false']); // prettier-ignore
  });
});

describe('tries [B13]', () => {
  test('the same bytes again while the outcome is unknown, and the outcome is said', async () => {
    let left = 2;
    client.between = (path, _init, pass) =>
      path === '/v1/sealed' && left-- > 0
        ? new Response('busy', { status: 503, headers: { 'retry-after': '1e9' } })
        : pass();
    expect((await chat()).status).toBe(200);
    expect(new Set(client.sealed()).size).toBe(1);
    expect(client.sealed()).toHaveLength(3);
    expect(client.waited).toEqual([30_000, 30_000]);
  });

  test('an answer that was lost after execution is not executed again', async () => {
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed' || client.sealed().length > 1) return response;
      await response.arrayBuffer();
      throw new TypeError('lost');
    };
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_outcome_unknown']);
    expect(runs()).toBe(1);
  });

  test('an SDK with tries of its own runs it once', async () => {
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed') return response;
      await response.arrayBuffer();
      throw new TypeError('lost');
    };
    const openai = new OpenAI({
      baseURL: 'https://sealed.example/v1',
      apiKey: 'a',
      fetch: client.fetch,
      maxRetries: 5,
    });
    await expect(openai.chat.completions.create({ model: 'demo', messages: [{ role: 'user', content: 'hi' }] })).rejects.toMatchObject({ status: 502, code: 'sealed_outcome_unknown' }); // prettier-ignore
    expect(runs()).toBe(1);
    expect(client.sealed().length).toBeLessThanOrEqual(4);
  });

  test('four sends at most, whatever comes', async () => {
    client.between = (path, _init, pass) => {
      if (path !== '/v1/sealed') return pass();
      return [1, 2].includes(client.sealed().length) ? new Response(null, { status: 502 }) : ohttpKey();
    };
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_refused']);
    expect(client.sealed().length).toBeLessThanOrEqual(4);
  });

  test('a forged sealed_replayed is unsealed, and no more than its status', async () => {
    client.between = (path, _init, pass) =>
      path === '/v1/sealed' ? Response.json({ error: { code: 'sealed_replayed' } }, { status: 409 }) : pass();
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_unavailable']);
  });

  test('a clock that is wrong is set by the guest, once, and the request runs once', async () => {
    let time = 0;
    client = sealedClient(() => guest.url, { monotonic: () => time });
    await client.fetch.verify('https://sealed.example');
    guest.sealed.pass(1000_000);
    time = 1;
    expect((await chat()).status).toBe(200);
    expect(new Set(client.sealed()).size).toBe(2);
    expect(runs()).toBe(1);
  });
});

describe('a stale key is told from tampering by fresh evidence alone [B14]', () => {
  test('rotation: sealed anew, and the page is told', async () => {
    const told: string[] = [];
    client.fetch.on('rotated', ({ boot }) => told.push(boot));
    await (await chat()).text();
    await guest.sealed.rotate();
    expect((await chat()).status).toBe(200);
    expect(told).toEqual([]);
    await guest.sealed.rotate();
    expect((await chat()).status).toBe(200);
    expect(told).toEqual(['same']);
  });

  test('restart: another boot, and `once` does not seal anew', async () => {
    const told: string[] = [];
    const careful = sealedClient(() => guest.url, { once: true });
    client.fetch.on('rotated', ({ boot }) => told.push(boot));
    for (const each of [client, careful]) await each.fetch.verify('https://sealed.example');
    await guest.close();
    guest = await startGuest({}, 2);
    expect((await chat()).status).toBe(200);
    expect(told).toEqual(['other']);
    client = careful;
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_outcome_unknown']);
  });

  test('a forged 400 with the same key is tampering', async () => {
    client.between = (path, _init, pass) => (path === '/v1/sealed' ? ohttpKey() : pass());
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_refused']);
  });

  test('a forged 400 after execution and rotation does not run it twice', async () => {
    client.between = async (path, _init, pass) => {
      const response = await pass();
      if (path !== '/v1/sealed' || client.sealed().length > 1) return response;
      await response.arrayBuffer();
      await guest.sealed.rotate();
      return ohttpKey();
    };
    const answer = await chat();
    expect([answer.status, await code(answer)]).toEqual([502, 'sealed_outcome_unknown']);
    expect(runs()).toBe(1);
  });
});

describe('what is not accepted', () => {
  test.each([
    ['refused', () => Response.json({})],
    ['not to be had', () => Promise.reject(new TypeError('fetch failed'))],
  ])(
    'a forged 400 after execution, and evidence that is %s, is no throw: SDKs would repeat it [B13]',
    async (_, evidence) => {
      let forged = false;
      client.between = async (path, _init, pass) => {
        if (forged) return evidence();
        const response = await pass();
        if (path !== '/v1/sealed') return response;
        await response.arrayBuffer();
        forged = true;
        return ohttpKey();
      };
      const answer = await chat();
      expect([answer.status, answer.headers.get('x-should-retry')]).toEqual([502, 'false']);
      expect(runs()).toBe(1);
    },
  );

  test('a policy that does not say sealed, and evidence that is not accepted [B2]', async () => {
    const plain = sealedClient(() => guest.url, { policy: { ...SEALED_POLICY, channel: 'exporter' } });
    expect((await refusalOf(() => plain.fetch.verify('https://sealed.example')))?.code).toBe(
      'sealed_channel',
    );
    const strict = sealedClient(() => guest.url, {
      policy: { ...SEALED_POLICY, [allowSimulated]: undefined },
    });
    expect((await refusalOf(() => strict.fetch('https://sealed.example/v1/models')))?.code).toBe(
      'simulated_refused',
    );
    expect(strict.sealed()).toEqual([]);
  });

  test('plain http beyond loopback, and a model that is not attested', async () => {
    const far = sealedClient(() => guest.url, { endpoint: 'http://guest.example' });
    expect((await refusalOf(() => far.fetch('http://guest.example/v1/models')))?.code).toBe('plain_http');
    expect((await refusalOf(() => chat(BODY.replace('"demo"', '"other"'))))?.code).toBe('model_not_attested');
  });
});

test('an answer the reader drops is dropped at the guest', async () => {
  await guest.close();
  const aborted = new AbortController();
  guest = await startGuest({
    engine: {
      beforeToken: async (position, signal) => {
        if (position === 0) return;
        await once(signal, 'abort');
        aborted.abort();
      },
    },
  });
  const answer = await chat(STREAM);
  const reader = answer.body!.getReader();
  await reader.read();
  const over = once(aborted.signal, 'abort');
  await reader.cancel();
  await over;
});

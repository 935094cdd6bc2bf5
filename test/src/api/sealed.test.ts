// POST /v1/sealed against the server: what a sealed request is answered, and what may not open, come twice,
// claim an address or name another model (docs/sealed.md §4 to §7).

import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type ApiServer, apiKey, startApi } from '../../fixtures/http/api-server.ts';
import { encodeRequestHead } from '../../../attestation/sealed/bhttp.ts';
import { sendTo } from '../../../attestation/sealed/hpke.ts';
import { keyIdOf, requestHeader, requestInfo, sealInto } from '../../../attestation/sealed/request.ts';
import {
  codeOf,
  digestOf,
  NOW_SECONDS,
  seal,
  sealedUnderTest,
  type SealedUnderTest,
  send,
} from '../../fixtures/http/sealed.ts';

const KEYS = [apiKey('sk-user'), apiKey('sk-admin', { admin: true })];
const BEARER = [['authorization', 'Bearer sk-user']] as const;
const CHAT = { model: 'demo', messages: [{ role: 'user', content: 'hello' }] };

let sealed: SealedUnderTest;
let api: ApiServer;

beforeEach(async () => {
  sealed = await sealedUnderTest();
  api = await startApi({
    config: { auth: { required: true, keys: KEYS, adminEnabled: true } },
    deps: { sealed },
  });
});
afterEach(() => api.close());

function key(): Uint8Array {
  return sealed.keys.current();
}

describe('what comes sealed is answered as on any connection [B20]', () => {
  test('a list of models, without a body', async () => {
    const answer = await send(api.url, await seal(key(), { path: '/v1/models', fields: BEARER }));
    expect(answer.status).toBe(200);
    expect(answer.outer.status).toBe(200);
    expect(answer.outer.headers.get('cache-control')).toBe('no-store');
    const plain = await fetch(`${api.url}/v1/models`, { headers: { authorization: 'Bearer sk-user' } });
    expect(JSON.parse(answer.body)).toEqual(await plain.json());
    expect(answer.fields['content-length']).toBe(String(answer.body.length));
  });

  test('a chat, streamed to its end [B6]', async () => {
    const asked = {
      path: '/v1/chat/completions',
      fields: BEARER,
      body: JSON.stringify({ ...CHAT, stream: true }),
    };
    const answer = await send(api.url, await seal(key(), asked));
    expect(answer.status).toBe(200);
    expect(answer.fields['content-type']).toMatch(/^text\/event-stream/);
    expect(answer.body).toMatch(/data: \[DONE\]\n\n$/);
  });

  test('an error has the envelope and the record names the caller', async () => {
    const asked = { path: '/v1/chat/completions', fields: BEARER, body: '{"model":"demo"}' };
    const answer = await send(api.url, await seal(key(), asked));
    expect([answer.status, codeOf(answer)]).toEqual([400, 'missing_required_parameter']);
    const records = await api.ended(2);
    expect(records.map(({ route, key: name, status }) => `${route} ${name} ${status}`).toSorted()).toEqual([
      '/v1/chat/completions sk-user 400',
      '/v1/sealed null 200',
    ]);
  });

  test('the size of an answer is padded', async () => {
    const bytes = async (path: string): Promise<number> => {
      const request = await seal(key(), { path, fields: BEARER });
      const response = await fetch(`${api.url}/v1/sealed`, { method: 'POST', headers: { 'content-type': 'message/ohttp-chunked-req' }, body: request.bytes as BodyInit }); // prettier-ignore
      return (await response.arrayBuffer()).byteLength;
    };
    expect(await bytes('/v1/models')).toBe(await bytes('/v1/models/demo'));
  });
});

describe('the inner key is the only one [B10]', () => {
  test('a key or a cookie outside is not read', async () => {
    const request = await seal(key(), { path: '/v1/models' });
    const answer = await send(api.url, request, {
      authorization: 'Bearer sk-admin',
      'x-api-key': 'sk-admin',
      cookie: 'a=b',
    });
    expect([answer.status, codeOf(answer)]).toEqual([401, 'invalid_api_key']);
    expect(sealed.entries.size).toBe(0);
  });

  test.each(['/v1/sealed', '/v1/seal%65d'])('%s inside is refused', async (path) => {
    const answer = await send(
      api.url,
      await seal(key(), { path, method: 'POST', fields: BEARER, body: '{}' }),
    );
    expect([answer.status, codeOf(answer)]).toEqual([400, 'invalid_request']);
  });

  test('evidence is not asked for inside', async () => {
    const answer = await send(api.url, await seal(key(), { path: '/v1/attestation?channel=sealed' }));
    expect([answer.status, codeOf(answer)]).toEqual([400, 'invalid_request']);
  });
});

describe('there is no peer address [B11]', () => {
  test('/metrics for loopback is not there', async () => {
    await api.close();
    api = await startApi({ config: { metrics: 'loopback' }, deps: { sealed } });
    expect((await fetch(`${api.url}/metrics`)).status).toBe(200);
    const answer = await send(api.url, await seal(key(), { path: '/metrics' }));
    expect(answer.status).toBe(404);
  });

  test('admin routes that loopback has without a key take one', async () => {
    await api.close();
    api = await startApi({ deps: { sealed } });
    const asked = { path: '/v1/models/demo', method: 'DELETE' };
    expect((await fetch(`${api.url}${asked.path}`, { method: 'DELETE' })).status).not.toBe(401);
    const answer = await send(api.url, await seal(key(), asked));
    expect([answer.status, codeOf(answer)]).toEqual([401, 'admin_key_required']);
  });

  test('x-forwarded-for inside is refused', async () => {
    const context = await sendTo(key(), requestInfo(requestHeader(keyIdOf(key()))));
    const line = '\x0fx-forwarded-for\x09127.0.0.1';
    const head = Buffer.from(
      `\0\x03GET\x05https\0\x08/metrics${String.fromCharCode(line.length)}${line}`,
      'latin1',
    );
    const bytes = await sealInto(context, requestHeader(keyIdOf(key())), [head, Uint8Array.of(0, 0)]);
    const answer = await send(api.url, { bytes, context, digest: new Uint8Array(32) });
    expect([answer.status, codeOf(answer)]).toEqual([400, 'sealed_malformed']);
  });
});

describe('the model that was shown [B9]', () => {
  const asked = { path: '/v1/chat/completions', fields: BEARER, body: JSON.stringify(CHAT) };
  test.each([
    ['absent', null],
    ['another', digestOf('other')],
  ])('%s: 409 attestation_stale', async (_, model) => {
    const answer = await send(api.url, await seal(key(), { ...asked, model }));
    expect([answer.status, codeOf(answer)]).toEqual([409, 'attestation_stale']);
  });

  test('no digest at all is refused as such', async () => {
    const answer = await send(api.url, await seal(key(), { ...asked, model: 'XY' }));
    expect([answer.status, codeOf(answer)]).toEqual([400, 'sealed_malformed']);
  });
});

describe('at most once [B12]', () => {
  test('the same bytes again, and 200 times at once', async () => {
    const asked = { path: '/v1/chat/completions', fields: BEARER, body: JSON.stringify(CHAT) };
    const request = await seal(key(), asked);
    const answers = await Promise.all(Array.from({ length: 200 }, () => send(api.url, request)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    const again = answers.filter(({ status }) => status !== 200);
    expect(
      new Set(
        again.map(
          (answer) => `${answer.status} ${String(codeOf(answer))} ${answer.fields['x-should-retry']}`,
        ),
      ),
    ).toEqual(new Set(['409 sealed_replayed false']));
    expect(api.models.acquired).toHaveLength(1);
  });

  test.each([299, 300, 301, 601])('after %s s', async (seconds) => {
    const request = await seal(key(), { path: '/v1/models', fields: BEARER });
    expect((await send(api.url, request)).status).toBe(200);
    const unsent = await seal(key(), { path: '/v1/models', fields: BEARER });
    sealed.pass(seconds * 1000);
    const answer = await send(api.url, request);
    expect([answer.status, codeOf(answer)]).toEqual([409, 'sealed_replayed']);
    const first = await send(api.url, unsent);
    const late = seconds > 300;
    expect(first.status).toBe(late ? 409 : 200);
    expect(first.fields['assay-sealed-time']).toBe(late ? String(NOW_SECONDS + seconds) : undefined);
  });

  test('after rotation, and with the ignored bit of the encapsulated key', async () => {
    const request = await seal(key(), { path: '/v1/models', fields: BEARER });
    expect((await send(api.url, request)).status).toBe(200);
    await sealed.rotate();
    expect(codeOf(await send(api.url, request))).toBe('sealed_replayed');
    const bytes = Uint8Array.from(request.bytes);
    bytes[38] = (bytes[38] ?? 0) ^ 0x80;
    expect((await send(api.url, { ...request, bytes })).status).toBe(0);
  });

  test('from the future is no better', async () => {
    const answer = await send(
      api.url,
      await seal(key(), { path: '/v1/models', fields: BEARER, at: NOW_SECONDS + 301 }),
    );
    expect([answer.status, codeOf(answer)]).toEqual([409, 'sealed_clock']);
    expect(sealed.entries.size).toBe(0);
  });

  test('what is 401 fills nothing, and a caller has an eighth of the set', async () => {
    await api.close();
    sealed = await sealedUnderTest({ maxEntries: 16 });
    api = await startApi({
      config: { auth: { required: true, keys: KEYS, adminEnabled: true } },
      deps: { sealed },
    });
    const ask = async (bearer: string): Promise<number> =>
      (
        await send(
          api.url,
          await seal(key(), { path: '/v1/models', fields: [['authorization', `Bearer ${bearer}`]] }),
        )
      ).status;
    for (let i = 0; i < 20; i++) expect(await ask('sk-unknown')).toBe(401);
    expect(sealed.entries.size).toBe(0);
    expect([await ask('sk-user'), await ask('sk-user'), await ask('sk-user')]).toEqual([200, 200, 429]);
    expect(await ask('sk-admin')).toBe(200);
    sealed.pass(301_000);
  });

  test('the bytes before, named by what was sealed anew', async () => {
    const first = await seal(key(), { path: '/v1/models', fields: BEARER });
    const before = `${Buffer.from(first.digest.subarray(0, 16)).toString('hex')};at=${NOW_SECONDS}`;
    const anew = await seal(key(), {
      path: '/v1/models',
      fields: [...BEARER, ['assay-sealed-before', before]],
    });
    expect((await send(api.url, anew)).status).toBe(200);
    expect(codeOf(await send(api.url, first))).toBe('sealed_replayed');
    const other = await seal(key(), {
      path: '/v1/models',
      fields: [...BEARER, ['assay-sealed-before', before]],
    });
    expect(codeOf(await send(api.url, other))).toBe('sealed_replayed');
  });
});

describe('what does not open has one answer [B15]', () => {
  test('byte for byte, whatever the cause', async () => {
    const { bytes, context, digest } = await seal(key(), { path: '/v1/models', fields: BEARER });
    const changed = (at: number): Uint8Array =>
      Uint8Array.from(bytes, (byte, i) => (i === at ? byte ^ 1 : byte));
    const causes = [0, 2, 4, 6, 7, 30, 41, 60, 200, 1000].map(changed);
    causes.push(
      bytes.subarray(0, 3),
      bytes.subarray(0, 39),
      bytes.subarray(0, 100),
      Uint8Array.from([...bytes.subarray(0, 7), ...new Uint8Array(32), ...bytes.subarray(39)]),
    );
    const seen = new Set<string>();
    for (const altered of causes) {
      const { outer, status, body } = await send(api.url, { bytes: altered, context, digest });
      expect([status, outer.status]).toEqual([0, 400]);
      seen.add(
        `${body} ${[...outer.headers].filter(([name]) => !/^(date|x-request-id)$/.test(name)).join()}`,
      );
    }
    expect(seen.size).toBe(1);
    const [answer = ''] = seen;
    expect(answer).toMatch(/"type":"https:\/\/iana\.org\/assignments\/http-problem-types#ohttp-key"/);
    expect(answer).toMatch(/"error":\{"message":"key identifier unknown"/);
    expect(answer).toMatch(/application\/problem\+json/);
  });

  test('a key before the last opens nothing, the last one does [B16]', async () => {
    const old = await seal(key(), { path: '/v1/models', fields: BEARER });
    await sealed.rotate();
    expect((await send(api.url, old)).status).toBe(200);
    const older = await seal(key(), { path: '/v1/models', fields: BEARER });
    await sealed.rotate();
    await sealed.rotate();
    expect((await send(api.url, older)).status).toBe(0);
  });

  test('another media type, another method, and no gateway', async () => {
    const other = await fetch(`${api.url}/v1/sealed`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    });
    expect([other.status, other.headers.get('content-type')]).toEqual([
      415,
      'application/problem+json; charset=utf-8',
    ]);
    const got = await fetch(`${api.url}/v1/sealed`);
    expect([got.status, got.headers.get('content-type')]).toEqual([
      405,
      'application/problem+json; charset=utf-8',
    ]);
    await api.close();
    api = await startApi();
    const none = await send(api.url, await seal(key(), { path: '/v1/models' }));
    expect([none.status, none.outer.status]).toEqual([0, 503]);
  });
});

describe('key and limits are judged before the body [B5]', () => {
  test('401 while the body is withheld', async () => {
    const head = encodeRequestHead({ method: 'POST', path: '/v1/chat/completions', fields: [['assay-sealed-at', String(NOW_SECONDS)], ['content-type', 'application/json'], ['content-length', '1000']] }); // prettier-ignore
    const header = requestHeader(keyIdOf(key()));
    const context = await sendTo(key(), requestInfo(header));
    const bytes = await sealInto(context, header, [head, new Uint8Array(1000)]);
    const sent = bytes.subarray(0, 39 + 2 + head.length + 16);
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1');
    socket.write(`POST /v1/sealed HTTP/1.1\r\nhost: a\r\ncontent-type: message/ohttp-chunked-req\r\ncontent-length: ${bytes.length}\r\n\r\n`); // prettier-ignore
    socket.write(sent);
    let received = Buffer.alloc(0);
    for await (const piece of socket) {
      received = Buffer.concat([received, piece as Buffer]);
      if (received.includes('0\r\n\r\n')) break;
    }
    socket.destroy();
    expect(received.toString('latin1')).toMatch(/^HTTP\/1\.1 200 OK[^]*message\/ohttp-chunked-res/);
    const [inner] = await api.ended(1);
    expect(inner).toMatchObject({ route: '/v1/chat/completions', status: 401 });
  });
});

test('nothing of a sealed request reaches the log, opened or not [B21]', async () => {
  const secret = 'canary-in-the-prompt';
  const body = JSON.stringify({ ...CHAT, messages: [{ role: 'user', content: secret }] });
  const request = await seal(key(), { path: `/v1/chat/completions?${secret}`, fields: BEARER, body });
  await send(api.url, request);
  const bytes = Uint8Array.from(request.bytes, (byte, i) =>
    i === request.bytes.length - 1 ? byte ^ 1 : byte,
  );
  await send(api.url, { ...request, bytes });
  await api.ended(4);
  expect(JSON.stringify([api.logged, api.records])).not.toMatch(/canary|sk-user"?,"?bearer/i);
});

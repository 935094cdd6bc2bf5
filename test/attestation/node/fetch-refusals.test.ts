// Every way a server, or someone between it and us, can be wrong: refused with its own code, and not one byte of the
// request has left by then ([M15], P6): the server's record of the connection holds the attestation request and no more.

import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createHash, randomBytes } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';
import { fromHex, toBase64, toHex } from '../../../attestation/encoding/bytes.ts';
import type { AttestationError } from '../../../attestation/transcript/errors.ts';
import type { JsonObject } from '../../../attestation/encoding/json.ts';
import { attestedModel } from '../../../attestation/protocol/model.ts';
import { attestedFetch } from '../../../attestation/node/fetch.ts';
import { requireFreshTls13 } from '../../../attestation/node/connect.ts';
import {
  allowAnyModel,
  allowCertificateChannel,
  allowSimulated,
  type AppraisalPolicy,
} from '../../../attestation/appraise/policy.ts';
import {
  type AttestedServer,
  MEASUREMENT,
  type Misbehaviour,
  MODEL,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  send,
  simulatedAmd,
  startAttestedServer,
  tlsIdentity,
} from '../../fixtures/attestation/attested-server.ts';
import { codeOf, refusalOf } from '../../fixtures/refusal.ts';
import { documentFromElsewhere } from '../../fixtures/attestation/relay.ts';
import type { AttestedFetchOptions } from '../../../attestation/node/pool.ts';

const BASE: AppraisalPolicy = { measurements: [MEASUREMENT], models: { [MODEL_ID]: MODEL_SHA256 } };
const POLICY: AppraisalPolicy = { ...BASE, [allowSimulated]: true };
const OTHER = new Uint8Array(randomBytes(32));
const SECRET = 'the prompt nobody else may read';

function prompt(
  server: { readonly origin: string },
  options: Partial<AttestedFetchOptions> = {},
): Promise<AttestationError | undefined> {
  const fetch = attestedFetch({ policy: POLICY, now: () => NOW, attestTimeoutMs: 5_000, ...options });
  return refusalOf(async () => {
    try {
      const response = await fetch(`${server.origin}/v1/chat/completions`, {
        method: 'POST',
        headers: { authorization: 'Bearer key' },
        body: JSON.stringify({ model: MODEL_ID, messages: [{ role: 'user', content: SECRET }] }),
      });
      await response.text();
    } finally {
      await fetch.close();
    }
  });
}

/** Nothing but the attestation request, and no credential in it. */
function expectNothingSent(server: AttestedServer): void {
  for (const { received } of server.connections) {
    expect(received).toMatch(
      /^(GET \/v1\/attestation\?nonce=[0-9a-f]{64} HTTP\/1\.1\r\n(?:[\w-]+: [^\r\n]*\r\n)+\r\n)?$/,
    );
    expect(received).not.toMatch(/authorization|Bearer/i);
    expect(received).not.toContain(SECRET);
  }
}

async function refusedBy(
  how: Misbehaviour,
  options: Partial<AttestedFetchOptions> = {},
): Promise<AttestationError | undefined> {
  const server = await startAttestedServer(how);
  try {
    const refusal = await prompt(server, options);
    expectNothingSent(server);
    return refusal;
  } finally {
    await server.close();
  }
}

function set(key: string, value: (document: JsonObject) => unknown): NonNullable<Misbehaviour['document']> {
  return (document) => ({ ...document, [key]: value(document) });
}
function without<T extends object, K extends keyof T>(object: T, ...keys: K[]): Omit<T, K> {
  const copy = { ...object };
  for (const key of keys) delete copy[key];
  return copy;
}
function flip(text: unknown): string {
  return String(text).replace(/^../, (first) => (first === '00' ? '01' : '00'));
}
function b64(value: unknown): Buffer {
  return Buffer.from(String(value), 'base64');
}
const other = attestedModel('other', [{ role: 'weights', sha256: new Uint8Array(32).fill(9), size: 1 }]);

// RSA keys can take longer to make on a busy machine than a client waits for its answer.
beforeAll(async () => {
  await simulatedAmd();
});

describe('refused before a byte of the request', () => {
  test.each<[string, string, Misbehaviour, Partial<AttestedFetchOptions>?]>([
    ['simulated evidence without the flag [M21]', 'simulated_refused', {}, { policy: BASE }],
    [
      'simulated evidence under another root than the one allowed',
      'simulated_refused',
      {},
      { policy: { ...BASE, [allowSimulated]: { root: '00'.repeat(32) } } },
    ],
    [
      'simulated evidence that calls itself sev-snp, even when simulation is allowed [M21]',
      'snp_chain',
      { document: set('tee_type', () => 'sev-snp') },
    ],
    ['another measurement', 'snp_measurement', { report: { measurement: new Uint8Array(48).fill(1) } }],
    [
      'another model under the listed name',
      'model_digest_mismatch',
      { models: [attestedModel(MODEL_ID, other.blobs)] },
    ],
    ['a model the policy does not list', 'model_not_listed', { models: [MODEL, other] }],
    ['no model at all [M3]', 'model_missing', { models: [] }],
    [
      'another nonce [M7]',
      'nonce_mismatch',
      { claims: (c) => ({ ...c, nonce: OTHER }), document: set('nonce', () => toHex(OTHER)) },
    ],
    [
      'claims without a nonce',
      'nonce_mismatch',
      { claims: (c) => without(c, 'nonce'), document: set('nonce', () => undefined) },
    ],
    [
      'an exporter of another connection [M13]',
      'exporter_mismatch',
      { claims: (c) => ({ ...c, exporter: new Uint8Array(32) }) },
    ],
    ['claims without an exporter', 'exporter_mismatch', { claims: (c) => without(c, 'exporter') }],
    [
      'the evidence of a certificate [M17]',
      'certificate_channel',
      { claims: (c) => without(c, 'exporter', 'nonce'), document: set('nonce', () => undefined) },
    ],
    [
      'the right evidence behind another TLS key [M14]',
      'tls_key_mismatch',
      { claims: (c) => ({ ...c, tlsSpki: new Uint8Array(32) }) },
    ],
    [
      'claims that are not canonical [M5]',
      'claims_not_canonical',
      { claimsBytes: (bytes) => Uint8Array.of(0xb8, (bytes[0] ?? 0) & 31, ...bytes.subarray(1)) },
    ],
    [
      'claims with another label [M6]',
      'claims_label',
      {
        claimsBytes: (bytes) =>
          Uint8Array.from(
            Buffer.from(Buffer.from(bytes).toString('latin1').replace('claims/v1', 'claims/v2'), 'latin1'),
          ),
      },
    ],
    [
      'claims with an unknown key [M6]',
      'claims_fields',
      { claimsBytes: (bytes) => Uint8Array.of((bytes[0] ?? 0) + 1, ...bytes.subarray(1), 0x0a, 0x00) },
    ],
    [
      'a tampered report',
      'snp_signature',
      { document: set('report', (d) => toBase64(b64(d['report']).fill(7, 0x1e0, 0x1e1))) },
    ],
    [
      'claims that are not the signed ones [M1]',
      'claims_not_bound',
      { document: set('claims', (d) => b64(d['claims']).fill(1, 60, 61).toString('base64url')) },
    ],
    [
      'an inclusion proof of another tree [M1]',
      'claims_not_bound',
      { document: set('inclusion', () => ({ index: 1, size: 2, path: ['00'.repeat(32)] })) },
    ],
    [
      'a path that does not fit its size [M1]',
      'claims_not_bound',
      { document: set('inclusion', () => ({ index: 0, size: 1, path: ['00'.repeat(32)] })) },
    ],
    [
      'a model digest the report does not have [M2]',
      'model_not_bound',
      { reportData: (bytes) => Uint8Array.of(...bytes.subarray(0, 63), (bytes[63] ?? 0) ^ 1) },
    ],
    [
      'models that do not give the digest [M2]',
      'model_list_contradiction',
      {
        document: set('models', (d) => [
          ...(d['models'] as JsonObject[]),
          {
            id: 'x',
            sha256: '11'.repeat(32),
            kind: 'blob',
            blobs: [{ role: 'weights', sha256: '11'.repeat(32), size: 1 }],
          },
        ]),
      },
    ],
    [
      'blobs that do not give the model [M2]',
      'model_list_contradiction',
      {
        document: set('models', (d) =>
          (d['models'] as JsonObject[]).map((m) => ({
            ...m,
            blobs: [{ role: 'weights', sha256: '11'.repeat(32), size: 1 }],
          })),
        ),
      },
    ],
    [
      'claims for one model when all were asked for',
      'model_not_requested',
      { claims: (c) => ({ ...c, model: { kind: 'blob', id: MODEL_ID, sha256: fromHex(MODEL_SHA256) } }) },
    ],
    [
      'report_data repeated wrongly [M8]',
      'report_data_contradiction',
      { document: set('report_data', (d) => flip(d['report_data'])) },
    ],
    [
      'measurement repeated wrongly [M8]',
      'measurement_contradiction',
      { document: set('measurement', (d) => flip(d['measurement'])) },
    ],
    [
      'nonce repeated wrongly [M8]',
      'nonce_contradiction',
      { document: set('nonce', (d) => flip(d['nonce'])) },
    ],
    ['nonce not repeated [M8]', 'nonce_contradiction', { document: (d) => without(d, 'nonce') }],
    [
      'time repeated wrongly [M8]',
      'timestamp_contradiction',
      { document: set('timestamp', () => '2026-02-21T12:00:01Z') },
    ],
    ['a guest that can be debugged', 'snp_guest_policy', { report: { guestPolicy: 0x3da_0137n } }],
    ['a report another VMPL asked for', 'snp_vmpl', { report: { vmpl: 1 } }],
    [
      'a chip that is not listed',
      'snp_chip_not_listed',
      {},
      { policy: { ...POLICY, chips: ['77'.repeat(64)] } },
    ],
    [
      'only chips of another vendor listed',
      'chip_not_listed',
      {},
      { policy: { ...POLICY, chips: ['77'.repeat(16)] } },
    ],
    [
      'firmware below the minimum',
      'snp_minimum_tcb',
      {},
      { policy: { ...POLICY, minimumTcb: { Genoa: { microcode: 255 } } } },
    ],
    ['a product that is not accepted', 'snp_product', {}, { policy: { ...POLICY, products: ['Turin'] } }],
    [
      'a configuration that is not listed',
      'config_not_listed',
      {},
      { policy: { ...POLICY, configs: ['00'.repeat(32)] } },
    ],
    ['an expired chain', 'snp_certificate_validity', {}, { now: () => Date.parse('2060-01-01T00:00:00Z') }],
    [
      'no CRL [M9]',
      'snp_crl',
      { document: set('endorsements', (d) => ({ ...(d['endorsements'] as JsonObject), crl: undefined })) },
    ],
    ['a document of another version', 'malformed_document', { document: set('version', () => '2') }],
    ['a document with an unknown key', 'malformed_document', { document: set('extra', () => 1) }],
    [
      'a document with base64 that has two spellings',
      'malformed_base64',
      { document: set('claims', (d) => `${String(d['claims'])}=`) },
    ],
    ['no endorsements', 'malformed_document', { document: (d) => without(d, 'endorsements') }],
  ])('%s', async (_, code, how, options) => {
    expect((await refusedBy(how, options))?.code).toBe(code);
  });

  test('every refusal of evidence carries the complete transcript, with what was expected and found [M18]', async () => {
    const refusal = await refusedBy({
      claims: (c) => ({ ...c, exporter: new Uint8Array(32), tlsSpki: new Uint8Array(32) }),
      report: { measurement: new Uint8Array(48).fill(1) },
    });
    const failed = refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code);
    expect(failed).toEqual([
      'snp_measurement',
      'exporter_mismatch',
      'tls_key_mismatch',
      'measurement_not_listed',
    ]);
    expect(refusal).toMatchObject({ kind: 'refused', code: 'snp_measurement', check: 'S27' });
    expect(refusal?.transcript.length).toBeGreaterThan(45);
  });

  test('evidence relayed from a connection to the genuine server: nonce and model agree, key and exporter do not [M13] [M14]', async () => {
    const genuine = await startAttestedServer();
    const relay = await startAttestedServer({
      document: (_, { nonce }) => documentFromElsewhere(genuine.port, nonce),
    });
    const refusal = await prompt(relay);
    expectNothingSent(relay);
    expect(refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code)).toEqual([
      'exporter_mismatch',
      'tls_key_mismatch',
    ]);
    await relay.close();
    await genuine.close();
  });

  test('relayed by someone who stole the TLS key: the exporter alone gives it away [M13]', async () => {
    const identity = await tlsIdentity();
    const genuine = await startAttestedServer({ identity });
    const relay = await startAttestedServer({
      identity,
      document: (_, { nonce }) => documentFromElsewhere(genuine.port, nonce),
    });
    const refusal = await prompt(relay);
    expectNothingSent(relay);
    expect(refusal?.transcript.filter(({ status }) => status === 'fail').map(({ code }) => code)).toEqual([
      'exporter_mismatch',
    ]);
    await relay.close();
    await genuine.close();
  });
});

describe('transport', () => {
  test.each<[string, string, Misbehaviour['attestation'] & object]>([
    [
      '503 tee_not_enabled',
      'attestation_unavailable',
      ({ socket }) =>
        send(
          socket,
          503,
          '{"error":{"message":"x","type":"server_error","param":null,"code":"tee_not_enabled"}}',
        ),
    ],
    ['an error page', 'attestation_unavailable', ({ socket }) => send(socket, 404, '<html>')],
    [
      'a redirect of the attestation itself',
      'attestation_unavailable',
      ({ socket }) => send(socket, 307, '', { location: 'https://example.invalid/' }),
    ],
    ['text that is no json', 'malformed_json', ({ socket }) => send(socket, 200, 'hello')],
    [
      'bytes that are not utf-8',
      'malformed_json',
      ({ socket }) =>
        void socket.write(Buffer.from('HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n\xff', 'latin1')),
    ],
    ['garbage', 'attestation_response', ({ socket }) => void socket.write('SSH-2.0-OpenSSH_9.2p1\r\n\r\n')],
    [
      'HTTP/1.0',
      'attestation_response',
      ({ socket }) => void socket.write('HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}'),
    ],
    [
      'an interim response',
      'attestation_response',
      ({ socket }) => void socket.write('HTTP/1.1 100 Continue\r\n\r\n'),
    ],
    [
      'two lengths',
      'attestation_response',
      ({ socket }) =>
        void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}'),
    ],
    [
      'length and chunked',
      'attestation_response',
      ({ socket }) => send(socket, 200, '{}', { 'transfer-encoding': 'chunked' }),
    ],
    [
      'a compressed body',
      'attestation_response',
      ({ socket }) => send(socket, 200, '{}', { 'content-encoding': 'gzip' }),
    ],
    [
      'an endless header',
      'input_too_large',
      ({ socket }) => void socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(20_000)}`),
    ],
    [
      'a body announced too large',
      'input_too_large',
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n'),
    ],
    [
      'a chunked body too large',
      'input_too_large',
      ({ socket }) => void socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffff\r\n'),
    ],
    ['a peer that hangs up', 'attestation_response', ({ socket }) => void socket.destroy()],
    [
      'a peer that ends in the middle',
      'attestation_response',
      ({ socket }) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{'),
    ],
    ['bytes after the response', 'attestation_response', async ({ socket }, json) => { const text = await json(); socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${text.length}\r\n\r\n${text}HTTP/1.1 200 OK\r\n\r\n`); }], // prettier-ignore
    [
      'a connection that is to be closed',
      'attestation_response',
      async ({ socket }, json) => send(socket, 200, await json(), { connection: 'close' }),
    ],
  ])('%s', async (_, code, attestation) => {
    expect((await refusedBy({ attestation }))?.code).toBe(code);
  });

  test('a server that never answers', async () => {
    expect((await refusedBy({ attestation: () => {} }, { attestTimeoutMs: 50 }))?.code).toBe(
      'attestation_timeout',
    );
  });

  test('a document in chunks of one byte is read', async () => {
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n');
        const text = await json();
        for (let at = 0; at < text.length; at += 997) {
          const part = text.slice(at, at + 997);
          socket.write(`${part.length.toString(16)};ext=1\r\n${part}\r\n`);
        }
        socket.write('0\r\n\r\n');
      },
    });
    expect(await prompt(server)).toBeUndefined();
    expect(server.requests()).toHaveLength(1);
    await server.close();
  });

  test.each([
    ['says to ask again at once', { 'retry-after': '0' }, 2, 'accepted', 3],
    ['never stops saying so', { 'retry-after': '0' }, 99, 'attestation_unavailable', 4],
    ['says to ask again in an hour', { 'retry-after': '3600' }, 1, 'attestation_unavailable', 1],
    ['does not say when', {}, 1, 'attestation_unavailable', 1],
    ['closes', { 'retry-after': '0', connection: 'close' }, 1, 'attestation_unavailable', 1],
  ] as const)('a server with too many to attest that %s', async (_, headers, times, code, asked) => {
    let count = 0;
    const server = await startAttestedServer({
      attestation: async ({ socket }, json) => {
        count += 1;
        if (count <= times) send(socket, 429, '{"error":{"code":"attestation_rate_limited"}}', headers);
        else send(socket, 200, await json());
      },
    });
    expect((await prompt(server))?.code ?? 'accepted').toBe(code);
    expect(count).toBe(asked);
    expect(server.connections).toHaveLength(1);
    await server.close();
  });

  test('nobody there', async () => {
    const server = await startAttestedServer();
    await server.close();
    expect(await prompt(server)).toMatchObject({ code: 'connection_failed', kind: 'internal' });
  });

  test('plain http is refused without a connection [M11]', async () => {
    let connections = 0;
    const server = createHttpServer().on('connection', () => (connections += 1));
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    expect(
      await prompt({ origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }),
    ).toMatchObject({ code: 'plain_http' });
    expect(connections).toBe(0);
    await new Promise((resolve) => {
      server.close(resolve);
    });
  });

  test('TLS 1.2 is refused [M11]', async () => {
    const server = await startAttestedServer({ tls: { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' } });
    expect(await prompt(server)).toMatchObject({ code: 'connection_failed' });
    expect(server.connections).toHaveLength(0);
    await server.close();
  });

  test.each([
    [
      'a resumed session [M12]',
      'session_resumed',
      { isSessionReused: () => true, getProtocol: () => 'TLSv1.3', alpnProtocol: 'http/1.1' },
    ],
    [
      'another version',
      'tls_version',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.2', alpnProtocol: 'http/1.1' },
    ],
    [
      'HTTP/2',
      'tls_version',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.3', alpnProtocol: 'h2' },
    ],
    [
      'no ALPN is HTTP/1.1',
      'accepted',
      { isSessionReused: () => false, getProtocol: () => 'TLSv1.3', alpnProtocol: false as const },
    ],
  ])('%s', (_, code, socket) => {
    expect(codeOf(() => requireFreshTls13(socket))).toBe(code);
  });

  test('a server that hands out tickets is never resumed: every connection is a full handshake [M12]', async () => {
    const server = await startAttestedServer({
      respond: ({ body }, { socket }) => send(socket, 200, body, { connection: 'close' }),
    });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    for (let i = 0; i < 3; i++) await (await fetch(`${server.origin}/x`)).text();
    expect(server.connections.map(({ resumed, attested }) => [resumed, attested])).toEqual([[false, 1], [false, 1], [false, 1]]); // prettier-ignore
    await fetch.close();
    await server.close();
  });
});

describe('requests', () => {
  test.each([['https'], ['http']])(
    'a redirect to another origin (%s) is not followed [M16]',
    async (protocol) => {
      const elsewhere = await startAttestedServer();
      const server = await startAttestedServer({
        respond: (_, { socket }) =>
          send(socket, 307, '', { location: elsewhere.origin.replace('https', protocol) }),
      });
      expect(await prompt(server)).toMatchObject({ code: 'redirect_refused' });
      expect(elsewhere.connections).toHaveLength(0);
      await server.close();
      await elsewhere.close();
    },
  );

  test('a redirect within the origin is followed', async () => {
    const server = await startAttestedServer({
      respond: ({ path, body }, { socket }) =>
        path === '/b' ? send(socket, 200, body) : send(socket, 307, '', { location: '/b' }),
    });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    const response = await fetch(`${server.origin}/a`, { method: 'POST', body: '{"x":1}' });
    expect(await response.text()).toBe('{"x":1}');
    await fetch.close();
    await server.close();
  });

  test.each<[string, RequestInit['body'], string]>([
    ['json text', JSON.stringify({ model: 'other' }), 'model_not_attested'],
    ['a form', form('other'), 'model_not_attested'],
    ['json naming a listed model', JSON.stringify({ model: MODEL_ID }), 'accepted'],
    ['a form naming a listed model', form(MODEL_ID), 'accepted'],
    ['json naming none', '{}', 'accepted'],
  ])('%s naming a model that is not attested is not sent', async (_, body, code) => {
    const server = await startAttestedServer({ respond: (_request, { socket }) => send(socket, 200, '') });
    const fetch = attestedFetch({ policy: POLICY, now: () => NOW });
    const refusal = await refusalOf(() => fetch(server.origin, { method: 'POST', body: body ?? null }));
    expect(refusal?.code ?? 'accepted').toBe(code);
    expect(server.requests()).toHaveLength(code === 'accepted' ? 1 : 0);
    await fetch.close();
    await server.close();
  });

  test.each<[string, string, string]>([
    ['names it', JSON.stringify({ model: MODEL_ID }), 'accepted'],
    ['names another, though the policy lists it', JSON.stringify({ model: 'other' }), 'model_not_attested'],
    ['names two', `{"model":"${MODEL_ID}","model":"other"}`, 'model_not_attested'],
    [
      'names two, one of them in escapes',
      `{"model":"${MODEL_ID}","mod\\u0065l":"other"}`,
      'model_not_attested',
    ],
    ['names it in escapes', `{"mod\\u0065l":"${MODEL_ID}"}`, 'accepted'],
    ['names one deeper', `{"x":{"model":"${MODEL_ID}"}}`, 'model_not_attested'],
    [
      'has the word elsewhere',
      JSON.stringify({ model: MODEL_ID, user: 'model', prompt: 'a "model"' }),
      'accepted',
    ],
    [
      'is long',
      JSON.stringify({ model: MODEL_ID, prompt: Array.from({ length: 20_000 }, (_, i) => i) }),
      'accepted',
    ],
    ['names none', '{}', 'model_not_attested'],
    ['is no json', 'x', 'model_not_attested'],
  ])('with one model attested by name, a request that %s', async (_, body, code) => {
    const server = await startAttestedServer({
      models: [MODEL, other],
      respond: (_request, { socket }) => send(socket, 200, ''),
    });
    const lists = { ...POLICY, models: { [MODEL_ID]: MODEL_SHA256, other: toHex(other.sha256) } };
    const fetch = attestedFetch({ policy: lists, now: () => NOW, model: MODEL_ID });
    const refusal = await refusalOf(() => fetch(server.origin, { method: 'POST', body }));
    expect(refusal?.code ?? 'accepted').toBe(code);
    expect(server.requests()).toHaveLength(code === 'accepted' ? 1 : 0);
    await fetch.close();
    await server.close();
  });

  test('the weaker forms hold what they promise when they are asked for in code', async () => {
    const certificate: Misbehaviour = {
      claims: (c) => without(c, 'exporter', 'nonce'),
      document: (d) => without(d, 'nonce'),
    };
    const server = await startAttestedServer({ ...certificate, models: [MODEL, other] });
    const weak: AppraisalPolicy = {
      ...without(POLICY, 'models'),
      [allowAnyModel]: true,
      [allowCertificateChannel]: true,
    };
    const fetch = attestedFetch({ policy: weak, now: () => NOW });
    const result = await fetch.verify(server.origin);
    expect(result.certificateAlone).toBe(true);
    expect(result.transcript.filter(({ status }) => status === 'skip').map(({ id }) => id)).toEqual(
      expect.arrayContaining(['C1', 'C3', 'C5', 'P5', 'P6']),
    );
    await fetch.close();
    await server.close();
  });

  test('allowing one simulated root accepts that root', async () => {
    const root = createHash('sha256')
      .update((await simulatedAmd()).ark)
      .digest('hex');
    const server = await startAttestedServer();
    expect(await prompt(server, { policy: { ...BASE, [allowSimulated]: { root } } })).toBeUndefined();
    await server.close();
  });
});

function form(model: string): FormData {
  const data = new FormData();
  data.set('model', model);
  data.set('file', new Blob(['abc']), 'a.wav');
  return data;
}

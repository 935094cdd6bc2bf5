// Every route of the API, sealed and not: the inner answer is that of an ordinary connection (docs/sealed.md
// §6).

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ApiServer, apiKey, startApi } from '../../fixtures/http/api-server.ts';
import { ROUTES, type Sent } from '../../fixtures/http/route-requests.ts';
import { digestOf, seal, sealedUnderTest, type SealedUnderTest, send } from '../../fixtures/http/sealed.ts';

const ENGINES = {
  demo: {},
  'text-embed': { type: 'embedding' },
  'text-rerank': { type: 'rerank' },
} as const;

let sealed: SealedUnderTest;
let api: ApiServer;
beforeAll(async () => {
  sealed = await sealedUnderTest();
  api = await startApi({
    engines: ENGINES,
    deps: { sealed, randomHex: (bytes) => '0'.repeat(2 * bytes), now: () => 0 },
  });
});
afterAll(() => api.close());

/** About the connection itself, or answered by what a peer on loopback may do. */
const OTHERWISE =
  /^(GET \/v1\/attestation|POST \/v1\/sealed|GET \/metrics|POST \/v1\/models|DELETE \/v1\/models|POST \/v1\/(load|unload)|.*(pull|load|lora|unload))/;

const rows = Object.entries(ROUTES)
  .filter(([name]) => !OTHERWISE.test(name))
  .flatMap(([name, samples]) => samples.map((sample, i) => [`${name} ${i + 1}`, sample] as const))
  .filter(([, { body }]) => !JSON.stringify(body ?? '').includes('slow'));

function textOf({ body }: Sent): string | undefined {
  return body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
}

function modelOf(sample: Sent): string {
  const { body } = sample;
  return typeof body === 'object' && 'model' in body ? String(body.model) : 'demo';
}

/** Without what is another in every answer; padding by its length. */
function plain(text: string): string {
  const padded = text.replaceAll(
    /"obfuscation":"([^"]*)"/g,
    (_, padding: string) => `"obfuscation":${padding.length}`,
  );
  return padded.replaceAll(/"(id|created|created_at|completed_at|uptime_seconds|uptime|started_at|request_id|in_flight|requests_in_flight)":("[^"]*"|[\d.]+)/g, '"$1":0').replaceAll(/[a-z]+_[0-9a-f]{8,}/g, 'ID'); // prettier-ignore
}

test.each(rows)('%s [B20]', async (_, sample) => {
  const body = textOf(sample);
  const type = /content-type: ([^\r]+)/.exec(sample.headers ?? '')?.[1] ?? 'application/json';
  const headers: Record<string, string> = body === undefined ? {} : { 'content-type': type };
  const { method, path } = sample;
  const direct = await fetch(`${api.url}${path}`, { method, headers, body: body ?? null });
  const asked = { method, path, model: digestOf(modelOf(sample)) };
  const fields =
    body === undefined
      ? []
      : [['content-type', type] as const, ['content-length', String(Buffer.byteLength(body))] as const];
  const inside = await send(api.url, await seal(sealed.keys.current(), { ...asked, fields, raw: body }));
  expect(inside.status).toBe(direct.status);
  expect(inside.fields['content-type'] ?? null).toBe(direct.headers.get('content-type'));
  expect(plain(inside.body)).toBe(plain(await direct.text()));
});

describe('routes for admins, each against a server of its own', () => {
  const adminRows = Object.entries(ROUTES)
    .filter(([name]) => OTHERWISE.test(name) && !/attestation|sealed/.test(name))
    .flatMap(([name, samples]) => samples.map((sample) => [name, sample] as const));
  const config = { auth: { required: true, keys: [apiKey('sk-admin', { admin: true })], adminEnabled: true }, metrics: 'on' } as const; // prettier-ignore

  test.each(adminRows)('%s [B20] [B11]', async (name, { method, path, body }) => {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const twins = await Promise.all(
      [0, 1].map(() => startApi({ engines: ENGINES, config, deps: { sealed, now: () => 0 } })),
    );
    const [one, other] = twins as [ApiServer, ApiServer];
    const authorization = 'Bearer sk-admin';
    const headers = new Headers({ authorization });
    if (text !== undefined) headers.set('content-type', 'application/json');
    const asIs = { method, headers, body: text ?? null };
    const direct = await fetch(`${one.url}${path}`, asIs);
    const fields = [['authorization', authorization] as const];
    const asked = { method, path, fields, model: digestOf('demo'), body: text };
    const inside = await send(other.url, await seal(sealed.keys.current(), asked));
    expect(inside.status).toBe(direct.status);
    expect(inside.status).not.toBe(401);
    expect(inside.fields['content-type'] ?? null).toBe(direct.headers.get('content-type'));
    if (name === 'GET /metrics') expect(inside.body).toMatch(/^# HELP/);
    else expect(plain(inside.body)).toBe(plain(await direct.text()));
    const anyone = await send(other.url, await seal(sealed.keys.current(), { ...asked, fields: [] }));
    expect(anyone.status).toBe(401);
    for (const twin of twins) await twin.close();
  });
});

test('there is a sample of most routes', () => {
  expect(rows.length).toBeGreaterThan(20);
});

// The local proxy with `--channel sealed`, and `assay-verify seal`, through a server that ends TLS with a
// certificate of its own (docs/sealed.md §7): it carries chats and reads none.

import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import OpenAI from 'openai';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runCli } from '../../../../attestation/node/cli/commands.ts';
import type { CliWorld } from '../../../../attestation/node/cli/world.ts';
import { type RunningProxy, startProxy } from '../../../../attestation/node/proxy/proxy.ts';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import { keyIdOf } from '../../../../attestation/sealed/request.ts';
import { type EndingProxy, startEndingProxy } from '../../../fixtures/attestation/ending-proxy.ts';
import { type Guest, SEALED_POLICY, startGuest } from '../../../fixtures/attestation/sealed-guest.ts';
import { digestOf, NOW_SECONDS } from '../../../fixtures/http/sealed.ts';
import { refusalOf } from '../../../fixtures/refusal.ts';

const CANARY = 'canary-9e107d9d37';
const MEASUREMENT = '5a'.repeat(48);

let guest: Guest;
let between: EndingProxy;
const CLOSING: (() => Promise<void>)[] = [];
beforeEach(async () => {
  guest = await startGuest();
  between = await startEndingProxy(guest.url);
});
afterEach(async () => {
  for (const close of CLOSING.splice(0).toReversed()) await close();
  await between.close();
  await guest.close();
});

async function proxied(): Promise<RunningProxy> {
  const proxy = await startProxy({
    upstream: between.url,
    policy: SEALED_POLICY,
    channel: 'sealed',
    host: '127.0.0.1',
    port: 0,
    now: () => NOW_SECONDS * 1000,
  });
  CLOSING.push(() => proxy.close());
  return proxy;
}

test('an SDK streams through it, and who ends TLS sees no byte of it [B3] [B23]', async () => {
  const proxy = await proxied();
  expect(proxy.result()).toMatchObject({ channel: 'sealed' });
  const openai = new OpenAI({ baseURL: `${proxy.url}/v1`, apiKey: CANARY });
  const messages = [{ role: 'user', content: CANARY }] as const;
  const stream = await openai.chat.completions.create({
    model: 'demo',
    stream: true,
    messages: [...messages],
  });
  let text = '';
  for await (const event of stream) text += event.choices[0]?.delta.content ?? '';
  expect(text).not.toBe('');
  const whole = await openai.chat.completions.create({ model: 'demo', messages: [...messages] });
  expect(whole.choices[0]?.message.content).toBe(text);
  const models = await openai.models.list();
  expect(models.data.map(({ id }) => id)).toContain('demo');
  const seen = between.seen();
  expect(seen.includes('/v1/sealed')).toBe(true);
  for (const secret of [CANARY, '/v1/chat', '/v1/models', 'Bearer', 'demo'])
    expect(seen.includes(secret), secret).toBe(false);
});

test('errors of the guest arrive as they are, and a body over the bound is refused', async () => {
  const proxy = await proxied();
  const wrong = await fetch(`${proxy.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"model":"demo"}',
  });
  expect([wrong.status, await wrong.json()]).toMatchObject([
    400,
    { error: { code: 'missing_required_parameter' } },
  ]);
  const missing = await fetch(`${proxy.url}/v1/nowhere`);
  expect([missing.status, await missing.json()]).toMatchObject([404, { error: { code: 'unknown_url' } }]);
});

test('the attested channel does not take this connection', async () => {
  const refusal = await refusalOf(() =>
    startProxy({ upstream: between.url, policy: SEALED_POLICY, host: '127.0.0.1', port: 0 }),
  );
  expect(refusal).toBeDefined();
});

function world(files: Readonly<Record<string, string>>, out: string[]): CliWorld {
  return {
    stdout: (text) => void out.push(text),
    stderr: (text) => void out.push(text),
    stdin: () => Promise.reject(new Error('no standard input')),
    readBytes: async (path) => {
      const text = files[path];
      if (text === undefined) throw Object.assign(new Error('there is no such file'), { code: 'ENOENT' });
      return Buffer.from(text);
    },
    now: () => NOW_SECONDS * 1000,
    randomBytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
    proxy: undefined,
    stop: () => AbortSignal.abort(),
  };
}

test('seal prints the key for clients in other languages, and nothing to use when refused', async () => {
  const flags = ['--measurement', MEASUREMENT, '--model', `demo=${digestOf('demo')}`, '--allow-simulated'];
  const out: string[] = [];
  expect(await runCli(['seal', between.url, '--json', ...flags], world({}, out))).toBe(0);
  const key = guest.sealed.keys.current();
  expect(JSON.parse(out.join(''))).toEqual({
    key: toHex(key),
    key_id: keyIdOf(key),
    receipt_key: '01'.repeat(32),
    models: { demo: digestOf('demo') },
    issued_at: NOW_SECONDS,
    expires: NOW_SECONDS + 3600,
  });
  const refused: string[] = [];
  expect(await runCli(['seal', between.url, '--json', ...flags.slice(0, -1)], world({}, refused))).toBe(10);
  expect(refused.join('')).not.toContain(`"key"`);
  const file = JSON.stringify({ measurements: [MEASUREMENT], models: { demo: digestOf('demo') } });
  const unsaid: string[] = [];
  const argv = ['seal', between.url, '--policy', 'p.json', '--allow-simulated'];
  expect(await runCli(argv, world({ 'p.json': file }, unsaid))).toBe(10);
  expect(unsaid.join('')).toMatch(/the policy does not take the channel of sealed bodies/);
});

test('the proxy command takes --channel, and refuses what does not go with it', async () => {
  const flags = [
    '--measurement',
    MEASUREMENT,
    '--model',
    `demo=${digestOf('demo')}`,
    '--allow-simulated',
    '--listen',
    '127.0.0.1:0',
  ];
  const out: string[] = [];
  expect(await runCli(['proxy', between.url, '--channel', 'sealed', ...flags], world({}, out))).toBe(0);
  expect(out.join('')).toMatch(/listening on http:\/\/127\.0\.0\.1/);
  for (const wrong of [
    ['--channel', 'tls'],
    ['--channel', 'sealed', '--same-machine'],
  ])
    expect(await runCli(['proxy', between.url, ...wrong, ...flags], world({}, []))).toBe(30);
});

test('what fetch cannot send reaches the guest, or is refused by name', async () => {
  const proxy = await proxied();
  const outcome = async (method: string, headers: Record<string, string>, body?: string) => {
    const asked = request(`${proxy.url}/v1/models`, { method, headers });
    asked.end(body);
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    let text = '';
    for await (const piece of response) text += String(piece);
    const { error } = JSON.parse(text === '' ? '{}' : text) as { error?: { code: string } };
    return [response.statusCode, error?.code, response.headers['x-should-retry']];
  };
  expect(await outcome('GET', { 'content-length': '0' })).toEqual([200, undefined, undefined]);
  expect(await outcome('HEAD', { 'content-length': '0' })).toEqual([200, undefined, undefined]);
  expect(await outcome('GET', { 'content-length': '2' }, '{}')).toEqual([502, 'sealed_unsupported', 'false']);
  expect(await outcome('TRACE', {})).toEqual([502, 'sealed_unsupported', 'false']);
  const none = await outcome('DELETE', {});
  expect([none[0], none[2]]).toEqual([405, undefined]);
});

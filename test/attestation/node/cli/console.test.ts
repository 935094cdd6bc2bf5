// `assay-verify console` as a command (docs/console.md [B26]): the address it prints, the policy it hands to
// the page, and `--check`, which compares what a server hands out with this build.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { readConsolePage } from '../../../../attestation/node/console-page.ts';
import { type AttestedServer, startAttestedServer } from '../../../fixtures/attestation/attested-server.ts';
import { cli, POLICY, type Ran } from '../../../fixtures/attestation/cli.ts';

const SEALED = POLICY.replace('{', '{"channel":"sealed",');

let server: AttestedServer;
const PAGES: Server[] = [];
beforeAll(async () => {
  server = await startAttestedServer();
});
afterAll(() => server.close());
afterEach(async () => {
  for (const page of PAGES.splice(0)) await new Promise((resolve) => page.close(resolve));
});

async function during(args: readonly string[], use: (url: string) => Promise<void>): Promise<Ran> {
  const stop = new AbortController();
  let used: Promise<void> = Promise.resolve();
  const ran = await cli(['console', server.origin, ...args], {
    files: { 'p.json': SEALED, 'connections.json': POLICY },
    stop: () => stop.signal,
    onStdout: (text) => {
      used = use(/http:\S+?(?=\/\n)/.exec(text)?.[0] ?? '').finally(() => stop.abort());
    },
  });
  await used;
  return ran;
}

const NAMED = ['--policy', 'p.json', '--allow-simulated'];

test('prints an address that is new each time, serves the page there, and offers it the policy', async () => {
  const ports = new Set<string>();
  for (let i = 0; i < 2; i += 1) {
    const ran = await during(NAMED, async (url) => {
      ports.add(new URL(url).port);
      const page = await readConsolePage();
      expect(Buffer.from(await (await fetch(`${url}/`)).arrayBuffer()).equals(page.html)).toBe(true);
      const given = (await (await fetch(`${url}/console.json`)).json()) as {
        upstream: string;
        policy: string;
      };
      expect(given.upstream).toBe(server.origin);
      expect(JSON.parse(given.policy)).toMatchObject({ channel: 'sealed', models: {} });
      // No file can say a weakening of a policy, so the reader has to tell the page of it.
      expect(given.policy).not.toMatch(/simulated/i);
    });
    expect(ran).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^console on http:\/\/127\.0\.0\.1:\d+\/\n$/),
    });
  }
  expect(ports.size).toBe(2);
  await during([...NAMED, '--listen', 'localhost:0'], (url) =>
    Promise.resolve(expect(url).toMatch(/^http:\/\//)),
  );
});

test('policies of flags say sealed by themselves; a file has to say it', async () => {
  const { models } = JSON.parse(POLICY) as { models: Record<string, string> };
  const { measurements } = JSON.parse(POLICY) as { measurements: { measurement: string }[] };
  const model = Object.entries(models)[0]!.join('=');
  const flags = ['--measurement', measurements[0]!.measurement, '--model', model, '--allow-simulated'];
  const ran = await during(flags, async (url) => {
    const { policy } = (await (await fetch(`${url}/console.json`)).json()) as { policy: string };
    expect(JSON.parse(policy)).toMatchObject({ channel: 'sealed', models });
  });
  expect(ran.code).toBe(0);
  const refused = await during(['--policy', 'connections.json', '--allow-simulated'], () =>
    Promise.resolve(),
  );
  expect(refused).toMatchObject({ code: 30, out: '', err: expect.stringContaining('"channel": "sealed"') });
});

test('refuses what verify refuses: 10, and does not listen', async () => {
  const ran = await during(['--policy', 'p.json'], () => Promise.resolve());
  expect(ran).toMatchObject({ code: 10, out: '' });
});

async function pageOf(status: number, body: Uint8Array | string): Promise<string> {
  const page = createServer((_request, response) => response.writeHead(status).end(body));
  PAGES.push(page);
  page.listen(0, '127.0.0.1');
  await once(page, 'listening');
  return `http://127.0.0.1:${(page.address() as AddressInfo).port}`;
}

test('--check: 0 the same bytes; 10 one byte changed, a byte more, no page; 1 no server [B26]', async () => {
  const { html, sha256 } = await readConsolePage();
  const same = await cli(['console', '--check', await pageOf(200, html)]);
  expect(same).toMatchObject({
    code: 0,
    out: expect.stringMatching(new RegExp(`${sha256}[^]*${sha256}[^]*SAME`)),
  });
  const changed = Buffer.from(html);
  changed[changed.length >> 1]! ^= 1;
  for (const [status, body] of [
    [200, changed],
    [200, Buffer.concat([html, Buffer.from('\n')])],
    [200, Buffer.alloc(5 * 1024 * 1024)],
    [404, html],
    [200, ''],
  ] as const) {
    const other = await cli(['console', '--check', await pageOf(status, body)]);
    expect(other).toMatchObject({ code: 10, out: expect.stringContaining('DIFFERENT') });
  }
  expect(await cli(['console', '--check', 'http://127.0.0.1:1', '--timeout', '5'])).toMatchObject({
    code: 1,
    out: '',
  });
});

test.each([
  [['--check'], /check/],
  [['--check', 'nowhere'], /not an address/],
  [['--check', 'http://127.0.0.1:1', 'https://127.0.0.1:2'], /--check URL/],
  [['--check', 'http://127.0.0.1:1', '--policy', 'p.json'], /--check URL/],
  [['https://127.0.0.1:1', '--channel', 'sealed'], /channel/],
  [['https://127.0.0.1:1', '--allow-origin', 'http://localhost:1'], /allow-origin/],
  [['https://127.0.0.1:1', '--allow-non-loopback'], /allow-non-loopback/],
  [[], /needs an https address/],
])('wrong usage: console %j', async (args, words) => {
  const ran = await cli(['console', ...args]);
  expect(ran).toMatchObject({ code: 30, out: '' });
  expect(ran.err).toMatch(words);
});

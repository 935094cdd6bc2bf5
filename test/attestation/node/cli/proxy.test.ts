// `assay-verify proxy` as a command: the policy it finds, what it logs, ports that cannot
// be had, pages it lets in.

import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { logLine } from '../../../../attestation/node/cli/proxy.ts';
import { type AttestedServer, startAttestedServer } from '../../../fixtures/attestation/attested-server.ts';
import { cli, type Circumstances, POLICY, type Ran } from '../../../fixtures/attestation/cli.ts';

let server: AttestedServer;
beforeAll(async () => {
  server = await startAttestedServer();
});
afterAll(() => server.close());

/** Runs until `use` is done with the proxy at the address it is given. */
async function during(
  args: readonly string[],
  use: (url: string) => Promise<void>,
  circumstances: Circumstances = {},
): Promise<Ran> {
  const stop = new AbortController();
  const onStdout = (text: string): void => {
    const url = /http:\S+/.exec(text)?.[0] ?? '';
    void use(url).finally(() => stop.abort());
  };
  return cli(['proxy', server.origin, '--listen', '127.0.0.1:0', ...args], {
    ...circumstances,
    stop: () => stop.signal,
    onStdout,
  });
}
const NAMED = ['--policy', 'p.json', '--allow-simulated'];
async function ask(url: string, headers: Record<string, string> = {}): Promise<void> {
  await (await fetch(`${url}/v1/models?secret=1`, { headers })).text();
}

describe('assay-verify proxy', () => {
  test('finds the policy of the folder, and says so', async () => {
    const files = { '.assay/policy.json': POLICY };
    const ran = await during(['--allow-simulated'], ask, { files });
    expect(ran.code).toBe(0);
    expect(ran.err).toMatch(/^policy: \.assay\/policy\.json, found in this folder\n/);
    const verified = await cli([server.origin, '--allow-simulated'], { files });
    expect(verified).toMatchObject({ code: 0, err: ran.err.split('\n')[0]?.concat('\n') });
  });

  test.each([
    ['no such file', ['--allow-simulated'], {}, 10],
    [
      'flags that say what to accept',
      ['--any-model', '--allow-simulated'],
      { '.assay/policy.json': POLICY },
      10,
    ],
    ['a file that is none', ['--allow-simulated'], { '.assay/policy.json': '{' }, 30],
    ['simulation nobody allowed', [], { '.assay/policy.json': POLICY }, 10],
  ])('%s', async (_, flags, files, code) => {
    const all = flags.includes('--any-model') ? [...flags, '--measurement', '11'.repeat(48)] : flags;
    const ran = await during(all, ask, { files });
    expect([ran.code, ran.out]).toEqual([code, '']);
  });

  test('a file nobody named decides nothing about other machines', async () => {
    const files = { '.assay/policy.json': '{' };
    const ran = await cli(['https://192.0.2.1:1', '--timeout', '1'], { files });
    expect([ran.code, ran.err]).toEqual([1, '']);
  });

  test('--log has one line per request and failure, without content; a terminal gets them by itself', async () => {
    const both = async (url: string): Promise<void> => {
      await ask(url, { authorization: 'Bearer secret' });
      await ask(url, { origin: 'https://evil.example' });
    };
    const line = /^\d\d:\d\d:\d\d GET \/v1\/models (200|403 origin_not_allowed) \d+ ms$/gm;
    const terminal = { stderr: { columns: 100, colour: false } };
    expect((await during([...NAMED, '--log'], both)).err.match(line)).toHaveLength(2);
    expect((await during(NAMED, both, { terminal })).err.match(line)).toHaveLength(2);
    expect((await during([...NAMED, '--no-log'], both, { terminal })).err.match(line)).toBeNull();
    const quiet = await during(NAMED, both);
    expect(quiet.err.match(line)).toBeNull();
    expect((await during([...NAMED, '--log'], both)).err).not.toContain('secret');
  });

  test('a line never holds what a terminal would obey', () => {
    const entry = { method: 'GET', path: `/\u001b[2J${'x'.repeat(500)}`, complete: false, durationMs: 1.6 };
    expect(logLine(entry, 0)).toMatch(/^00:00:00 GET \/\ufffd\[2Jx+ - not finished 2 ms$/);
    expect(logLine(entry, 0).length).toBeLessThan(260);
  });

  test('a busy port: one clear line', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    const ran = await cli(['proxy', server.origin, ...NAMED, '--listen', `127.0.0.1:${port}`]);
    taken.close();
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.err).toBe(
      `assay-verify: cannot listen on 127.0.0.1:${port}: another program has this port; choose another with --listen HOST:PORT\n`,
    );
  });

  test('an address this machine does not have', async () => {
    const ran = await cli([
      'proxy',
      server.origin,
      ...NAMED,
      '--allow-non-loopback',
      '--listen',
      '192.0.2.1:0',
    ]);
    expect(ran).toMatchObject({ code: 1, out: '' });
    expect(ran.err).toMatch(
      /^assay-verify: cannot listen on 192\.0\.2\.1:0: this machine has no such address.*\n$/,
    );
  });

  test('--allow-origin lets a page in', async () => {
    const origin = 'http://localhost:3000';
    const seen: (string | null)[] = [];
    const ran = await during([...NAMED, '--allow-origin', origin], async (url) => {
      const preflight = { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'POST' } };
      for (const init of [preflight, { headers: { origin } }])
        seen.push((await fetch(`${url}/v1/models`, init)).headers.get('access-control-allow-origin'));
    });
    expect([ran.code, seen]).toEqual([0, [origin, origin]]);
    expect(await cli(['proxy', server.origin, ...NAMED, '--allow-origin', '*'])).toMatchObject({ code: 30 });
  });
});

// assay-verify from its arguments to its exit code and its output, in process; what people
// read is kept in test/golden.

import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCli } from '../../../../attestation/node/cli/commands.ts';
import { parseCommand } from '../../../../attestation/node/cli/arguments.ts';
import {
  type AttestedServer,
  MEASUREMENT,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  simulatedAmd,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { cli, POLICY, type Ran } from '../../../fixtures/attestation/cli.ts';
import { codeOf } from '../../../fixtures/refusal.ts';

/** Values that differ from run to run: ports, keys, nonces, chips. */
function settled(text: string): string {
  return text
    .replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
    .replaceAll(MEASUREMENT, 'MEASUREMENT')
    .replaceAll(MODEL_SHA256, 'MODEL_SHA256')
    .replaceAll(/\b[0-9a-f]{8}…[0-9a-f]{4}\b/g, 'HEX')
    .replaceAll(/\b[0-9a-f]{32,}\b/g, 'HEX')
    .replaceAll(/\b[0-9a-f]{16}…/g, 'HEX…');
}

function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${Buffer.from(der).toString('base64')}\n-----END CERTIFICATE-----\n`;
}

function rollback({ out }: Ran): string | undefined {
  return (JSON.parse(out) as { checks: { id: string; status: string }[] }).checks.find(
    ({ id }) => id === 'S20',
  )?.status;
}

describe('assay-verify', () => {
  let server: AttestedServer;
  beforeAll(async () => {
    server = await startAttestedServer();
  });
  afterAll(() => server.close());

  test('--help', async () => {
    const { code, out } = await cli(['--help']);
    expect(code).toBe(0);
    await expect(out).toMatchFileSnapshot('../../../golden/verify-help.txt');
    expect(await cli([])).toMatchObject({ code: 0, out });
  });

  test('accepted: 0, every check, what it means', async () => {
    const { code, out, err } = await cli([server.origin, '--policy', 'p.json', '--allow-simulated']);
    expect([code, err]).toEqual([0, '']);
    await expect(settled(out)).toMatchFileSnapshot('../../../golden/verify-accepted.txt');
  });

  test('refused: 10, and all that is wrong', async () => {
    const wrong = await startAttestedServer({
      report: { measurement: new Uint8Array(48).fill(7) },
      claims: (c) => ({ ...c, exporter: new Uint8Array(32) }),
    });
    const { code, out } = await cli([wrong.origin, '--policy', 'p.json', '--allow-simulated']);
    expect(code).toBe(10);
    await expect(settled(out)).toMatchFileSnapshot('../../../golden/verify-refused.txt');
    await wrong.close();
  });

  test('simulated without the flag: 10', async () => {
    const { code, out } = await cli([server.origin, '--policy', 'p.json', '--json']);
    expect(code).toBe(10);
    expect(JSON.parse(out)).toMatchObject({ accepted: false, code: 'simulated_refused' });
  });

  test('--explain says what is not proven, for a verdict of either kind', async () => {
    const accepted = await cli([server.origin, '--policy', 'p.json', '--allow-simulated', '--explain']);
    expect(accepted.code).toBe(0);
    await expect(settled(accepted.out)).toMatchFileSnapshot('../../../golden/verify-explain-accepted.txt');
    const refused = await cli([server.origin, '--policy', 'p.json', '--explain']);
    expect(refused.code).toBe(10);
    await expect(settled(refused.out)).toMatchFileSnapshot('../../../golden/verify-explain-refused.txt');
  });

  test('--json has the whole of it, unshortened', async () => {
    const { code, out } = await cli([server.origin, '--policy', 'p.json', '--allow-simulated', '--json']);
    expect(code).toBe(0);
    const json = JSON.parse(out) as { checks: { id: string; status: string }[] };
    expect(json).toMatchObject({
      accepted: true,
      code: null,
      origin: server.origin,
      means: {
        P1: 'not proven',
        P2: 'simulated',
        P3: 'simulated',
        P4: 'simulated',
        P5: 'simulated',
        P6: 'proven',
      },
      result: {
        measurement: MEASUREMENT,
        build: 'assay 0.1.0',
        models: { [MODEL_ID]: MODEL_SHA256 },
        simulated: true,
      },
    });
    expect(json.checks.filter(({ status }) => status === 'fail')).toEqual([]);
  });

  test('without a policy everything is shown and nothing accepted', async () => {
    const { code, out } = await cli([server.origin, '--allow-simulated']);
    expect(code).toBe(10);
    expect(out).toContain('none of it is accepted');
    expect(out).toContain('measurement_not_listed');
    const json = await cli([server.origin, '--allow-simulated', '--json']);
    expect(json.out).toContain(MEASUREMENT);
    expect(json.out).toContain(MODEL_SHA256);
  });

  test('flags make a policy', async () => {
    const listed = [
      '--measurement',
      MEASUREMENT.toUpperCase(),
      '--model',
      `${MODEL_ID}=${MODEL_SHA256}`,
      '--allow-simulated',
    ];
    expect((await cli([server.origin, ...listed])).code).toBe(0);
    expect((await cli([server.origin, ...listed, '--attest', MODEL_ID])).code).toBe(0);
    expect(
      (await cli([server.origin, '--measurement', MEASUREMENT, '--any-model', '--allow-simulated'])).code,
    ).toBe(0);
    expect((await cli([server.origin, '--measurement', MEASUREMENT, '--allow-simulated'])).code).toBe(30);
    const { createHash } = await import('node:crypto');
    const root = createHash('sha256')
      .update((await simulatedAmd()).ark)
      .digest('hex');
    expect((await cli([server.origin, '--policy', 'p.json', `--allow-simulated=${root}`])).code).toBe(0);
    expect(
      (await cli([server.origin, '--policy', 'p.json', `--allow-simulated=${'0'.repeat(64)}`])).code,
    ).toBe(10);
  });

  test('a file cannot weaken: what only a flag may say is refused in it [M19] [M20]', async () => {
    for (const key of ['allowSimulated', 'allow-simulated', 'allowDebug', 'allowAnyModel', 'danger']) {
      const files = { 'p.json': JSON.stringify({ ...(JSON.parse(POLICY) as object), [key]: true }) };
      expect(await cli([server.origin, '--policy', 'p.json'], { files })).toMatchObject({
        code: 30,
        out: '',
      });
    }
    const files = { 'p.json': JSON.stringify({ ...(JSON.parse(POLICY) as object), tee: ['simulated'] }) };
    const ran = await cli([server.origin, '--policy', 'p.json'], { files });
    expect(ran.code).toBe(30);
    expect(ran.err).toContain('--allow-simulated');
  });

  test('a document that cannot be read: 30; an answer that is none: 30; nobody there: 1', async () => {
    const garbage = await startAttestedServer({ document: () => ({ version: '1' }) });
    expect((await cli([garbage.origin, '--policy', 'p.json'])).code).toBe(30);
    await garbage.close();
    expect((await cli([garbage.origin, '--policy', 'p.json'])).code).toBe(1);
  });

  test('evidence of a version nobody knows: 20', async () => {
    const strange = await startAttestedServer({ report: { version: 9 } });
    expect((await cli([strange.origin, '--policy', 'p.json', '--allow-simulated'])).code).toBe(20);
    await strange.close();
  });

  test('a server cannot draw on the terminal', async () => {
    const rude = await startAttestedServer({ document: (d) => ({ ...d, nonce: '\u001b[2J\u202e' }) });
    const { out } = await cli([rude.origin, '--policy', 'p.json', '--allow-simulated']);
    // eslint-disable-next-line no-control-regex
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u202e]/);
    await rude.close();
  });

  test('evidence: stdin to stdout, exit code of the verdict', async () => {
    const amd = await simulatedAmd();
    const input = {
      tee: 'snp',
      report: Buffer.from(await amd.signReport()).toString('base64'),
      vek: Buffer.from(amd.vek).toString('base64'),
      chain: [pem(amd.intermediate), pem(amd.ark)],
      crl: Buffer.from(amd.crl).toString('base64'),
      roots: [pem(amd.ark)],
      now: new Date(NOW).toISOString(),
      policy: {},
    };
    const good = await cli(['evidence'], { stdin: JSON.stringify(input) });
    expect(good.code).toBe(0);
    expect(JSON.parse(good.out)).toMatchObject({ accepted: true, code: null });
    const bad = await cli(['evidence'], { stdin: JSON.stringify({ ...input, roots: undefined }) });
    expect(bad.code).toBe(10);
    expect((await cli(['evidence'], { stdin: 'x' })).code).toBe(30);
  });

  test('policy print writes every default, and what it prints is read again', async () => {
    const { code, out } = await cli(['policy', 'print', 'p.json']);
    expect(code).toBe(0);
    await expect(out).toMatchFileSnapshot('../../../golden/verify-policy-print.txt');
    expect((await cli(['policy', 'print', 'q.json'], { files: { 'q.json': out } })).out).toBe(out);
  });

  test('policy lint asks what a careful reader would', async () => {
    const { code, out } = await cli(['policy', 'lint', 'p.json']);
    expect(code).toBe(0);
    await expect(out).toMatchFileSnapshot('../../../golden/verify-policy-lint.txt');
  });

  test('--cache remembers what was seen, and refuses older data later', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'assay-cli-'));
    const again = [server.origin, '--policy', 'p.json', '--allow-simulated', '--json', '--cache', folder];
    expect(rollback(await cli(again))).toBe('pass');
    const seen = join(folder, 'seen.json');
    const numbers = JSON.parse(await readFile(seen, 'utf8')) as Record<string, string>;
    await writeFile(
      seen,
      JSON.stringify(Object.fromEntries(Object.entries(numbers).map(([key, value]) => [key, `${value}0`]))),
    );
    expect(await cli(again)).toMatchObject({ code: 10 });
    await writeFile(seen, '[]');
    expect(await cli(again)).toMatchObject({ code: 30, out: '' });
    await rm(folder, { recursive: true });
  });

  test('endorsements from a bundle, where the policy says offline', async () => {
    const offline = { 'p.json': JSON.stringify({ ...(JSON.parse(POLICY) as object), endorsements: 'offline' }), 'b.json': '{"format":"assay-endorsements","version":1,"items":[]}', 'bad.json': '{}' }; // prettier-ignore
    const args = [server.origin, '--policy', 'p.json', '--allow-simulated'];
    expect(await cli(args, { files: offline })).toMatchObject({ code: 30 });
    expect(await cli([...args, '--bundle', 'bad.json'], { files: offline })).toMatchObject({ code: 30 });
    expect(await cli([...args, '--bundle', 'b.json'])).toMatchObject({ code: 30 });
    // A simulated hierarchy has no service: what is stapled is all there is, whatever the mode.
    expect(await cli([...args, '--bundle', 'b.json'], { files: offline })).toMatchObject({ code: 0 });
    const named = await startAttestedServer({ document: (d) => ({ ...d, tee_type: 'sev-snp' }) });
    expect(
      await cli([named.origin, ...args.slice(1), '--bundle', 'b.json'], { files: offline }),
    ).toMatchObject({ code: 1 });
    await named.close();
    const folder = await mkdtemp(join(tmpdir(), 'assay-cli-'));
    expect(JSON.parse((await cli(['bundle', '--cache', folder])).out)).toMatchObject({ items: [] });
    await rm(folder, { recursive: true });
  });

  test('measure names what is wrong with a manifest or a file that is not there', async () => {
    expect(await cli(['measure', 'm.json'], { files: { 'm.json': '{"version":2}' } })).toMatchObject({
      code: 30,
      out: '',
    });
    expect((await cli(['measure', 'm.json'])).err).toContain('manifest cannot be read');
  });

  test('proxy: verifies, says where it listens, forwards, ends when told to', async () => {
    const stop = new AbortController();
    const listening: { resolve?: (url: string) => void } = {};
    const url = new Promise<string>((resolve) => (listening.resolve = resolve));
    let out = '';
    const ended = runCli(
      ['proxy', server.origin, '--policy', 'p.json', '--allow-simulated', '--listen', '127.0.0.1:0'],
      {
        stdout: (text) => {
          out += text;
          listening.resolve?.(/http:\S+/.exec(text)?.[0] ?? '');
        },
        stderr: () => {},
        stdin: () => Promise.resolve(new Uint8Array()),
        readBytes: () => Promise.resolve(Buffer.from(POLICY)),
        proxy: undefined,
        now: () => NOW,
        randomBytes: (length) => new Uint8Array(randomBytes(length)),
        stop: () => stop.signal,
      },
    );
    const response = await fetch(`${await url}/v1/chat/completions`, {
      method: 'POST',
      body: JSON.stringify({ model: MODEL_ID, messages: [{ content: 'hi' }] }),
    });
    expect(await response.json()).toMatchObject({ choices: [{ message: { content: 'echo hi' } }] });
    stop.abort();
    expect(await ended).toBe(0);
    expect(out).toMatch(/^listening on http:\/\/127\.0\.0\.1:\d+\n$/);
  });

  test('proxy refuses what verify refuses: 10, and does not listen', async () => {
    const ran = await cli(['proxy', server.origin, '--policy', 'p.json', '--listen', '127.0.0.1:0']);
    expect(ran).toMatchObject({ code: 10, out: '' });
    expect(ran.err).toContain('simulated_refused');
  });
});

describe('wrong usage is 30 and says what is wrong', () => {
  test.each([
    [['http://127.0.0.1'], 'plain_http'],
    [['https://x/v1'], 'wrong_usage'],
    [['https://user@x'], 'wrong_usage'],
    [['https://x', 'https://y'], 'wrong_usage'],
    [['x'], 'wrong_usage'],
    [['https://x', '--polciy', 'p.json'], 'wrong_usage'],
    [['https://x', '--policy'], 'wrong_usage'],
    [['https://x', '--policy', 'p.json', '--policy', 'p.json'], 'wrong_usage'],
    [['https://x', '--policy', 'absent.json'], 'wrong_usage'],
    [['https://x', '--policy', 'p.json', '--measurement', MEASUREMENT], 'wrong_usage'],
    [['https://x', '--measurement', 'zz', '--any-model'], 'malformed_policy'],
    [['https://x', '--measurement', MEASUREMENT, '--model', 'nope'], 'wrong_usage'],
    [['https://x', '--timeout', '0'], 'wrong_usage'],
    [['https://x', '--json=1'], 'wrong_usage'],
    [['https://x', '--listen', '127.0.0.1:1'], 'wrong_usage'],
    [['proxy'], 'wrong_usage'],
    [['proxy', 'https://x', '--listen', '8080'], 'wrong_usage'],
    [['proxy', 'https://x', '--listen', '127.0.0.1:99999'], 'wrong_usage'],
    [['proxy', 'https://x', '--listen', '0.0.0.0:0', '--policy', 'p.json'], 'wrong_usage'],
    [['proxy', 'https://x', '--json'], 'wrong_usage'],
    [['evidence', 'x'], 'wrong_usage'],
    [['policy', 'lint'], 'wrong_usage'],
    [['policy', 'mend', 'p.json'], 'wrong_usage'],
    [['policy', 'lint', 'absent.json'], 'wrong_usage'],
    [['measure'], 'wrong_usage'],
    [['measure', 'm.json', '--json', '--policy'], 'wrong_usage'],
    [['measure', 'absent.json'], 'wrong_usage'],
    [['bundle'], 'wrong_usage'],
    [['bundle', 'x', '--cache', 'y'], 'wrong_usage'],
  ])('%j', async (args, code) => {
    const ran = await cli(args);
    expect(`${ran.out}${ran.err}`).toContain(code);
    expect(ran.code).toBe(code === 'plain_http' ? 10 : 30);
  });

  test('reads --same-machine, for the proxy only', () => {
    expect(parseCommand(['proxy', 'https://x', '--same-machine'])).toMatchObject({ sameMachine: true });
    expect(parseCommand(['proxy', 'https://x'])).toMatchObject({ sameMachine: false });
    expect(codeOf(() => parseCommand(['https://x', '--same-machine']))).toBe('wrong_usage');
  });

  test('reads IPv6 and trailing slashes', () => {
    expect(parseCommand(['proxy', 'https://[::1]:8443/', '--listen', '[::1]:0'])).toMatchObject({
      host: '::1',
      port: 0,
    });
    expect(codeOf(() => parseCommand(['https://host/']))).toBe('accepted');
  });
});

// The proxy asks, checks, strips and keeps; and assay-verify receipt judges what it kept, offline, with every
// exit code (docs/receipts.md [R2] [R10] [R19] [R20] [R21] [R24]).

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type AttestationResult, isAttestationResult } from '../../../../attestation/appraise/appraise.ts';
import { judgeReceipt, receiptsIn } from '../../../../attestation/appraise/receipt-verdict.ts';
import { parsePolicy } from '../../../../attestation/appraise/policy.ts';
import type { Json } from '../../../../attestation/encoding/json.ts';
import { commitment } from '../../../../attestation/receipts/commit.ts';
import { encodeReceipt } from '../../../../attestation/receipts/receipt.ts';
import { FINAL, SALT, sha256Of, signReceipt } from '../../../../scripts/receipt-fixture.ts';
import { MODEL_ID, NOW } from '../../../fixtures/attestation/attested-server.ts';
import { cli, POLICY as POLICY_TEXT } from '../../../fixtures/attestation/cli.ts';
import { POLICY, startBoth } from '../../../fixtures/attestation/local-proxy.ts';
import { signing, STREAMED, type Tampering } from '../../../fixtures/receipts/signing-server.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-proxy-receipts-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const BODY = JSON.stringify({ model: MODEL_ID, messages: [{ role: 'user', content: 'a secret question' }] });

async function asked(
  tampering: Tampering = {},
  { withContent = false, stream = false, headers = {} } = {},
): Promise<{
  readonly response: Response;
  readonly text: string | Error;
  readonly sent: ReadonlyMap<string, string>;
}> {
  const { proxy, server } = await startBoth(signing(tampering), { receipts: { folder, withContent } });
  const body = stream ? `${BODY.slice(0, -1)},"stream":true}` : BODY;
  const response = await fetch(`${proxy.url}/v1/chat/completions`, { method: 'POST', body, headers });
  const text = await response.text().catch((error: unknown) => error as Error);
  return { response, text, sent: server.requests()[0]?.headers ?? new Map() };
}

function archives(): readonly string[] {
  return readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'));
}

describe('the proxy', () => {
  test('keeps an archive of each answer, without its texts', async () => {
    const { response, text, sent } = await asked();
    expect(response.status).toBe(200);
    expect(text).toContain('Blue.');
    expect(sent.get('assay-receipts')).toBe('final');
    const [archive = ''] = archives();
    expect(archive).not.toContain('secret question');
    expect(archive).not.toContain('Blue.');
    expect(statSync(join(folder, readdirSync(folder)[0] ?? '')).mode & 0o777).toBe(0o600);
    expect(readdirSync(folder)).toEqual([`${response.headers.get('assay-receipt-id') ?? ''}.json`]);
  });

  test('a body too large to be held is refused, and not sent', async () => {
    const { proxy, server } = await startBoth(signing({}), { receipts: { folder, withContent: false } });
    const body = Buffer.alloc(65 * 1024 * 1024, ' ');
    const response = await fetch(`${proxy.url}/v1/chat/completions`, { method: 'POST', body });
    expect([response.status, await response.text()]).toEqual([
      413,
      expect.stringContaining('input_too_large'),
    ]);
    expect(server.requests()).toHaveLength(0);
  });

  test('[R10] where an archive cannot be kept, or a whole answer breaks, no SDK sends again', async () => {
    const { proxy, server } = await startBoth(signing(), {
      receipts: { folder: join(folder, 'file', 'below'), withContent: false },
    });
    writeFileSync(join(folder, 'file'), '');
    const unkept = await fetch(`${proxy.url}/v1/chat/completions`, { method: 'POST', body: BODY });
    expect([unkept.status, unkept.headers.get('x-should-retry')]).toEqual([502, 'false']);
    expect(await unkept.json()).toMatchObject({ error: { code: 'receipt_unkept' } });
    expect(server.requests()).toHaveLength(1);
    const { response, text } = await asked({ cutWhole: 40 });
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([502, 'false']);
    expect(text).toContain('receipt_truncated');
  });

  test('hands on a stream without its comments', async () => {
    const { text } = await asked({ pieceBytes: 1 }, { stream: true });
    for (const word of STREAMED) expect(text).toContain(JSON.stringify(word));
    expect(text).not.toContain('assay');
    expect(String(text).endsWith('data: [DONE]\n\n')).toBe(true);
    expect(archives()).toHaveLength(1);
  });

  test('a client that asks for itself gets its receipts as they are', async () => {
    const { text } = await asked({}, { stream: true, headers: { 'assay-receipts': 'final' } });
    expect(text).toContain(': assay-receipt ');
    expect(archives()).toHaveLength(0);
  });

  test('[R20] refuses an answer that does not hold, and keeps no receipt of it', async () => {
    const edited = await asked({ answer: (same) => ({ ...same, body: same.body.replace('Blue', 'Gray') }) });
    expect(edited.response.status).toBe(502);
    expect(edited.response.headers.get('x-should-retry')).toBe('false');
    expect(edited.text).toContain('receipt_transcript');
    const stripped = await asked({ answer: (same) => ({ ...same, headers: {} }) });
    expect(stripped.text).toContain('receipt_missing');
    expect(archives()).toHaveLength(0);
  });

  test.each([1, 40, 4096])(
    '[R10] a stream in pieces of %d bytes that is cut has no end',
    async (pieceBytes) => {
      const upTo = (text: string): string => text.slice(0, text.indexOf(': assay-receipt'));
      const { response, text } = await asked({ stream: upTo, cut: true, pieceBytes }, { stream: true });
      // Refused with a status where no byte has passed, else the connection breaks.
      if (response.status === 200) expect(text).toBeInstanceOf(Error);
    else expect([response.headers.get('x-should-retry'), text]).toEqual(['false', expect.stringContaining('receipt_truncated')]); // prettier-ignore
      expect(archives()).toHaveLength(0);
    },
  );

  test.each([0, 1, 40])('[R10] an answer cut after %d bytes is not to be sent again', async (cutWhole) => {
    const { response, text } = await asked({ cutWhole });
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([502, 'false']);
    expect(text).toContain('receipt_truncated');
  });

  test('a receipt that cannot be kept: no answer, and it is not to be sent again', async () => {
    rmSync(folder, { recursive: true });
    writeFileSync(folder, 'no folder');
    const { response, text } = await asked();
    expect([response.status, response.headers.get('x-should-retry')]).toEqual([502, 'false']);
    expect(text).toContain('"receipt_unkept"');
    const streamed = await asked({}, { stream: true });
    expect(streamed.text).toContain('"receipt_unkept"');
  });
});

const ACCEPT = ['--policy', 'p.json', '--allow-simulated'];

async function kept(withContent = false, stream = false): Promise<Record<string, string>> {
  await asked({}, { withContent, stream });
  return { 'p.json': POLICY_TEXT, 'a.json': archives()[0] ?? '' };
}

describe('[R24] assay-verify receipt', () => {
  test('0: signed by a key in evidence that the policy accepts', async () => {
    const files = await kept();
    const ran = await cli(['receipt', 'a.json', ...ACCEPT], { files });
    expect(ran).toMatchObject({ code: 0, err: '' });
    expect(ran.out).toContain('ACCEPTED, SIMULATED');
    expect(ran.out).toContain(MODEL_ID);
    const json = await cli(['receipt', 'a.json', ...ACCEPT, '--json'], { files });
    expect(JSON.parse(json.out)).toMatchObject({ accepted: true, compared: ['model'] });
    const words = await cli(['receipt', 'a.json', ...ACCEPT, '--explain'], { files });
    expect(words.out).toContain('Not proven');
  });

  test('0: with the request and the answer, streamed or not; 10 for another of either', async () => {
    const files = await kept(true, true);
    const json = await cli(['receipt', 'a.json', ...ACCEPT, '--json'], { files });
    expect(JSON.parse(json.out)).toMatchObject({ compared: ['request', 'response', 'model'] });
    const { receipts } = JSON.parse(files['a.json'] ?? '') as {
      receipts: { request: string; response: string }[];
    };
    const [texts] = receipts;
    // In pieces of another size its end may have come with the last receipt.
    const uptoEnd = (texts?.response ?? '').replace(/data: \[DONE\]\n\n$/, '');
    const given = {
      ...files,
      q: texts?.request ?? '',
      q2: `${texts?.request ?? ''} `,
      r: texts?.response ?? '',
      r2: (texts?.response ?? '').replace('"ue"', '"ur"'),
      // As it was received to its end, as it was handed on, and with more than the receipt covers.
      r3: `${uptoEnd}data: [DONE]\n\n`,
      r4: uptoEnd.replaceAll(/: assay-[^\n]*\n\n/g, ''),
      r5: `${uptoEnd}data: More.`,
      r6: `${uptoEnd}data: [DONE] More.\n\n`,
      r7: `${uptoEnd}data: [DONE]\n\ndata: [DONE]\n\n`,
      r8: `${uptoEnd}data: {"error":{"code":"timeout"}}\n\n`,
      r9: '{"choices":[]}',
    };
    const run = async (request: string, response: string): Promise<number> =>
      (
        await cli(['receipt', 'a.json', ...ACCEPT, '--request', request, '--response', response], {
          files: given,
        })
      ).code;
    expect(await run('q', 'r')).toBe(0);
    expect(await run('q2', 'r')).toBe(10);
    for (const same of ['r', 'r3', 'r4']) expect([same, await run('q', same)]).toEqual([same, 0]);
    for (const other of ['r2', 'r5', 'r6', 'r7', 'r8', 'r9'])
      expect([other, await run('q', other)]).toEqual([other, 10]);
  });

  test('0: a stream that failed before its first event; 10 where it ends in another way', async () => {
    const outcome = {
      ...FINAL.outcome,
      transcript: commitment(SALT, 'transcript', sha256Of('')),
      events: 0,
      end: 'error' as const,
      errorCode: 'engine_crashed',
    };
    const receipt = encodeReceipt({ ...FINAL, outcome }, signReceipt);
    const judged = (code: string): Promise<readonly string[]> =>
      judgeReceipt(
        { receipt, salt: SALT, response: Buffer.from(`: assay-open x\n\ndata: {"error":{"code":"${code}"}}\n\n`) },
        { now: NOW },
      ).then(({ compared }) => compared); // prettier-ignore
    expect(await judged('engine_crashed')).toEqual(['response']);
    await expect(judged('timeout')).rejects.toMatchObject({ code: 'receipt_transcript', kind: 'refused' });
  });

  test('11: the signature holds, and no evidence was given', async () => {
    const files = await kept();
    const { receipts } = JSON.parse(files['a.json'] ?? '') as { receipts: unknown[] };
    const alone = { ...files, 'r.json': JSON.stringify(receipts[0]) };
    const ran = await cli(['receipt', 'r.json', ...ACCEPT], { files: alone });
    expect(ran.code).toBe(11);
    expect(ran.out).toContain('NOTHING VOUCHES FOR');
    const again = await cli(['receipt', 'r.json', '--evidence', 'a.json', ...ACCEPT], { files: alone });
    expect(again.code).toBe(0);
  });

  test('10: evidence that is refused, and evidence of another boot', async () => {
    const files = await kept();
    const strict = await cli(['receipt', 'a.json', '--policy', 'p.json'], { files });
    expect(strict.code).toBe(10);
    const saved: Record<string, string> = { ...files };
    const { server } = await startBoth(signing({ key: new Uint8Array(32).fill(9) }));
    await cli([server.origin, ...ACCEPT, '--save', 'other.json'], { files: saved });
    const ran = await cli(['receipt', 'a.json', '--evidence', 'other.json', ...ACCEPT, '--json'], {
      files: saved,
    });
    expect(ran.code).toBe(10);
    expect(JSON.parse(ran.out)).toMatchObject({ accepted: false, code: 'receipt_key' });
  });

  test('20: an unknown version; 30: no receipt, or wrong usage', async () => {
    const vectors = JSON.parse(readFileSync('test/vectors/receipts/receipts-v1.json', 'utf8')) as {
      receipts: { name: string; receipt: string }[];
    };
    const later = vectors.receipts.find(({ name }) => name === 'a later version')?.receipt ?? '';
    const receipt = Buffer.from(later, 'hex').toString('base64');
    const salt = Buffer.alloc(32).toString('base64');
    const short = Buffer.alloc(31).toString('base64');
    const files = {
      'later.json': JSON.stringify({ receipt, salt }),
      'short.json': JSON.stringify({ receipt, salt: short }),
      'none.json': '{}',
      text: 'hello',
    };
    expect((await cli(['receipt', 'later.json'], { files })).code).toBe(20);
    expect((await cli(['receipt', 'none.json'], { files })).code).toBe(30);
    expect((await cli(['receipt', 'short.json'], { files })).code).toBe(30);
    expect((await cli(['receipt', 'text'], { files })).code).toBe(30);
    for (const wrong of [
      ['receipt'],
      ['receipt', 'a', 'b'],
      ['receipt', 'a', '--at', 'noon'],
      ['receipt', 'a', '--json', '--explain'],
    ])
      expect((await cli(wrong, { files })).code).toBe(30);
  });
});

describe('[R21] archives', () => {
  test('verify years later at their time, and open no connection', async () => {
    const files = await kept();
    const archive = JSON.parse(files['a.json'] ?? '') as Json;
    const [file] = receiptsIn(archive);
    if (file === undefined) throw new Error('the archive has no receipt');
    const evidence = { archive, policy: parsePolicy(POLICY) };
    const years = NOW + 10 * 365 * 86_400_000;
    const judged = await judgeReceipt(file, { evidence, now: years });
    if (judged.kind !== 'attested') throw new Error('the archive has its evidence');
    expect(judged.at).toBe(NOW);
    expect(isAttestationResult(judged.result)).toBe(false);
    // @ts-expect-error an archived result is no proof about a connection
    const proof: AttestationResult = judged.result;
    expect(proof).toBe(judged.result);
    // At a time when the certificates were no longer valid it is refused, and at one yet to come.
    await expect(judgeReceipt(file, { evidence, at: years, now: years })).rejects.toMatchObject({
      kind: 'refused',
    });
    await expect(judgeReceipt(file, { evidence, at: NOW + 1, now: NOW })).rejects.toMatchObject({
      code: 'receipt_key',
    });
  });

  test('the verdict prints the window of all endorsements, and that later revocations were not looked at', async () => {
    const files = await kept();
    const years = ['receipt', 'a.json', ...ACCEPT];
    const { out } = await cli([...years, '--json'], { files });
    const {
      at,
      endorsements_valid: window,
      later_revocations: later,
    } = JSON.parse(out) as {
      at: string;
      endorsements_valid: { from: string; until: string };
      later_revocations: string;
    };
    expect([at, later]).toEqual([new Date(NOW).toISOString(), 'not looked at']);
    const words = [
      `from ${window.from} to ${window.until}`,
      /[Rr]evocations (?:that came later )?were not looked at/,
    ];
    for (const flag of [[], ['--explain']]) {
      const told = (await cli([...years, ...flag], { files })).out;
      for (const word of words) expect(told).toMatch(word);
    }
    // It is the window of the rules themselves: refused on either side of it, accepted at both ends.
    const archive = JSON.parse(files['a.json'] ?? '') as Json;
    const [file] = receiptsIn(archive);
    if (file === undefined) throw new Error('the archive has no receipt');
    const evidence = { archive, policy: parsePolicy(POLICY) };
    const [from, until] = [Date.parse(window.from), Date.parse(window.until)];
    const outcome = (time: number): Promise<string> =>
      judgeReceipt(file, { evidence, at: time, now: until + 2 }).then(
        ({ kind }) => kind,
        ({ kind }: { kind: string }) => kind,
      );
    expect(await Promise.all([from - 1, from, until - 1, until + 1].map(outcome))).toEqual([
      'refused',
      'attested',
      'attested',
      'refused',
    ]);
  });

  test('dated back by its maker: the time is printed as it was given, and is not believed outside the window', async () => {
    const files = await kept();
    const dated = async (at: string): Promise<{ readonly code: number; readonly out: string }> => {
      const archive = JSON.parse(files['a.json'] ?? '') as { evidence: { at: string }[] };
      for (const entry of archive.evidence) entry.at = at;
      return cli(['receipt', 'b.json', ...ACCEPT], {
        files: { ...files, 'b.json': JSON.stringify(archive) },
      });
    };
    const earlier = new Date(NOW - 1000).toISOString();
    const back = await dated(earlier);
    expect(back.code).toBe(0);
    expect(back.out).toContain(`Judged at ${earlier}`);
    expect((await dated('2001-01-01T00:00:00.000Z')).code).toBe(10);
  });

  test('a changed document or another policy is refused', async () => {
    const files = await kept();
    const changed = {
      ...files,
      'b.json': (files['a.json'] ?? '').replace(/"report":"(....)/, '"report":"AAAA'),
    };
    expect((await cli(['receipt', 'b.json', ...ACCEPT], { files: changed })).code).not.toBe(0);
    const other = { ...files, 'p.json': POLICY_TEXT.replace(/"measurement":"../, '"measurement":"00') };
    expect((await cli(['receipt', 'a.json', ...ACCEPT], { files: other })).code).toBe(10);
  });
});

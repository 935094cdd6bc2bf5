// The audit log: chained, fsynced, signed at its end; edits, removals and cuts are found; no content gets in.
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openAudit, verifyAudit, type Audit } from '../../src/audit.ts';
import type { RequestRecord } from '../../src/http/deps.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-audit-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const newKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey;
const publicHex = (key: KeyObject): string => createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(12).toString('hex');
const log = (): string => join(folder, 'audit.jsonl');
const head = (): string => join(folder, 'head.json');

const record = (n: number): RequestRecord => ({
  requestId: `req_${n}`,
  key: 'alice',
  method: 'POST',
  route: '/v1/chat/completions',
  status: 200,
  modelSha256: 'ab'.repeat(32),
  promptTokens: n,
  completionTokens: 2,
  evidenceSha256: null,
  milliseconds: 12.6,
  aborted: false,
});

async function open(key = newKey(), onError: (error: unknown) => void = () => undefined): Promise<Audit> {
  return openAudit({ folder, privateKey: key, now: () => 1_700_000_000_000, onError });
}

async function written(count: number, key = newKey()): Promise<KeyObject> {
  const audit = await open(key);
  for (let i = 0; i < count; i++) audit.append(record(i));
  await audit.close();
  return key;
}

const lines = (): string[] => readFileSync(log(), 'utf8').trimEnd().split('\n');

describe('writing', () => {
  test('one line per request, opened and closed, verified by the key of the boot', async () => {
    const key = await written(3);
    expect(lines()).toHaveLength(5);
    expect(JSON.parse(lines()[1]!)).toEqual({
      seq: 1,
      prev: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      time: '2023-11-14T22:13:20.000Z',
      event: 'request',
      request_id: 'req_0',
      key: 'alice',
      method: 'POST',
      route: '/v1/chat/completions',
      status: 200,
      model_sha256: 'ab'.repeat(32),
      prompt_tokens: 0,
      completion_tokens: 2,
      evidence_sha256: null,
      milliseconds: 13,
      aborted: false,
    });
    expect(await verifyAudit(folder, publicHex(key))).toEqual({
      ok: true,
      problem: null,
      count: 5,
      receiptKey: publicHex(key),
      unsigned: 0,
    });
  });

  test('what is flushed is on disk, head included, while the log stays open', async () => {
    const audit = await open();
    for (let i = 0; i < 500; i++) audit.append(record(i));
    await audit.flush();
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, count: 501, unsigned: 0 });
    await audit.close();
  });

  test('a later boot with another key continues the chain', async () => {
    await written(2);
    const second = await written(2);
    expect(await verifyAudit(folder, publicHex(second))).toMatchObject({ ok: true, count: 8 });
    expect(await verifyAudit(folder, publicHex(newKey()))).toMatchObject({
      ok: false,
      problem: expect.stringContaining('expected') as string,
    });
  });

  test('fields nobody declared do not get in', async () => {
    const audit = await open();
    audit.append({ ...record(0), prompt: 'CANARY', headers: { authorization: 'CANARY' } } as RequestRecord);
    await audit.close();
    expect(readFileSync(log(), 'utf8')).not.toContain('CANARY');
  });

  test('a disk that refuses is told once, and nothing pretends to be written', async () => {
    const errors: unknown[] = [];
    const audit = await open(newKey(), (error) => errors.push(error));
    rmSync(folder, { recursive: true });
    audit.append(record(1));
    await audit.flush();
    audit.append(record(2));
    await audit.flush();
    expect(errors).toHaveLength(1);
    await audit.close();
  });
});

describe('after a crash', () => {
  test('half a line at the end is cut, and that is recorded', async () => {
    await written(2);
    appendFileSync(log(), '{"seq":4,"prev":"ab');
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: expect.stringContaining('incomplete') as string });
    await written(1);
    expect(lines().map((line) => (JSON.parse(line) as { torn_bytes?: number }).torn_bytes)).toContain(19);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
  });

  test('lines whose head was not written any more are accepted, and counted', async () => {
    await written(1);
    const before = readFileSync(head());
    const audit = await open();
    audit.append(record(9));
    await audit.close();
    writeFileSync(head(), before);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 3 });
  });
});

describe('tampering', () => {
  test.each([
    ['a changed field', (all: string[]) => all.with(2, all[2]!.replace('"status":200', '"status":500')), /^line 4 does not follow/],
    ['a removed line', (all: string[]) => all.toSpliced(2, 1), /^line 3 has number 3, expected 2/],
    ['two lines swapped', (all: string[]) => all.with(1, all[2]!).with(2, all[1]!), /^line 2 has number 2/],
    ['a line inserted', (all: string[]) => all.toSpliced(2, 0, all[2]!), /^line 4 has number 2/],
    ['lines cut off at the end', (all: string[]) => all.slice(0, 3), /lines are missing at the end/],
    [
      'a changed last line',
      (all: string[]) => all.with(all.length - 1, all.at(-1)!.replace('close', 'klose')),
      /is not the one head\.json was signed over/,
    ],
    ['a line that is not JSON', (all: string[]) => all.with(1, 'x'), /^line 2 is not JSON/],
    ['everything gone', () => [], /lines are missing|has 0 lines/],
  ])('%s is found, and the server refuses to append', async (_, change, problem) => {
    await written(4);
    const changed = change(lines());
    writeFileSync(log(), changed.length === 0 ? '' : `${changed.join('\n')}\n`);
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: expect.stringMatching(problem) as string });
    await expect(open()).rejects.toThrow(/does not verify/);
  });

  test('a head that was cut back to an earlier line no longer verifies, nor does one signed by another key', async () => {
    await written(4);
    const good = JSON.parse(readFileSync(head(), 'utf8')) as { count: number; key: string };
    writeFileSync(head(), JSON.stringify({ ...good, count: 2 }));
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: 'the signature of head.json does not verify' });
    writeFileSync(head(), JSON.stringify({ ...good, key: publicHex(newKey()) }));
    expect(await verifyAudit(folder)).toMatchObject({ ok: false });
    writeFileSync(head(), '{}');
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: 'head.json is not a head' });
    rmSync(head());
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: expect.stringContaining('no head.json') as string });
  });

  test('who rewrites log and head with a key of his own is found by the attested key', async () => {
    const key = await written(4);
    rmSync(log());
    rmSync(head());
    await written(4);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
    expect(await verifyAudit(folder, publicHex(key))).toMatchObject({ ok: false });
  });

  test('property: flipping any one bit of the log is found', async () => {
    await written(3);
    const good = readFileSync(log());
    await fc.assert(
      fc.asyncProperty(fc.nat(good.length - 1), fc.nat(7), async (at, bit) => {
        const bad = Buffer.from(good);
        bad[at]! ^= 1 << bit;
        writeFileSync(log(), bad);
        expect((await verifyAudit(folder)).ok).toBe(false);
      }),
      { numRuns: 100 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});

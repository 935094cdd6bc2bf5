// The audit log: chained, fsynced, signed by every run; edits, removals and cuts are found, before a restart and after it; no
// content gets in; strangers cannot fill the disk.

import { spawn } from 'node:child_process';
import { createHash, createPublicKey, generateKeyPairSync, sign, type KeyObject } from 'node:crypto';
import { once } from 'node:events';
import {
  appendFileSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openAudit, verifyAudit, type Audit, type AuditOptions } from '../../../src/audit/write.ts';
import type { RequestRecord } from '../../../src/http/deps.ts';
import { manualClock, type ManualClock } from '../../fixtures/clock.ts';

let folder: string;
let clock: ManualClock;
beforeEach(() => {
  clock = manualClock(1_700_000_000_000);
  folder = mkdtempSync(join(tmpdir(), 'assay-audit-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function newKey(): KeyObject {
  return generateKeyPairSync('ed25519').privateKey;
}
function publicHex(key: KeyObject): string {
  return createPublicKey(key).export({ format: 'der', type: 'spki' }).subarray(12).toString('hex');
}
function log(): string {
  return join(folder, 'audit.jsonl');
}
function head(): string {
  return join(folder, 'head.json');
}

function record(n: number): RequestRecord {
  return {
    requestId: `req_${n}`,
    key: 'alice',
    admitted: true,
    method: 'POST',
    route: '/v1/chat/completions',
    status: 200,
    modelSha256: 'ab'.repeat(32),
    promptTokens: n,
    completionTokens: 2,
    evidenceSha256: null,
    milliseconds: 12.6,
    aborted: false,
  };
}

async function open(key = newKey(), options: Partial<AuditOptions> = {}): Promise<Audit> {
  const onError = (error: unknown): void => expect.fail(String(error));
  return openAudit({
    folder,
    privateKey: key,
    clock,
    maxSegmentBytes: 1 << 20,
    maxSegments: 0,
    onError,
    ...options,
  });
}

async function written(
  count: number,
  key = newKey(),
  options: Partial<AuditOptions> = {},
): Promise<KeyObject> {
  const audit = await open(key, options);
  for (let i = 0; i < count; i++) audit.append(record(i));
  await audit.close();
  return key;
}

function lines(): string[] {
  return readFileSync(log(), 'utf8').trimEnd().split('\n');
}
function records(): Record<string, unknown>[] {
  return lines().map((line) => JSON.parse(line) as Record<string, unknown>);
}
function put(all: readonly string[]): void {
  return writeFileSync(log(), all.map((line) => `${line}\n`).join(''));
}
function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** What whoever owns the disk can do: any change, and the chain computed anew. */
function rechained(
  all: readonly string[],
  change: (record: Record<string, unknown>) => Record<string, unknown>,
): string[] {
  let prev: unknown;
  return all.map((line) => {
    const record = change(JSON.parse(line) as Record<string, unknown>);
    const text = JSON.stringify({ ...record, prev: prev ?? record['prev'] });
    prev = sha256(text);
    return text;
  });
}

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
    expect(await verifyAudit(folder, [publicHex(key).toUpperCase()])).toEqual({
      ok: true,
      problem: null,
      count: 5,
      first: 0,
      segments: 1,
      receiptKey: publicHex(key),
      unsigned: 0,
      runs: [{ key: publicHex(key), from: 0, to: 5, signed: 5, unsigned: 0, anchored: true }],
      unanchored: 0,
    });
    expect(readdirSync(folder).sort()).toEqual(['audit.jsonl', 'head.json', 'lock-audit-1']);
  });

  test('what is flushed is on disk, head included, while the log stays open', async () => {
    const audit = await open();
    for (let i = 0; i < 500; i++) audit.append(record(i));
    await audit.flush();
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, count: 501, unsigned: 0 });
    await audit.close();
  });

  test('a later boot with another key continues the chain; both are verified, each by its key', async () => {
    const keys = [await written(2), await written(3)].map(publicHex);
    const [first = '', second = ''] = keys;
    const verdict = await verifyAudit(folder, keys);
    expect(verdict).toMatchObject({ ok: true, count: 9, unanchored: 0 });
    expect(verdict.runs).toEqual([
      { key: first, from: 0, to: 4, signed: 4, unsigned: 0, anchored: true },
      { key: second, from: 4, to: 9, signed: 9, unsigned: 0, anchored: true },
    ]);
    // One key is not all keys, and that is said.
    expect(await verifyAudit(folder, [second])).toMatchObject({
      ok: true,
      unanchored: 1,
      runs: [{ anchored: false }, { anchored: true }],
    });
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unanchored: 2 });
    // A key that was attested and that no run has: that run is not here.
    expect(await verifyAudit(folder, [...keys, publicHex(newKey())])).toMatchObject({
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
    const audit = await open(newKey(), { onError: (error) => errors.push(error) });
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
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('incomplete') as string,
    });
    await written(1);
    expect(lines().map((line) => (JSON.parse(line) as { torn_bytes?: number }).torn_bytes)).toContain(19);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
  });

  test('lines whose head was not written any more are accepted, and counted, after the next start too', async () => {
    const keys = [await written(1)];
    keys.push(newKey());
    const audit = await open(keys[1]);
    audit.append(record(7));
    await audit.flush();
    const before = readFileSync(head());
    audit.append(record(8));
    audit.append(record(9));
    await audit.flush();
    writeFileSync(head(), before);
    // As if its process had died.
    for (const name of readdirSync(folder)) if (name.startsWith('lock-')) rmSync(join(folder, name));
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 2 });
    keys.push(await written(1));
    const verdict = await verifyAudit(folder, keys.map(publicHex));
    expect(verdict).toMatchObject({ ok: true, unsigned: 0, unanchored: 0 });
    expect(verdict.runs.map(({ from, to, signed, unsigned }) => [from, to, signed, unsigned])).toEqual([
      [0, 3, 3, 0],
      [3, 7, 5, 2],
      [7, 10, 10, 0],
    ]);
  });

  test('the head of the empty log is there before the first line is made', async () => {
    let before: unknown;
    const now = (): number => {
      before ??= JSON.parse(readFileSync(head(), 'utf8'));
      return clock.now();
    };
    const key = await written(1, newKey(), { clock: { ...clock, now } });
    expect(before).toMatchObject({ count: 0, key: publicHex(key) });
  });

  test('a start that ends between its first line and its head, or before its first line, is no trouble', async () => {
    const audit = await open();
    await audit.flush();
    const keys = [];
    // Before the first line: only the head of the empty log, and of that the rename may be missing.
    const [first = ''] = lines();
    await audit.close();
    for (const content of ['', first.slice(0, 20)]) {
      writeFileSync(log(), content);
      const key = newKey();
      writeFileSync(head(), headOf(key, 0, JSON.parse(first).prev));
      keys.push(await written(1, key));
    }
    // After its `open` line.
    const before = readFileSync(head());
    const crashed = await open();
    await crashed.close();
    writeFileSync(head(), before);
    put(lines().slice(0, -1));
    const last = await written(1);
    const verdict = await verifyAudit(folder, [publicHex(keys[1]!), publicHex(last)]);
    expect(verdict).toMatchObject({ ok: true, unanchored: 1 });
    expect(verdict.runs[1]).toMatchObject({ signed: null, unsigned: 1, anchored: false });
  });
});

function headOf(key: KeyObject, count: number, hash: string): string {
  const signature = sign(
    null,
    Buffer.from(`assay/audit-head/v1\n${count}\n${hash}\n${publicHex(key)}\n`),
    key,
  ).toString('hex');
  return JSON.stringify({ version: 1, count, hash, key: publicHex(key), signature });
}

describe('tampering', () => {
  test.each([
    [
      'a changed field',
      (all: string[]) => all.with(2, all[2]!.replace('"status":200', '"status":500')),
      /^line 4 does not follow/,
    ],
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
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringMatching(problem) as string,
    });
    await expect(open()).rejects.toThrow(/does not verify/);
  });

  test('a head that was cut back to an earlier line no longer verifies, nor does one signed by another key', async () => {
    await written(4);
    const good = JSON.parse(readFileSync(head(), 'utf8')) as { count: number; key: string };
    writeFileSync(head(), JSON.stringify({ ...good, count: 2 }));
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: 'the signature of head.json does not verify',
    });
    writeFileSync(head(), JSON.stringify({ ...good, key: publicHex(newKey()) }));
    expect(await verifyAudit(folder)).toMatchObject({ ok: false });
    writeFileSync(head(), '{}');
    expect(await verifyAudit(folder)).toMatchObject({ ok: false, problem: 'head.json is not a head' });
    rmSync(head());
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('no head.json') as string,
    });
  });

  test('who rewrites log and head with a key of his own is found by the attested key', async () => {
    const key = await written(4);
    rmSync(log());
    rmSync(head());
    await written(4);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unanchored: 1 });
    expect(await verifyAudit(folder, [publicHex(key)])).toMatchObject({ ok: false });
  });

  test.each<[string, (all: string[]) => string[]]>([
    ['nothing but the head', (all) => all],
    ['the head and the last lines', (all) => all.slice(0, 3)],
    ['the head and all but half a line', (all) => [all[0]!.slice(0, 30)]],
    [
      'the head, with a line edited and the chain computed anew',
      (all) => rechained(all, (r) => (r['seq'] === 2 ? { ...r, key: 'x' } : r)),
    ],
  ])('removed: %s; the server does not start, and says which file to move away', async (_, change) => {
    await written(5);
    put(change(lines()));
    rmSync(head());
    await expect(open()).rejects.toThrow(
      `the audit log does not verify: ${log()}: there are lines and no head.json; move the folder`,
    );
    expect(await verifyAudit(folder)).toMatchObject({ ok: false });
  });

  test('a head of the empty log in place of the head: what it does not cover is said not to be signed, and the key given is refused', async () => {
    const key = await written(5);
    put(lines().slice(0, 3));
    writeFileSync(head(), headOf(key, 0, records()[0]!['prev'] as string));
    const next = await written(1);
    expect(await verifyAudit(folder, [publicHex(next)])).toMatchObject({
      ok: true,
      runs: [{ signed: null, unsigned: 3 }, { signed: 6 }],
    });
    expect(await verifyAudit(folder, [publicHex(key), publicHex(next)])).toMatchObject({
      ok: false,
      problem: expect.stringContaining('its head was put back') as string,
    });
  });

  test('an invented history, continued by the genuine server: not anchored by the key of that, refused by the key of the true one', async () => {
    const genuine = await written(5);
    rmSync(log());
    rmSync(head());
    const invented = await written(3);
    const later = await written(2);
    const verdict = await verifyAudit(folder, [publicHex(later)]);
    expect(verdict).toMatchObject({
      ok: true,
      unanchored: 1,
      runs: [{ key: publicHex(invented), anchored: false }, { anchored: true }],
    });
    expect(await verifyAudit(folder, [publicHex(genuine), publicHex(later)])).toMatchObject({ ok: false });
  });

  test('an earlier run edited after a restart, the chain computed anew and signed by whoever does not have its key', async () => {
    const key = await written(3);
    await written(1);
    const mallory = newKey();
    const edited = rechained(lines(), (r) => (r['seq'] === 2 ? { ...r, key: 'mallory' } : r));
    put(edited);
    writeFileSync(head(), headOf(mallory, edited.length, sha256(edited.at(-1)!)));
    expect(await verifyAudit(folder, [publicHex(key)])).toMatchObject({
      ok: false,
      problem: expect.stringMatching(
        /^line 6 opens a run, but line 5 is not the one the head of the run before was signed over/,
      ) as string,
    });
    // A head of his own for that run does not fit its key.
    const own = JSON.parse(headOf(mallory, 5, sha256(edited[4]!))) as unknown;
    const again = rechained(edited, (r) => (r['seq'] === 5 ? { ...r, previous: own } : r));
    put(again);
    writeFileSync(head(), headOf(mallory, again.length, sha256(again.at(-1)!)));
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('signed by another key') as string,
    });
  });

  test('an anchored run edited, and the run after it invented with a head of the anchored key that nobody signed', async () => {
    const key = await written(3);
    const mallory = newKey();
    await written(1, mallory);
    const edited = rechained(lines(), (r) => (r['seq'] === 2 ? { ...r, key: 'mallory' } : r));
    const forged = { ...(JSON.parse(headOf(mallory, 5, sha256(edited[4]!))) as object), key: publicHex(key) };
    const all = rechained(edited, (r) => (r['seq'] === 5 ? { ...r, previous: forged } : r));
    put(all);
    writeFileSync(head(), headOf(mallory, all.length, sha256(all.at(-1)!)));
    expect(await verifyAudit(folder, [publicHex(key)])).toMatchObject({
      ok: false,
      problem: 'line 6 carries a head of the run before whose signature does not verify',
    });
  });

  test('a head put back to before a run that the log has is found at the next start', async () => {
    await written(2);
    const early = readFileSync(head());
    const audit = await open();
    const at = readFileSync(head());
    await audit.close();
    await written(1);
    writeFileSync(head(), early);
    await expect(open()).rejects.toThrow(
      /head\.json is of line 4, and line 6 was signed before: it was put back/,
    );
    writeFileSync(head(), at);
    await expect(open()).rejects.toThrow(/it was put back/);
  });

  test('more lines after the head than a crash can leave are not taken for its remains', async () => {
    await written(0);
    let prev = sha256(lines().at(-1)!);
    const more = Array.from({ length: 131_073 }, (_, i) => {
      const text = JSON.stringify({ seq: i + 2, prev });
      prev = sha256(text);
      return `${text}\n`;
    });
    appendFileSync(log(), more.slice(0, -1).join(''));
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 131_072 });
    appendFileSync(log(), more.at(-1)!);
    await expect(open()).rejects.toThrow(/131073 lines follow head\.json, more than a crash leaves/);
  });

  test('property: flipping any one bit of the log is found', async () => {
    await written(2);
    await written(1);
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

/** A request that nobody with a key sent. */
function stranger(status: number): RequestRecord {
  return {
    ...record(0),
    key: null,
    admitted: false,
    status,
    route: '(none)',
    modelSha256: null,
  };
}

describe('requests without a key', () => {
  test('are counted, by status, in one line per interval, however many they are', async () => {
    const audit = await open();
    for (let i = 0; i < 10_000; i++) audit.append(stranger(i % 4 === 0 ? 404 : 401));
    clock.advance(59_999);
    audit.append(stranger(405));
    await new Promise(setImmediate);
    expect(lines()).toHaveLength(1);
    clock.advance(1);
    await audit.flush();
    audit.append(stranger(401));
    await audit.close();
    expect(
      records()
        .slice(1)
        .map(({ seq: _seq, prev: _prev, ...rest }) => rest),
    ).toEqual([
      {
        time: '2023-11-14T22:14:20.000Z',
        event: 'keyless',
        count: 10_001,
        statuses: { 401: 7500, 404: 2500, 405: 1 },
        from: '2023-11-14T22:13:20.000Z',
        to: '2023-11-14T22:14:20.000Z',
      },
      {
        time: '2023-11-14T22:14:20.000Z',
        event: 'keyless',
        count: 1,
        statuses: { 401: 1 },
        from: '2023-11-14T22:14:20.000Z',
        to: '2023-11-14T22:14:20.000Z',
      },
      { time: '2023-11-14T22:14:20.000Z', event: 'close' },
    ]);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 0 });
  });

  test('are on disk with the next batch, and with a flush: no head leaves out what was before it', async () => {
    const audit = await open();
    audit.append(stranger(401));
    audit.append(record(1));
    await audit.flush();
    audit.append(stranger(404));
    await audit.flush();
    expect(records().map((r) => [r['event'], r['count']])).toEqual([
      ['open', undefined],
      ['request', undefined],
      ['keyless', 1],
      ['keyless', 1],
    ]);
    await audit.close();
  });

  test('who was let in without a key, showed one that was refused, or was handed evidence, has a line', async () => {
    const audit = await open();
    audit.append({ ...stranger(200), admitted: true });
    audit.append({ ...stranger(403), key: 'alice' });
    audit.append({ ...stranger(200), evidenceSha256: 'cd'.repeat(32) });
    await audit.close();
    expect(records().map((r) => r['event'])).toEqual(['open', 'request', 'request', 'request', 'close']);
  });

  test('property: every request is accounted for, as a line or in a count', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.constantFrom('key', 'none', 'tick', 'flush'), fc.constantFrom(401, 404)), {
          maxLength: 60,
        }),
        async (steps) => {
          rmSync(folder, { recursive: true });
          const audit = await open(newKey(), { maxSegmentBytes: 4096 });
          for (const [step, status] of steps) {
            if (step === 'tick') clock.advance(30_000);
            else if (step === 'flush') await audit.flush();
            else audit.append(step === 'key' ? { ...record(1), status } : stranger(status));
          }
          await audit.close();
          expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 0 });
          const all = everything();
          expect(all.filter((r) => r['event'] === 'request')).toHaveLength(
            steps.filter(([step]) => step === 'key').length,
          );
          for (const status of [401, 404]) {
            const counted = all.map((r) =>
              r['event'] === 'keyless' ? ((r['statuses'] as Record<string, number>)[status] ?? 0) : 0,
            );
            expect(counted.reduce((sum, n) => sum + n, 0)).toBe(
              steps.filter(([step, s]) => step === 'none' && s === status).length,
            );
          }
        },
      ),
      { numRuns: 30 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});

function segments(): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.jsonl'))
    .sort();
}
function everything(): Record<string, unknown>[] {
  return segments()
    .toSorted((a, b) => (a === 'audit.jsonl' ? 1 : b === 'audit.jsonl' ? -1 : a < b ? -1 : 1))
    .flatMap((name) => readFileSync(join(folder, name), 'utf8').trimEnd().split('\n'))
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('segments', () => {
  const small = { maxSegmentBytes: 4096 };

  test('are of bounded size and one chain, over restarts too; nothing is removed unless it is configured', async () => {
    const keys = [await written(40, newKey(), small), await written(40, newKey(), small)];
    expect(segments().length).toBeGreaterThan(6);
    for (const name of segments()) expect(statSync(join(folder, name)).size).toBeLessThan(4096 + 1024);
    const all = everything();
    expect(all.map((r) => r['seq'])).toEqual(all.map((_, i) => i));
    expect(all.filter((r) => r['event'] === 'request')).toHaveLength(80);
    expect(await verifyAudit(folder, keys.map(publicHex))).toMatchObject({
      ok: true,
      first: 0,
      count: all.length,
      unanchored: 0,
    });
  });

  test('a batch of more than a segment is spread over segments', async () => {
    const audit = await open(newKey(), small);
    for (let i = 0; i < 200; i++) audit.append(record(i));
    await audit.close();
    expect(segments().length).toBeGreaterThan(10);
    for (const name of segments()) expect(statSync(join(folder, name)).size).toBeLessThan(4096 + 1024);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 0 });
  });

  test('with max_segments the oldest go, and the log says so: by a line that is signed', async () => {
    const limited = { ...small, maxSegments: 3 };
    const first = newKey();
    const audit = await open(first, limited);
    for (let i = 0; i < 60; i++) {
      audit.append(record(i));
      await audit.flush();
      expect(await verifyAudit(folder, [publicHex(first)])).toMatchObject({
        ok: true,
        unsigned: 0,
        unanchored: 0,
      });
    }
    await audit.close();
    const keys = [first, await written(60, newKey(), limited)];
    expect(segments()).toHaveLength(3);
    const verdict = await verifyAudit(folder, [publicHex(keys[1]!)]);
    expect(verdict).toMatchObject({ ok: true, segments: 3, unanchored: 0 });
    expect(verdict.first).toBeGreaterThan(60);
    expect(verdict.count).toBe(everything().length);
    // The first run is not there any more, as its key finds.
    expect(await verifyAudit(folder, [publicHex(keys[0]!)])).toMatchObject({ ok: false });
    // And the server goes on from there.
    await written(60, newKey(), limited);
    expect(segments()).toHaveLength(3);
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
  });

  test.each([
    ['the oldest', (all: string[]) => all[0]!, /first line is number \d+, and no signed line says/],
    ['one in the middle', (all: string[]) => all[1]!, /^line \d+ has number/],
    ['the current one', () => 'audit.jsonl', /lines are missing at the end/],
  ])('%s removed by somebody else is found, and the server refuses', async (_, which, problem) => {
    await written(60, newKey(), small);
    rmSync(join(folder, which(segments())));
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringMatching(problem) as string,
    });
    await expect(open()).rejects.toThrow(/does not verify/);
  });

  test('a line saying that segments were removed counts only when it is signed', async () => {
    await written(60, newKey(), small);
    const all = everything();
    const last = lines().at(-1)!;
    rmSync(join(folder, segments()[0]!));
    const first = JSON.parse(readFileSync(join(folder, segments()[0]!), 'utf8').split('\n')[0]!) as Record<
      string,
      unknown
    >;
    appendFileSync(
      log(),
      `${JSON.stringify({ seq: all.length, prev: sha256(last), event: 'dropped', first: first['seq'], next: first['prev'] })}\n`,
    );
    expect(await verifyAudit(folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('no signed line says') as string,
    });
  });

  test('a crash between setting one aside and beginning the next', async () => {
    const keys = [await written(60, newKey(), small)];
    renameSync(log(), join(folder, `audit-${String(segments().length).padStart(8, '0')}.jsonl`));
    expect(await verifyAudit(folder)).toMatchObject({ ok: true });
    keys.push(await written(20, newKey(), small));
    expect(await verifyAudit(folder, keys.map(publicHex))).toMatchObject({ ok: true, unanchored: 0 });
  });
});

test('clients that hold every descriptor of the process do not keep it from recording, over segments', async () => {
  const script = `
    import { openSync } from 'node:fs';
    import { generateKeyPairSync } from 'node:crypto';
    import { openAudit } from ${JSON.stringify(new URL('../../../dist/src/audit/write.js', import.meta.url).href)};
    import { systemClock } from ${JSON.stringify(new URL('../../../dist/src/base/clock.js', import.meta.url).href)};
    const privateKey = generateKeyPairSync('ed25519').privateKey;
    const onError = (error) => { process.stdout.write('failed ' + error.code + '\\n'); };
    const audit = await openAudit({ folder: process.argv[1], privateKey, clock: systemClock, maxSegmentBytes: 4096, maxSegments: 0, onError });
    let full;
    while (full === undefined) { try { openSync('/dev/null', 'r'); } catch (error) { full = error.code; } }
    process.stdout.write(full + '\\n');
    for (let i = 0; i < 60; i++) {
      audit.append({ requestId: 'r' + i, key: 'alice', admitted: true, method: 'GET', route: '/', status: 200, modelSha256: null,
        promptTokens: 0, completionTokens: 0, evidenceSha256: null, milliseconds: 1, aborted: false });
      await audit.flush();
    }
    await audit.close();
  `;
  const child = spawn('sh', [
    '-c',
    'ulimit -n 64 && exec "$0" "$@"',
    process.execPath,
    '--input-type=module',
    '-e',
    script,
    folder,
  ]);
  let [out, err] = ['', ''];
  child.stdout.on('data', (part) => (out += String(part)));
  child.stderr.on('data', (part) => (err += String(part)));
  const [code] = (await once(child, 'close')) as [number];
  expect([code, out, err]).toEqual([0, 'EMFILE\n', '']);
  expect(segments().length).toBeGreaterThan(3);
  expect(await verifyAudit(folder)).toMatchObject({ ok: true, unsigned: 0 });
  expect(everything().filter((r) => r['event'] === 'request')).toHaveLength(60);
});

test('more records than may wait for the disk: the log has failed, once, and says so', async () => {
  const errors: unknown[] = [];
  const audit = await open(newKey(), { onError: (error) => errors.push(error) });
  for (let i = 0; i < 65_540; i++) audit.append(record(i));
  expect(errors.map(String)).toEqual(['Error: too many audit records are waiting for the disk']);
  await audit.close();
});

describe('assay audit verify', () => {
  const cli = fileURLToPath(new URL('../../../dist/src/cli/main.js', import.meta.url));
  async function verifying(...args: string[]): Promise<[number | null, string]> {
    const child = spawn(process.execPath, [cli, 'audit', 'verify', folder, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => (out += part));
    const [code] = (await once(child, 'close')) as [number | null];
    return [code, out];
  }

  test('lists the runs and says which are not anchored; several keys may be given, and each must be there', async () => {
    const [first = '', second = ''] = [await written(2), await written(2)].map(publicHex);
    expect(await verifying()).toEqual([0, expect.stringContaining('2 of 2 runs not anchored') as string]);
    const [code, out] = await verifying('--receipt-key', second);
    expect([code, out.split('\n').slice(0, 4)]).toEqual([
      0,
      [
        `audit log intact: 8 records, head signed by ${second}`,
        `run 1: records 0 to 3, key ${first}, NOT ANCHORED`,
        `run 2: records 4 to 7, key ${second}, attested key given`,
        '1 of 2 runs not anchored: whoever could write to the folder before the next anchored run',
      ],
    ]);
    const [both, text] = await verifying('--receipt-key', second, '--receipt-key', first);
    expect([both, text]).toEqual([0, expect.not.stringContaining('anchored')]);
    const [none, why] = await verifying('--receipt-key', second, '--receipt-key', publicHex(newKey()));
    expect([none, why]).toEqual([1, expect.stringContaining('no run was signed by the expected key')]);
    const [, json] = await verifying('--json', '--receipt-key', first);
    expect(JSON.parse(json)).toMatchObject({
      ok: true,
      unanchored: 1,
      runs: [{ anchored: true }, { anchored: false }],
    });
  });
});

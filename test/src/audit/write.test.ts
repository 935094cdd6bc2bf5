// The audit log: chained, fsynced, signed by every run; edits, removals and cuts are found, before a restart
// and after it; no content gets in; strangers cannot fill the disk.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { verifyAudit } from '../../../src/audit/write.ts';
import type { RequestRecord } from '../../../src/http/deps.ts';
import { newKey, publicHex, record, headOf, useAuditFolder } from '../../fixtures/audit/audit-folder.ts';

const fixture = useAuditFolder();
const { log, head, open, written, lines, put, segments, everything } = fixture;

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
      receipt_sha256: null,
      milliseconds: 13,
      aborted: false,
    });
    expect(await verifyAudit(fixture.folder, [publicHex(key).toUpperCase()])).toEqual({
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
    expect(readdirSync(fixture.folder).sort()).toEqual(['audit.jsonl', 'head.json', 'lock-audit-1']);
  });

  test('what is flushed is on disk, head included, while the log stays open', async () => {
    const audit = await open();
    for (let i = 0; i < 500; i++) audit.append(record(i));
    await audit.flush();
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, count: 501, unsigned: 0 });
    await audit.close();
  });

  test('a later boot with another key continues the chain; both are verified, each by its key', async () => {
    const keys = [await written(2), await written(3)].map(publicHex);
    const [first = '', second = ''] = keys;
    const verdict = await verifyAudit(fixture.folder, keys);
    expect(verdict).toMatchObject({ ok: true, count: 9, unanchored: 0 });
    expect(verdict.runs).toEqual([
      { key: first, from: 0, to: 4, signed: 4, unsigned: 0, anchored: true },
      { key: second, from: 4, to: 9, signed: 9, unsigned: 0, anchored: true },
    ]);
    // One key is not all keys, and that is said.
    expect(await verifyAudit(fixture.folder, [second])).toMatchObject({
      ok: true,
      unanchored: 1,
      runs: [{ anchored: false }, { anchored: true }],
    });
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unanchored: 2 });
    // A key that was attested and that no run has: that run is not here.
    expect(await verifyAudit(fixture.folder, [...keys, publicHex(newKey())])).toMatchObject({
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
    rmSync(fixture.folder, { recursive: true });
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('incomplete') as string,
    });
    await written(1);
    expect(lines().map((line) => (JSON.parse(line) as { torn_bytes?: number }).torn_bytes)).toContain(19);
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true });
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
    for (const name of readdirSync(fixture.folder))
      if (name.startsWith('lock-')) rmSync(join(fixture.folder, name));
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 2 });
    keys.push(await written(1));
    const verdict = await verifyAudit(fixture.folder, keys.map(publicHex));
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
      return fixture.clock.now();
    };
    const key = await written(1, newKey(), { clock: { ...fixture.clock, now } });
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
    const verdict = await verifyAudit(fixture.folder, [publicHex(keys[1]!), publicHex(last)]);
    expect(verdict).toMatchObject({ ok: true, unanchored: 1 });
    expect(verdict.runs[1]).toMatchObject({ signed: null, unsigned: 1, anchored: false });
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
    fixture.folder,
  ]);
  let [out, err] = ['', ''];
  child.stdout.on('data', (part) => (out += String(part)));
  child.stderr.on('data', (part) => (err += String(part)));
  const [code] = (await once(child, 'close')) as [number];
  expect([code, out, err]).toEqual([0, 'EMFILE\n', '']);
  expect(segments().length).toBeGreaterThan(3);
  expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 0 });
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
    const child = spawn(process.execPath, [cli, 'audit', 'verify', fixture.folder, ...args], {
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

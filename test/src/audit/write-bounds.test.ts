// Bounds of the audit log: requests without a key are counted instead of written, and segments
// have a size and a number.

import { appendFileSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { verifyAudit } from '../../../src/audit/write.ts';
import type { RequestRecord } from '../../../src/http/deps.ts';
import { newKey, publicHex, record, sha256, useAuditFolder } from '../../fixtures/audit/audit-folder.ts';

const fixture = useAuditFolder();
const { log, open, written, lines, records, segments, everything } = fixture;

/** A request sent without a key. */
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
    fixture.clock.advance(59_999);
    audit.append(stranger(405));
    await new Promise(setImmediate);
    expect(lines()).toHaveLength(1);
    fixture.clock.advance(1);
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 0 });
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
          rmSync(fixture.folder, { recursive: true });
          const audit = await open(newKey(), { maxSegmentBytes: 4096 });
          for (const [step, status] of steps) {
            if (step === 'tick') fixture.clock.advance(30_000);
            else if (step === 'flush') await audit.flush();
            else audit.append(step === 'key' ? { ...record(1), status } : stranger(status));
          }
          await audit.close();
          expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 0 });
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

describe('segments', () => {
  const small = { maxSegmentBytes: 4096 };

  test('are of bounded size and one chain, over restarts too; nothing is removed unless it is configured', async () => {
    const keys = [await written(40, newKey(), small), await written(40, newKey(), small)];
    expect(segments().length).toBeGreaterThan(6);
    for (const name of segments())
      expect(statSync(join(fixture.folder, name)).size).toBeLessThan(4096 + 1024);
    const all = everything();
    expect(all.map((r) => r['seq'])).toEqual(all.map((_, i) => i));
    expect(all.filter((r) => r['event'] === 'request')).toHaveLength(80);
    expect(await verifyAudit(fixture.folder, keys.map(publicHex))).toMatchObject({
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
    for (const name of segments())
      expect(statSync(join(fixture.folder, name)).size).toBeLessThan(4096 + 1024);
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 0 });
  });

  test('with max_segments the oldest go, and the log says so: by a line that is signed', async () => {
    const limited = { ...small, maxSegments: 3 };
    const first = newKey();
    const audit = await open(first, limited);
    for (let i = 0; i < 60; i++) {
      audit.append(record(i));
      await audit.flush();
      expect(await verifyAudit(fixture.folder, [publicHex(first)])).toMatchObject({
        ok: true,
        unsigned: 0,
        unanchored: 0,
      });
    }
    await audit.close();
    const keys = [first, await written(60, newKey(), limited)];
    expect(segments()).toHaveLength(3);
    const verdict = await verifyAudit(fixture.folder, [publicHex(keys[1]!)]);
    expect(verdict).toMatchObject({ ok: true, segments: 3, unanchored: 0 });
    expect(verdict.first).toBeGreaterThan(60);
    expect(verdict.count).toBe(everything().length);
    // The first run is not there any more, as its key finds.
    expect(await verifyAudit(fixture.folder, [publicHex(keys[0]!)])).toMatchObject({ ok: false });
    // And the server goes on from there.
    await written(60, newKey(), limited);
    expect(segments()).toHaveLength(3);
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true });
  });

  test.each([
    ['the oldest', (all: string[]) => all[0]!, /first line is number \d+, and no signed line says/],
    ['one in the middle', (all: string[]) => all[1]!, /^line \d+ has number/],
    ['the current one', () => 'audit.jsonl', /lines are missing at the end/],
  ])('%s removed by somebody else is found, and the server refuses', async (_, which, problem) => {
    await written(60, newKey(), small);
    rmSync(join(fixture.folder, which(segments())));
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: expect.stringMatching(problem) as string,
    });
    await expect(open()).rejects.toThrow(/does not verify/);
  });

  test('a line saying that segments were removed counts only when it is signed', async () => {
    await written(60, newKey(), small);
    const all = everything();
    const last = lines().at(-1)!;
    rmSync(join(fixture.folder, segments()[0]!));
    const first = JSON.parse(
      readFileSync(join(fixture.folder, segments()[0]!), 'utf8').split('\n')[0]!,
    ) as Record<string, unknown>;
    appendFileSync(
      log(),
      `${JSON.stringify({ seq: all.length, prev: sha256(last), event: 'dropped', first: first['seq'], next: first['prev'] })}\n`,
    );
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('no signed line says') as string,
    });
  });

  test('a crash between setting one aside and beginning the next', async () => {
    const keys = [await written(60, newKey(), small)];
    renameSync(log(), join(fixture.folder, `audit-${String(segments().length).padStart(8, '0')}.jsonl`));
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true });
    keys.push(await written(20, newKey(), small));
    expect(await verifyAudit(fixture.folder, keys.map(publicHex))).toMatchObject({ ok: true, unanchored: 0 });
  });
});

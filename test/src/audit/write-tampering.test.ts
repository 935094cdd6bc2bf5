// Tampering with the audit log: edits, removals, cuts and inventions are found, before a restart and after
// it.

import { appendFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { verifyAudit } from '../../../src/audit/write.ts';
import { newKey, publicHex, sha256, headOf, useAuditFolder } from '../../fixtures/audit/audit-folder.ts';

const fixture = useAuditFolder();
const { log, head, open, written, lines, records, put } = fixture;

/** The owner of the disk changes any record and computes the chain anew. */
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: expect.stringMatching(problem) as string,
    });
    await expect(open()).rejects.toThrow(/does not verify/);
  });

  test('a head that was cut back to an earlier line no longer verifies, nor does one signed by another key', async () => {
    await written(4);
    const good = JSON.parse(readFileSync(head(), 'utf8')) as { count: number; key: string };
    writeFileSync(head(), JSON.stringify({ ...good, count: 2 }));
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: 'the signature of head.json does not verify',
    });
    writeFileSync(head(), JSON.stringify({ ...good, key: publicHex(newKey()) }));
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: false });
    writeFileSync(head(), '{}');
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: 'head.json is not a head',
    });
    rmSync(head());
    expect(await verifyAudit(fixture.folder)).toMatchObject({
      ok: false,
      problem: expect.stringContaining('no head.json') as string,
    });
  });

  test('who rewrites log and head with a key of his own is found by the attested key', async () => {
    const key = await written(4);
    rmSync(log());
    rmSync(head());
    await written(4);
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unanchored: 1 });
    expect(await verifyAudit(fixture.folder, [publicHex(key)])).toMatchObject({ ok: false });
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: false });
  });

  test('a head of the empty log in place of the head: what it does not cover is said not to be signed, and the key given is refused', async () => {
    const key = await written(5);
    put(lines().slice(0, 3));
    writeFileSync(head(), headOf(key, 0, records()[0]!['prev'] as string));
    const next = await written(1);
    expect(await verifyAudit(fixture.folder, [publicHex(next)])).toMatchObject({
      ok: true,
      runs: [{ signed: null, unsigned: 3 }, { signed: 6 }],
    });
    expect(await verifyAudit(fixture.folder, [publicHex(key), publicHex(next)])).toMatchObject({
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
    const verdict = await verifyAudit(fixture.folder, [publicHex(later)]);
    expect(verdict).toMatchObject({
      ok: true,
      unanchored: 1,
      runs: [{ key: publicHex(invented), anchored: false }, { anchored: true }],
    });
    expect(await verifyAudit(fixture.folder, [publicHex(genuine), publicHex(later)])).toMatchObject({
      ok: false,
    });
  });

  test('an earlier run edited after a restart, the chain computed anew and signed by whoever does not have its key', async () => {
    const key = await written(3);
    await written(1);
    const mallory = newKey();
    const edited = rechained(lines(), (r) => (r['seq'] === 2 ? { ...r, key: 'mallory' } : r));
    put(edited);
    writeFileSync(head(), headOf(mallory, edited.length, sha256(edited.at(-1)!)));
    expect(await verifyAudit(fixture.folder, [publicHex(key)])).toMatchObject({
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({
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
    expect(await verifyAudit(fixture.folder, [publicHex(key)])).toMatchObject({
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
    expect(await verifyAudit(fixture.folder)).toMatchObject({ ok: true, unsigned: 131_072 });
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
        expect((await verifyAudit(fixture.folder)).ok).toBe(false);
      }),
      { numRuns: 100 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
    );
  });
});

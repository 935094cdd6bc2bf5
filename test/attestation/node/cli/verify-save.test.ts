// `--save`: an archive of what was shown, which `evidence` judges again, offline, at its own time, by its own
// policy or another.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type AttestedServer,
  MEASUREMENT,
  MODEL_ID,
  MODEL_SHA256,
  NOW,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { cli, POLICY } from '../../../fixtures/attestation/cli.ts';

interface Archive {
  format: string;
  evidence: Record<string, unknown>[];
  receipts: unknown[];
  now?: string;
  policy?: unknown;
}

interface Verdict {
  accepted: boolean;
  code: string | null;
  checks: { id: string; status: string; detail: string }[];
  claims: Record<string, unknown>;
}

let server: AttestedServer;
let archive: Archive;
beforeAll(async () => {
  server = await startAttestedServer();
  archive = (await saved(server, ['--policy', 'p.json', '--allow-simulated'])).archive;
});
afterAll(() => server.close());

async function saved(
  { origin }: AttestedServer,
  flags: string[],
): Promise<{ code: number; archive: Archive }> {
  const files: Record<string, string> = { 'p.json': POLICY };
  const { code, err } = await cli([origin, ...flags, '--save', 'kept.json'], { files });
  expect(err).toContain('saved to kept.json');
  return { code, archive: JSON.parse(files['kept.json'] ?? '') as Archive };
}

async function judged(changed: Archive): Promise<{ code: number; verdict: Verdict }> {
  const { code, out } = await cli(['evidence'], { stdin: JSON.stringify(changed) });
  return { code, verdict: JSON.parse(out) as Verdict };
}

function entry(): Record<string, unknown> {
  return structuredClone(archive.evidence[0] ?? {});
}

describe('--save', () => {
  test('the archive says what was shown, when, and by which policy it was accepted', () => {
    expect(archive).toMatchObject({ format: 'assay/archive/v1', receipts: [] });
    expect(entry()).toMatchObject({
      origin: server.origin,
      at: new Date(NOW).toISOString(),
      accepted: true,
      code: null,
      nonce: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      exporter: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      policy_sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string,
      document: { tee_type: 'simulated' },
    });
  });

  test('is judged again: accepted, with what only a connection can prove as skips', async () => {
    const { code, verdict } = await judged(archive);
    expect([code, verdict.code]).toEqual([0, null]);
    expect(verdict.claims).toMatchObject({
      measurement: MEASUREMENT,
      models: { [MODEL_ID]: MODEL_SHA256 },
      simulated: true,
      archive: { origin: server.origin, at: new Date(NOW).toISOString() },
    });
    const status = Object.fromEntries(verdict.checks.map((check) => [check.id, check.status]));
    for (const id of ['C1', 'C2', 'C3', 'C5', 'C6', 'C7']) expect([id, status[id]]).toEqual([id, 'skip']);
    for (const id of ['S1', 'S11', 'D4', 'P4', 'P5', 'P6']) expect([id, status[id]]).toEqual([id, 'pass']);
  });

  test('of a server that was refused, it is refused again, with the same code', async () => {
    const wrong = await startAttestedServer({ report: { measurement: new Uint8Array(48).fill(7) } });
    const kept = await saved(wrong, ['--policy', 'p.json', '--allow-simulated']);
    await wrong.close();
    expect([kept.code, kept.archive.evidence[0]?.['code']]).toEqual([10, 'snp_measurement']);
    const { code, verdict } = await judged(kept.archive);
    expect([code, verdict.code]).toEqual([10, 'snp_measurement']);
  });

  test('without a policy it is kept, and judged by another', async () => {
    const kept = await saved(server, ['--allow-simulated']);
    expect(kept.code).toBe(10);
    expect(kept.archive.evidence[0]).toMatchObject({ policy: null, policy_sha256: null });
    expect((await judged(kept.archive)).code).toBe(10);
    expect((await judged({ ...kept.archive, policy: JSON.parse(POLICY) as unknown })).code).toBe(0);
  });

  test("the judge's policy and time count, not the archiver's", async () => {
    const other = { measurements: ['11'.repeat(48)], models: { [MODEL_ID]: MODEL_SHA256 } };
    expect((await judged({ ...archive, policy: other })).verdict.code).toBe('snp_measurement');
    expect((await judged({ ...archive, now: '2046-01-01T00:00:00Z' })).verdict.code).toBe(
      'snp_certificate_validity',
    );
  });
});

describe('an archive that was changed', () => {
  test.each<[string, (e: Record<string, unknown>) => void, number]>([
    ['simulation that was not allowed', (e) => (e['allowed'] = {}), 10],
    ['another root that was allowed', (e) => (e['allowed'] = { simulated: '00'.repeat(32) }), 10],
    ['a changed claim', (e) => change(e, 'claims'), 10],
    ['a changed model list', (e) => ((e['document'] as { models: { sha256: string }[] }).models[0]!.sha256 = '00'.repeat(32)), 10],
    ['no document', (e) => (e['document'] = {}), 30],
    ['a time that is none', (e) => (e['at'] = 'yesterday'), 30],
    ['an unknown key', (e) => (e['more'] = 1), 30],
    ['a policy with an unknown key', (e) => (e['policy'] = { danger: true }), 30],
  ])('what was changed is refused: %s', async (_, alter, expected) => {
    const changed = entry();
    alter(changed);
    const { code, verdict } = await judged({ ...archive, evidence: [changed] });
    expect(code).toBe(expected);
    expect(verdict.accepted).toBe(false);
  }); // prettier-ignore

  test.each([
    [{ format: 'assay/archive/v2' }, 20],
    [{ evidence: [] }, 30],
    [{ more: 1 }, 30],
  ])('another archive: %j', async (changes, expected) => {
    expect((await judged({ ...archive, ...changes })).code).toBe(expected);
  });

  test('nothing is saved where nothing was shown', async () => {
    const files: Record<string, string> = {};
    const ran = await cli(
      ['https://127.0.0.1:1', '--any-model', '--measurement', MEASUREMENT, '--save', 'x'],
      { files },
    );
    expect(ran.err).toContain('nothing was saved');
    expect(files).toEqual({});
  });
});

function change(entry: Record<string, unknown>, key: string): void {
  const document = entry['document'] as Record<string, string>;
  const bytes = Buffer.from(document[key] ?? '', 'base64url');
  bytes[60] = (bytes[60] ?? 0) ^ 1;
  document[key] = bytes.toString('base64url');
}

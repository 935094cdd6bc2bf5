// `assay-verify score`: its exit codes, the table for people and the JSON of docs/score.md.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { exitOf } from '../../../../attestation/node/cli/score.ts';
import type { Graded } from '../../../../attestation/node/score/grade.ts';
import type { Observations } from '../../../../attestation/node/score/observe.ts';
import { observingPolicy, parsePolicy } from '../../../../attestation/appraise/policy.ts';
import {
  type AttestedServer,
  MEASUREMENT,
  type Misbehaviour,
  MODEL_ID,
  MODEL_SHA256,
  send,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { cli, POLICY } from '../../../fixtures/attestation/cli.ts';
import { EXEMPLARY, fullPolicy, scored } from '../../../fixtures/attestation/scored.ts';

const ARGS = ['--policy', 'p.json', '--allow-simulated'];
const FILES = { 'p.json': fullPolicy() };

/** Values that differ from run to run. */
function settled(text: string): string {
  return text
    .replaceAll(/127\.0\.0\.1:\d+/g, '127.0.0.1:PORT')
    .replaceAll(/\b[0-9a-f]{8}…[0-9a-f]{4}\b/g, 'HEX')
    .replaceAll(/\b[0-9a-f]{32,}\b/g, 'HEX');
}

describe('a server', () => {
  let server: AttestedServer;
  beforeAll(async () => {
    server = await startAttestedServer(EXEMPLARY);
  });
  afterAll(() => server.close());

  test('as a table', async () => {
    const { code, out, err } = await cli(['score', server.origin, ...ARGS], { files: FILES });
    expect([code, err]).toEqual([10, '']);
    await expect(settled(out)).toMatchFileSnapshot('../../../golden/score-simulated.txt');
  });

  test('without a policy, which says so', async () => {
    const { code, out } = await cli(['score', server.origin, '--allow-simulated']);
    expect(code).toBe(10);
    await expect(settled(out)).toMatchFileSnapshot('../../../golden/score-no-policy.txt');
  });

  test('refused by the policy: the table, and why', async () => {
    const files = { 'p.json': POLICY.replaceAll(MEASUREMENT, '77'.repeat(48)) };
    const { code, out } = await cli(['score', server.origin, ...ARGS], { files });
    expect(code).toBe(10);
    expect(out).toMatch(/^software-named +FAIL .+ P4: MEASUREMENT/m);
    expect(out).toContain('the policy refuses it: snp_measurement: ');
  });

  test('on a terminal: lines no longer than it', async () => {
    const terminal = { stdout: { columns: 70, colour: false } };
    const { out } = await cli(['score', server.origin, ...ARGS], { files: FILES, terminal });
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(70);
  });

  test('by the policy of the folder, for an address of this machine', async () => {
    const { err, out } = await cli(['score', server.origin, '--allow-simulated', '--json'], {
      files: { '.assay/policy.json': fullPolicy() },
    });
    expect(err).toContain('found in this folder');
    expect(JSON.parse(out)).toMatchObject({ accepted: true, policy: true });
  });

  test('as JSON: the keys of docs/score.md, and no others', async () => {
    const { score } = await scored();
    const page = readFileSync(fileURLToPath(new URL('../../../../docs/score.md', import.meta.url)), 'utf8');
    const listed = [...page.split('## As JSON')[1]!.matchAll(/^\| `(\w+)` \|/gm)].map(([, key]) => key);
    expect(new Set(Object.keys(score))).toEqual(new Set(listed));
    for (const factor of score.factors) {
      expect(Object.keys(factor).toSorted()).toEqual([
        'evidence',
        'grade',
        'group',
        'id',
        'simulated',
        'title',
      ]);
      for (const seen of factor.evidence) expect(Object.keys(seen)).toEqual(['at', 'found']);
    }
    const { pass = 0, fail = 0, not_applicable: open = 0 } = score.counts;
    expect(pass + fail + open).toBe(score.factors.length);
  });
});

describe('nothing to grade', () => {
  test('a server without evidence: 20', async () => {
    const how: Misbehaviour = {
      attestation: ({ socket }) => send(socket, 503, '{"error":{"code":"tee_not_enabled"}}'),
    };
    const server = await startAttestedServer(how);
    const { code, out } = await cli(['score', server.origin, ...ARGS, '--json'], { files: FILES });
    expect(code).toBe(20);
    expect(JSON.parse(out)).toMatchObject({
      format: 'assay/score/v1',
      graded: false,
      code: 'attestation_unavailable',
    });
    const table = await cli(['score', server.origin, ...ARGS], { files: FILES });
    expect(table).toMatchObject({ code: 20, out: expect.stringContaining('attestation_unavailable') });
    await server.close();
  });

  test('a document that cannot be read: 30', async () => {
    const { code, score } = await scored({ document: () => ({ version: '9' }) });
    expect([code, score.graded]).toEqual([30, false]);
  });

  test.each<[string, readonly string[], number]>([
    ['no server', ['score', 'https://127.0.0.1:1'], 1],
    ['plain http', ['score', 'http://127.0.0.1:1'], 20],
    ['no address', ['score'], 30],
    ['an option it has not', ['score', 'https://127.0.0.1:1', '--table'], 30],
    ['a policy that is not there', ['score', 'https://127.0.0.1:1', '--policy', 'none.json'], 30],
  ])('%s', async (_, args, expected) => {
    expect((await cli(args)).code).toBe(expected);
  });

  test('what a server says of itself reaches no terminal as control characters', async () => {
    const { out } = await scored({ document: (document) => ({ ...document, timestamp: '\u001b[2J' }) });
    expect(out).not.toContain('\u001b');
  });
});

describe('exit', () => {
  const accepted = { outcome: { result: {} } };
  const refused = { outcome: { error: {} } };
  const policy = parsePolicy({ measurements: [MEASUREMENT], models: { [MODEL_ID]: MODEL_SHA256 } });
  const of = (...grades: Graded['grade'][]): Graded[] => grades.map((grade) => ({ grade }) as Graded);

  test.each<[string, object, Graded[], number]>([
    ['all that apply passed', { policy, first: accepted, second: accepted }, of('pass', 'not applicable'), 0],
    ['one failed', { policy, first: accepted, second: accepted }, of('pass', 'fail'), 10],
    ['none failed, the policy refuses', { policy, first: accepted, second: refused }, of('pass'), 10],
    [
      'none failed, no policy',
      { policy: observingPolicy(), first: refused, second: refused },
      of('pass'),
      11,
    ],
    ['one failed, no policy', { policy: observingPolicy(), first: refused, second: refused }, of('fail'), 10],
  ])('%s', (_, seen, graded, expected) => {
    expect(exitOf(seen as Observations, graded)).toBe(expected);
  });
});

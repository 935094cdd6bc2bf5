// The client's explanation of a verdict: each rule has one identifier, and a failure takes along
// everything that rests on it.

import { describe, expect, test } from 'vitest';
import { ATTESTATION_CODES } from '../../../attestation/transcript/codes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { explain } from '../../../attestation/appraise/explain.ts';
import { RULES } from '../../../attestation/appraise/rules.ts';
import { EXPORTER, snpDocument } from '../../fixtures/attestation/documents.ts';
import { refusalOf } from '../../fixtures/refusal.ts';
import { BASE, judge, standings } from '../../fixtures/attestation/appraisal.ts';

describe('the tables', () => {
  test('every rule has one id, one code of the closed list, and a source', () => {
    const rules = Object.values(RULES);
    expect(new Set(rules.map(({ id }) => id)).size).toBe(rules.length);
    expect(new Set(rules.map(({ code }) => code)).size).toBe(rules.length);
    for (const { code, spec, title } of rules) {
      expect(ATTESTATION_CODES[code]).toBeTypeOf('string');
      expect(spec).toMatch(/§/);
      expect(title.length).toBeGreaterThan(10);
    }
  });
});

describe('explain', () => {
  test('what fails takes everything that rests on it along', async () => {
    const software = await refusalOf(async () =>
      judge(await snpDocument({ report: { measurement: new Uint8Array(48) } })),
    );
    expect(standings(software)).toEqual([
      'P1 not proven',
      'P2 refused',
      'P3 not proven',
      'P4 not proven',
      'P5 not proven',
      'P6 proven',
    ]);
    const hardware = await refusalOf(async () => judge(await snpDocument(), { policy: BASE }));
    expect(standings(hardware)).toEqual([
      'P1 refused',
      'P2 not proven',
      'P3 not proven',
      'P4 not proven',
      'P5 not proven',
      'P6 proven',
    ]);
    const binding = await refusalOf(async () =>
      judge({ ...(await snpDocument()), inclusion: { index: 0, size: 1, path: [new Uint8Array(32)] } }),
    );
    expect(standings(binding)).toEqual([
      'P1 not proven',
      'P2 simulated',
      'P3 not proven',
      'P4 not proven',
      'P5 not proven',
      'P6 proven',
    ]);
    const fresh = await refusalOf(async () => judge(await snpDocument(), { nonce: new Uint8Array(16) }));
    expect(standings(fresh)).toEqual([
      'P1 not proven',
      'P2 simulated',
      'P3 simulated',
      'P4 simulated',
      'P5 refused',
      'P6 proven',
    ]);
    expect(EXPORTER).toHaveLength(32);
  });

  test('always says what is not proven, and lists every skip', async () => {
    const result = await judge(await snpDocument());
    const error = await refusalOf(async () => judge(await snpDocument(), { policy: BASE }));
    const outcomes = [{ result }, { error: error ?? new AttestationError('internal', 'internal', 'x') }];
    for (const outcome of outcomes) {
      const text = explain(outcome).join('\n');
      for (const words of ['physical access', 'side channel', 'bugs', 'sizes and times', 'answers are right'])
        expect(text).toContain(words);
    }
    const skips = result.transcript.filter(({ status }) => status === 'skip');
    for (const { id, title } of skips) expect(explain({ result }).join('\n')).toContain(`${id} ${title}`);
  });

  test('an error without a transcript proves nothing but that nothing was sent', () => {
    expect(standings(new AttestationError('internal', 'connection_failed', 'x'))).toEqual([
      'P1 not proven',
      'P2 not proven',
      'P3 not proven',
      'P4 not proven',
      'P5 not proven',
      'P6 proven',
    ]);
  });
});

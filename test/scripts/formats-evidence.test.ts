// docs/formats.md lists the keys of an evidence policy: exactly those that the verifiers' types have,
// each known to the reader.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { decideSnpPolicy } from '../../attestation/snp/policy.ts';
import { decideTdxPolicy } from '../../attestation/tdx/policy.ts';
import { decideVtpmPolicy } from '../../attestation/vtpm/policy.ts';
import { CLOUD_FORMATS } from '../../scripts/formats-clouds.ts';
import { EVIDENCE_CONTRACT } from '../../scripts/formats-evidence.ts';
import { helpFor } from '../../attestation/node/cli/help.ts';

function documented(tee: string): string[] {
  const table = EVIDENCE_CONTRACT.split(`| key, tee \`${tee}\` | value |`)[1]?.split('\n\n')[0] ?? '';
  return [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, key = '']) => key);
}

/** Members of an interface in a source file. */
function declared(path: string, name: string): string[] {
  const source = readFileSync(new URL(`../../attestation/${path}`, import.meta.url), 'utf8');
  const body =
    source.split(new RegExp(`export interface ${name} (?:extends \\w+ )?{`))[1]?.split('\n}')[0] ?? '';
  return [...body.matchAll(/^ {2}readonly (\w+)\?:/gm)].map(([, key = '']) => key);
}

function problem(run: () => unknown): string {
  try {
    run();
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

describe('the evidence contract in docs/formats.md', () => {
  test.each([
    ['snp', 'snp/policy.ts', 'SnpPolicy'],
    ['tdx', 'tdx/policy.ts', 'TdxPolicy'],
  ])('keys of %s', (tee, path, name) => {
    expect(documented(tee).toSorted()).toEqual(declared(path, name).toSorted());
    expect(documented(tee).length).toBeGreaterThan(15);
  });

  test('keys of the part vtpm and members of platform', () => {
    const table = CLOUD_FORMATS.split('| key, part `vtpm` | value |')[1]?.split('\n\n')[0] ?? '';
    const keys = [...table.matchAll(/^\| `(\w+)` \|/gm)].map(([, key = '']) => key);
    const read = ['VtpmSection', 'VtpmPolicy'].flatMap((name) => declared('vtpm/policy.ts', name));
    expect(keys.toSorted()).toEqual(read.toSorted());
    for (const key of keys)
      expect(problem(() => decideVtpmPolicy({ [key]: {} }, 'one'))).not.toMatch(/unknown key/);
    const members = [...CLOUD_FORMATS.matchAll(/^\| `([a-z_]+)` \| (?:bytes|list)/gm)].map(
      ([, name = '']) => name,
    );
    const source = readFileSync(new URL('../../attestation/vtpm/platform.ts', import.meta.url), 'utf8');
    const names = [...source.matchAll(/name: '([a-z_]+)'/g)].map(([, name = '']) => name);
    expect(members.toSorted()).toEqual(names.toSorted());
  });

  test('every key is one the reader knows', () => {
    const unknown = problem(() => decideSnpPolicy({ nonsense: 1 })).replace('nonsense', 'KEY');
    expect(unknown).toContain('KEY');
    for (const key of documented('snp'))
      expect(problem(() => decideSnpPolicy({ [key]: Symbol.iterator }))).not.toBe(
        unknown.replace('KEY', key),
      );
    const unknownTdx = problem(() => decideTdxPolicy({ nonsense: 1 })).replace('nonsense', 'KEY');
    for (const key of documented('tdx'))
      expect(problem(() => decideTdxPolicy({ [key]: {} }))).not.toBe(unknownTdx.replace('KEY', key));
  });

  test('the help of the command names every key of the input', () => {
    const help = helpFor(['evidence']);
    const input = EVIDENCE_CONTRACT.slice(0, EVIDENCE_CONTRACT.indexOf('## The policy'));
    const keys = [...input.matchAll(/^\| ((?:`\w+`(?:, )?)+) \|/gm)].flatMap(
      ([, cell = '']) => cell.match(/\w+/g) ?? [],
    );
    expect(keys.length).toBeGreaterThan(15);
    for (const key of keys) expect(help).toContain(key);
  });
});

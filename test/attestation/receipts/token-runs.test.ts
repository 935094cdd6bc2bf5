// Token ids beside a stream: the form of their comments, and that they open the receipt (docs/receipts.md §3,
// [R8] [R19]).

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { commitment, digestOfParts, tokenListBytes } from '../../../attestation/receipts/commit.ts';
import {
  opensTokens,
  TokenLists,
  tokenRunBytes,
  tokenRunsIn,
} from '../../../attestation/receipts/token-runs.ts';
import { tokenLists } from '../../../attestation/appraise/receipt-verdict.ts';
import { sha256 } from '../../fixtures/receipts/issued.ts';

const ids = fc.array(fc.integer({ min: 0, max: 0xffff_ffff }), { minLength: 1, maxLength: 9 });
const runs = fc.array(fc.tuple(fc.integer({ min: 0, max: 40 }), ids), { maxLength: 6 });

describe('runs of tokens', () => {
  test('are read back as they were written', () => {
    fc.assert(
      fc.property(runs, (all) => {
        expect(tokenRunsIn(tokenRunBytes(all))).toEqual(all);
      }),
    );
  });

  test('in another form are refused', () => {
    const bytes = tokenRunBytes([[0, [1, 2]]]);
    for (const broken of [
      bytes.subarray(0, 3),
      bytes.subarray(0, 4),
      bytes.subarray(0, 12),
      tokenRunBytes([[0, []]]),
      tokenRunBytes([[2048 * 8, [1]]]),
      Uint8Array.of(...bytes, 0, 0, 0, 0),
    ])
      expect(() => tokenRunsIn(broken)).toThrow(expect.objectContaining({ code: 'receipt_malformed' }));
  });
});

describe('tokens of an answer', () => {
  const salt = new Uint8Array(32).fill(3);

  function outcome(lists: readonly (readonly number[])[]): Parameters<typeof opensTokens>[0] {
    const digests = lists.map((each) => sha256(tokenListBytes(each)));
    const all = lists.length > 16 ? [digestOfParts(digests)] : digests;
    return {
      choices: all.map((digest, index) => ({
        index,
        finishReason: null,
        tokens: 0,
        outputTokens: commitment(salt, 'outputTokens', digest, index),
        outputText: new Uint8Array(32),
      })),
    };
  }

  test.each([1, 2, 16, 17])('of %d choices open the receipt, and no others do', (count) => {
    const lists = Array.from({ length: count }, (_, i) => [i, 7, 9]);
    const gathered = new TokenLists();
    for (const [choice, each] of lists.entries()) gathered.add(tokenRunBytes([[choice, each.slice(0, 1)]]));
    for (const [choice, each] of lists.entries()) gathered.add(tokenRunBytes([[choice, each.slice(1)]]));
    expect(gathered.lists).toEqual(lists);
    const told = outcome(lists);
    expect(opensTokens(told, salt, lists)).toBe(true);
    expect(opensTokens(told, salt, lists.with(0, [0, 7, 8]))).toBe(false);
    expect(opensTokens(told, salt, lists.with(0, [0, 7]))).toBe(false);
    expect(opensTokens(told, salt, [...lists, [1]])).toBe(false);
    expect(opensTokens(told, salt, lists.slice(1))).toBe(false);
    expect(opensTokens(told, new Uint8Array(32), lists)).toBe(false);
  });

  test('a choice without tokens needs no list', () => {
    expect(opensTokens(outcome([[1], []]), salt, [[1]])).toBe(true);
    expect(opensTokens(outcome([[]]), salt, [])).toBe(true);
    expect(opensTokens(outcome([[1], [2]]), salt, [[1]])).toBe(false);
  });

  test.each([0, 1, 3, 17])('nor do the last of twenty choices, of which %d wrote', (wrote) => {
    const all = Array.from({ length: 20 }, (_, i) => (i < wrote ? [i] : []));
    expect(opensTokens(outcome(all), salt, all.slice(0, wrote))).toBe(true);
    expect(opensTokens(outcome(all), salt, all)).toBe(true);
    expect(opensTokens(outcome(all), salt, [...all.slice(0, wrote), [7]])).toBe(false);
  });
});

test('lists in an archive are base64 or numbers', () => {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  const long = Array.from({ length: 40_000 }, (_, i) => i);
  expect(tokenLists([base64(tokenListBytes(long)), [1, 2], []])).toEqual([long, [1, 2], []]);
  for (const wrong of [
    [base64(tokenListBytes([1, 2]).subarray(0, 8))],
    [''],
    ['A'],
    [[-1]],
    [[1.5]],
    [[2 ** 32]],
    [1],
    {},
  ])
    expect(() => tokenLists(wrong)).toThrow();
});

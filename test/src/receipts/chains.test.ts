// Chains of receipts: one for each caller, without gaps, and bounded (docs/receipts.md [R15]).

import { expect, test } from 'vitest';
import { Chains, type Link } from '../../../src/receipts/chains.ts';

function next(chains: Chains, caller: string): Link {
  let taken: Link | undefined;
  chains.next(caller, (link) => {
    taken = { ...link };
    return new Uint8Array(32).fill(link.seq + 1);
  });
  if (taken === undefined) throw new Error('no place was taken');
  return taken;
}

test('[R15] each caller has a chain of its own', () => {
  const chains = new Chains();
  expect([next(chains, 'a'), next(chains, 'b'), next(chains, 'a')].map(({ seq }) => seq)).toEqual([0, 0, 1]);
  const { chain, prev } = next(chains, 'a');
  expect(prev).toEqual(new Uint8Array(32).fill(2));
  expect(chain).toEqual(chains.chainOf('a'));
  expect(chain).not.toEqual(chains.chainOf('b'));
});

test('[R15] a receipt that could not be made leaves no gap', () => {
  const chains = new Chains();
  next(chains, 'a');
  expect(() =>
    chains.next('a', () => {
      throw new Error('no receipt');
    }),
  ).toThrow('no receipt');
  expect(next(chains, 'a').seq).toBe(1);
});

test('[R15] of 10^5 bearers 4096 have a chain, and one in use keeps its own', () => {
  const chains = new Chains();
  const busy = chains.chainOf('busy');
  for (let i = 0; i < 100_000; i++) {
    next(chains, `bearer ${i}`);
    if (i % 1000 === 0) expect(chains.chainOf('busy')).toEqual(busy);
  }
  expect(next(chains, 'bearer 99999').seq).toBe(1);
  expect(next(chains, 'bearer 0').seq).toBe(0);
});

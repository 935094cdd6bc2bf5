// The order of the receipts a client was given (docs/receipts.md §2): `seq` counts the answers to one caller.
// Answers that ran side by side arrive in another order than they ended in, so an order is reported, and
// refused only where a client asked for that. Two receipts of one place are always refused.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import { refused } from '../transcript/errors.ts';
import type { FinalReceipt } from './body.ts';

/**
 * `first`: of a chain that was not seen before; `next`: behind one that was seen; `apart`: the one before it
 * was not seen, so another answer is under way, was lost, or went to another user of the key.
 */
export type ReceiptOrder = 'first' | 'next' | 'apart';

const MAX_CHAINS = 64;
const MAX_PLACES = 1024;

interface Place {
  readonly digest: Uint8Array;
  /** Of the one before it. */
  readonly prev: Uint8Array;
}

export class ReceiptSequence {
  /** By chain, then by place. */
  readonly #chains = new Map<string, Map<number, Place>>();

  /** @throws AttestationError receipt_sequence for two receipts of one place */
  note({ chain, seq, prev }: FinalReceipt, digest: Uint8Array): ReceiptOrder {
    const name = toHex(chain);
    const known = this.#chains.get(name);
    const places = known ?? new Map<number, Place>();
    const same = places.get(seq);
    const before = places.get(seq - 1);
    const after = places.get(seq + 1);
    if (same !== undefined && !equalBytes(same.digest, digest)) throw twice(seq);
    if (before !== undefined && !equalBytes(before.digest, prev)) throw twice(seq - 1);
    if (after !== undefined && !equalBytes(after.prev, digest)) throw twice(seq);
    places.set(seq, { digest, prev });
    if (places.size > MAX_PLACES) forgetFirst(places);
    this.#chains.set(name, places);
    if (this.#chains.size > MAX_CHAINS) forgetFirst(this.#chains);
    if (before !== undefined || seq === 0) return known === undefined ? 'first' : 'next';
    return known === undefined && after === undefined ? 'first' : 'apart';
  }
}

function forgetFirst(map: Map<unknown, unknown>): void {
  for (const key of map.keys()) {
    map.delete(key);
    return;
  }
}

function twice(seq: number): Error {
  return refused('receipt_sequence', `two receipts claim the same place of their chain (${seq})`);
}

// The SHA-256 of a list of tokens as a receipt commits to it (docs/receipts.md §1): their number and their
// ids, u32 big-endian. A vector of an image is 2^32 − 1.

import { createHash } from 'node:crypto';

/** Lower-case hex. */
export function tokenDigest(tokens: readonly number[]): string {
  return hashOf(tokens).toString('hex');
}

/** Of several lists: SHA-256 over the SHA-256 of each in order; of one, that one's. Lower-case hex. */
export function tokenListsDigest(lists: readonly (readonly number[])[]): string {
  if (lists.length === 1) return tokenDigest(lists[0] ?? []);
  const hash = createHash('sha256');
  for (const tokens of lists) hash.update(hashOf(tokens));
  return hash.digest('hex');
}

function hashOf(tokens: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 + 4 * tokens.length);
  bytes.writeUInt32BE(tokens.length, 0);
  for (let i = 0; i < tokens.length; i++) bytes.writeUInt32BE(Math.max(-1, tokens[i] ?? 0) >>> 0, 4 + 4 * i);
  return createHash('sha256').update(bytes).digest();
}

/** The ids a choice writes: for the digest at its end, and for events that carry them. */
export class WrittenTokens {
  readonly #all: number[] | null;
  /** Ids that no event has carried yet; null: none carries any. */
  #untold: number[] | null;

  constructor({ receipt, tell }: { readonly receipt: boolean; readonly tell: boolean }) {
    this.#all = receipt ? [] : null;
    this.#untold = tell ? [] : null;
  }

  push(token: number): void {
    this.#all?.push(token);
    this.#untold?.push(token);
  }

  /** Undefined: none, or they are not asked for. */
  take(): readonly number[] | undefined {
    if (this.#untold === null || this.#untold.length === 0) return undefined;
    const ids = this.#untold;
    this.#untold = [];
    return ids;
  }

  /** Lower-case hex; undefined where no receipt is made. */
  digest(): string | undefined {
    return this.#all === null ? undefined : tokenDigest(this.#all);
  }
}

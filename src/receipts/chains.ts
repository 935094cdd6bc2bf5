// The chain of each caller: which receipt comes next, and the hash of the one before. A chain is random and
// counts one caller's answers alone, since a global count would tell tenants of each other's traffic. Of
// `most` chains the one longest unused makes room: bearers cost a stranger no effort where no keys are
// configured.

import { randomBytes } from 'node:crypto';

const FIRST = new Uint8Array(32);

export interface Link {
  readonly chain: Uint8Array;
  readonly seq: number;
  readonly prev: Uint8Array;
}

interface Chain {
  readonly chain: Uint8Array;
  seq: number;
  prev: Uint8Array;
}

export class Chains {
  /** By caller, the longest unused first. */
  readonly #chains = new Map<string, Chain>();
  readonly #most: number;

  constructor(most = 4096) {
    this.#most = most;
  }

  /** The chain of a caller, for checkpoints. */
  chainOf(caller: string): Uint8Array {
    return this.#of(caller).chain;
  }

  /**
   * Takes the next place in the caller's chain; `seal` makes the receipt there and returns its digest. A
   * failure of it leaves the place free.
   */
  next(caller: string, seal: (link: Link) => Uint8Array): void {
    const chain = this.#of(caller);
    const prev = seal(chain);
    chain.seq += 1;
    chain.prev = prev;
  }

  #of(caller: string): Chain {
    const known = this.#chains.get(caller);
    const chain = known ?? { chain: new Uint8Array(randomBytes(16)), seq: 0, prev: FIRST };
    if (known !== undefined) this.#chains.delete(caller);
    else if (this.#chains.size >= this.#most) {
      const [oldest] = this.#chains.keys();
      if (oldest !== undefined) this.#chains.delete(oldest);
    }
    this.#chains.set(caller, chain);
    return chain;
  }
}

// Bodies that must be whole before they may pass: an answer until its receipt holds, a request that is sealed
// or committed to. Each is bounded, and so are all of one fetch or one proxy together.

import { AttestationError } from '../transcript/errors.ts';

/** Most bytes of one body that is held: 64 MiB. */
export const MAX_HELD_BODY_BYTES = 64 * 1024 * 1024;
/** Most bytes of all bodies held at a time by one fetch or one proxy: 256 MiB. */
export const MAX_HELD_BYTES = 256 * 1024 * 1024;

export class HeldBytes {
  readonly #mostEach: number;
  readonly #mostInAll: number;
  #bytes = 0;

  constructor(mostEach: number = MAX_HELD_BODY_BYTES, mostInAll: number = MAX_HELD_BYTES) {
    this.#mostEach = mostEach;
    this.#mostInAll = mostInAll;
  }

  /** Held at present. */
  get bytes(): number {
    return this.#bytes;
  }

  /** A share for one body, empty. */
  share(): HeldShare {
    let own = 0;
    const set = (bytes: number): void => {
      this.#bytes += bytes - own;
      own = bytes;
    };
    return {
      hold: (bytes) => {
        if (bytes > this.#mostEach) throw over('input_too_large', `a body is over ${this.#mostEach} bytes`);
        if (this.#bytes - own + bytes > this.#mostInAll)
          throw over('held_too_much', `bodies held at a time are over ${this.#mostInAll} bytes together`);
        set(bytes);
      },
      release: () => set(0),
    };
  }
}

export interface HeldShare {
  /** It has so many bytes now. Throws `input_too_large`, or `held_too_much` for all together. */
  hold(bytes: number): void;
  release(): void;
}

function over(code: 'input_too_large' | 'held_too_much', message: string): AttestationError {
  return new AttestationError('refused', code, `${message}, the most that is held`);
}

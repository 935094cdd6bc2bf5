// The SHA-256 of a text that comes in small pieces: an update costs as much as hashing some hundred bytes, so
// pieces are gathered first, up to a few kilobytes.

import { createHash, type Hash } from 'node:crypto';

/** Characters that are gathered before they are hashed. */
const GATHERED = 8192;

export class TextHash {
  readonly #hash: Hash = createHash('sha256');
  #gathered = '';

  update(text: string | Uint8Array): void {
    if (typeof text !== 'string') {
      this.#flush();
      this.#hash.update(text);
      return;
    }
    this.#gathered += text;
    if (this.#gathered.length >= GATHERED) this.#flush();
  }

  /** 32 bytes: of all so far; more can follow. */
  soFar(): Uint8Array {
    this.#flush();
    return new Uint8Array(this.#hash.copy().digest());
  }

  /** 32 bytes; no more can follow. */
  digest(): Uint8Array {
    this.#flush();
    return new Uint8Array(this.#hash.digest());
  }

  #flush(): void {
    if (this.#gathered === '') return;
    this.#hash.update(this.#gathered);
    this.#gathered = '';
  }
}

// The transcript of a stream: the SHA-256 of its events so far (docs/receipts.md §3), for checkpoints and the
// last receipt alike.

import { sha256 } from '@noble/hashes/sha2.js';
import { utf8 } from '../encoding/bytes.ts';

const LINE = Uint8Array.of(10);

/** `name 0x0A data 0x0A` of each event, the name empty where there is none. */
export class TranscriptHash {
  readonly #hash = sha256.create();
  #events = 0;

  get events(): number {
    return this.#events;
  }

  add(name: string, data: string): void {
    this.#events += 1;
    this.#hash.update(utf8(name)).update(LINE).update(utf8(data)).update(LINE);
  }

  /** SHA-256 of the events so far; more can follow. */
  digest(): Uint8Array {
    return this.#hash.clone().digest();
  }
}

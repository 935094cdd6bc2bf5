// A forward reader of CBOR (RFC 8949 §3) for documents that are not canonical as a whole: heads are of the
// shortest form, one map may be of indefinite length, and only values that the caller asks for are built.

import { fromUtf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

export class CborReader {
  readonly #bytes: Uint8Array;
  readonly #name: string;
  #at = 0;

  constructor(bytes: Uint8Array, name: string) {
    this.#bytes = bytes;
    this.#name = name;
  }

  /** Argument of the next head, which must be of this major type: a number, a count or a length. */
  head(major: number): number {
    const initial = this.#bytes[this.#at];
    if (initial === undefined) throw this.#broken('ends early');
    if (initial >> 5 !== major) throw this.#broken(`has major type ${initial >> 5}, expected ${major}`);
    const short = initial & 31;
    this.#at += 1;
    if (short < 24) return short;
    if (short > 27) throw this.#broken('has an indefinite or reserved length');
    const size = 2 ** (short - 24);
    const value = this.#take(size).reduce((sum, byte) => sum * 256 + byte, 0);
    const least = size === 1 ? 24 : 256 ** (size / 2);
    if (value < least || !Number.isSafeInteger(value))
      throw this.#broken('has a head that is not the shortest');
    return value;
  }

  /** Entries of the next map; undefined where its end is a break. */
  mapHead(): number | undefined {
    if (this.#bytes[this.#at] !== 0xbf) return this.head(5);
    this.#at += 1;
    return undefined;
  }

  /** Whether the break of a map of indefinite length is next, which is then behind. */
  breaks(): boolean {
    if (this.#bytes[this.#at] !== 0xff) return false;
    this.#at += 1;
    return true;
  }

  isNull(): boolean {
    if (this.#bytes[this.#at] !== 0xf6) return false;
    this.#at += 1;
    return true;
  }

  bytes(most: number): Uint8Array {
    return this.#sized(2, most);
  }

  text(most: number): string {
    return fromUtf8(this.#sized(3, most), this.#name, 'malformed_cbor');
  }

  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) throw this.#broken(`has ${left} bytes after its end`);
  }

  #sized(major: number, most: number): Uint8Array {
    const size = this.head(major);
    if (size > most) throw this.#broken(`has ${size} bytes, at most ${most} are read`);
    return this.#take(size);
  }

  #take(size: number): Uint8Array {
    if (this.#bytes.length - this.#at < size) throw this.#broken('ends early');
    this.#at += size;
    return this.#bytes.subarray(this.#at - size, this.#at);
  }

  #broken(what: string): Error {
    return malformed('malformed_cbor', `${this.#name} ${what} (offset ${this.#at})`);
  }
}

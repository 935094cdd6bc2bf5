// What every sealed object begins with, and its key. A header is `ASSAYSL`, a version, and a random salt of 32
// bytes. The object's key is HKDF-SHA-256 (RFC 5869) of the master key, that salt, and the kind and id of the
// object, so no object opens under another name. Anything unknown, cut or changed is a SealedError.

import { createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto';

const MAGIC = Buffer.from('ASSAYSL\x01', 'latin1');
const SALT_BYTES = 32;
export const HEADER_BYTES = MAGIC.length + SALT_BYTES;
export const MASTER_KEY_BYTES = 32;
export const TAG_BYTES = 16;
export const NONCE_BYTES = 12;
export const CIPHER = 'aes-256-gcm';

/** header: no sealed object, or of another version. cut: shorter than it was. changed: bytes or name differ. */
export type SealedProblem = 'header' | 'cut' | 'changed';

const MESSAGES: Readonly<Record<SealedProblem, string>> = {
  header: 'is not a sealed object of this version',
  cut: 'was cut short',
  changed: 'was changed, or is sealed with another key or under another name',
};

/** A sealed object that does not open. The message holds nothing of its content. */
export class SealedError extends Error {
  override readonly name = 'SealedError';
  readonly problem: SealedProblem;

  constructor(problem: SealedProblem) {
    super(`a stored object ${MESSAGES[problem]}`);
    this.problem = problem;
  }
}

export type SealedKind = 'content' | 'log' | 'state';

/** The name an object is sealed under. */
export interface SealedName {
  readonly kind: SealedKind;
  readonly id: string;
}

/** The key of all objects of a folder. It is never printed; `JSON.stringify` gives nothing of it. */
export class MasterKey {
  readonly #key: KeyObject;

  constructor(bytes: Uint8Array) {
    if (bytes.length !== MASTER_KEY_BYTES) throw new TypeError(`a master key has ${MASTER_KEY_BYTES} bytes`);
    this.#key = createSecretKey(bytes);
  }

  static random(): MasterKey {
    return new MasterKey(randomBytes(MASTER_KEY_BYTES));
  }

  /** `use` separates keys of one object. */
  objectKey(header: Uint8Array, { kind, id }: SealedName, use: string): Buffer {
    const salt = header.subarray(MAGIC.length, HEADER_BYTES);
    return Buffer.from(hkdfSync('sha256', this.#key, salt, `assay sealed 1\0${use}\0${kind}\0${id}`, 32));
  }
}

export function newHeader(): Buffer {
  return Buffer.concat([MAGIC, randomBytes(SALT_BYTES)]);
}

/** Throws SealedError for bytes that do not begin as a sealed object. */
export function checkHeader(header: Uint8Array): void {
  if (header.length < HEADER_BYTES) throw new SealedError('cut');
  if (!MAGIC.equals(header.subarray(0, MAGIC.length))) throw new SealedError('header');
}

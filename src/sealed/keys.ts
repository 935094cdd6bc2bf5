// Claim 7 and its rotation (docs/sealed.md §3): a new X25519 key each lifetime, the one before it still
// opens, older ones are dropped with all that was recorded for them. Private keys are WebCrypto's and cannot
// be exported; a new process has new ones. A key with the id of the one before is drawn again.

import { createDecipheriv } from 'node:crypto';
import {
  type ChunkOpener,
  generateRecipient,
  keyIdOf,
  type RecipientKey,
} from '@assay/attestation/sealed-envelope';

export interface SealedKeys {
  /** 32 bytes: claim 7 of evidence made now. */
  current(): Uint8Array;
  /** The key of that id, if it still opens. */
  of(keyId: number): RecipientKey | undefined;
  close(): void;
}

export interface SealedKeysOptions {
  readonly lifetimeMs: number;
  readonly after: (ms: number, call: () => void) => () => void;
  readonly onError: (error: unknown) => void;
}

/** A key that could not be made is tried again after this long; the present one goes on. */
const AGAIN_MS = 10_000;

const TAG_BYTES = 16;

/** AES-256-GCM by Node's own cipher: a chunk goes to no other thread and back. */
const openChunk: ChunkOpener = (key) => (iv, sealed, aad) => {
  const end = sealed.length - TAG_BYTES;
  if (end < 0) throw new RangeError('a chunk is shorter than its tag');
  const cipher = createDecipheriv('aes-256-gcm', key, iv, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  cipher.setAuthTag(sealed.subarray(end));
  const opened = cipher.update(sealed.subarray(0, end));
  cipher.final();
  return new Uint8Array(opened.buffer, opened.byteOffset, opened.length);
};

export async function createSealedKeys(options: SealedKeysOptions): Promise<SealedKeys> {
  let current = await generateRecipient(openChunk);
  let previous: RecipientKey | undefined;
  let cancel: () => void = () => undefined;
  let closed = false;

  const rotate = async (): Promise<void> => {
    try {
      let next = await generateRecipient(openChunk);
      while (keyIdOf(next.publicKey) === keyIdOf(current.publicKey))
        next = await generateRecipient(openChunk);
      previous = current;
      current = next;
      schedule(options.lifetimeMs);
    } catch (error) {
      options.onError(error);
      schedule(AGAIN_MS);
    }
  };
  const schedule = (ms: number): void => {
    if (!closed) cancel = options.after(ms, () => void rotate());
  };
  schedule(options.lifetimeMs);
  return {
    current: () => current.publicKey,
    of: (keyId) => [current, previous].find((key) => key !== undefined && keyIdOf(key.publicKey) === keyId),
    close() {
      closed = true;
      cancel();
    },
  };
}

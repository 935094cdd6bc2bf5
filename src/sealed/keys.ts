// Claim 7 and its rotation (docs/sealed.md §2): a new X25519 key each lifetime, and an X-Wing key beside it
// where that is on; those before them still open, older ones are dropped with all that was recorded for them.
// Private keys cannot be exported; a new process has new ones. A key with the id of the one before is drawn
// again.

import { createDecipheriv } from 'node:crypto';
import {
  type ChunkOpener,
  generateRecipient,
  isHintOf,
  KEM,
  type Kem,
  keyIdOf,
  type RecipientKey,
  xWingKeyIdOf,
} from '@assay/attestation/sealed-envelope';

export interface SealedKeys {
  /** 32 bytes: claim 7 of evidence made now. */
  current(): Uint8Array;
  /** The X-Wing key that belongs to `current`, 1216 bytes; undefined: it is off. */
  currentXWing(): Uint8Array | undefined;
  /** The key of that id, if it still opens. */
  of(keyId: number): RecipientKey | undefined;
  /** The key of that KEM whose hint a request to several replicas has. */
  ofHint(hint: Uint8Array, kem: Kem): RecipientKey | undefined;
  close(): void;
}

export interface SealedKeysOptions {
  readonly lifetimeMs: number;
  /** Makes X-Wing keys, too. Rejects with `sealed_unsupported` where WebCrypto has no ML-KEM. */
  readonly postQuantum?: boolean | undefined;
  readonly after: (ms: number, call: () => void) => () => void;
  readonly onError: (error: unknown) => void;
}

/** Keys that could not be made are tried again after this long; the present ones go on. */
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

/** The keys of one lifetime. */
interface Generation {
  readonly x25519: RecipientKey;
  readonly xWing: RecipientKey | undefined;
}

export async function createSealedKeys(options: SealedKeysOptions): Promise<SealedKeys> {
  const generate = async (): Promise<Generation> => ({
    x25519: await generateRecipient(KEM.x25519, openChunk),
    xWing: options.postQuantum === true ? await generateRecipient(KEM.xWing, openChunk) : undefined,
  });
  const idOf = ({ x25519 }: Generation): number => keyIdOf(x25519.publicKey);
  let current = await generate();
  let previous: Generation | undefined;
  let cancel: () => void = () => undefined;
  let closed = false;

  const rotate = async (): Promise<void> => {
    try {
      let next = await generate();
      while (idOf(next) === idOf(current)) next = await generate();
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
  const generations = (): readonly Generation[] => (previous === undefined ? [current] : [current, previous]);
  return {
    current: () => current.x25519.publicKey,
    currentXWing: () => current.xWing?.publicKey,
    of(keyId) {
      for (const { x25519, xWing } of generations()) {
        if (keyIdOf(x25519.publicKey) === keyId) return x25519;
        if (xWingKeyIdOf(x25519.publicKey) === keyId) return xWing;
      }
      return undefined;
    },
    ofHint: (hint, kem) =>
      generations()
        .map(({ x25519, xWing }) => (kem === KEM.xWing ? xWing : x25519))
        .find((key) => key !== undefined && isHintOf(hint, key.publicKey)),
    close() {
      closed = true;
      cancel();
    },
  };
}

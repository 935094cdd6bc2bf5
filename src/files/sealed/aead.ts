// AES-256-GCM (NIST SP 800-38D) of one piece: ciphertext and its 16-byte tag, under a nonce that its caller
// never repeats for one key.

import { createCipheriv, createDecipheriv } from 'node:crypto';
import { CIPHER, SealedError, TAG_BYTES } from './format.ts';

export interface Piece {
  readonly key: Uint8Array;
  readonly nonce: Uint8Array;
  readonly aad: Uint8Array;
}

export function sealPiece({ key, nonce, aad }: Piece, plain: Uint8Array): Buffer {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(aad);
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

/** Throws SealedError unless every byte, the nonce and the additional data are those that were sealed. */
export function openPiece({ key, nonce, aad }: Piece, sealed: Uint8Array): Buffer {
  const at = sealed.length - TAG_BYTES;
  if (at < 0) throw new SealedError('cut');
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(at));
  try {
    return Buffer.concat([decipher.update(sealed.subarray(0, at)), decipher.final()]);
  } catch {
    throw new SealedError('changed');
  }
}

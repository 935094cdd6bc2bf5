// Reasoning that a client keeps for the server between two requests, as it cannot be read or changed by any
// other caller (`encrypted_content` of the OpenAI API, `signature` of Anthropic's): AES-256-GCM under a key
// made when the server starts, bound to the caller and the model. Live requests and lines of batches of one
// caller open the same seals. Refuses: invalid_encrypted_content.

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';
import type { Principal } from '../../http/admission/auth.ts';
import type { ModelStatus } from '../../models/seam.ts';

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** Of what is sealed: the first byte of a seal. */
const VERSION = 1;

/** Whom a seal is for. */
export interface SealedFor {
  /** One for each API key. */
  readonly owner: string;
  readonly modelSha256: string;
}

/** The seals of one caller and one model. */
export interface BoundSeal {
  seal(text: string): string;
  /** `param`: the field that refusals name. */
  open(sealed: string, param: string): string;
}

export class ReasoningSeal {
  readonly #key = randomBytes(32);

  of(principal: Pick<Principal, 'owner'> | null, { sha256 }: Pick<ModelStatus, 'sha256'>): BoundSeal {
    const owner: SealedFor = { owner: principal?.owner ?? '', modelSha256: sha256 };
    return {
      seal: (text) => this.seal(text, owner),
      open: (sealed, param) => this.open(sealed, owner, param),
    };
  }

  /**
   * base64url of: version, nonce, ciphertext, tag. A random nonce may repeat only after 2³² seals (SP
   * 800-38D).
   */
  seal(text: string, owner: SealedFor): string {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonce, { authTagLength: TAG_BYTES });
    cipher.setAAD(boundTo(owner));
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
    return Buffer.concat([Uint8Array.of(VERSION), nonce, sealed, cipher.getAuthTag()]).toString('base64url');
  }

  /** `param`: the field that refusals name. */
  open(sealed: string, owner: SealedFor, param: string): string {
    const bytes = Buffer.from(sealed, 'base64url');
    const start = 1 + NONCE_BYTES;
    if (bytes.length < start + TAG_BYTES || bytes[0] !== VERSION) throw notOurs(param);
    const decipher = createDecipheriv(CIPHER, this.#key, bytes.subarray(1, start), {
      authTagLength: TAG_BYTES,
    });
    decipher.setAAD(boundTo(owner));
    decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
    try {
      return decipher.update(bytes.subarray(start, -TAG_BYTES)).toString('utf8') + decipher.final('utf8');
    } catch {
      throw notOurs(param);
    }
  }
}

function boundTo({ owner, modelSha256 }: SealedFor): Buffer {
  return Buffer.from(JSON.stringify([VERSION, owner, modelSha256]));
}

function notOurs(param: string): ApiError {
  return new ApiError(
    'invalid_encrypted_content',
    `${param} was not sealed by this server for this key and model since it started`,
    { param },
  );
}

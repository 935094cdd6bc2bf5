// Base64 as Azure's tools write it: base64url without padding mostly, standard with padding in some. Each
// text is one of the two, canonically encoded.

import { fromBase64, fromBase64Url } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import type { AttestationCode } from '../transcript/codes.ts';

export function base64Either(text: string, name: string, code: AttestationCode): Uint8Array {
  try {
    return /[+/=]/.test(text) ? fromBase64(text, name) : fromBase64Url(text, name);
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw malformed(code, error.message, { cause: error });
  }
}

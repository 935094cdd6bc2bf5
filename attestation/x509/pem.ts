// PEM (RFC 7468, strict): blocks of one label, only white space around them, canonical base64 inside.

import { fromBase64, fromHex, fromUtf8 } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';

/**
 * PEM text → DER of each block of the label, in order. Text outside blocks must be white space;
 * other labels are refused.
 * @throws malformed_certificate or malformed_crl by the label; input_too_large over `maxBlocks`
 * @example const [leaf] = parsePem(text, 'CERTIFICATE', 4);
 */
export function parsePem(
  text: string,
  label: 'CERTIFICATE' | 'X509 CRL' = 'CERTIFICATE',
  maxBlocks = 8,
  name = 'PEM',
): Uint8Array[] {
  const code = label === 'CERTIFICATE' ? 'malformed_certificate' : 'malformed_crl';
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const blocks: Uint8Array[] = [];
  let at = skipSpace(text, 0);
  while (at < text.length) {
    if (blocks.length === maxBlocks)
      throw malformed('input_too_large', `${name} has more than ${maxBlocks} blocks`);
    const stop = text.startsWith(begin, at) ? text.indexOf('-----', at + begin.length) : -1;
    if (stop < 0 || !text.startsWith(end, stop))
      throw malformed(
        code,
        `${name} is not PEM of a ${label === 'CERTIFICATE' ? 'certificate' : 'CRL'} (BEGIN ${label})`,
      );
    const body = text.slice(at + begin.length, stop).replaceAll(/[\r\n\t ]/g, '');
    blocks.push(decodeBody(body, code, name));
    at = skipSpace(text, stop + end.length);
  }
  if (blocks.length === 0) throw malformed(code, `${name} has no ${label} block`);
  return blocks;
}

/**
 * A CRL as services and people give it, DER, PEM or hex (as PCCS does) → DER. @throws
 * malformed_crl, malformed_hex
 */
export function crlDer(bytes: Uint8Array, name: string): Uint8Array {
  const start = new TextDecoder('latin1').decode(bytes.subarray(0, 64)).trimStart();
  if (start.startsWith('-----'))
    return parsePem(fromUtf8(bytes, name, 'malformed_crl'), 'X509 CRL', 1, name)[0] ?? bytes;
  if (/^"?30[0-9a-fA-F]{2}/.test(start))
    return fromHex(fromUtf8(bytes, name, 'malformed_crl').trim().replaceAll('"', ''), name);
  return new Uint8Array(bytes);
}

/** A certificate, DER or PEM → DER. @throws malformed_certificate */
export function certificateDer(bytes: Uint8Array, name: string): Uint8Array {
  const start = new TextDecoder('latin1').decode(bytes.subarray(0, 64)).trimStart();
  if (!start.startsWith('-----')) return new Uint8Array(bytes);
  return parsePem(fromUtf8(bytes, name, 'malformed_certificate'), 'CERTIFICATE', 1, name)[0] ?? bytes;
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (
    at < text.length &&
    (text.charCodeAt(at) === 32 || (text.charCodeAt(at) >= 9 && text.charCodeAt(at) <= 13))
  )
    at++;
  return at;
}

function decodeBody(body: string, code: 'malformed_certificate' | 'malformed_crl', name: string): Uint8Array {
  try {
    return fromBase64(body, name);
  } catch (error) {
    if (error instanceof AttestationError) throw malformed(code, error.message, { cause: error });
    throw error;
  }
}

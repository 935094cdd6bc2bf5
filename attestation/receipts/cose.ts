// COSE_Sign1 (RFC 9052 §4.2) as this protocol uses it (docs/workshop.md, "The record"): untagged,
// deterministic CBOR, EdDSA with Ed25519, a protected header of one fixed byte string that is compared and
// not parsed, an empty unprotected header, the payload inside. Another header, a longer spelling or a byte
// more is refused.

import { equalBytes, toHex } from '../encoding/bytes.ts';
import { type Cbor, decodeCbor, encodeCbor } from '../encoding/cbor.ts';
import { malformed } from '../transcript/errors.ts';
import { isStrictPoint, isStrictSignature } from './ed25519.ts';

const SIGNATURE_BYTES = 64;
const EMPTY = new Uint8Array(0);

/** A form of record: its content type, and the most bytes of a whole record. */
export interface SignedForm {
  /** For messages: "the job record". */
  readonly name: string;
  /** RFC 9052 §3.1, header parameter 3. */
  readonly contentType: string;
  readonly maxBytes: number;
}

export interface Sign1 {
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
}

/** `<< {1: -8, 3: contentType} >>`; -8 is EdDSA (RFC 9053 §2.2), which encodes to one byte, 0x27. */
export function protectedHeader({ contentType }: SignedForm): Uint8Array {
  const type = encodeCbor(contentType);
  return Uint8Array.of(0xa2, 0x01, 0x27, 0x03, ...type);
}

/** The bytes an Ed25519 key signs: `["Signature1", protected, h'', payload]`. */
export function signedBytesOf(form: SignedForm, payload: Uint8Array): Uint8Array {
  return encodeCbor(['Signature1', protectedHeader(form), EMPTY, payload]);
}

export function encodeSign1(form: SignedForm, { payload, signature }: Sign1): Uint8Array {
  if (signature.length !== SIGNATURE_BYTES)
    throw new RangeError(`signature is ${signature.length} bytes, expected ${SIGNATURE_BYTES}`);
  return encodeCbor([protectedHeader(form), new Map<number, Cbor>(), payload, signature]);
}

/** Throws `malformed_record`, `malformed_cbor` or `input_too_large`; does not judge the signature. */
export function decodeSign1(form: SignedForm, bytes: Uint8Array): Sign1 {
  const value = decodeCbor(bytes, form.name, form.maxBytes);
  if (!Array.isArray(value) || value.length !== 4) throw wrong(form, 'is no COSE_Sign1 of four parts');
  const [header, unprotected, payload, signature] = value as readonly Cbor[];
  const expected = protectedHeader(form);
  if (!(header instanceof Uint8Array)) throw wrong(form, 'has no protected header of bytes');
  if (!equalBytes(header, expected))
    throw malformed('malformed_record', `${form.name} has another protected header`, {
      expected: toHex(expected),
      actual: toHex(header).slice(0, 256),
    });
  if (!(unprotected instanceof Map) || unprotected.size > 0)
    throw wrong(form, 'has an unprotected header that is not empty');
  if (!(payload instanceof Uint8Array)) throw wrong(form, 'has no payload of bytes');
  if (!(signature instanceof Uint8Array) || signature.length !== SIGNATURE_BYTES)
    throw wrong(form, `has no signature of ${SIGNATURE_BYTES} bytes`);
  return { payload, signature };
}

/**
 * Whether the key signed it. False also for bytes that are no key of the curve, and for a key or signature
 * that some library would judge otherwise (ed25519.ts).
 */
export async function sign1Verifies(
  form: SignedForm,
  signed: Sign1,
  publicKey: Uint8Array,
): Promise<boolean> {
  if (!isStrictPoint(publicKey) || !isStrictSignature(signed.signature)) return false;
  try {
    const key = await crypto.subtle.importKey('raw', own(publicKey), 'Ed25519', false, ['verify']);
    const message = own(signedBytesOf(form, signed.payload));
    return await crypto.subtle.verify('Ed25519', key, own(signed.signature), message);
  } catch (error) {
    // A platform without Ed25519 must not pass for a wrong signature.
    if (error instanceof Error && error.name === 'NotSupportedError') throw error;
    return false;
  }
}

/** WebCrypto takes views of plain buffers only. */
function own(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function wrong({ name }: SignedForm, what: string): Error {
  return malformed('malformed_record', `${name} ${what}`);
}

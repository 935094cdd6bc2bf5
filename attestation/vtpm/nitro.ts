// A Nitro attestation document: COSE_Sign1 without a CBOR tag, ES384, around a CBOR map (AWS Nitro
// Enclaves "Attestation document"; NitroTPM writes the same with `nitrotpm_pcrs`). That map is of indefinite
// length in every genuine document, so canonical CBOR alone would refuse them all; everything else in it is
// read strictly: shortest heads, no tags, no key twice. Refused: bytes before or after the item, other
// headers, other keys. `pcrs` is an Enclave and `nitrotpm_pcrs` an instance: neither stands for the other.

import { concatBytes, equalBytes, fromUtf8, toHex } from '../encoding/bytes.ts';
import { encodeCbor } from '../encoding/cbor.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { CborReader } from './cbor-reader.ts';

export type NitroKind = 'nitrotpm' | 'enclave';

/** The document as read; signed only where its signature held. */
export interface NitroDocument {
  readonly kind: NitroKind;
  readonly moduleId: string;
  /** Milliseconds since 1970, the hypervisor's clock. */
  readonly timestamp: number;
  /** By index; 48 bytes each. */
  readonly pcrs: ReadonlyMap<number, Uint8Array>;
  readonly certificate: Uint8Array;
  /** Root first, the issuer of the certificate last. */
  readonly cabundle: readonly Uint8Array[];
  readonly publicKey: Uint8Array | undefined;
  readonly userData: Uint8Array | undefined;
  readonly nonce: Uint8Array | undefined;
  /** Whether the protected header is ES384 alone. */
  readonly es384: boolean;
  /** The bytes under the signature: Sig_structure (RFC 9052 §4.4). */
  readonly signed: Uint8Array;
  /** r ‖ s, 96 bytes. */
  readonly signature: Uint8Array;
}

export const NITRO_DOCUMENT_MAX = 16 * 1024;
/** `<< {1: -35} >>`. */
const ES384 = Uint8Array.of(0xa1, 0x01, 0x38, 0x22);
const PCRS: Readonly<Record<NitroKind, { readonly key: string; readonly count: number }>> = {
  nitrotpm: { key: 'nitrotpm_pcrs', count: 24 },
  enclave: { key: 'pcrs', count: 16 },
};
const CHAIN_MAX = 8;

/** @throws AttestationError malformed `cose_format` */
export function parseNitroDocument(bytes: Uint8Array): NitroDocument {
  if (bytes.length > NITRO_DOCUMENT_MAX)
    throw broken(`is ${bytes.length} bytes, at most ${NITRO_DOCUMENT_MAX}`);
  try {
    return read(new Uint8Array(bytes));
  } catch (error) {
    if (!(error instanceof AttestationError) || error.code === 'cose_format') throw error;
    throw broken(error.message);
  }
}

function read(bytes: Uint8Array): NitroDocument {
  const outer = new CborReader(bytes, 'COSE_Sign1');
  if (outer.head(4) !== 4) throw broken('is no COSE_Sign1 of four parts');
  const header = outer.bytes(64);
  if (outer.head(5) !== 0) throw broken('has an unprotected header that is not empty');
  const payload = outer.bytes(NITRO_DOCUMENT_MAX);
  const signature = outer.bytes(96);
  outer.end();
  if (signature.length !== 96) throw broken(`has a signature of ${signature.length} bytes, expected 96`);
  const signed = concatBytes(
    Uint8Array.of(0x84),
    encodeCbor('Signature1'),
    encodeCbor(header),
    encodeCbor(new Uint8Array(0)),
    encodeCbor(payload),
  );
  return { ...readPayload(payload), es384: equalBytes(header, ES384), signed, signature };
}

type Payload = Omit<NitroDocument, 'es384' | 'signed' | 'signature'>;
type Value = Uint8Array | string | number | null | readonly Uint8Array[] | ReadonlyMap<number, Uint8Array>;

function readPayload(payload: Uint8Array): Payload {
  const reader = new CborReader(payload, 'payload');
  const fields = new Map<string, Value>();
  const count = reader.mapHead();
  for (let i = 0; count === undefined ? !reader.breaks() : i < count; i++) {
    const key = reader.text(32);
    if (fields.has(key)) throw broken(`has the key ${JSON.stringify(key)} twice`);
    fields.set(key, readValue(reader, key));
  }
  reader.end();
  if (fields.has('pcrs') === fields.has('nitrotpm_pcrs'))
    throw broken('has not one of pcrs and nitrotpm_pcrs');
  const kind = fields.has('pcrs') ? 'enclave' : 'nitrotpm';
  if (fields.get('digest') !== 'SHA384') throw broken('is not of the digest SHA384');
  const pcrs = fields.get(PCRS[kind].key);
  if (!(pcrs instanceof Map) || pcrs.size !== PCRS[kind].count)
    throw broken(`has not the ${PCRS[kind].count} PCRs of its kind`);
  return {
    kind,
    moduleId: textOf(fields, 'module_id'),
    timestamp: numberOf(fields, 'timestamp'),
    pcrs: pcrs as ReadonlyMap<number, Uint8Array>,
    certificate: bytesOf(fields, 'certificate') ?? missing('certificate'),
    cabundle: listOf(fields, 'cabundle'),
    publicKey: bytesOf(fields, 'public_key'),
    userData: bytesOf(fields, 'user_data'),
    nonce: bytesOf(fields, 'nonce'),
  };
}

function readValue(reader: CborReader, key: string): Value {
  switch (key) {
    case 'module_id':
    case 'digest':
      return reader.text(128);
    case 'timestamp':
      return reader.head(0);
    case 'pcrs':
    case 'nitrotpm_pcrs':
      return readPcrs(reader);
    case 'certificate':
      return reader.bytes(4096);
    case 'cabundle':
      return Array.from({ length: atMost(reader.head(4), CHAIN_MAX) }, () => reader.bytes(4096));
    case 'public_key':
    case 'user_data':
    case 'nonce':
      return reader.isNull() ? null : reader.bytes(1024);
    default:
      throw broken(`has the unknown key ${JSON.stringify(key)}`);
  }
}

function readPcrs(reader: CborReader): ReadonlyMap<number, Uint8Array> {
  const count = atMost(reader.head(5), 32);
  const pcrs = new Map<number, Uint8Array>();
  for (let i = 0; i < count; i++) {
    // In order, so that no index is there twice.
    if (reader.head(0) !== i) throw broken(`has not PCR ${i} in its place`);
    const value = reader.bytes(64);
    if (value.length !== 48) throw broken(`has a PCR ${i} of ${value.length} bytes`);
    pcrs.set(i, value);
  }
  return pcrs;
}

function atMost(count: number, most: number): number {
  if (count <= most) return count;
  throw broken(`has a list of ${count}, at most ${most} are read`);
}

function textOf(fields: ReadonlyMap<string, Value>, key: string): string {
  const value = fields.get(key);
  return typeof value === 'string' ? value : missing(key);
}

function numberOf(fields: ReadonlyMap<string, Value>, key: string): number {
  const value = fields.get(key);
  return typeof value === 'number' ? value : missing(key);
}

function bytesOf(fields: ReadonlyMap<string, Value>, key: string): Uint8Array | undefined {
  const value = fields.get(key);
  if (value === null || value === undefined) return undefined;
  return value instanceof Uint8Array && value.length > 0 ? value : missing(key);
}

function listOf(fields: ReadonlyMap<string, Value>, key: string): readonly Uint8Array[] {
  const value = fields.get(key);
  return Array.isArray(value) && value.length > 0 ? (value as readonly Uint8Array[]) : missing(key);
}

function missing(key: string): never {
  throw broken(`lacks ${key}`);
}

function broken(what: string): AttestationError {
  return malformed('cose_format', `Nitro document ${what}`, { check: 'N1' });
}

/** Printable only: it is text of the document. */
export function describeNonce(nonce: Uint8Array): string {
  return nonce.every((byte) => byte >= 0x20 && byte < 0x7f)
    ? `the text ${JSON.stringify(fromUtf8(nonce).slice(0, 128))}`
    : toHex(nonce);
}

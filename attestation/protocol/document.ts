// The attestation document on the wire (docs/protocol.md §4): JSON from GET /v1/attestation, CBOR in the
// certificate extension 2.23.133.5.4.9 (§6). Closed shape: unknown keys, wrong types, non-canonical base64
// and anything over the stated sizes are refused. Reading does not verify: `appraise/` compares every
// repeated field with the signed bytes.

import { fromBase64, fromBase64Url, fromHex } from '../encoding/bytes.ts';
import { type Cbor, type CborMap, decodeCbor } from '../encoding/cbor.ts';
import { NONCE_MAX_BYTES } from './claims.ts';
import type { Inclusion } from './merkle.ts';
import { malformed } from '../transcript/errors.ts';
import { type Json, parseJson, shapeReaders } from '../encoding/json.ts';
import type { AttestedModel, ModelBlob } from './model.ts';

/** Most bytes of a document, as JSON or as CBOR. */
export const MAX_DOCUMENT_BYTES = 1024 * 1024;
/** TCG DICE "tcg-dice-conceptual-message-wrapper", the extension RA-TLS implementations use. */
export const CERTIFICATE_EXTENSION_OID = '2.23.133.5.4.9';

/** TEEs that a cloud's TPM or endorsement speaks for, too; `@assay/attestation/vtpm` judges them. */
export const CLOUD_TEES = ['azure-sev-snp', 'azure-tdx', 'aws-nitrotpm', 'gcp-sev-snp', 'gcp-tdx'] as const;
export type CloudTee = (typeof CLOUD_TEES)[number];
export const TEE_TYPES = ['sev-snp', 'tdx', 'simulated', ...CLOUD_TEES] as const;
/** The hardware a document says it comes from; `simulated` carries the formats of either vendor. */
export type TeeType = (typeof TEE_TYPES)[number];

/** Whether a TEE is one of a cloud. */
export function isCloudTee(tee: string): tee is CloudTee {
  return CLOUD_TEES.some((each) => each === tee);
}

/** Stapled for SEV-SNP: DER certificates, the chain as ASK or ASVK, then ARK. */
export interface SnpEndorsements {
  readonly vek: Uint8Array;
  readonly chain: readonly Uint8Array[];
  readonly crl?: Uint8Array | undefined;
}

/** Stapled for TDX: JSON texts exactly as Intel signed them, issuer chains as PEM, CRLs as DER. */
export interface TdxEndorsements {
  /** PEM, leaf first; only for quotes that do not carry their PCK chain. */
  readonly pckChain?: string | undefined;
  readonly pckCrl: Uint8Array;
  readonly pckCrlIssuerChain?: string | undefined;
  readonly rootCaCrl: Uint8Array;
  readonly tcbInfo: string;
  readonly tcbInfoIssuerChain: string;
  readonly qeIdentity: string;
  readonly qeIdentityIssuerChain: string;
}

interface DocumentFields {
  readonly version: '1';
  /** The raw SNP report or TDX quote, unmodified. */
  readonly report: Uint8Array;
  /** 64 bytes, repeated from the report. */
  readonly reportData: Uint8Array;
  /** 48 bytes, MEASUREMENT or MRTD, repeated from the report. */
  readonly measurement: Uint8Array;
  /** RFC 3339 in UTC with seconds; repeats claims.issued_at. */
  readonly timestamp: string;
  /** As received: hex or base64url. Absent in certificate evidence. */
  readonly nonce?: string | undefined;
  readonly claims: Uint8Array;
  readonly inclusion: Inclusion;
  readonly models: readonly AttestedModel[];
  /** TDX only: RTMR0…RTMR3, 48 bytes each, repeated from the quote. */
  readonly rtmr?: readonly Uint8Array[] | undefined;
  /** TDX only: the CCEL event log. */
  readonly eventLog?: Uint8Array | undefined;
  /** A cloud's only: what its TPM and firmware say, in CBOR (docs/formats.md). */
  readonly platform?: Uint8Array | undefined;
}

/**
 * A simulated document carries the formats of either vendor; its endorsements, which it must have, say which.
 */
export type AttestationDocument =
  | (DocumentFields & {
      readonly teeType: 'sev-snp' | 'azure-sev-snp' | 'gcp-sev-snp';
      readonly endorsements?: SnpEndorsements | undefined;
    })
  | (DocumentFields & {
      readonly teeType: 'tdx' | 'azure-tdx' | 'gcp-tdx';
      readonly endorsements?: TdxEndorsements | undefined;
    })
  | (DocumentFields & { readonly teeType: 'aws-nitrotpm'; readonly endorsements?: undefined })
  | (DocumentFields & {
      readonly teeType: 'simulated';
      readonly endorsements: SnpEndorsements | TdxEndorsements;
    });

/**
 * JSON text, or a value already parsed from JSON, → document. Throws `malformed_document` and
 * the codes of its encodings.
 * @example const document = parseDocument(await response.text());
 */
export function parseDocument(input: string | Json): AttestationDocument {
  return readDocument(
    typeof input === 'string' ? parseJson(input, 'attestation document', MAX_DOCUMENT_BYTES) : input,
    fromJson,
  );
}

/**
 * Canonical CBOR → document (docs/protocol.md §6). Throws `malformed_cbor` and `malformed_document`.
 * @example const document = decodeDocumentCbor(bytes);
 */
export function decodeDocumentCbor(bytes: Uint8Array): AttestationDocument {
  return readDocument(fromMap(decodeCbor(bytes, 'certificate evidence', MAX_DOCUMENT_BYTES)), asIs);
}

/**
 * Seconds since 1970 → the document's timestamp.
 * @example const text = formatTimestamp(0); // '1970-01-01T00:00:00Z'
 */
export function formatTimestamp(seconds: number): string {
  return new Date(seconds * 1000).toISOString().replace(/\.000Z$/, 'Z');
}

/** A document between its two encodings: byte strings in CBOR are text in JSON. */
export type Loose = Json | Uint8Array | readonly Loose[] | { readonly [key: string]: Loose };
/** How JSON spells a byte string. */
export type Encoding = 'base64' | 'base64url' | 'hex';
type ReadBytes = (value: unknown, name: string, encoding: Encoding, maxBytes: number) => Uint8Array;

const read = shapeReaders('malformed_document');

const REPORT_MAX = 64 * 1024;
const CERTIFICATE_MAX = 16 * 1024;
const CRL_MAX = 256 * 1024;
const TEXT_MAX = 256 * 1024;
const EVENT_LOG_MAX = 512 * 1024;
const PLATFORM_MAX = 256 * 1024;
const MODELS_MAX = 256;
const BLOBS_MAX = 64;
const MODEL_ID_MAX = 256;

const REQUIRED = [
  'version',
  'tee_type',
  'report',
  'report_data',
  'measurement',
  'timestamp',
  'claims',
  'inclusion',
  'models',
];
const OPTIONAL = ['nonce', 'rtmr', 'event_log', 'platform', 'endorsements'];

export const TDX_REQUIRED = [
  'tcb_info',
  'tcb_info_issuer_chain',
  'qe_identity',
  'qe_identity_issuer_chain',
  'pck_crl',
  'root_ca_crl',
];
export const TDX_OPTIONAL = ['pck_chain', 'pck_crl_issuer_chain'];
const ALL_ENDORSEMENTS = ['vek', 'chain', 'crl', ...TDX_REQUIRED, ...TDX_OPTIONAL];

const DECODE = { hex: fromHex, base64: fromBase64, base64url: fromBase64Url } as const;
const fromJson: ReadBytes = (value, name, encoding, maxBytes) => {
  const text = read.string(value, name, encoding === 'hex' ? 2 * maxBytes : Math.ceil(maxBytes / 3) * 4);
  return DECODE[encoding](text, name);
};

const asIs: ReadBytes = (value, name, _encoding, maxBytes) => {
  if (!(value instanceof Uint8Array)) throw malformed('malformed_document', `${name} is not a byte string`);
  if (value.length > maxBytes)
    throw malformed('malformed_document', `${name} is ${value.length} bytes, expected at most ${maxBytes}`);
  return value;
};

function readDocument(value: unknown, bytes: ReadBytes): AttestationDocument {
  const object = read.object(value, 'document', REQUIRED, OPTIONAL);
  const sized = (item: unknown, name: string, encoding: Encoding, length: number): Uint8Array => {
    const found = bytes(item, name, encoding, length);
    if (found.length === length) return found;
    throw malformed('malformed_document', `${name} is ${found.length} bytes, expected ${length}`);
  };
  const inclusion = read.object(object['inclusion'], 'inclusion', ['index', 'size', 'path']);
  const teeType = read.oneOf(object['tee_type'], 'tee_type', TEE_TYPES);
  const fields: DocumentFields = {
    version: read.oneOf(object['version'], 'version', ['1']),
    report: bytes(object['report'], 'report', 'base64', REPORT_MAX),
    reportData: sized(object['report_data'], 'report_data', 'hex', 64),
    measurement: sized(object['measurement'], 'measurement', 'hex', 48),
    timestamp: readTimestamp(object['timestamp']),
    nonce: unlessAbsent(object['nonce'], (item) => read.string(item, 'nonce', 2 * NONCE_MAX_BYTES)),
    claims: bytes(object['claims'], 'claims', 'base64url', 4096),
    inclusion: {
      index: read.integer(inclusion['index'], 'inclusion.index'),
      size: read.integer(inclusion['size'], 'inclusion.size', 1),
      path: read
        .list(inclusion['path'], 'inclusion.path', 0, 32)
        .map((item, i) => sized(item, `inclusion.path[${i}]`, 'hex', 32)),
    },
    models: read
      .list(object['models'], 'models', 0, MODELS_MAX)
      .map((item, i) => readModel(item, `models[${i}]`, sized)),
    rtmr: unlessAbsent(object['rtmr'], (list) =>
      read.list(list, 'rtmr', 4, 4).map((item, i) => sized(item, `rtmr[${i}]`, 'hex', 48)),
    ),
    eventLog: unlessAbsent(object['event_log'], (item) => bytes(item, 'event_log', 'base64', EVENT_LOG_MAX)),
    platform: unlessAbsent(object['platform'], (item) => bytes(item, 'platform', 'base64', PLATFORM_MAX)),
  };
  const stapled = object['endorsements'];
  const isTdx =
    teeType.endsWith('tdx') ||
    (teeType === 'simulated' &&
      stapled !== undefined &&
      !('vek' in read.object(stapled, 'endorsements', [], ALL_ENDORSEMENTS)));
  if (!isTdx && (fields.rtmr !== undefined || fields.eventLog !== undefined)) {
    throw malformed('malformed_document', `a ${teeType} document has rtmr or event_log, which only tdx has`);
  }
  if (fields.platform !== undefined && !isCloudTee(teeType))
    throw malformed('malformed_document', `a ${teeType} document has platform, which only a cloud’s has`);
  if (stapled === undefined) {
    if (teeType === 'simulated')
      throw malformed(
        'malformed_document',
        'a simulated document lacks endorsements, which nobody else can give',
      );
    return { ...fields, teeType };
  }
  if (teeType === 'aws-nitrotpm')
    throw malformed(
      'malformed_document',
      'a Nitro document carries its certificates: endorsements are not read',
    );
  const endorsements = isTdx ? readTdxEndorsements(stapled, bytes) : readSnpEndorsements(stapled, bytes);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the TEE and its endorsements were read together
  return { ...fields, teeType, endorsements } as AttestationDocument;
}

function unlessAbsent<T>(item: Json | undefined, from: (item: Json) => T): T | undefined {
  return item === undefined ? undefined : from(item);
}

function readTimestamp(value: unknown): string {
  const text = read.string(value, 'timestamp', 32);
  const seconds = Date.parse(text) / 1000;
  if (
    !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) ||
    !Number.isInteger(seconds) ||
    formatTimestamp(seconds) !== text
  ) {
    throw malformed('malformed_document', 'timestamp is not RFC 3339 in UTC with whole seconds');
  }
  return text;
}

type ReadSized = (item: unknown, name: string, encoding: Encoding, length: number) => Uint8Array;

function readModel(value: unknown, name: string, sized: ReadSized): AttestedModel {
  const object = read.object(value, name, ['id', 'sha256', 'kind', 'blobs']);
  const id = readText(object['id'], `${name}.id`, MODEL_ID_MAX);
  if (id === '' || id === '*')
    throw malformed('malformed_document', `${name}.id is ${JSON.stringify(id)}, which no model can have`);
  return {
    id,
    sha256: sized(object['sha256'], `${name}.sha256`, 'hex', 32),
    kind: read.oneOf(object['kind'], `${name}.kind`, ['blob', 'manifest']),
    blobs: read
      .list(object['blobs'], `${name}.blobs`, 1, BLOBS_MAX)
      .map((item, i) => readBlob(item, `${name}.blobs[${i}]`, sized)),
  };
}

function readBlob(value: unknown, name: string, sized: ReadSized): ModelBlob {
  const object = read.object(value, name, ['role', 'sha256', 'size']);
  return {
    role: readText(object['role'], `${name}.role`, 64),
    sha256: sized(object['sha256'], `${name}.sha256`, 'hex', 32),
    size: read.integer(object['size'], `${name}.size`),
  };
}

/** Text that is hashed: JSON can spell halves of surrogate pairs, which no UTF-8 encodes. */
function readText(value: unknown, name: string, maxLength: number): string {
  const text = read.string(value, name, maxLength);
  if (/\p{Surrogate}/u.test(text)) throw malformed('malformed_document', `${name} has a lone surrogate`);
  return text;
}

function readSnpEndorsements(value: unknown, bytes: ReadBytes): SnpEndorsements {
  const object = read.object(value, 'endorsements', ['vek', 'chain'], ['crl']);
  return {
    vek: bytes(object['vek'], 'endorsements.vek', 'base64', CERTIFICATE_MAX),
    chain: read
      .list(object['chain'], 'endorsements.chain', 1, 4)
      .map((item, i) => bytes(item, `endorsements.chain[${i}]`, 'base64', CERTIFICATE_MAX)),
    crl: unlessAbsent(object['crl'], (item) => bytes(item, 'endorsements.crl', 'base64', CRL_MAX)),
  };
}

function readTdxEndorsements(value: unknown, bytes: ReadBytes): TdxEndorsements {
  const object = read.object(value, 'endorsements', TDX_REQUIRED, TDX_OPTIONAL);
  const text = (key: string): string => read.string(object[key], `endorsements.${key}`, TEXT_MAX);
  const optionalText = (key: string): string | undefined => unlessAbsent(object[key], () => text(key));
  return {
    pckChain: optionalText('pck_chain'),
    pckCrl: bytes(object['pck_crl'], 'endorsements.pck_crl', 'base64', CRL_MAX),
    pckCrlIssuerChain: optionalText('pck_crl_issuer_chain'),
    rootCaCrl: bytes(object['root_ca_crl'], 'endorsements.root_ca_crl', 'base64', CRL_MAX),
    tcbInfo: text('tcb_info'),
    tcbInfoIssuerChain: text('tcb_info_issuer_chain'),
    qeIdentity: text('qe_identity'),
    qeIdentityIssuerChain: text('qe_identity_issuer_chain'),
  };
}

function fromMap(value: Cbor): Loose {
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return (value as readonly Cbor[]).map(fromMap);
  const object = Object.create(null) as Record<string, Loose>;
  for (const [key, item] of value as CborMap) {
    if (typeof key !== 'string')
      throw malformed('malformed_document', `certificate evidence has the integer key ${key}`);
    object[key] = fromMap(item);
  }
  return object;
}

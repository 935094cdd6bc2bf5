// The writing half of the protocol: claims and documents (docs/protocol.md §3, §4, §6) and the Merkle tree of
// a batch (RFC 9162 §2.1). An entry of its own, so that a page that only verifies does not load it; reading
// is in claims, document and merkle.

import { toBase64, toBase64Url, toHex } from '../encoding/bytes.ts';
import { type Cbor, encodeCbor } from '../encoding/cbor.ts';
import type { JsonObject } from '../encoding/json.ts';
import { type Claims, CLAIMS_LABEL, NONCE_MAX_BYTES, NONCE_MIN_BYTES, nonceFits, sized } from './claims.ts';
import type { AttestationDocument, Encoding, Loose, SnpEndorsements, TdxEndorsements } from './document.ts';
import { MAX_TREE_SIZE, nodeHash } from './merkle.ts';

export { attestedModel } from './model.ts';

/**
 * Claims → the canonical CBOR of docs/protocol.md §3, at most 4096 bytes.
 * @example const bytes = encodeClaims(claims);
 */
export function encodeClaims(claims: Claims): Uint8Array {
  const map = new Map<number, Cbor>([
    [0, CLAIMS_LABEL],
    [2, sized(claims.tlsSpki, 'tls_spki')],
    [4, new Map<number, Cbor>([[0, claims.model.kind], [1, claims.model.id], [2, sized(claims.model.sha256, 'model.sha256')]])], // prettier-ignore
    [5, sized(claims.config, 'config')],
    [6, sized(claims.receiptKey, 'receipt_key')],
    [7, sized(claims.hpkeKey, 'hpke_key')],
    [8, claims.issuedAt],
  ]);
  if (claims.nonce !== undefined) {
    if (!nonceFits(claims.nonce))
      throw new RangeError(
        `nonce is ${claims.nonce.length} bytes, expected ${NONCE_MIN_BYTES} to ${NONCE_MAX_BYTES}`,
      );
    map.set(1, claims.nonce);
  }
  if (claims.exporter !== undefined) map.set(3, sized(claims.exporter, 'exporter'));
  if (claims.gpu !== undefined) map.set(9, sized(claims.gpu, 'gpu'));
  return encodeCbor(map);
}

/**
 * A whole tree: the root, and of each leaf the sibling hashes up to it, nearest first
 * (none in a tree of one leaf).
 */
export interface MerkleTree {
  readonly root: Uint8Array;
  readonly paths: readonly (readonly Uint8Array[])[];
}

/**
 * Over leaf *hashes*, in order, at least one. Each node is hashed once, however many paths lead through it.
 * @example const { root, paths } = merkleTree(leaves);
 */
export function merkleTree(leaves: readonly Uint8Array[]): MerkleTree {
  if (leaves.length === 0 || leaves.length > MAX_TREE_SIZE)
    throw new RangeError(`a tree has 1 to ${MAX_TREE_SIZE} leaves, not ${leaves.length}`);
  const paths: Uint8Array[][] = leaves.map(() => []);
  const build = (from: number, to: number): Uint8Array => {
    if (to - from === 1) return leaves[from] as Uint8Array;
    const split = from + largestPowerOfTwoBelow(to - from);
    const left = build(from, split);
    const right = build(split, to);
    for (let i = from; i < to; i++) paths[i]?.push(i < split ? right : left);
    return nodeHash(left, right);
  };
  return { root: build(0, leaves.length), paths };
}

/**
 * The root over leaf *hashes*, in order. At least one leaf.
 * @example const root = merkleRoot(leaves);
 */
export function merkleRoot(leaves: readonly Uint8Array[]): Uint8Array {
  return merkleTree(leaves).root;
}

/**
 * The sibling hashes from leaf `index` up to the root, nearest first. Empty for a tree of one leaf.
 * @example const path = inclusionPath(leaves, 1);
 */
export function inclusionPath(leaves: readonly Uint8Array[], index: number): readonly Uint8Array[] {
  const path = leaves.length === 0 ? undefined : merkleTree(leaves).paths[index];
  if (path === undefined) throw new RangeError(`leaf ${index} is not in a tree of ${leaves.length}`);
  return path;
}

function largestPowerOfTwoBelow(size: number): number {
  let power = 1;
  while (power * 2 < size) power *= 2;
  return power;
}

/**
 * Document → the JSON object of protocol.md §4, in its order.
 * @example const text = JSON.stringify(documentToJson(document), null, 2);
 */
export function documentToJson(document: AttestationDocument): JsonObject {
  return writeDocument(document, toJson) as JsonObject;
}

/**
 * Document → JSON text (docs/protocol.md §4).
 * @example const text = encodeDocument(document);
 */
export function encodeDocument(document: AttestationDocument): string {
  return JSON.stringify(documentToJson(document));
}

/**
 * The same document in canonical CBOR: the JSON names as text keys, bytes as byte strings. For the
 * certificate.
 * @example const extension = encodeDocumentCbor(document);
 */
export function encodeDocumentCbor(document: AttestationDocument): Uint8Array {
  return encodeCbor(toMap(writeDocument(document, asBytes)));
}

type WriteBytes = (bytes: Uint8Array, encoding: Encoding) => Loose;

const ENCODE = { hex: toHex, base64: toBase64, base64url: toBase64Url } as const;
const toJson: WriteBytes = (bytes, encoding) => ENCODE[encoding](bytes);
const asBytes: WriteBytes = (bytes) => bytes;

function writeDocument(document: AttestationDocument, bytes: WriteBytes): { readonly [key: string]: Loose } {
  const { inclusion } = document;
  return {
    version: document.version,
    tee_type: document.teeType,
    report: bytes(document.report, 'base64'),
    report_data: bytes(document.reportData, 'hex'),
    measurement: bytes(document.measurement, 'hex'),
    timestamp: document.timestamp,
    ...(document.nonce === undefined ? {} : { nonce: document.nonce }),
    claims: bytes(document.claims, 'base64url'),
    inclusion: {
      index: inclusion.index,
      size: inclusion.size,
      path: inclusion.path.map((item) => bytes(item, 'hex')),
    },
    models: document.models.map((model) => ({
      id: model.id,
      sha256: bytes(model.sha256, 'hex'),
      kind: model.kind,
      blobs: model.blobs.map((blob) => ({
        role: blob.role,
        sha256: bytes(blob.sha256, 'hex'),
        size: blob.size,
      })),
    })),
    ...present({
      rtmr: document.rtmr?.map((item) => bytes(item, 'hex')),
      event_log: document.eventLog && bytes(document.eventLog, 'base64'),
      platform: document.platform && bytes(document.platform, 'base64'),
      endorsements: document.endorsements && writeEndorsements(document.endorsements, bytes),
    }),
  };
}

/** Without the members that are absent. */
function present(members: { readonly [key: string]: Loose | undefined }): { readonly [key: string]: Loose } {
  const entries = Object.entries(members).filter((entry): entry is [string, Loose] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

function writeEndorsements(endorsements: SnpEndorsements | TdxEndorsements, bytes: WriteBytes): Loose {
  if ('vek' in endorsements) {
    return {
      vek: bytes(endorsements.vek, 'base64'),
      chain: endorsements.chain.map((item) => bytes(item, 'base64')),
      ...(endorsements.crl === undefined ? {} : { crl: bytes(endorsements.crl, 'base64') }),
    };
  }
  return {
    ...(endorsements.pckChain === undefined ? {} : { pck_chain: endorsements.pckChain }),
    pck_crl: bytes(endorsements.pckCrl, 'base64'),
    ...(endorsements.pckCrlIssuerChain === undefined
      ? {}
      : { pck_crl_issuer_chain: endorsements.pckCrlIssuerChain }),
    root_ca_crl: bytes(endorsements.rootCaCrl, 'base64'),
    tcb_info: endorsements.tcbInfo,
    tcb_info_issuer_chain: endorsements.tcbInfoIssuerChain,
    qe_identity: endorsements.qeIdentity,
    qe_identity_issuer_chain: endorsements.qeIdentityIssuerChain,
  };
}

function toMap(value: Loose): Cbor {
  if (value === null || typeof value !== 'object' || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return (value as readonly Loose[]).map(toMap);
  return new Map(
    Object.entries(value as { readonly [key: string]: Loose }).map(([key, item]) => [key, toMap(item)]),
  );
}

// The parts of the test vectors of receipts: one fixed key that has no other use, a receipt with every
// field, and records that no writer of ours would make.

import { createHash, createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { type Cbor, decodeCbor, encodeCbor } from '../attestation/encoding/cbor.ts';
import type { FinalReceipt, ReceiptCheckpoint } from '../attestation/receipts/body.ts';
import { encodeBody } from '../attestation/receipts/body-write.ts';
import { commitment, type CommittedField } from '../attestation/receipts/commit.ts';

const SEED = Buffer.from('assay receipt test vectors v1 xx');
const KEY = createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), SEED]),
  format: 'der',
  type: 'pkcs8',
});
export const VECTOR_KEY = new Uint8Array(
  createPublicKey(KEY).export({ format: 'der', type: 'spki' }).subarray(12),
);
const CONTENT_TYPE = 'application/vnd.assay.receipt+cbor';
export const VECTOR_HEADER = coseHeader(CONTENT_TYPE);
/** Order of the base point of Ed25519. */
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

export function coseHeader(contentType: string, algorithm = 0x27): Uint8Array {
  return Uint8Array.of(0xa2, 1, algorithm, 3, ...encodeCbor(contentType));
}

export function signReceipt(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(sign(null, bytes, KEY));
}

export function sha256Of(bytes: Uint8Array | string): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

export function filled(byte: number, length = 32): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

export const SALT = filled(0x5a);
export const NONCE = filled(0x4e);
export const REQUEST_BODY =
  '{"model":"demo","messages":[{"role":"user","content":"Which colour is the sky?"}],"stream":true}';
export const MODEL_DIGEST = filled(0x11);
export const CHANNEL = { kind: 'attested', claims: filled(0xc1), report: filled(0xc2) } as const;

function committed(field: CommittedField, bytes: Uint8Array | string, choice = 0): Uint8Array {
  return commitment(SALT, field, sha256Of(bytes), choice);
}

/** The parts a checkpoint and a last receipt have in common. */
const COMMON = {
  id: filled(0x1d, 16),
  chain: filled(0xca, 16),
  seq: 0,
  prev: filled(0),
  receiptKey: VECTOR_KEY,
  channel: CHANNEL,
  model: {
    id: 'demo',
    form: 'manifest',
    sha256: MODEL_DIGEST,
    adapters: [{ sha256: filled(0x12), scale: 0.5 }],
    template: filled(0x13),
  },
  engine: {
    release: 'assay 0.1.0',
    digest: filled(0x14),
    cpuVariant: 'x64-haswell',
    threads: 2,
    replayClass: 1,
    context: 2048,
    batch: 4,
  },
  nonce: NONCE,
} as const;

export const FINAL: FinalReceipt = {
  kind: 'final',
  ...COMMON,
  request: {
    method: 'POST',
    path: '/v1/chat/completions',
    body: committed('body', REQUEST_BODY),
    promptTokens: committed('promptTokens', Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 7)),
  },
  sampling: {
    temperature: 0.7,
    topP: 1,
    topK: 40,
    minP: 0.05,
    presencePenalty: -1.5,
    frequencyPenalty: 0,
    repeatPenalty: 1.1,
    seed: 42,
    seedGiven: true,
    maxTokens: null,
    n: 1,
    stop: committed('stop', encodeCbor(['\n'])),
    logitBias: committed('logitBias', 'bias'),
    grammar: committed('grammar', 'root ::= "blue"'),
  },
  outcome: {
    status: 200,
    transcript: committed('transcript', ''),
    events: 0,
    choices: [
      {
        index: 0,
        finishReason: 'stop',
        tokens: 1,
        outputTokens: committed('outputTokens', Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 9)),
        outputText: committed('outputText', 'Blue.'),
      },
    ],
    end: 'complete',
    errorCode: undefined,
  },
  usage: { promptTokens: 12, completionTokens: 1, cachedTokens: 0 },
  receivedAt: 1_780_000_000_000,
  finishedAt: 1_780_000_000_250,
  lastCheckpoint: undefined,
  auditHead: filled(0x17),
};

export const CHECKPOINT: ReceiptCheckpoint = {
  kind: 'checkpoint',
  ...COMMON,
  outcome: { ...FINAL.outcome, choices: [], end: null, errorCode: undefined },
};

/** The payload as the writer makes it, for changes that the writer would not make. */
export function bodyMap(receipt: FinalReceipt | ReceiptCheckpoint = FINAL): Map<number | string, Cbor> {
  return new Map(decodeCbor(encodeBody(receipt)) as ReadonlyMap<number | string, Cbor>);
}

interface Parts {
  readonly header?: Uint8Array | undefined;
  readonly unprotected?: Cbor | undefined;
  /** In place of a signature. */
  readonly sign?: ((message: Uint8Array) => Uint8Array) | undefined;
}

/** A well signed record of any payload. */
export function signedPayload(payload: Uint8Array, parts: Parts = {}): Uint8Array {
  const { header = VECTOR_HEADER, unprotected = new Map<number, Cbor>(), sign: signer = signReceipt } = parts;
  const signature = signer(encodeCbor(['Signature1', header, new Uint8Array(0), payload]));
  return encodeCbor([header, unprotected, payload, signature]);
}

/** The receipt with one key of its payload, or of a map in it, set or left out. */
export function changed(path: readonly number[], value: Cbor | undefined): Uint8Array {
  return signedPayload(encodeCbor(changedMap(bodyMap(), path, value)));
}

function changedMap(
  map: ReadonlyMap<number | string, Cbor>,
  [key, ...rest]: readonly number[],
  value: Cbor | undefined,
): ReadonlyMap<number | string, Cbor> {
  const copy = new Map(map);
  if (key === undefined) return copy;
  if (rest.length > 0)
    copy.set(key, changedMap(map.get(key) as ReadonlyMap<number | string, Cbor>, rest, value));
  else if (value === undefined) copy.delete(key);
  else copy.set(key, value);
  return copy;
}

/** A signature that libraries disagree about: R as it is, and the s that belongs to it. */
export function weakSignature(point: Uint8Array): (message: Uint8Array) => Uint8Array {
  return (message) => {
    const secret = createHash('sha512').update(SEED).digest().subarray(0, 32);
    secret[0] = (secret[0] ?? 0) & 248;
    secret[31] = ((secret[31] ?? 0) & 127) | 64;
    const k = numberOf(createHash('sha512').update(point).update(VECTOR_KEY).update(message).digest());
    return new Uint8Array([...point, ...bytesOf((k * numberOf(secret)) % ORDER)]);
  };
}

/** The same signature with s + L. */
export function malleable(message: Uint8Array): Uint8Array {
  const signature = signReceipt(message);
  return new Uint8Array([...signature.subarray(0, 32), ...bytesOf(numberOf(signature.subarray(32)) + ORDER)]);
}

/** By the identity as key, R = [s]B signs every message: here s is 1. */
export function forAnyMessage(): Uint8Array {
  const base = Uint8Array.from({ length: 32 }, (_, i) => (i === 0 ? 0x58 : 0x66));
  return new Uint8Array([...base, ...bytesOf(1n)]);
}

export function bytesOf(value: bigint): Uint8Array {
  return Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
}

function numberOf(bytes: Uint8Array): bigint {
  return [...bytes].reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

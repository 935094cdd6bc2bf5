// Test vectors of the job record (docs/workshop.md, "The record"), valid and refused, for verifiers in any
// language: test/vectors/receipts/job-v1.json. The key is a fixed one that has no other use. `npx tsx
// scripts/job-vectors.ts` writes the file; a test compares it with what this makes.

import { createPrivateKey, createPublicKey, sign } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Cbor, encodeCbor } from '../attestation/encoding/cbor.ts';
import { encodeJobRecord, type JobRecord } from '../attestation/receipts/job.ts';
import { TOP } from './closures.ts';

export const JOB_VECTORS = join(TOP, 'test/vectors/receipts/job-v1.json');

const PKCS8 = Buffer.concat([
  Buffer.from('302e020100300506032b657004220420', 'hex'),
  Buffer.from('assay job record test vectors v1'),
]);
const KEY = createPrivateKey({ key: PKCS8, format: 'der', type: 'pkcs8' });
const PUBLIC = new Uint8Array(createPublicKey(KEY).export({ format: 'der', type: 'spki' }).subarray(12));
const HEADER = Uint8Array.from(
  Buffer.from(`a2012703781e${Buffer.from('application/vnd.assay.job+cbor').toString('hex')}`, 'hex'),
);

export function signVector(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(sign(null, bytes, KEY));
}

function digest(byte: number): Uint8Array {
  return new Uint8Array(32).fill(byte);
}

export const RECORD: JobRecord = {
  receiptKey: PUBLIC,
  kind: 'gguf/quantize',
  id: 'job-0197a3c2d4e5f00112233445566778899',
  inputs: [{ name: 'model.gguf', sha256: digest(1) }],
  tool: { name: 'assay-gguf', version: 'assay/1 llama.cpp/0.4.0', sha256: digest(2) },
  parameters: new Map<string, string | number | boolean | null | readonly string[]>([
    ['quant_type', 'Q4_K_M'],
    ['n_threads', 2],
    ['learning_rate', '0.0002'],
    ['names', ['a', 'b']],
    ['flag', true],
    ['none', null],
  ]),
  outputs: [{ name: 'model-Q4_K_M.gguf', sha256: digest(3), size: 4096 }],
  startedAt: 1_780_000_000_000,
  finishedAt: 1_780_000_012_345,
  state: 'done',
  code: null,
  barriers: ['files', 'memory', 'network', 'processes', 'user'],
};

/** The payload as the writer makes it, for changes the writer would not make. */
export function payloadMap(record: JobRecord = RECORD): Map<number | string, Cbor> {
  return new Map<number | string, Cbor>([
    [0, 'assay/job/v1'],
    [1, record.receiptKey],
    [2, record.kind],
    [3, record.id],
    [4, record.inputs.map(({ name, sha256 }) => [name, sha256])],
    [5, [record.tool.name, record.tool.version, record.tool.sha256]],
    [6, new Map(record.parameters)],
    [7, record.outputs.map(({ name, sha256, size }) => [name, sha256, size])],
    [8, record.startedAt],
    [9, record.finishedAt],
    [10, record.state],
    [11, record.code],
    [12, record.barriers],
  ]);
}

/** A well signed record of any payload. */
export function signedRecord(
  payload: Cbor,
  header: Uint8Array = HEADER,
  unprotected: Cbor = new Map(),
): Uint8Array {
  const bytes = encodeCbor(payload);
  const signature = signVector(encodeCbor(['Signature1', header, new Uint8Array(0), bytes]));
  return encodeCbor([header, unprotected, bytes, signature]);
}

function changed(key: number | string, value: Cbor | undefined): Uint8Array {
  const map = payloadMap();
  if (value === undefined) map.delete(key);
  else map.set(key, value);
  return signedRecord(map);
}

interface Vector {
  readonly name: string;
  readonly record: string;
  /** Null: accepted, signed by the key of the file. */
  readonly code: string | null;
}

const FAILED: JobRecord = { ...RECORD, outputs: [], state: 'failed', code: 'job_timeout', barriers: [] };

function rows(): readonly (readonly [string, Uint8Array, string | null])[] {
  const good = encodeJobRecord(RECORD, signVector);
  const flipped = good.slice();
  flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
  const receipt = 'a20127037822' + Buffer.from('application/vnd.assay.receipt+cbor').toString('hex');
  return [
    ['a job that is done', good, null],
    ['a job that failed', encodeJobRecord(FAILED, signVector), null],
    ['one bit of the signature', flipped, 'record_signature'],
    ['another key in the payload', changed(1, digest(9)), 'record_signature'],
    [
      'the header of another record',
      signedRecord(payloadMap(), Uint8Array.from(Buffer.from(receipt, 'hex'))),
      'malformed_record',
    ],
    [
      'something in the unprotected header',
      signedRecord(payloadMap(), HEADER, new Map([[4, 'kid']])),
      'malformed_record',
    ],
    ['another domain', changed(0, 'assay/receipt/v1'), 'malformed_record'],
    ['an unknown key', changed(13, 1), 'malformed_record'],
    ['an unknown key that is text', changed('x', 1), 'malformed_record'],
    ['no inputs', changed(4, undefined), 'malformed_record'],
    ['an input of three parts', changed(4, [['a', digest(1), 1]]), 'malformed_record'],
    ['an input outside', changed(4, [['../a', digest(1)]]), 'malformed_record'],
    ['an absolute output', changed(7, [['/a', digest(1), 1]]), 'malformed_record'],
    [
      'outputs in another order',
      changed(7, [
        ['b', digest(1), 1],
        ['a', digest(1), 1],
      ]),
      'malformed_record',
    ],
    [
      'an output twice',
      changed(7, [
        ['a', digest(1), 1],
        ['a', digest(2), 1],
      ]),
      'malformed_record',
    ],
    ['a digest of 31 bytes', changed(7, [['a', new Uint8Array(31), 1]]), 'malformed_record'],
    [
      'outputs of a job that failed',
      signedRecord(new Map([...payloadMap(), [10, 'failed'], [11, 'job_failed']])),
      'malformed_record',
    ],
    ['done with a code', changed(11, 'job_failed'), 'malformed_record'],
    [
      'failed without a code',
      signedRecord(new Map<number | string, Cbor>([...payloadMap(FAILED), [11, null]])),
      'malformed_record',
    ],
    ['an unknown state', changed(10, 'running'), 'malformed_record'],
    ['finished before it started', changed(9, 1), 'malformed_record'],
    ['a parameter that is a map', changed(6, new Map([['a', new Map()]])), 'malformed_record'],
    ['a parameter with a number for a name', changed(6, new Map([[1, 1]])), 'malformed_record'],
    ['a text of 1025 characters', changed(6, new Map([['a', 'x'.repeat(1025)]])), 'malformed_record'],
    ['a byte after the end', Uint8Array.of(...good, 0), 'malformed_cbor'],
    ['a byte less', good.slice(0, -1), 'malformed_cbor'],
    ['nothing', new Uint8Array(0), 'malformed_cbor'],
    ['a tag', Uint8Array.of(0xd2, ...good), 'malformed_cbor'],
  ];
}

export function jobVectors(): { readonly receipt_key: string; readonly vectors: readonly Vector[] } {
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  return {
    receipt_key: hex(PUBLIC),
    vectors: rows().map(([name, record, code]) => ({ name, record: hex(record), code })),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(JOB_VECTORS, `${JSON.stringify(jobVectors(), undefined, 2)}\n`);

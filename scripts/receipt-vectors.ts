// Test vectors of receipts (docs/receipts.md), valid and refused, for clients in any language:
// test/vectors/receipts/receipts-v1.json, which receipt-vectors.md beside it describes. `npx tsx
// scripts/receipt-vectors.ts` writes the file; a test compares it with what this makes.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Cbor, encodeCbor } from '../attestation/encoding/cbor.ts';
import { encodeF64 } from '../attestation/receipts/body-write.ts';
import { encodeReceipt } from '../attestation/receipts/receipt.ts';
import { commitment, type CommittedField, FIELDS, fieldSalt } from '../attestation/receipts/commit.ts';
import { TOP } from './closures.ts';
import {
  bodyMap,
  bytesOf,
  changed,
  CHECKPOINT,
  filled,
  FINAL,
  forAnyMessage,
  coseHeader,
  hexOf,
  malleable,
  SALT,
  sha256Of,
  signedPayload,
  signReceipt,
  VECTOR_HEADER,
  VECTOR_KEY,
  weakSignature,
} from './receipt-fixture.ts';
import { answerVectors } from './receipt-vector-answers.ts';
import { streamVectors } from './receipt-vector-streams.ts';

export const RECEIPT_VECTORS = join(TOP, 'test/vectors/receipts/receipts-v1.json');

type Row = readonly [name: string, receipt: Uint8Array, code: string | null];

const FIELD = 2n ** 255n - 19n;
/** The neutral element, and its other spelling y = p + 1. */
const NEUTRAL = bytesOf(1n);
const NEUTRAL_AGAIN = bytesOf(FIELD + 1n);

function withKey(key: Uint8Array): Uint8Array {
  const body = encodeCbor(bodyMap().set(6, key));
  return signedPayload(body, { sign: forAnyMessage });
}

/** Bytes of a record in which `find` is replaced once. */
function spelled(bytes: Uint8Array, find: string, replace: string): Uint8Array {
  const text = hexOf(bytes);
  const at = text.indexOf(find);
  if (at < 0 || text.includes(find, at + 1)) throw new Error(`${find} is not there once`);
  return new Uint8Array(Buffer.from(text.replace(find, replace), 'hex'));
}

function respelled(find: string, replace: string): Uint8Array {
  return signedPayload(spelled(encodeCbor(bodyMap()), find, replace));
}

function acceptedRows(good: Uint8Array): readonly Row[] {
  return [
    ['every field', good, null],
    ['a checkpoint', encodeReceipt(CHECKPOINT, signReceipt), null],
    [
      'without the optional fields',
      encodeReceipt({ ...FINAL, sampling: null, nonce: undefined, auditHead: undefined }, signReceipt),
      null,
    ],
    [
      'a sealed request',
      encodeReceipt({ ...FINAL, channel: { kind: 'sealed', request: filled(7) } }, signReceipt),
      null,
    ],
    ['no attested connection', encodeReceipt({ ...FINAL, channel: { kind: 'none' } }, signReceipt), null],
    [
      'an answer that ended with an error',
      encodeReceipt(
        { ...FINAL, outcome: { ...FINAL.outcome, end: 'error', errorCode: 'engine_crashed' } },
        signReceipt,
      ),
      null,
    ],
  ];
}

function formRows(good: Uint8Array): readonly Row[] {
  const flipped = good.slice();
  flipped[flipped.length - 1] = (flipped.at(-1) ?? 0) ^ 1;
  const body = encodeCbor(bodyMap());
  const signature = signReceipt(encodeCbor(['Signature1', VECTOR_HEADER, new Uint8Array(0), body]));
  const audit = encodeCbor(['audit', filled(3)]);
  return [
    ['one bit of the signature', flipped, 'receipt_signature'],
    ['another key in the body', changed([6], filled(9)), 'receipt_signature'],
    ['no bytes', new Uint8Array(0), 'receipt_malformed'],
    ['a byte after the end', new Uint8Array([...good, 0]), 'receipt_malformed'],
    ['tag 18', new Uint8Array([0xd2, ...good]), 'receipt_malformed'],
    [
      'another algorithm',
      signedPayload(body, { header: coseHeader('application/vnd.assay.receipt+cbor', 0x26) }),
      'receipt_malformed',
    ],
    [
      'another content type',
      signedPayload(body, { header: coseHeader('application/vnd.assay.job+cbor') }),
      'receipt_malformed',
    ],
    [
      'a header of one more field',
      signedPayload(body, { header: new Uint8Array([0xa3, ...VECTOR_HEADER.subarray(1), 4, 0x41, 0]) }),
      'receipt_malformed',
    ],
    [
      'an unprotected header',
      signedPayload(body, { unprotected: new Map([[4, 'kid']]) }),
      'receipt_malformed',
    ],
    [
      'an unprotected header of proofs',
      signedPayload(body, { unprotected: new Map([[394, filled(1)]]) }),
      'receipt_malformed',
    ],
    ['a payload outside', encodeCbor([VECTOR_HEADER, new Map(), null, signature]), 'receipt_malformed'],
    [
      'a signature of 63 bytes',
      encodeCbor([VECTOR_HEADER, new Map(), body, signature.subarray(1)]),
      'receipt_malformed',
    ],
    ['five parts', encodeCbor([VECTOR_HEADER, new Map(), body, signature, 0]), 'receipt_malformed'],
    ['s + L', signedPayload(body, { sign: malleable }), 'receipt_signature'],
    ['R of small order', signedPayload(body, { sign: weakSignature(NEUTRAL) }), 'receipt_signature'],
    [
      'R in another spelling',
      signedPayload(body, { sign: weakSignature(NEUTRAL_AGAIN) }),
      'receipt_signature',
    ],
    ['a key of small order', withKey(NEUTRAL), 'receipt_signature'],
    ['a key in another spelling', withKey(NEUTRAL_AGAIN), 'receipt_signature'],
    [
      'the signature of an audit head',
      encodeCbor([VECTOR_HEADER, new Map(), body, signReceipt(audit)]),
      'receipt_signature',
    ],
    // The same key signs, or is to sign, other content types in the same structure.
    ...['vnd.assay.sealed-keys+cbor', 'vnd.assay.job+cbor'].map((type): Row => {
      const structure = ['Signature1', coseHeader(`application/${type}`), new Uint8Array(0), body];
      const other = encodeCbor([VECTOR_HEADER, new Map(), body, signReceipt(encodeCbor(structure))]);
      return [`the signature of ${type}`, other, 'receipt_signature'];
    }),
    [
      'the signature of the payload alone',
      encodeCbor([VECTOR_HEADER, new Map(), body, signReceipt(body)]),
      'receipt_signature',
    ],
    ['over 4096 bytes', changed([8, 0], 'm'.repeat(4096)), 'receipt_malformed'],
    ['not a map', signedPayload(encodeCbor(['assay/receipt/v1'])), 'receipt_malformed'],
    ['a later version', changed([0], 'assay/receipt/v2'), 'receipt_version'],
    ['another domain', changed([0], 'assay/job/v1'), 'receipt_malformed'],
    // Key 13, the usage: its map of three in other spellings.
    [
      'a number in a longer spelling',
      respelled('0da3000c01010200', '0da300180c01010200'),
      'receipt_malformed',
    ],
    ['keys in another order', respelled('0da3000c01010200', '0da30101000c0200'), 'receipt_malformed'],
    ['a key twice', respelled('0da3000c01010200', '0da3000c00010200'), 'receipt_malformed'],
    [
      'a map without an end given first',
      respelled('0da3000c01010200', '0dbf000c01010200ff'),
      'receipt_malformed',
    ],
    ['a negative number', respelled('0da3000c01010200', '0da3000c01200200'), 'receipt_malformed'],
    ['a float', respelled('0da3000c01010200', '0da3000c01f93c000200'), 'receipt_malformed'],
  ];
}

function fieldRows(): readonly Row[] {
  const bad = (name: string, path: readonly number[], value: Cbor | undefined): Row => [
    name,
    changed(path, value),
    'receipt_malformed',
  ];
  const nan = new Uint8Array([0x7f, 0xf8, 0, 0, 0, 0, 0, 0]);
  const minusZero = new Uint8Array([0x80, 0, 0, 0, 0, 0, 0, 0]);
  const infinity = new Uint8Array([0x7f, 0xf0, 0, 0, 0, 0, 0, 0]);
  return [
    bad('an unknown key', [18], 1),
    bad('an unknown key in the model', [8, 5], 1),
    bad('an unknown key in the outcome', [12, 6], 'x'),
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].map((key) => bad(`no key ${key}`, [key], undefined)),
    bad('neither checkpoint nor final', [1], 2),
    bad('a checkpoint with the keys of a final one', [1], 0),
    bad('an id of 15 bytes', [2], filled(1, 15)),
    bad('the first, and one before it', [5], filled(1)),
    bad('not the first, and none before it', [4], 1),
    bad('a receipt_key of 31 bytes', [6], filled(1, 31)),
    bad('a channel of an unknown kind', [7, 0], 3),
    bad('a channel without its report', [7, 2], undefined),
    bad('neither blob nor manifest', [8, 1], 'file'),
    bad('a scale of four bytes', [8, 3], [[filled(1), filled(1, 4)]]),
    bad('a scale that is no number', [8, 3], [[filled(1), nan]]),
    bad('an adapter without its scale', [8, 3], [[filled(1)]]),
    bad('a class of 3', [9, 4], 3),
    bad('a path of 513 bytes', [10, 1], `/${'p'.repeat(512)}`),
    bad('1.0 in eight bytes', [11, 0], encodeF64(1)),
    bad('0.0 in eight bytes', [11, 0], encodeF64(0)),
    bad('-0.0', [11, 0], minusZero),
    bad('NaN', [11, 0], nan),
    bad('an infinity', [11, 0], infinity),
    bad('a seed that is no number', [11, 7], null),
    bad('an end of null in a final one', [12, 4], null),
    bad('an end of another name', [12, 4], 'done'),
    bad('an error code of a complete answer', [12, 5], 'timeout'),
    bad('an error without its code', [12, 4], 'error'),
    bad('a status of 0', [12, 0], 0),
    bad(
      'choices out of order',
      [12, 3],
      [
        new Map<number, Cbor>([
          [0, 1],
          [1, null],
          [2, 0],
          [3, filled(1)],
          [4, filled(2)],
        ]),
      ],
    ),
    bad(
      '17 choices',
      [12, 3],
      Array.from(
        { length: 17 },
        (_, i) =>
          new Map<number, Cbor>([
            [0, i],
            [1, null],
            [2, 0],
            [3, filled(1)],
            [4, filled(2)],
          ]),
      ),
    ),
    bad(
      'a finish reason that is no word',
      [12, 3],
      [
        new Map<number, Cbor>([
          [0, 0],
          [1, 'A stop!'],
          [2, 0],
          [3, filled(1)],
          [4, filled(2)],
        ]),
      ],
    ),
    bad('finished before it was received', [14, 1], 1),
    bad('a nonce of 15 bytes', [15], filled(1, 15)),
    bad('a nonce of 33 bytes', [15], filled(1, 33)),
  ];
}

/** Bytes, and what each field commits to of them. */
function commitmentVectors(): readonly object[] {
  const bytes = new TextEncoder().encode('Blue.');
  const rows: readonly (readonly [CommittedField, number])[] = [
    ...Object.keys(FIELDS).map((field) => [field as CommittedField, 0] as const),
    ['outputText', 1],
    ['outputTokens', 15],
  ];
  return rows.map(([field, choice]) => ({
    field: FIELDS[field],
    choice,
    salt: hexOf(SALT),
    bytes: hexOf(bytes),
    field_salt: hexOf(fieldSalt(SALT, field, choice)),
    commitment: hexOf(commitment(SALT, field, sha256Of(bytes), choice)),
  }));
}

export function receiptVectors(): unknown {
  const good = encodeReceipt(FINAL, signReceipt);
  return {
    receipt_key: hexOf(VECTOR_KEY),
    receipts: [...acceptedRows(good), ...formRows(good), ...fieldRows()].map(([name, receipt, code]) => ({
      name,
      receipt: hexOf(receipt),
      code,
    })),
    commitments: commitmentVectors(),
    answers: answerVectors(),
    streams: streamVectors(),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  writeFileSync(RECEIPT_VECTORS, `${JSON.stringify(receiptVectors(), null, 2)}\n`);

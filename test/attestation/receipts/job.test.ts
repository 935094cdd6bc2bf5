// The record of a job: written, read strictly, and refused for every altered byte, by committed vectors.

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeJobRecord, type JobRecord, openJobRecord } from '../../../attestation/receipts/job.ts';
import { jobVectors, RECORD, signVector, JOB_VECTORS } from '../../../scripts/job-vectors.ts';

interface Vectors {
  readonly receipt_key: string;
  readonly vectors: readonly {
    readonly name: string;
    readonly record: string;
    readonly code: string | null;
  }[];
}
const committed = JSON.parse(readFileSync(JOB_VECTORS, 'utf8')) as Vectors;

async function codeOf(record: Uint8Array): Promise<string | null> {
  try {
    await openJobRecord(record);
    return null;
  } catch (error) {
    return String((error as { code?: unknown }).code);
  }
}

describe('test vectors', () => {
  test('are what scripts/job-vectors.ts makes', () => {
    expect(jobVectors()).toEqual(committed);
  });

  test.each(committed.vectors)('$name: $code', async ({ record, code }) => {
    const bytes = new Uint8Array(Buffer.from(record, 'hex'));
    expect(await codeOf(bytes)).toBe(code);
    if (code === null)
      expect(Buffer.from((await openJobRecord(bytes)).receiptKey).toString('hex')).toBe(
        committed.receipt_key,
      );
  });
});

test('says what was signed', async () => {
  expect(await openJobRecord(encodeJobRecord(RECORD, signVector))).toEqual(RECORD);
});

test('every flipped bit is refused', async () => {
  const good = encodeJobRecord(RECORD, signVector);
  const accepted: number[] = [];
  for (let bit = 0; bit < good.length * 8; bit++) {
    const bytes = good.slice();
    bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    if ((await codeOf(bytes)) === null) accepted.push(bit);
  }
  expect(accepted).toEqual([]);
});

test('every shorter record is refused', async () => {
  const good = encodeJobRecord(RECORD, signVector);
  for (let length = 0; length < good.length; length++)
    expect(await codeOf(good.slice(0, length)), `${length} bytes`).not.toBeNull();
});

test('never fails but by its codes, whatever the bytes', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      expect(['malformed_cbor', 'malformed_record', 'record_signature']).toContain(await codeOf(bytes));
    }),
  );
});

const name = fc.stringMatching(/^[a-z][a-z0-9]{0,20}$/);
const hash = fc.uint8Array({ minLength: 32, maxLength: 32 });
const named = fc.uniqueArray(fc.record({ name, sha256: hash, size: fc.nat() }), {
  selector: (each) => each.name,
  maxLength: 5,
});

test('any record of the form is read back as it was', async () => {
  const sorted = <T extends { readonly name: string }>(items: readonly T[]): readonly T[] =>
    items.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const parameter = fc.oneof(
    fc.boolean(),
    fc.nat(),
    fc.constant(null),
    name,
    fc.array(name, { maxLength: 3 }),
  );
  await fc.assert(
    fc.asyncProperty(
      named,
      named,
      fc.dictionary(name, parameter, { noNullPrototype: true }),
      async (inputs, outputs, given) => {
        const record: JobRecord = {
          ...RECORD,
          inputs: sorted(inputs).map((each) => ({ name: each.name, sha256: each.sha256 })),
          outputs: sorted(outputs),
          parameters: new Map(Object.entries(given)),
        };
        expect(await openJobRecord(encodeJobRecord(record, signVector))).toEqual(record);
      },
    ),
  );
});

test.each<[string, Partial<JobRecord>]>([
  [
    'inputs that are not sorted',
    {
      inputs: [
        { name: 'b', sha256: new Uint8Array(32) },
        { name: 'a', sha256: new Uint8Array(32) },
      ],
    },
  ],
  ['a name outside', { outputs: [{ name: 'a/../b', sha256: new Uint8Array(32), size: 1 }] }],
  [
    '2049 inputs',
    {
      inputs: Array.from({ length: 2049 }, (_, i) => ({
        name: `f${String(i).padStart(5, '0')}`,
        sha256: new Uint8Array(32),
      })),
    },
  ],
  ['a fraction', { parameters: new Map([['a', 0.5]]) }],
])('%s are not signed', (_what, change) => {
  let signatures = 0;
  const sign = (bytes: Uint8Array): Uint8Array => {
    signatures += 1;
    return signVector(bytes);
  };
  expect(() => encodeJobRecord({ ...RECORD, ...change }, sign)).toThrow();
  expect(signatures).toBe(0);
});

// Receipts against the answers they came with: whole answers, streams in pieces of every size, commitments,
// all by the committed vectors (docs/receipts.md [R3] [R5] [R9] [R10] [R11] [R14] [R19] [R24]).

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { checkAnswer, checkUsage, usageIn } from '../../../attestation/receipts/check.ts';
import {
  type CommittedField,
  commitment,
  commitmentBy,
  FIELDS,
  fieldSalt,
} from '../../../attestation/receipts/commit.ts';
import { StreamCheck } from '../../../attestation/receipts/stream-check.ts';
import { RECEIPT_VECTORS } from '../../../scripts/receipt-vectors.ts';
import type { AnswerVector, StreamVector } from '../../../scripts/receipt-vector-answers.ts';
import { codeOf } from '../../fixtures/receipts/code.ts';
import { sha256 } from '../../fixtures/receipts/issued.ts';
import { expectedOf, fromHex } from '../../fixtures/receipts/vectors.ts';

interface Vectors {
  readonly commitments: readonly {
    readonly field: number;
    readonly choice: number;
    readonly salt: string;
    readonly bytes: string;
    readonly field_salt: string;
    readonly commitment: string;
  }[];
  readonly answers: readonly AnswerVector[];
  readonly streams: readonly StreamVector[];
}
const committed = JSON.parse(readFileSync(RECEIPT_VECTORS, 'utf8')) as Vectors;

describe('[R2] [R3] [R4] [R5] answers', () => {
  test.each(committed.answers)('$name: $code', async ({ expected, receipt, salt, answer, code }) => {
    const got = await codeOf(async () => {
      const opened = await checkAnswer(fromHex(receipt), fromHex(salt), sha256(answer), expectedOf(expected));
      const usage = usageIn(JSON.parse(answer));
      if (usage !== undefined) checkUsage(opened.receipt, usage);
    });
    expect(got).toBe(code);
  });
});

async function read(
  vector: StreamVector,
  pieces: readonly Uint8Array[],
): Promise<{ readonly passed: string; readonly code: string | null; readonly finals: number }> {
  const passed: Uint8Array[] = [];
  let finals = 0;
  const check = new StreamCheck(expectedOf(vector.expected), { onFinal: () => void (finals += 1) });
  const code = await codeOf(async () => {
    for (const piece of pieces) for (const part of await check.push(piece)) passed.push(part);
    passed.push(...(await check.end()));
  });
  return { passed: Buffer.concat(passed).toString(), code, finals };
}

function cutInto(bytes: Uint8Array, size: number): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) =>
    bytes.subarray(i * size, (i + 1) * size),
  );
}

describe('[R9] [R10] [R11] [R19] streams', () => {
  // A push that is refused hands on no part of it: only in single bytes is it known what went before.
  test.each(committed.streams)('$name: $code', async (vector) => {
    const bytes = new TextEncoder().encode(vector.stream);
    const single = await read(vector, cutInto(bytes, 1));
    expect(single).toEqual({
      passed: vector.passed,
      code: vector.code,
      finals: single.finals,
    });
    for (const size of [2, 3, 7, 64, 255, 1024, bytes.length + 1]) {
      const got = await read(vector, cutInto(bytes, size));
      expect(got.code).toBe(vector.code);
      if (vector.code === null) expect(got).toEqual({ passed: vector.passed, code: null, finals: 1 });
      else expect(vector.passed.startsWith(got.passed)).toBe(true);
    }
  });

  const good = committed.streams.find(({ name }) => name === 'rolling');
  test('[R10] a stream cut at any byte before its end is refused, and shows no end', async () => {
    if (good === undefined) throw new Error('no such vector');
    const bytes = new TextEncoder().encode(good.stream);
    const check = new StreamCheck(expectedOf(good.expected));
    let passed = '';
    for (const [i, byte] of bytes.entries()) {
      // Asking for the end changes no state of a stream that is refused: each byte is one more cut.
      expect(await codeOf(() => check.end()), String(i)).toMatch(/^receipt_(missing|truncated)$/);
      expect(passed).not.toContain('[DONE]');
      for (const part of await check.push(Uint8Array.of(byte))) passed += Buffer.from(part).toString();
    }
    expect(await codeOf(() => check.end())).toBe(null);
    expect(passed).toBe(good.passed);
  });

  test('[R9] every flipped bit of an event is refused', async () => {
    if (good === undefined) throw new Error('no such vector');
    const bytes = new TextEncoder().encode(good.stream);
    const from = good.stream.indexOf('data: {"choices"');
    const to = good.stream.indexOf('\n\n', from);
    for (let bit = from * 8; bit < to * 8; bit++) {
      const changed = bytes.slice();
      changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      // The space after the colon is part of no event.
      if (Math.floor(bit / 8) === from + 5 && new TextDecoder().decode(changed).startsWith(':', from + 5))
        continue;
      const { code } = await read(good, [changed]);
      expect(code, String(bit)).not.toBe(null);
    }
  });
});

describe('[R13] [R14] commitments', () => {
  test.each(committed.commitments)('field $field of choice $choice', (vector) => {
    const field = Object.entries(FIELDS).find(([, number]) => number === vector.field)?.[0] as CommittedField;
    const opening = fieldSalt(fromHex(vector.salt), field, vector.choice);
    const digest = sha256(fromHex(vector.bytes));
    expect(Buffer.from(opening).toString('hex')).toBe(vector.field_salt);
    const made = commitmentBy(opening, field, digest, vector.choice);
    expect(Buffer.from(made).toString('hex')).toBe(vector.commitment);
  });

  test('[R14] of 100,000 texts one opened field lets only its own be found', () => {
    const salt = sha256('a salt');
    const secret = 'text 31415';
    const texts = Array.from({ length: 100_000 }, (_, i) => sha256(`text ${i}`));
    const opening = fieldSalt(salt, 'outputText', 0);
    const matches = (wanted: Uint8Array, field: CommittedField, choice: number): number[] => {
      return texts.flatMap((digest, i) =>
        Buffer.compare(commitmentBy(opening, field, digest, choice), wanted) === 0 ? [i] : [],
      );
    };
    const of = (field: CommittedField, choice = 0): Uint8Array =>
      commitment(salt, field, sha256(secret), choice);
    expect(matches(of('outputText'), 'outputText', 0)).toEqual([31_415]);
    expect(matches(of('body'), 'body', 0)).toEqual([]);
    expect(matches(of('outputText', 1), 'outputText', 1)).toEqual([]);
  });

  test('[R13] equal texts have unequal commitments by other salts', () => {
    expect(commitment(sha256('1'), 'body', sha256('a'))).not.toEqual(
      commitment(sha256('2'), 'body', sha256('a')),
    );
  });
});

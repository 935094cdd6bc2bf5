// Small data sets and benchmarks of our own, made by rule: enough to try a fine-tuning job or an
// evaluation without a network. JSON lines; the bytes are the same on every machine, and the catalogue has
// their SHA-256.

import { createHash } from 'node:crypto';

interface Made {
  readonly id: string;
  readonly name: string;
  readonly file: string;
  readonly licence: string;
  readonly text: () => string;
}

const NUMBERS = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine'] as const;
const DAYS = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'] as const;
const LICENCE = 'Apache-2.0';

export const DATASETS: readonly Made[] = [
  {
    id: 'assay-tiny-instructions',
    name: 'Tiny instructions: sums in words and days of the week, as chat messages',
    file: 'assay-tiny-instructions.jsonl',
    licence: LICENCE,
    text: () =>
      lines([...sums(), ...days()].map(([user, assistant]) => ({ messages: chat(user, assistant) }))),
  },
  {
    id: 'assay-tiny-completions',
    name: 'Tiny completions: the same tasks as plain text',
    file: 'assay-tiny-completions.jsonl',
    licence: LICENCE,
    text: () => lines([...sums(), ...days()].map(([user, assistant]) => ({ text: `${user}\n${assistant}` }))),
  },
];

export const BENCHMARKS: readonly Made[] = [
  {
    id: 'assay-tiny-arithmetic',
    name: 'Tiny arithmetic: products of two digits with four choices each',
    file: 'assay-tiny-arithmetic.jsonl',
    licence: LICENCE,
    text: () => lines(products()),
  },
];

/** The bytes of one of these texts; undefined where it is none of that list. */
export function madeText(list: 'datasets' | 'benchmarks', wanted: string): Buffer | undefined {
  const found = (list === 'datasets' ? DATASETS : BENCHMARKS).find(({ id }) => id === wanted);
  return found === undefined ? undefined : Buffer.from(found.text());
}

let digests: ReadonlySet<string> | undefined;

/** Whether one of these texts has this digest, taken from the bytes that are handed out. */
export function isMade(sha256: string): boolean {
  digests ??= new Set(
    [...DATASETS, ...BENCHMARKS].map(({ text }) => createHash('sha256').update(text()).digest('hex')),
  );
  return digests.has(sha256);
}

function sums(): readonly (readonly [string, string])[] {
  return NUMBERS.flatMap((left, at) =>
    NUMBERS.slice(0, 10 - at).map(
      (right, other) =>
        [`What is ${left} plus ${right}?`, `${left} plus ${right} is ${NUMBERS[at + other]!}.`] as const,
    ),
  );
}

function days(): readonly (readonly [string, string])[] {
  return DAYS.map(
    (day, i) => [`Which day follows ${day}?`, `${DAYS[(i + 1) % DAYS.length]!} follows ${day}.`] as const,
  );
}

function products(): readonly object[] {
  const rows: object[] = [];
  for (let a = 2; a < 10; a++)
    for (let b = a; b < 10; b++) {
      const right = a * b;
      const choices = [right, right + a, right - b, right + 1];
      // The place of the right answer depends on the row alone.
      const shift = (a + b) % choices.length;
      const shown = [...choices.slice(shift), ...choices.slice(0, shift)];
      rows.push({ question: `${a} × ${b} = ?`, choices: shown, answer: shown.indexOf(right) });
    }
  return rows;
}

function chat(user: string, assistant: string): readonly object[] {
  return [
    { role: 'user', content: user },
    { role: 'assistant', content: assistant },
  ];
}

function lines(rows: readonly object[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

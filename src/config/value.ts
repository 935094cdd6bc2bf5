// Checks one value of the configuration against its field. A refusal names the place, the key, the expected
// and the actual value, and the reason; it never repeats a secret.

import { isAbsolute, resolve } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { pathProblem } from './forms.ts';
import type { SchemaField } from './fields.ts';

/** A value as it was written. */
export interface Written {
  readonly value: unknown;
  /** `FILE:LINE`, a variable, an option: the beginning of every message about it. */
  readonly where: string;
  /** Folder that relative paths start from. */
  readonly base: string;
}

/** The value, or its default; throws ConfigError. */
export function valueOf(field: SchemaField, key: string, written: Written | undefined): unknown {
  if (written === undefined) return field.default ?? (field.kind === 'texts' ? [] : undefined);
  const { value } = written;
  const wrong = (expected: string, why = ''): ConfigError => refusal({ field, key, written, expected, why });
  switch (field.kind) {
    case 'boolean':
      if (typeof value !== 'boolean') throw wrong('true or false');
      return value;
    case 'integer':
      if (!Number.isSafeInteger(value) || Number(value) < field.min || Number(value) > field.max)
        throw wrong(`an integer from ${field.min} to ${field.max}`);
      return value;
    case 'number':
      if (typeof value !== 'number' || !(value >= field.min && value <= field.max))
        throw wrong(`a number from ${field.min} to ${field.max}`);
      return value;
    case 'choice':
      if (typeof value !== 'string' || !field.choices.includes(value))
        throw wrong(`one of ${field.choices.map((each) => `"${each}"`).join(', ')}`);
      return value;
    case 'text': {
      if (!isText(value)) throw wrong(...noText('a text', value));
      const problem = field.form?.problem(value);
      if (field.form !== undefined && problem !== undefined) throw wrong(field.form.name, problem);
      return pathed(field, value, written.base, wrong);
    }
    case 'texts':
      if (!Array.isArray(value) || value.length > field.max)
        throw wrong(`a list of at most ${field.max} texts`);
      if (value.length < (field.min ?? 0))
        throw wrong(`a list of at least ${field.min}`, 'an empty one does not mean all: leave the key out');
      return value.map((item: unknown, at) => {
        if (!isText(item)) throw wrong(...noText('a list of texts', item));
        const problem = field.form?.problem(item);
        if (field.form !== undefined && problem !== undefined)
          throw wrong(
            `a list, each ${field.form.name}`,
            `number ${at + 1}${problem === '' ? '' : `: ${problem}`}`,
          );
        return pathed(field, item, written.base, wrong);
      });
  }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && !value.includes('\0');
}

/** The expected form, and the reason why this value does not have it. */
function noText(what: string, value: unknown): readonly [expected: string, why: string] {
  return typeof value === 'string' && value !== ''
    ? [`${what} without zero characters`, 'no path or name can hold one']
    : [`${what} that ${what === 'a text' ? 'is' : 'are'} not empty`, ''];
}

function pathed(
  field: SchemaField,
  value: string,
  base: string,
  wrong: (expected: string, why: string) => ConfigError,
): string {
  if (field.path !== true) return value;
  const path = isAbsolute(value) ? value : resolve(base, value);
  const problem = pathProblem(path);
  if (problem !== undefined) throw wrong('a path', problem);
  return path;
}

interface Refusal {
  readonly field: SchemaField;
  readonly key: string;
  readonly written: Written;
  readonly expected: string;
  readonly why: string;
}

function refusal({ field, key, written, expected, why }: Refusal): ConfigError {
  const shown = field.secret === true ? '' : `, not ${shownValue(written.value)}`;
  return new ConfigError(
    `${written.where}: ${key} must be ${expected}${shown}${why === '' ? '' : ` (${why})`}`,
    key,
  );
}

const MAX_SHOWN = 80;

/** Short, on one line, and without the name and password a URL may hold. */
export function shownValue(value: unknown): string {
  if (typeof value === 'bigint' || typeof value === 'number') return String(value);
  // A list may hold an integer beyond JavaScript's.
  const plain = (_: string, part: unknown): unknown => (typeof part === 'bigint' ? String(part) : part);
  const text = JSON.stringify(value, plain) ?? 'nothing';
  const safe = text.replaceAll(/:\/\/[^/@"\s]*@/g, '://…@').replaceAll(/[\u007f-\u009f\u2028\u2029]/g, '?');
  return safe.length > MAX_SHOWN ? `${safe.slice(0, MAX_SHOWN)}…` : safe;
}

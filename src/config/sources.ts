// From a file to values by key, each with the place it was written in. Unknown keys are refused here, with
// the nearest known one, and so are keys of a source that may not set them.

import { dirname, resolve } from 'node:path';
import { parse, TomlError } from 'smol-toml';
import { ConfigError } from '../base/errors.ts';
import { modelNameProblem } from '../base/model-name.ts';
import { keyNameProblem } from './forms.ts';
import { ENTRIES, REQUIRED, SECTIONS, type SchemaField, type Section } from './schema.ts';
import { isTable, lineOf, quoted, unknownKey, valueKey } from './keys.ts';
import type { Written } from './value.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

export interface ConfigFile {
  /** As given by the operator; for messages, and its folder resolves relative paths. */
  readonly path: string;
  readonly text: string;
}

/** Values by `valueKey`. */
export type Flat = Map<string, Written>;

const MAX_FILE_BYTES = 1024 * 1024;
interface Reading {
  readonly kind: 'file' | 'operator';
  /** Relative paths start from here. */
  readonly base: string;
  readonly flat: Flat;
  /** Where a key is written: file and line. */
  readonly at: (path: readonly string[]) => string;
}

/** `beside`: tables of another program that shares these. */
export function flatten(
  file: ConfigFile,
  kind: Reading['kind'],
  beside: Readonly<Record<string, Section>> = {},
): Flat {
  const reading: Reading = {
    kind,
    base: dirname(resolve(file.path)),
    flat: new Map(),
    at: (path) => {
      const line = lineOf(file.text, path);
      return line === undefined ? file.path : `${file.path}:${line}`;
    },
  };
  const sections: Readonly<Record<string, Section>> = { ...SECTIONS, ...beside };
  for (const [name, content] of Object.entries(parsed(file))) {
    const section = sections[name];
    const where = reading.at([name]);
    if (section === undefined || !Object.hasOwn(sections, name))
      throw unknownKey(name, Object.keys(sections), where);
    if (!isTable(content)) throw new ConfigError(`${where}: ${name} must be a table`, name);
    readSection(reading, name, section, content);
  }
  return reading.flat;
}

function parsed(file: ConfigFile): Record<string, unknown> {
  if (file.text.length > MAX_FILE_BYTES)
    throw new ConfigError(`${file.path} is over ${MAX_FILE_BYTES} characters`);
  try {
    // Tables have no prototype here, so that no name is special; numbers beyond JavaScript's
    // are refused with their key.
    return parse(file.text, { integersAsBigInt: 'asNeeded', maxDepth: 16 });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The library's message quotes the line, which may hold a key; only its first line is passed on.
    const [first = ''] = error.message.split('\n');
    throw new ConfigError(`${file.path}:${error.line}: ${first.replace(/^Invalid TOML document: /, '')}`);
  }
}

function readSection(
  reading: Reading,
  name: string,
  section: Section,
  content: Readonly<Record<string, unknown>>,
): void {
  for (const [key, value] of Object.entries(content)) {
    const full = `${name}.${key}`;
    const entries = Object.hasOwn(ENTRIES, full) ? (full as keyof typeof ENTRIES) : undefined;
    if (entries !== undefined) {
      readEntries(reading, entries, value);
      continue;
    }
    const where = reading.at([name, key]);
    const field = Object.hasOwn(section, key) ? section[key] : undefined;
    if (field === undefined) {
      const tables = Object.keys(ENTRIES).filter((table) => table.startsWith(`${name}.`));
      throw unknownKey(full, [...Object.keys(section).map((known) => `${name}.${known}`), ...tables], where);
    }
    admit(field, reading.kind, full, where);
    reading.flat.set(full, { value, where, base: reading.base });
  }
}

function readEntries(reading: Reading, table: keyof typeof ENTRIES, value: unknown): void {
  const path = table.split('.');
  const { at } = reading;
  if (!isTable(value)) throw new ConfigError(`${at(path)}: ${table} must be a table of tables`, table);
  for (const [id, content] of Object.entries(value)) {
    const head = at([...path, id]);
    const name = `${table}.${quoted(id)}`;
    const problem = nameProblem(table, id);
    if (problem !== undefined) throw new ConfigError(`${head}: ${name}: ${problem}`, `${table}.${id}`);
    if (!isTable(content)) throw new ConfigError(`${head}: ${name} must be a table`, `${table}.${id}`);
    for (const key of REQUIRED[table]) {
      if (!Object.hasOwn(content, key))
        throw new ConfigError(`${head}: ${name} has no ${key}`, `${table}.${id}.${key}`);
    }
    const section = ENTRIES[table] as Section;
    for (const [key, item] of Object.entries(content)) {
      const where = at([...path, id, key]);
      const field = Object.hasOwn(section, key) ? section[key] : undefined;
      if (field === undefined) {
        const known = Object.keys(section).map((other) => `${name}.${other}`);
        throw unknownKey(`${name}.${key}`, known, where);
      }
      admit(field, reading.kind, `${name}.${key}`, where);
      reading.flat.set(valueKey(table, id, key), { value: item, where, base: reading.base });
    }
  }
}

/** A name of the operator's choosing. */
function nameProblem(table: keyof typeof ENTRIES, id: string): string | undefined {
  if (table === 'api.keys') return keyNameProblem(id);
  const problem = modelNameProblem(id);
  return problem === undefined ? undefined : `the model id ${problem} (invalid_model_name)`;
}

function admit(field: SchemaField, kind: Reading['kind'], key: string, where: string): void {
  if (kind === 'operator' && field.from !== 'operator') {
    throw new ConfigError(
      `${where}: ${key} may only be set in the measured configuration, not by the operator`,
      key,
    );
  }
}

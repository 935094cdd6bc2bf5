// JSON files of a model folder, bounded: bytes by the kind of file, values counted (base/json-scan) before JSON.parse builds any.
// Refuses what is not UTF-8, what names a key twice, and what is not an object.

import { openJsonScan } from '../../base/json-scan.ts';
import { invalidDescription, type Folder } from './folder.ts';

export type ModelJson =
  null | boolean | number | string | readonly ModelJson[] | { readonly [key: string]: ModelJson };
export type ModelJsonObject = { readonly [key: string]: ModelJson };

export interface JsonBounds {
  readonly maxBytes: number;
  readonly maxWeight: number;
}

const MAX_DEPTH = 32;
export const SMALL_JSON: JsonBounds = { maxBytes: 4 * 1024 * 1024, maxWeight: 2 * 1024 * 1024 };
/** The largest published vocabularies have 262 144 tokens and twice as many merges: a weight of 31 million. */
export const TOKENIZER_JSON: JsonBounds = { maxBytes: 64 * 1024 * 1024, maxWeight: 48 * 1024 * 1024 };

/** The object that `bytes` are; `refuse` makes the error of anything else. */
export function parseJsonObject(
  bytes: Uint8Array,
  maxWeight: number,
  refuse: (message: string) => Error,
): ModelJsonObject {
  try {
    openJsonScan({ maxWeight, maxDepth: MAX_DEPTH }).push(bytes);
  } catch {
    throw refuse(`it has more values than are read, or nests deeper than ${MAX_DEPTH} levels`);
  }
  let value: ModelJson;
  try {
    // JSON.parse makes values of this type only.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as ModelJson;
  } catch {
    throw refuse('it is not JSON in UTF-8');
  }
  if (!isObject(value)) throw refuse('it is not a JSON object');
  if (countColons(bytes) !== countKeys(value)) throw refuse('an object in it has the same key twice');
  return value;
}

/** An object of the folder; undefined where there is none. */
export function readJson(
  folder: Folder,
  name: string,
  bounds: JsonBounds = SMALL_JSON,
): ModelJsonObject | undefined {
  const bytes = readWhole(folder, name, bounds.maxBytes);
  if (bytes === undefined) return undefined;
  return parseJsonObject(bytes, bounds.maxWeight, (message) => invalidDescription(name, message));
}

/** A list, as modules.json is. */
export function readJsonList(folder: Folder, name: string): readonly ModelJson[] | undefined {
  const bytes = readWhole(folder, name, SMALL_JSON.maxBytes);
  if (bytes === undefined) return undefined;
  const wrapped = Buffer.concat([Buffer.from('{"list":'), bytes, Buffer.from('}')]);
  const refuse = (message: string): Error => invalidDescription(name, message);
  const { list } = parseJsonObject(wrapped, SMALL_JSON.maxWeight, refuse);
  if (!isJsonList(list)) throw invalidDescription(name, 'it is not a JSON list');
  return list;
}

export function readTextMember(
  folder: Folder,
  name: string,
  maxBytes = SMALL_JSON.maxBytes,
): string | undefined {
  const bytes = readWhole(folder, name, maxBytes);
  if (bytes === undefined) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalidDescription(name, 'it is not UTF-8');
  }
}

export function readWhole(folder: Folder, name: string, maxBytes: number): Buffer | undefined {
  const file = folder.get(name);
  if (file === undefined) return undefined;
  if (file.size > maxBytes)
    throw invalidDescription(name, `it has ${file.size} bytes, at most ${maxBytes} are read`);
  const bytes = Buffer.alloc(file.size);
  if (file.read(0, bytes) !== bytes.length)
    throw invalidDescription(name, 'it became shorter while it was read');
  return bytes;
}

export function isObject(value: ModelJson | undefined): value is ModelJsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isJsonList(value: ModelJson | undefined): value is readonly ModelJson[] {
  return Array.isArray(value);
}

const [QUOTE, BACKSLASH, COLON] = [0x22, 0x5c, 0x3a];

/** Colons outside of strings: one for each key of the text. Of valid JSON only. */
function countColons(bytes: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i];
    if (c === COLON) count += 1;
    else if (c === QUOTE) for (i += 1; bytes[i] !== QUOTE; i++) if (bytes[i] === BACKSLASH) i += 1;
  }
  return count;
}

function countKeys(value: ModelJson): number {
  if (typeof value !== 'object' || value === null) return 0;
  let count = 0;
  if (isJsonList(value)) for (const each of value) count += countKeys(each);
  else
    for (const each of Object.values(value)) {
      count += 1;
      count += countKeys(each);
    }
  return count;
}

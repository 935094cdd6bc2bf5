// Finds the line of a key in a configuration file, and the known key nearest to a mistyped
// one, for helpful refusals.

import { parse } from 'smol-toml';
import { ConfigError } from '../base/errors.ts';

export function unknownKey(key: string, known: readonly string[], where: string, noun = 'key'): ConfigError {
  const nearest = nearestOf(key, known);
  return new ConfigError(
    `${where}: unknown ${noun} ${key}${nearest === undefined ? '' : `, did you mean ${nearest}?`}`,
    key,
  );
}

/**
 * The known name that was likely meant: the nearest of those whose differing part is a few letters off; else
 * one with the same last part in another table. Undefined where none is near.
 */
export function nearestOf(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const [typed, meant] = differing(name.slice(0, 200), candidate);
    const distance = editDistance(typed, meant);
    if (distance < least && distance * 3 <= Math.max(typed.length, meant.length))
      [best, least] = [candidate, distance];
  }
  const last = name.slice(name.lastIndexOf('.'));
  return best ?? known.find((candidate) => last.startsWith('.') && candidate.endsWith(last));
}

/**
 * Both without the tables (or the prefix of our variables) they have in common: the shared prefix would
 * make every pair look near.
 */
function differing(a: string, b: string): readonly [string, string] {
  let at = a.startsWith('ASSAY_') && b.startsWith('ASSAY_') ? 'ASSAY_'.length : 0;
  for (let dot = a.indexOf('.'); dot >= 0 && b.startsWith(a.slice(0, dot + 1)); dot = a.indexOf('.', dot + 1))
    at = dot + 1;
  return [a.slice(at), b.slice(at)];
}

/** Letters put in, left out, changed, or swapped with their neighbour (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swapped =
        i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
          ? (before[j - 2] ?? 0) + 1
          : Number.POSITIVE_INFINITY;
      const changed = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, changed, swapped));
    }
    [before, row] = [row, next];
  }
  return row[b.length] ?? 0;
}

/**
 * The line a key or table is on. smol-toml keeps no positions, so heads and keys are read
 * again one line at a time.
 */
export function lineOf(text: string, path: readonly string[]): number | undefined {
  let table: readonly string[] = [];
  let fallback: number | undefined;
  let quotes: '"""' | "'''" | undefined;
  for (const [i, line] of text.split('\n').entries()) {
    if (quotes !== undefined) {
      if (line.includes(quotes)) quotes = undefined;
      continue;
    }
    const trimmed = line.trim();
    const here = trimmed.startsWith('[')
      ? pathOf(trimmed)
      : [...table, ...(pathOf(`${trimmed.slice(0, trimmed.search(/=/))}=0`) ?? ['\0'])];
    if (trimmed.startsWith('[') && here !== undefined) table = here;
    if (here !== undefined && path.every((part, at) => here[at] === part)) return i + 1;
    if (here !== undefined && here.length > 0 && here.every((part, at) => path[at] === part))
      fallback = i + 1;
    for (const mark of ['"""', "'''"] as const) {
      if (trimmed.split(mark).length === 2) quotes = mark;
    }
  }
  return fallback;
}

/** `[a."b.c"]` or `a.b=0` → its parts. */
function pathOf(head: string): readonly string[] | undefined {
  try {
    const parts: string[] = [];
    let value: unknown = parse(head, { maxDepth: 16 });
    for (
      let first = Array.isArray(value) ? value[0] : value;
      isTable(first);
      first = Array.isArray(value) ? value[0] : value
    ) {
      const key = Object.keys(first)[0];
      if (key === undefined) break;
      parts.push(key);
      value = first[key];
    }
    return parts;
  } catch {
    return undefined;
  }
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    (Object.getPrototypeOf(value) === Object.prototype || Object.getPrototypeOf(value) === null)
  );
}

export function quoted(id: string): string {
  return /^[A-Za-z0-9_-]+$/.test(id) ? id : JSON.stringify(id);
}

/** The key of one value of an entry in a flat list of values; no key holds a zero. */
export function valueKey(table: string, id: string, key: string): string {
  return `${table}\0${id}\0${key}`;
}

/** `max_loaded` → `maxLoaded`. */
export function camel(key: string): string {
  return key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

// Replaces the characters of control tokens by private stand-ins, in all text of a request while a template
// runs.

import type { SpecialToken } from '../llama/vocabulary.ts';

export interface Disguise {
  on(text: string): string;
  off(text: string): string;
  /** `on` for every string and key inside a JSON value. */
  deep(value: unknown): unknown;
}

/** Stands before every stand-in (supplementary private use area A). */
export const ESCAPE = String.fromCodePoint(0xf0000);

/**
 * A one-to-one mapping of the characters control tokens are made of to private-use ones and back.
 * White space, quotes and backslash keep their places, since templates trim and JSON-encode; no
 * control token consists of these alone. Letters and digits keep theirs too, unless a control token
 * has no other characters.
 */
export function disguiseFor(specials: readonly SpecialToken[]): Disguise {
  const characters = new Set<string>();
  for (const special of specials) {
    if (!special.control) continue;
    const telling = Array.from(special.text).filter((char) => !/[\s"'\\\p{L}\p{N}]/u.test(char));
    for (const char of telling.length > 0
      ? telling
      : Array.from(special.text).filter((char) => !/[\s"'\\]/.test(char)))
      characters.add(char);
  }
  // The escape is itself escaped, so that text which holds it comes back unchanged.
  const escape = ESCAPE;
  const forward = new Map<string, string>();
  const back = new Map<string, string>();
  for (const c of [escape, ...characters]) {
    const code = String.fromCodePoint(0xf0001 + forward.size);
    forward.set(c, escape + code);
    back.set(code, c);
  }
  const off = (text: string): string => {
    let out = '';
    let escaped = false;
    for (const c of text) {
      const plain = escaped ? back.get(c) : undefined;
      if (plain !== undefined) {
        out += plain;
        escaped = false;
      } else {
        if (escaped) out += escape;
        escaped = c === escape;
        if (!escaped) out += c;
      }
    }
    return escaped ? out + escape : out;
  };
  const on = (text: string): string => {
    let out = '';
    for (const c of text) out += forward.get(c) ?? c;
    return out;
  };
  const deep = (value: unknown): unknown => {
    if (typeof value === 'string') return on(value);
    if (Array.isArray(value)) return value.map(deep);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [on(key), deep(each)]));
  };
  return { on, off, deep };
}

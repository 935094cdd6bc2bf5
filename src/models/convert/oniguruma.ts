// A pattern of tokenizer.json as a RegExp of JavaScript. Both know \p{…}, look-ahead and lazy quantifiers;
// Oniguruma alone has `(?i:…)`, possessive quantifiers and escapes that Unicode mode forbids. What cannot be
// written otherwise gives undefined, never a guess. A pattern that backtracks without end costs the confined
// child its time limit and no other process anything.

const MAX_LENGTH = 4096;

export function toRegExp(pattern: string): RegExp | undefined {
  if (pattern.length > MAX_LENGTH) return undefined;
  const source = translate(pattern);
  if (source === undefined) return undefined;
  try {
    return new RegExp(source, 'gu');
  } catch {
    return undefined;
  }
}

/**
 * Letters of a group `(?i:…)` become classes of both cases; `++`, `?+` and `*+` lose the plus
 * where that changes no match.
 */
function translate(pattern: string): string | undefined {
  let out = '';
  let inClass = false;
  /** For each open group, whether letters in it have no case. */
  const groups: boolean[] = [];
  /** Whether what was read last says how often something comes. */
  let counted = false;
  for (let i = 0; i < pattern.length; i++) {
    const character = pattern[i]!;
    const caseless = groups.at(-1) === true;
    const wasCounted = counted;
    counted = false;
    if (character === '\\') {
      const escaped = escapeAt(pattern, i);
      if (escaped === undefined) return undefined;
      out += escaped.text;
      i = escaped.end;
    } else if (inClass) {
      // Classes inside of classes and `&&` mean something else there.
      if (character === '[' || (character === '&' && pattern[i + 1] === '&')) return undefined;
      if (caseless && /[a-z]/i.test(character)) return undefined;
      inClass = character !== ']';
      out += character;
    } else if (character === '[') {
      inClass = true;
      out += character;
    } else if (character === '(') {
      const flags = /^\(\?(i?):/.exec(pattern.slice(i, i + 4));
      const plain = pattern[i + 1] !== '?' || /^\(\?<?[=!]/.test(pattern.slice(i, i + 4));
      if (flags === null && !plain) return undefined;
      groups.push(flags?.[1] === 'i' || caseless);
      out += flags === null ? '(' : '(?:';
      if (flags !== null) i += flags[0].length - 1;
    } else if (character === ')') {
      groups.pop();
      out += character;
    } else if (character === '+' && wasCounted) {
      // Possessive: as greedy, where what follows cannot begin with what was taken. The
      // hash tells when it could.
    } else if (/[?*+]/.test(character) || /^\{\d+(?:,\d*)?\}/.test(pattern.slice(i, i + 16))) {
      const end = character === '{' ? pattern.indexOf('}', i) : i;
      out += pattern.slice(i, end + 1);
      i = end;
      counted = true;
    } else if (caseless && /[a-z]/i.test(character)) {
      out += `[${character.toLowerCase()}${character.toUpperCase()}]`;
    } else out += character;
  }
  return inClass || groups.length > 0 ? undefined : out;
}

/** An escape both have; Unicode mode forbids others. */
function escapeAt(pattern: string, at: number): { readonly text: string; readonly end: number } | undefined {
  const next = pattern[at + 1];
  if (next === undefined) return undefined;
  if (next === 'p' || next === 'P') {
    const match = /^\\[pP]\{(\^?)(\w+)\}/.exec(pattern.slice(at, at + 40));
    if (match === null) return undefined;
    const negated = (next === 'P') !== (match[1] === '^');
    return { text: `\\${negated ? 'P' : 'p'}{${match[2]}}`, end: at + match[0].length - 1 };
  }
  if (/[sSdDwWbBnrtfv]/.test(next) || /[\\^$.*+?()[\]{}|/]/.test(next))
    return { text: `\\${next}`, end: at + 1 };
  if (next === '-') return { text: String.raw`\-`, end: at + 1 };
  // An escaped quote, comma or other plain character stands for itself.
  return /[a-z0-9]/i.test(next) ? undefined : { text: next, end: at + 1 };
}

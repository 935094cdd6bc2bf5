// The head of a call, which is all that stands before its arguments: matched in text that may not be complete
// yet. A blank in the text of a part stands for any white space, none too.

/** `name` and `id` are JSON strings where `quoted`; the last part of a head is the beginning of an object. */
export type HeadPart =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'name' | 'id'; readonly quoted: boolean };

/**
 * `more`: the text may become a head. `foreign`: it has a name that may not be called. `length`: up to the
 * object of the arguments.
 */
export type HeadMatch =
  | { readonly kind: 'head'; readonly length: number; readonly name: string; readonly id: string }
  | { readonly kind: 'more' | 'foreign' | 'none' };

/**
 * The first head of `heads` that the text begins with; `names`: what may be called. `beforeObject`: an object
 * follows it.
 */
export function matchHead(
  heads: readonly (readonly HeadPart[])[],
  text: string,
  names: readonly string[],
  beforeObject = true,
): HeadMatch {
  let best: HeadMatch = { kind: 'none' };
  for (const parts of heads) {
    const match = matchOne(parts, text, { names, beforeObject });
    if (match.kind === 'head') return match;
    if (match.kind === 'more' || best.kind === 'none') best = match;
  }
  return best;
}

function matchOne(
  parts: readonly HeadPart[],
  text: string,
  { names, beforeObject }: { readonly names: readonly string[]; readonly beforeObject: boolean },
): HeadMatch {
  let at = 0;
  const read = { name: '', id: '' };
  for (const part of parts) {
    const end = part.kind === 'text' ? afterText(part.text, text, at) : afterWord(part.quoted, text, at);
    if (end === null) return { kind: 'more' };
    const missing = end < 0;
    if (missing && part.kind !== 'name') return { kind: 'none' };
    if (part.kind !== 'text') {
      const word = text.slice(at, Math.max(at, end));
      read[part.kind] = part.quoted ? unquoted(word) : word;
      if (part.kind === 'name' && (missing || !names.includes(read.name))) return { kind: 'foreign' };
    }
    at = end;
  }
  if (!beforeObject) return { kind: 'head', length: at, ...read };
  at = afterBlanks(text, at);
  if (at === text.length) return { kind: 'more' };
  return text[at] === '{' ? { kind: 'head', length: at, ...read } : { kind: 'none' };
}

/** Where a text ends that stands at `at`: −1 where it does not, null where it may yet. */
export function afterText(wanted: string, text: string, at: number): number | null {
  let end = at;
  for (const char of wanted) {
    if (/\s/.test(char)) {
      end = afterBlanks(text, end);
      continue;
    }
    if (end === text.length) return null;
    if (!text.startsWith(char, end)) {
      // Half of a pair may be all that has come.
      return char.startsWith(text.slice(end)) ? null : -1;
    }
    end += char.length;
  }
  return end;
}

/** The same of a word, or a JSON string. */
function afterWord(quoted: boolean, text: string, at: number): number | null {
  const start = quoted ? afterBlanks(text, at) : at;
  const pattern = quoted ? /"(?:[^"\\]|\\[^])*"/y : /[\w.-]+/y;
  pattern.lastIndex = start;
  const word = pattern.exec(text)?.[0] ?? '';
  if (!quoted) {
    if (start + word.length === text.length) return null;
    return word === '' ? -1 : start + word.length;
  }
  if (word !== '') return start + word.length;
  return start === text.length || text[start] === '"' ? null : -1;
}

export function afterBlanks(text: string, at: number): number {
  let end = at;
  while (end < text.length && /\s/.test(text.charAt(end))) end += 1;
  return end;
}

function unquoted(quoted: string): string {
  try {
    return String(JSON.parse(quoted.trim()));
  } catch {
    return quoted.trim().slice(1, -1);
  }
}

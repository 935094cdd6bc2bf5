// Where the framing of a call begins in text that comes in pieces. The engine applies the same rule to
// choose the text it searches for stop strings (engine/child/decode/text-stream); a property test over
// both holds them together.

/**
 * Blanks before a call that count as its framing; more of them are content, so that little is ever held back.
 */
const MAX_BLANKS = 256;

/** The first place where one of some texts stands, or -1. */
export function firstOf(text: string, wanted: readonly string[]): number {
  let first = -1;
  for (const each of wanted) {
    const at = text.indexOf(each);
    if (at >= 0 && (first < 0 || at < first)) first = at;
  }
  return first;
}

/** Where a proper prefix of one of `starts` ends the text; the text's length when none does. */
export function startedAt(text: string, starts: readonly string[]): number {
  let first = text.length;
  for (const start of starts) {
    for (let take = Math.min(start.length - 1, text.length); take > 0; take -= 1) {
      if (text.endsWith(start.slice(0, take))) {
        first = Math.min(first, text.length - take);
        break;
      }
    }
  }
  return first;
}

/** `end` without the blanks before it: those before a call are the template's. */
export function beforeBlanks(text: string, end: number): number {
  const least = Math.max(0, end - MAX_BLANKS);
  let at = end;
  while (at > least && /\s/.test(text.charAt(at - 1))) at -= 1;
  return at;
}

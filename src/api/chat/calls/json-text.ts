// Text as it stands in a JSON string.

/** The text of a JSON string, without its quotes. */
export function escaped(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

/** How much of a text may be escaped by itself: not half of a surrogate pair. */
export function wholeCharacters(text: string): number {
  const last = text.charCodeAt(text.length - 1);
  return last >= 0xd800 && last <= 0xdbff ? text.length - 1 : text.length;
}

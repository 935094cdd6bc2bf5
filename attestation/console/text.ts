// Text of servers and models as it is shown: characters that reorder what stands around them, or that show
// as empty, are written out (Unicode UAX #9, §2; UTS #39). Marks of a direction alone stay: languages
// written from right to left need them, and each text is a block with a direction of its own.

// eslint-disable-next-line no-control-regex
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/gu;

/** Line feeds and tabs stay. */
export function visibleText(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(HIDDEN, (character) => {
    const point = character.codePointAt(0) ?? 0;
    return `⟨U+${point.toString(16).toUpperCase().padStart(4, '0')}⟩`;
  });
}

/** `3 minutes ago`. */
export function agoWords(ms: number): string {
  return ms < 10_000 ? 'a moment ago' : `${spanWords(ms)} ago`;
}

function spanWords(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return counted(seconds, 'second');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return counted(minutes, 'minute');
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? counted(hours, 'hour') : counted(Math.floor(hours / 24), 'day');
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

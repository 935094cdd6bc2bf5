// Text of servers and models as it is shown: characters that reorder what stands around them, or that show
// as empty, are written out (Unicode UAX #9, §2; UTS #39 §3.1.1; of ideographs also the selectors of a
// variant). Marks of a direction alone and joiners stay: languages need them, and each text is a block with a
// direction of its own.

const HIDDEN =
  // eslint-disable-next-line no-control-regex, no-misleading-character-class
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u115f\u1160\u17b4\u17b5\u180e\u200b\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]/gu;

/** Line feeds and tabs stay. */
export function visibleText(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(HIDDEN, (character) => {
    const point = character.codePointAt(0) ?? 0;
    return `⟨U+${point.toString(16).toUpperCase().padStart(4, '0')}⟩`;
  });
}

/** The part of a growing text that can be shown: at its end may be half of a character, or of a line end. */
export function shownPart(text: string): { readonly ready: string; readonly held: string } {
  const held = /[\r\ud800-\udbff]$/.exec(text)?.[0] ?? '';
  return { ready: text.slice(0, text.length - held.length), held };
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

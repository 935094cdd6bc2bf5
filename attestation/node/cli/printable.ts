// Control characters never reach a terminal: details quote what a server sent, and errors what an input held.

// eslint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

export function printable(line: string): string {
  return line.replace(UNPRINTABLE, '\ufffd');
}

/** JSON that means the same, without the control characters JSON.stringify leaves as they are. */
export function printableJson(value: unknown, space?: number): string {
  return JSON.stringify(value, undefined, space)
    .split('\n')
    .map((line) =>
      line.replace(UNPRINTABLE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`),
    )
    .join('\n');
}

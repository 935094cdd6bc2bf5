// The bytes of the `body` value of a line of a batch, as they stand in the line: a receipt commits to these.
// The line was parsed before, so it is JSON, and an object.

const [QUOTE, BACKSLASH, COLON, COMMA] = [0x22, 0x5c, 0x3a, 0x2c];
const OPENING = new Set([0x7b, 0x5b]);
const CLOSING = new Set([0x7d, 0x5d]);
const SPACE = new Set([0x20, 0x09, 0x0a, 0x0d]);

/** Of a name that stands twice the last, as a parser of JSON takes it; empty when there is none. */
export function bodyBytes(line: Buffer): Buffer {
  let found: Buffer = Buffer.alloc(0);
  let at = afterSpace(line, 0) + 1;
  for (;;) {
    at = afterSpace(line, at);
    if (line[at] !== QUOTE) return found;
    const keyEnd = afterString(line, at);
    const key: unknown = JSON.parse(line.toString('utf8', at, keyEnd));
    // Behind the colon.
    const from = afterSpace(line, afterSpace(line, keyEnd) + 1);
    const to = afterValue(line, from);
    if (key === 'body') found = line.subarray(from, to);
    at = afterSpace(line, to);
    if (line[at] !== COMMA) return found;
    at += 1;
  }
}

function afterSpace(line: Buffer, from: number): number {
  let at = from;
  while (SPACE.has(line[at] ?? 0)) at += 1;
  return at;
}

function afterString(line: Buffer, from: number): number {
  let at = from + 1;
  while (at < line.length && line[at] !== QUOTE) at += line[at] === BACKSLASH ? 2 : 1;
  return at + 1;
}

function afterValue(line: Buffer, from: number): number {
  let depth = 0;
  let at = from;
  while (at < line.length) {
    const byte = line[at] ?? 0;
    if (byte === QUOTE) at = afterString(line, at) - 1;
    else if (OPENING.has(byte)) depth += 1;
    else if (CLOSING.has(byte)) depth -= 1;
    else if (depth === 0 && (byte === COMMA || byte === COLON || SPACE.has(byte))) return at;
    if (depth < 0) return at;
    at += 1;
    if (depth === 0 && (byte === QUOTE || CLOSING.has(byte))) return at;
  }
  return at;
}

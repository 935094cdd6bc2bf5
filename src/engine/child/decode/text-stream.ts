// Turns token bytes into text that may be sent: whole UTF-8 characters only, nothing that is or may become a stop string.
// Bytes that can never become valid UTF-8 come out as U+FFFD, as every other server does it.

export interface TextStream {
  /** Text that is now certain. After a stop string was met `stopped` is true and everything later is ignored. */
  push(bytes: Uint8Array): string;
  /** What was held back, when generation ends without a stop string. */
  flush(): string;
  readonly stopped: boolean;
  /** Characters (UTF-16 units) that the bytes so far stand for, held back or not: where the text of the next bytes begins. */
  readonly decoded: number;
}

export function createTextStream(stops: readonly string[]): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const wanted = stops.filter((stop) => stop !== '');
  let held = '';
  let stopped = false;
  let decoded = 0;

  const release = (): string => {
    let first = -1;
    for (const stop of wanted) {
      const at = held.indexOf(stop);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    if (first >= 0) {
      stopped = true;
      const text = held.slice(0, first);
      held = '';
      return text;
    }
    const keep = possibleStart(held, wanted);
    const text = held.slice(0, held.length - keep);
    held = held.slice(held.length - keep);
    return text;
  };

  const hold = (text: string): void => {
    held += text;
    decoded += text.length;
  };

  return {
    get stopped() {
      return stopped;
    },
    get decoded() {
      return decoded;
    },
    push(bytes) {
      if (stopped) return '';
      hold(decoder.decode(bytes, { stream: true }));
      return release();
    },
    flush() {
      if (stopped) return '';
      hold(decoder.decode());
      const text = release();
      if (stopped) return text;
      const rest = held;
      held = '';
      return text + rest;
    },
  };
}

/** Length of the longest tail of `text` that is a proper beginning of a stop string. */
function possibleStart(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length -= 1) {
      if (text.endsWith(stop.slice(0, length))) {
        longest = length;
        break;
      }
    }
  }
  return longest;
}

// Turns token bytes into text that may be sent: whole UTF-8 characters only, and no part of what is or may
// become a stop string. Bytes that can never become valid UTF-8 become U+FFFD, as in every other server.
// Where an answer may hold tool calls, stop strings are looked for only in the words before the first of
// them, without the blanks that frame it: the client reads only those. A stop string counts once it
// certainly lies in such words.

import type { CallMarks } from '../../seam/tool-format.ts';

export interface TextStream {
  /** Text that is now certain. After a stop string `stopped` is true and all later text is ignored. */
  push(bytes: Uint8Array): string;
  /**
   * The text held back, when generation ends without a stop string. `cut`: by a limit, so that a
   * call may just have begun.
   */
  flush(cut?: boolean): string;
  readonly stopped: boolean;
  /** The stop string that was met. */
  readonly stop: string | undefined;
  /**
   * Characters (UTF-16 units) that the bytes so far stand for, held back or not: where the text
   * of the next bytes begins.
   */
  readonly decoded: number;
}

/**
 * Blanks before a call that count as its framing; more of them are content, so that little is ever held back.
 */
const MAX_BLANKS = 256;

/**
 * `blanks`: a call may come, and no words have. `words`: a call may still come.
 * `call`: one has begun. `plain`: none can come.
 */
type Phase = 'blanks' | 'words' | 'call' | 'plain';
/** Whether more text follows, the answer has ended, or a limit has cut it. */
type Ahead = 'more' | 'end' | 'cut';

export function createTextStream(stops: readonly string[], calls?: CallMarks): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  const wanted = stops.filter((stop) => stop !== '');
  let phase: Phase = calls === undefined || wanted.length === 0 ? 'plain' : 'blanks';
  let held = '';
  let stopped = false;
  let met: string | undefined;
  let decoded = 0;

  const take = (length: number): string => {
    const text = held.slice(0, length);
    held = held.slice(length);
    return text;
  };

  /** Ends the text at the first stop string that ends by `end`; returns the text before it, or null. */
  const stopBy = (end: number): string | null => {
    let first = -1;
    for (const stop of wanted) {
      const at = held.indexOf(stop);
      if (at < 0 || at + stop.length > end || (first >= 0 && at >= first)) continue;
      first = at;
      met = stop;
    }
    if (first < 0) return null;
    stopped = true;
    const text = held.slice(0, first);
    held = '';
    return text;
  };

  const release = (): string => stopBy(held.length) ?? take(markBegunAt(held, wanted));

  /** While a call may come: `release`, but only of text that is certain to be content. */
  const releaseWords = (marks: CallMarks, ahead: Ahead): string => {
    const lead = phase === 'blanks' ? take(held.search(/\S|$/)) : '';
    if (held === '') return lead;
    phase = 'words';
    const call = marks.anchored ? anchoredAt(held, marks.starts) : firstMarkIn(held, marks.starts);
    if (marks.anchored && call < 0) {
      if (ahead !== 'end' && startsOne(held, marks.starts)) return lead;
      phase = 'plain';
      return lead + release();
    }
    const framing = call >= 0 ? call : markBegunAt(held, marks.starts);
    const words = ahead === 'end' || (ahead === 'cut' && framing === held.length);
    const certain = call < 0 && words ? held.length : beforeBlanks(held, framing);
    const ended = stopBy(certain);
    if (ended !== null) return lead + ended;
    if (call >= 0) {
      phase = 'call';
      return lead + take(held.length);
    }
    const next = firstMarkIn(held, wanted);
    return lead + take(Math.min(certain, next < 0 ? certain : next, markBegunAt(held, wanted)));
  };

  const add = (text: string, ahead: Ahead): string => {
    held += text;
    decoded += text.length;
    if (phase === 'call' || wanted.length === 0) return take(held.length);
    return calls === undefined || phase === 'plain' ? release() : releaseWords(calls, ahead);
  };

  return {
    get stopped() {
      return stopped;
    },
    get stop() {
      return met;
    },
    get decoded() {
      return decoded;
    },
    push: (bytes) => (stopped ? '' : add(decoder.decode(bytes, { stream: true }), 'more')),
    flush(cut = false) {
      if (stopped) return '';
      const text = add(decoder.decode(), cut ? 'cut' : 'end');
      return stopped ? text : text + take(held.length);
    },
  };
}

/** 0 when the text begins with one of some texts, else -1. */
function anchoredAt(text: string, starts: readonly string[]): number {
  return starts.some((start) => text.startsWith(start)) ? 0 : -1;
}

/** Whether the whole text may still become one of some texts. */
function startsOne(text: string, starts: readonly string[]): boolean {
  return starts.some((start) => start.startsWith(text));
}

/** The first place where one of some texts stands, or -1. */
export function firstMarkIn(text: string, wanted: readonly string[]): number {
  let first = -1;
  for (const each of wanted) {
    const at = text.indexOf(each);
    if (at >= 0 && (first < 0 || at < first)) first = at;
  }
  return first;
}

/** Where a proper prefix of one of `starts` ends the text; the text's length when none does. */
export function markBegunAt(text: string, starts: readonly string[]): number {
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
function beforeBlanks(text: string, end: number): number {
  const least = Math.max(0, end - MAX_BLANKS);
  let at = end;
  while (at > least && /\s/.test(text.charAt(at - 1))) at -= 1;
  return at;
}

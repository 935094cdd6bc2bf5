// Reads calls that are JSON objects { name, arguments } in the framing of the model's own format.

import { isRecord } from '../../../base/shape.ts';
import type { ToolEvent, ToolReader } from './events.ts';
import { beforeBlanks, firstOf, startedAt } from './framing.ts';

/** A name and its punctuation, or framing before a call; a longer beginning is no call. */
const MAX_HEAD = 4096;
const HEAD = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)/;
/** Beginnings that HEAD can never match: another first key, or arguments that are no object. */
const NO_HEAD =
  /^\{\s*(?:[^\s"]|"(?!n?a?m?e?(?:"|$))|"name"\s*:\s*(?:[^\s"]|"(?:[^"\\]|\\.)*"\s*(?:[^\s,]|,\s*(?:[^\s"]|"(?:arguments|parameters)"\s*:\s*[^\s{]|"(?!(?:arguments|parameters)")[^"]*"))))/;

/** A name that comes first; of a value that is no string, its first character. */
const NAME = /^\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*"|[^\s"])/;

/**
 * `content`: text. `framing`: between a trigger or a call and the next `{`. `head`: up to the
 * arguments. `arguments`: passed
 *  on as they come. `whole`: a call in another order, read once it is complete.
 *  `tail`: up to the end of the call's object. `data`: an object of another name, content to its end: an
 *  object within it is no call either.
 */
type State = 'content' | 'framing' | 'head' | 'arguments' | 'whole' | 'tail' | 'data';

/** Whether more text follows, the answer has ended, or a limit has cut it. */
type Ahead = 'more' | 'end' | 'cut';

/** `names`: the tools that may be called. An object that names none is an answer that happens to have a `name`. */
export function createObjectReader(triggers: readonly string[], names: readonly string[]): ToolReader {
  return new CallReader(triggers, names);
}

class CallReader implements ToolReader {
  readonly #triggers: readonly string[];
  readonly #names: readonly string[];
  #state: State = 'content';
  #held = '';
  /** Text since the trigger and the blanks before it, given back as content if it turns out to be no call. */
  #since = '';
  #calls = 0;
  #wroteContent = false;
  #scan = createObjectScan();
  #scanned = 0;
  #out: ToolEvent[] = [];

  constructor(triggers: readonly string[], names: readonly string[]) {
    this.#triggers = triggers;
    this.#names = names;
  }

  get unfinished(): boolean {
    return this.#state === 'arguments';
  }

  push(text: string): readonly ToolEvent[] {
    return this.#read(text, 'more');
  }

  end(cut = false): readonly ToolEvent[] {
    return this.#read('', cut ? 'cut' : 'end');
  }

  #read(text: string, ahead: Ahead): readonly ToolEvent[] {
    this.#held += text;
    this.#out = [];
    while (this.#step(ahead));
    return this.#out;
  }

  /** One transition; false when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  #step(ahead: Ahead): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent(ahead);
      case 'framing':
        return this.#readFraming(ahead);
      case 'head':
        return this.#readHead(ahead);
      case 'arguments':
        return this.#readArguments();
      case 'whole':
        return this.#readWhole(ahead);
      case 'data':
        return this.#readData();
      case 'tail':
        return this.#readTail();
    }
  }

  #readContent(ahead: Ahead): boolean {
    const at = firstOf(this.#held, this.#triggers);
    if (at >= 0) {
      const words = beforeBlanks(this.#held, at);
      this.#content(this.#held.slice(0, words));
      this.#since = this.#held.slice(words, at);
      this.#held = this.#held.slice(at);
      this.#state = 'framing';
      return true;
    }
    const framing = startedAt(this.#held, this.#triggers);
    const words = ahead === 'end' || (ahead === 'cut' && framing === this.#held.length);
    const safe = words ? this.#held.length : beforeBlanks(this.#held, framing);
    this.#content(this.#held.slice(0, safe));
    this.#held = ahead === 'more' ? this.#held.slice(safe) : '';
    return false;
  }

  #readFraming(ahead: Ahead): boolean {
    const at = this.#held.indexOf('{');
    if (at >= 0) {
      this.#since += this.#held.slice(0, at);
      this.#held = this.#held.slice(at);
      this.#state = 'head';
      return true;
    }
    if (this.#calls === 0 && this.#held.length > MAX_HEAD) this.#noCall(this.#held.length);
    else if (ahead !== 'more' || this.#held.length > MAX_HEAD) this.#brokenOff(ahead);
    return false;
  }

  #readHead(ahead: Ahead): boolean {
    const named = NAME.exec(this.#held);
    if (named !== null && !this.#names.includes(unquote(named[1] ?? '""'))) {
      this.#content(this.#since);
      this.#since = '';
      this.#scan = createObjectScan();
      this.#state = 'data';
      return true;
    }
    const head = HEAD.exec(this.#held);
    if (head !== null) {
      this.#call(unquote(head[1] ?? '""'));
      this.#held = this.#held.slice(head[0].length);
      this.#scan = createObjectScan();
      this.#state = 'arguments';
      return true;
    }
    if (this.#held.length > MAX_HEAD || NO_HEAD.test(this.#held)) {
      this.#scan = createObjectScan();
      this.#scanned = 0;
      this.#state = 'whole';
      return true;
    }
    if (ahead !== 'more') this.#brokenOff(ahead);
    return false;
  }

  #readArguments(): boolean {
    const { used, closed } = this.#scan(this.#held);
    if (used > 0) this.#out.push({ kind: 'arguments', text: this.#held.slice(0, used) });
    this.#held = this.#held.slice(used);
    if (closed) this.#state = 'tail';
    return closed;
  }

  #readWhole(ahead: Ahead): boolean {
    const { used, closed } = this.#scan(this.#held.slice(this.#scanned));
    this.#scanned += used;
    if (!closed) {
      if (ahead !== 'more') this.#brokenOff(ahead);
      return false;
    }
    const call = readCall(this.#held.slice(0, this.#scanned));
    if (call === null || !this.#names.includes(call.name)) {
      this.#noCall(this.#scanned);
      return true;
    }
    this.#call(call.name);
    this.#out.push({ kind: 'arguments', text: call.arguments });
    this.#held = this.#held.slice(this.#scanned);
    this.#state = 'framing';
    return true;
  }

  #readData(): boolean {
    const { used, closed } = this.#scan(this.#held);
    // Not through #content: blanks inside an object are the object's.
    if (used > 0) this.#out.push({ kind: 'content', text: this.#held.slice(0, used) });
    this.#wroteContent ||= used > 0;
    this.#held = this.#held.slice(used);
    if (closed) this.#state = 'content';
    return closed;
  }

  #readTail(): boolean {
    const at = this.#held.indexOf('}');
    this.#held = at < 0 ? '' : this.#held.slice(at + 1);
    if (at >= 0) this.#state = 'framing';
    return at >= 0;
  }

  #call(name: string): void {
    this.#calls += 1;
    this.#since = '';
    this.#out.push({ kind: 'call', name });
  }

  #content(text: string): void {
    // Blank space before the first word and around calls is the template's, not the answer's.
    const kept = this.#wroteContent ? text : text.trimStart();
    if (kept === '' || (this.#calls > 0 && kept.trim() === '')) return;
    this.#wroteContent = true;
    this.#out.push({ kind: 'content', text: kept });
  }

  #noCall(length: number): void {
    this.#content(this.#since + this.#held.slice(0, length));
    this.#held = this.#held.slice(length);
    this.#since = '';
    this.#state = 'content';
  }

  /**
   * The text ends in what may be the beginning of a call: after a call or at a limit that is
   * framing, else the answer.
   */
  #brokenOff(ahead: Ahead): void {
    if (this.#calls === 0 && ahead === 'end') this.#noCall(this.#held.length);
    this.#held = '';
  }
}

function readCall(source: string): { readonly name: string; readonly arguments: string } | null {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    return null;
  }
  if (!isRecord(value) || typeof value['name'] !== 'string') return null;
  const given = value['arguments'] ?? value['parameters'] ?? {};
  return { name: value['name'], arguments: typeof given === 'string' ? given : JSON.stringify(given) };
}

function unquote(quoted: string): string {
  try {
    return String(JSON.parse(quoted));
  } catch {
    return quoted.slice(1, -1);
  }
}

/**
 * Follows one JSON object over many pieces: how many characters of the piece belong to it,
 * and whether it ended there.
 */
function createObjectScan(): (piece: string) => { readonly used: number; readonly closed: boolean } {
  let depth = 0;
  let inString = false;
  let escaped = false;
  return (piece) => {
    for (let i = 0; i < piece.length; i++) {
      const c = piece.charAt(i);
      if (escaped) escaped = false;
      else if (inString) {
        if (c === '\\') escaped = true;
        else if (c === '"') inString = false;
      } else if (c === '"') inString = true;
      else if (c === '{' || c === '[') depth += 1;
      else if (c === '}' || c === ']') {
        depth -= 1;
        if (depth === 0) return { used: i + 1, closed: true };
      }
    }
    return { used: piece.length, closed: false };
  };
}

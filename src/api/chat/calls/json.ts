// Reads calls whose arguments are one JSON object: behind a name, or in an object that names the tool too.
// Both have a head (calls/head), arguments that are passed on as they come, and framing around them.

import { isRecord } from '../../../base/shape.ts';
import type { NamedCall, ObjectCall, ToolFormat } from '../../../engine/seam/tool-format.ts';
import type { ToolEvent, ToolReader } from './events.ts';
import { beforeBlanks, firstOf, startedAt } from './framing.ts';
import { matchHead, type HeadPart } from './head.ts';

/** A name and its punctuation, or framing before a call; a longer beginning is no call. */
const MAX_HEAD = 4096;

/**
 * `content`: text. `aside`: thoughts within it. `framing`: between a trigger or a call and the start of the
 * next one. `head`: up to the arguments. `arguments`: passed on as they come. `whole`: a call in another
 * order, read once it is complete. `tail`: up to the end of the call's object. `data`: an object of another
 * name, content to its end: an object within it is no call either.
 */
type State = 'content' | 'aside' | 'framing' | 'head' | 'arguments' | 'whole' | 'tail' | 'data';

/** Whether more text follows, the answer has ended, or a limit has cut it. */
type Ahead = 'more' | 'end' | 'cut';

/** `names`: the tools that may be called. What names none is an answer that happens to look like a call. */
export function createJsonReader(
  format: Pick<ToolFormat, 'triggers' | 'silent' | 'aside'>,
  syntax: ObjectCall | NamedCall,
  names: readonly string[],
): ToolReader {
  return new CallReader(format, syntax, names);
}

class CallReader implements ToolReader {
  readonly #triggers: readonly string[];
  readonly #silent: readonly string[];
  readonly #aside: ToolFormat['aside'];
  readonly #syntax: ObjectCall | NamedCall;
  readonly #names: readonly string[];
  readonly #heads: readonly (readonly HeadPart[])[];
  /** Texts with which a head begins. */
  readonly #starts: readonly string[];
  #state: State = 'content';
  #held = '';
  /** Text since the trigger and the blanks before it, given back as content if it turns out to be no call. */
  #since = '';
  #calls = 0;
  #wroteContent = false;
  #scan = createObjectScan();
  #scanned = 0;
  #out: ToolEvent[] = [];

  constructor(
    { triggers, silent, aside }: Pick<ToolFormat, 'triggers' | 'silent' | 'aside'>,
    syntax: ObjectCall | NamedCall,
    names: readonly string[],
  ) {
    this.#triggers = triggers;
    this.#silent = silent;
    this.#aside = aside;
    this.#syntax = syntax;
    this.#names = names;
    this.#heads = syntax.kind === 'object' ? objectHeads(syntax) : namedHeads(syntax);
    this.#starts =
      syntax.kind === 'object'
        ? ['{']
        : [...new Set(syntax.wordings.map(({ start }) => start.trimStart()))].filter((text) => text !== '');
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
      case 'aside':
        return this.#readAside();
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
    const asides = this.#aside?.starts ?? [];
    const frame = firstOf(this.#held, [...this.#silent, ...asides]);
    if (frame >= 0 && (at < 0 || frame < at)) {
      this.#content(this.#held.slice(0, frame));
      const rest = this.#held.slice(frame);
      const mark = [...this.#silent, ...asides].find((text) => rest.startsWith(text)) ?? '';
      this.#held = rest.slice(mark.length);
      if (asides.includes(mark)) this.#state = 'aside';
      return true;
    }
    if (at >= 0) {
      const words = beforeBlanks(this.#held, at);
      this.#content(this.#held.slice(0, words));
      this.#since = this.#held.slice(words, at);
      this.#held = this.#held.slice(at);
      this.#state = 'framing';
      return true;
    }
    const framing = startedAt(this.#held, [...this.#triggers, ...this.#silent, ...asides]);
    const words = ahead === 'end' || (ahead === 'cut' && framing === this.#held.length);
    const safe = words ? this.#held.length : beforeBlanks(this.#held, framing);
    this.#content(this.#held.slice(0, safe));
    this.#held = ahead === 'more' ? this.#held.slice(safe) : '';
    return false;
  }

  #readAside(): boolean {
    const end = this.#aside?.end ?? '';
    const at = this.#held.indexOf(end);
    const certain = at < 0 ? startedAt(this.#held, [end]) : at;
    if (certain > 0) this.#out.push({ kind: 'reasoning', text: this.#held.slice(0, certain) });
    this.#held = this.#held.slice(at < 0 ? certain : at + end.length);
    if (at >= 0) this.#state = 'content';
    return at >= 0;
  }

  #readFraming(ahead: Ahead): boolean {
    const at = firstOf(this.#held, this.#starts);
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
    const match = matchHead(this.#heads, this.#held, this.#names);
    if (match.kind === 'head') {
      this.#call(match);
      this.#held = this.#held.slice(match.length);
      this.#scan = createObjectScan();
      this.#state = 'arguments';
      return true;
    }
    if (match.kind === 'more' && this.#held.length <= MAX_HEAD) {
      if (ahead !== 'more') this.#brokenOff(ahead);
      return false;
    }
    this.#scan = createObjectScan();
    this.#scanned = 0;
    if (this.#syntax.kind === 'named') {
      this.#noCall(1);
      return true;
    }
    if (match.kind === 'foreign') {
      this.#content(this.#since);
      this.#since = '';
    }
    this.#state = match.kind === 'foreign' ? 'data' : 'whole';
    return true;
  }

  #readArguments(): boolean {
    const { used, closed } = this.#scan(this.#held);
    if (used > 0) this.#out.push({ kind: 'arguments', text: this.#held.slice(0, used) });
    this.#held = this.#held.slice(used);
    if (closed) this.#state = this.#syntax.kind === 'object' ? 'tail' : 'framing';
    return closed;
  }

  #readWhole(ahead: Ahead): boolean {
    const { used, closed } = this.#scan(this.#held.slice(this.#scanned));
    this.#scanned += used;
    if (!closed) {
      if (ahead !== 'more') this.#brokenOff(ahead);
      return false;
    }
    const call =
      this.#syntax.kind === 'object' ? readCall(this.#held.slice(0, this.#scanned), this.#syntax) : null;
    if (call === null || !this.#names.includes(call.name)) {
      this.#noCall(this.#scanned);
      return true;
    }
    this.#call({ name: call.name, id: '' });
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

  #call({ name, id }: { readonly name: string; readonly id: string }): void {
    this.#calls += 1;
    this.#since = '';
    const { id: form } = this.#syntax;
    const whole = form?.at === 'around' ? form.prefix + name + form.mark + id : id;
    this.#out.push({ kind: 'call', name, id: id === '' ? undefined : whole });
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

function objectHeads(syntax: ObjectCall): readonly (readonly HeadPart[])[] {
  const { name, id } = syntax;
  const word: HeadPart = { kind: 'name', quoted: true };
  if (name === null) return [[text('{ '), word, text(' : ')]];
  const keys = ['arguments', 'parameters'].map((key) => text(` , "${key}" : `));
  const heads = keys.map((key) => [text(`"${name}" : `), word, key]);
  const numbered =
    id?.at === 'first'
      ? heads.map((head) => [
          text(`{ "${id.key}" : `),
          { kind: 'id', quoted: true } as const,
          text(' , '),
          ...head,
        ])
      : [];
  return [...numbered, ...heads.map((head) => [text('{ '), ...head])];
}

function namedHeads({ wordings, id }: NamedCall): readonly (readonly HeadPart[])[] {
  const word: HeadPart = { kind: 'name', quoted: false };
  const number: HeadPart = { kind: 'id', quoted: false };
  return wordings.map(({ start, after }) => {
    const begin = text(start.trimStart());
    if (id === null) return [begin, word, text(after)];
    if (id.at === 'before') return [begin, number, text(id.mark), word, text(after)];
    const prefix = id.at === 'around' ? [text(id.prefix)] : [];
    return [begin, ...prefix, word, text(id.mark), number, text(after)];
  });
}

function text(of: string): HeadPart {
  return { kind: 'text', text: of };
}

/** A call whose keys come in another order. */
function readCall(
  source: string,
  syntax: ObjectCall,
): { readonly name: string; readonly arguments: string } | null {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch {
    return null;
  }
  if (!isRecord(value) || syntax.name === null) return null;
  const name = value[syntax.name];
  if (typeof name !== 'string') return null;
  const given = value['arguments'] ?? value['parameters'] ?? {};
  return { name, arguments: typeof given === 'string' ? given : JSON.stringify(given) };
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

// Reads calls whose arguments are one JSON object: behind a name, or in an object that names the tool too.
// Both have a head (calls/head), arguments that are passed on as they come, and framing around them.

import { isRecord } from '../../../base/shape.ts';
import type { NamedCall, ObjectCall } from '../../../engine/seam/tool-format.ts';
import type { ToolEvent, ToolReader } from './events.ts';
import { firstOf } from './framing.ts';
import { matchHead, type HeadPart } from './head.ts';
import { type Ahead, AnswerWords, type WordsFormat } from './words.ts';

/** A name and its punctuation, or framing before a call; a longer beginning is no call. */
const MAX_HEAD = 4096;

/**
 * `words`: text before a call. `framing`: between a trigger or a call and the start of the
 * next one. `head`: up to the arguments. `arguments`: passed on as they come. `whole`: a call in another
 * order, read once it is complete. `tail`: up to the end of the call's object. `data`: an object of another
 * name, content to its end: an object within it is no call either.
 */
type State = 'words' | 'framing' | 'head' | 'arguments' | 'whole' | 'tail' | 'data';

/** `names`: the tools that may be called. What names none is an answer that happens to look like a call. */
export function createJsonReader(
  format: WordsFormat,
  syntax: ObjectCall | NamedCall,
  names: readonly string[],
): ToolReader {
  return new CallReader(format, syntax, names);
}

class CallReader implements ToolReader {
  readonly #words: AnswerWords;
  readonly #syntax: ObjectCall | NamedCall;
  readonly #names: readonly string[];
  readonly #heads: readonly (readonly HeadPart[])[];
  /** Texts with which a head begins. */
  readonly #starts: readonly string[];
  #state: State = 'words';
  #scan = createObjectScan();
  #scanned = 0;

  constructor(format: WordsFormat, syntax: ObjectCall | NamedCall, names: readonly string[]) {
    this.#words = new AnswerWords(format);
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
    return this.#words.read(text, () => this.#step('more'));
  }

  end(cut = false): readonly ToolEvent[] {
    return this.#words.read('', () => this.#step(cut ? 'cut' : 'end'));
  }

  /** One transition; false when more text is needed. */
  // oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
  #step(ahead: Ahead): boolean {
    switch (this.#state) {
      case 'words':
        return this.#readWords(ahead);
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

  #readWords(ahead: Ahead): boolean {
    const step = this.#words.step(ahead);
    if (step === 'trigger') this.#state = 'framing';
    return step !== 'waits';
  }

  #readFraming(ahead: Ahead): boolean {
    const words = this.#words;
    const at = firstOf(words.held, this.#starts);
    if (at >= 0) {
      words.since += words.drop(at);
      this.#state = 'head';
      return true;
    }
    if (words.calls === 0 && words.held.length > MAX_HEAD) this.#noCall(words.held.length);
    else if (ahead !== 'more' || words.held.length > MAX_HEAD) words.breakOff(ahead);
    return false;
  }

  #readHead(ahead: Ahead): boolean {
    const words = this.#words;
    const match = matchHead(this.#heads, words.held, this.#names);
    if (match.kind === 'head') {
      this.#call(match);
      words.drop(match.length);
      this.#scan = createObjectScan();
      this.#state = 'arguments';
      return true;
    }
    if (match.kind === 'more' && words.held.length <= MAX_HEAD) {
      if (ahead !== 'more') words.breakOff(ahead);
      return false;
    }
    this.#scan = createObjectScan();
    this.#scanned = 0;
    if (this.#syntax.kind === 'named') {
      this.#noCall(1);
      return true;
    }
    if (match.kind === 'foreign') words.say(0);
    this.#state = match.kind === 'foreign' ? 'data' : 'whole';
    return true;
  }

  #readArguments(): boolean {
    const { used, closed } = this.#scan(this.#words.held);
    if (used > 0) this.#words.put({ kind: 'arguments', text: this.#words.drop(used) });
    if (closed) this.#state = this.#syntax.kind === 'object' ? 'tail' : 'framing';
    return closed;
  }

  #readWhole(ahead: Ahead): boolean {
    const words = this.#words;
    const { used, closed } = this.#scan(words.held.slice(this.#scanned));
    this.#scanned += used;
    if (!closed) {
      if (ahead !== 'more') words.breakOff(ahead);
      return false;
    }
    const call =
      this.#syntax.kind === 'object' ? readCall(words.held.slice(0, this.#scanned), this.#syntax) : null;
    if (call === null || !this.#names.includes(call.name)) {
      this.#noCall(this.#scanned);
      return true;
    }
    this.#call({ name: call.name, id: '' });
    words.put({ kind: 'arguments', text: call.arguments });
    words.drop(this.#scanned);
    this.#state = 'framing';
    return true;
  }

  #readData(): boolean {
    const { used, closed } = this.#scan(this.#words.held);
    // Blanks inside an object are the object's.
    if (used > 0) this.#words.write(this.#words.drop(used));
    if (closed) this.#state = 'words';
    return closed;
  }

  #readTail(): boolean {
    const { held } = this.#words;
    const at = held.indexOf('}');
    this.#words.drop(at < 0 ? held.length : at + 1);
    if (at >= 0) this.#state = 'framing';
    return at >= 0;
  }

  #call({ name, id }: { readonly name: string; readonly id: string }): void {
    this.#words.calls += 1;
    this.#words.since = '';
    const { id: form } = this.#syntax;
    const whole = form?.at === 'around' ? form.prefix + name + form.mark + id : id;
    this.#words.put({ kind: 'call', name, id: id === '' ? undefined : whole });
  }

  #noCall(length: number): void {
    this.#words.say(length);
    this.#state = 'words';
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

// Splits the reasoning block off an answer while it is written, by the bytes of the tokens: a mark may
// be one control token or several of text. The grammar of an answer holds after the block; within it
// the model may not end, and beside its beginning only the marks are allowed. Text is held back only
// while it may become a mark.

import type { ReasoningFormat } from '../../seam/reasoning.ts';
import type { Constraint, ConstraintVocabulary } from './constraint.ts';
import { firstMarkIn, markBegunAt } from './text-stream.ts';

/** `framed`: in words that a mark may break off; `ended`: behind the answer. */
export type ReasoningPhase = 'before' | 'thinking' | 'between' | 'framed' | 'answer' | 'ended';

export interface Split {
  readonly reasoning: string;
  /** Bytes of the answer. */
  readonly content: Uint8Array;
}

/** Of the texts that begin a call, those that thoughts do not hold by chance: tags and bracketed marks. */
export function callsWithin(starts: readonly string[]): readonly string[] {
  return starts.filter((text) => /^[<[]/.test(text));
}

/** Tokens of white space between a block and an answer that has a form. */
const MAX_FRAMING = 4;
/** White space before a mark that is held back with it. */
const MAX_BLANKS = 256;
const NO_BYTES = new Uint8Array(0);
/** Between the words before an answer and the answer: they are paragraphs of one text. */
const GAP = Buffer.from('\n\n');

/** A mark within words, and what is behind it. */
interface Break {
  readonly mark: string;
  readonly phase: 'thinking' | 'between' | 'ended';
}

interface Piece {
  readonly raw: Uint8Array;
  readonly shown: Uint8Array;
}

export class ReasoningReader {
  phase: ReasoningPhase;
  /** Tokens of the block and its marks. */
  tokens = 0;
  /** Marks read so far: after each a grammar begins anew. */
  marks = 0;
  readonly #starts: readonly string[];
  readonly #again: readonly string[];
  readonly #answer: readonly string[];
  readonly #preamble: readonly string[];
  readonly #end: string;
  /** The marks that break an answer off, of those framed and of those without framing. */
  readonly #framedBreaks: readonly Break[];
  readonly #plainBreaks: readonly Break[];
  #breaks: readonly Break[];
  /** Texts that begin a call, which ends the block too. */
  readonly #calls: readonly string[];
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  /** Bytes as Latin-1 text, so that searching is exact. */
  #held = '';
  /** The tokens of what is held. */
  #pieces: Piece[] = [];
  /** Words came before the answer, which is still to come. */
  #gap = false;
  #waiting = 0;
  #wrote = false;

  constructor(format: ReasoningFormat, phase: ReasoningPhase, calls: readonly string[]) {
    this.phase = phase;
    this.#starts = format.starts.map(latin1);
    this.#again = (format.again ?? []).map(latin1);
    this.#answer = format.answer.map(latin1);
    this.#preamble = (format.preamble ?? []).map(latin1);
    this.#end = latin1(format.end);
    this.#plainBreaks = (format.inside ?? []).map((mark) => ({ mark: latin1(mark), phase: 'thinking' }));
    const { ending } = format;
    this.#framedBreaks =
      ending === undefined
        ? this.#plainBreaks
        : [{ mark: latin1(ending), phase: 'ended' }, ...this.#plainBreaks];
    this.#breaks = this.#plainBreaks;
    this.#calls = calls.map(latin1);
  }

  /** The block is behind, or there is none. */
  get answering(): boolean {
    return this.phase === 'answer' || this.phase === 'framed' || this.phase === 'ended';
  }

  /** `raw`: the bytes of a token; `shown`: those a reader of the answer would see. */
  read(raw: Uint8Array, shown: Uint8Array): Split {
    if (this.phase === 'answer') return { reasoning: '', content: shown };
    if (this.phase === 'ended') return { reasoning: '', content: NO_BYTES };
    if (this.phase === 'framed') {
      this.#held += Buffer.from(raw).toString('latin1');
      this.#pieces.push({ raw, shown });
      return this.#framed();
    }
    if (this.phase === 'thinking') {
      this.tokens += 1;
      const text = Buffer.from(raw).toString('latin1');
      // Control tokens are left out, here as in the answer, unless they are part of a mark.
      const kept = shown.length > 0 || this.#isMark(text);
      return this.#think(kept ? text : '');
    }
    this.#waiting += 1;
    this.#held += Buffer.from(raw).toString('latin1');
    this.#pieces.push({ raw, shown });
    return this.#open();
  }

  /** The text held back, when the answer has ended. `cut` by a limit, the beginning of a mark is framing. */
  end(cut = false): Split {
    const held = this.#held;
    this.#held = '';
    if (this.phase === 'thinking')
      return { reasoning: (cut ? '' : this.#decode(held)) + this.#decoder.decode(), content: NO_BYTES };
    const said = this.phase === 'framed' ? !cut : this.phase === 'before' && !(cut && held.trim() !== '');
    return { reasoning: '', content: said ? shownOf(this.#pieces) : NO_BYTES };
  }

  /** Whether a token may go on with a mark that opens the block or frames the answer. */
  continues(raw: Uint8Array): boolean {
    const text = (this.#held + Buffer.from(raw).toString('latin1')).trimStart();
    return text !== '' && this.#openings().some((mark) => mark.startsWith(text));
  }

  /** Whether a token is framing after the block. */
  isFraming(raw: Uint8Array): boolean {
    return (
      this.phase === 'between' &&
      this.#waiting < MAX_FRAMING &&
      raw.length > 0 &&
      blanksOf(raw) === raw.length
    );
  }

  /** Whether a token ends the block and goes on after its mark. */
  overshoots(raw: Uint8Array): boolean {
    const text = this.#held + Buffer.from(raw).toString('latin1');
    const at = text.indexOf(this.#end);
    return at >= 0 && text.slice(at + this.#end.length).trim() !== '';
  }

  #openings(): readonly string[] {
    return [...(this.phase === 'before' ? this.#starts : this.#again), ...this.#answer, ...this.#preamble];
  }

  #open(): Split {
    const text = this.#held.trimStart();
    const openings = this.#openings();
    const mark = openings.find((each) => text.startsWith(each));
    if (mark !== undefined) {
      const rest = text.slice(mark.length);
      this.marks += 1;
      this.#held = '';
      this.#pieces = [];
      if (this.#answer.includes(mark)) return this.#answered(rest, this.#framedBreaks);
      if (this.#preamble.includes(mark)) return this.#answered(rest, [{ mark: this.#end, phase: 'between' }]);
      this.tokens += this.#waiting;
      this.phase = 'thinking';
      return this.#think(rest);
    }
    const may =
      text === '' ? this.#held.length <= MAX_BLANKS : openings.some((each) => each.startsWith(text));
    if (may && openings.length > 0) return { reasoning: '', content: NO_BYTES };
    const said = shownOf(this.#pieces);
    // Before the block blanks are the model's, after it they are framing.
    if (this.phase === 'between') {
      const words = said.subarray(blanksOf(said));
      this.#held = '';
      this.#pieces = [];
      if (words.length === 0) return { reasoning: '', content: words };
      return this.#answered(words.toString('latin1'), this.#framedBreaks);
    }
    if (said.length > 0 && this.#plainBreaks.length > 0) return this.#broken(this.#plainBreaks);
    this.#held = '';
    this.#pieces = [];
    return said.length === 0 ? { reasoning: '', content: said } : this.#said(said);
  }

  /** An answer without framing. */
  #said(content: Uint8Array): Split {
    this.phase = 'answer';
    return { reasoning: '', content };
  }

  /** Words behind a mark, and the marks that may break them off. */
  #answered(rest: string, breaks: readonly Break[]): Split {
    const bytes = Buffer.from(rest, 'latin1');
    const gap = this.#gap ? GAP : NO_BYTES;
    this.#gap = false;
    this.#held = rest;
    this.#pieces = [{ raw: bytes, shown: bytes }];
    const { reasoning, content } = breaks.length === 0 ? this.#said(bytes) : this.#broken(breaks);
    return { reasoning, content: Buffer.concat([gap, content]) };
  }

  /** The words that are held may be broken off by one of these marks. */
  #broken(breaks: readonly Break[]): Split {
    this.phase = 'framed';
    this.#breaks = breaks;
    return this.#framed();
  }

  /** Takes the bytes that cannot be of a mark. */
  #framed(): Split {
    const marks = this.#breaks.map(({ mark }) => mark);
    const at = firstMarkIn(this.#held, marks);
    const content = this.#take(at >= 0 ? at : markBegunAt(this.#held, marks));
    const found = at < 0 ? undefined : this.#breaks.find(({ mark }) => this.#held.startsWith(mark));
    if (found === undefined) return { reasoning: '', content };
    const rest = this.#held.slice(found.mark.length);
    this.marks += 1;
    this.phase = found.phase;
    this.#held = '';
    this.#pieces = [];
    if (found.phase === 'ended') return { reasoning: '', content };
    if (found.phase === 'between') this.#gap = true;
    const more = found.phase === 'between' ? this.#behind(rest) : this.#think(rest);
    return { reasoning: more.reasoning, content: Buffer.concat([content, more.content]) };
  }

  /** The shown bytes of so much of what is held. */
  #take(length: number): Uint8Array {
    const out: Uint8Array[] = [];
    let taken = 0;
    while (taken < length) {
      const { raw, shown } = this.#pieces[0]!;
      const take = Math.min(raw.length, length - taken);
      // A control token has no text to show, and ends where a mark begins.
      if (shown.length > 0) out.push(take === raw.length ? shown : raw.subarray(0, take));
      if (take === raw.length) this.#pieces.shift();
      else
        this.#pieces[0] = { raw: raw.subarray(take), shown: shown.length > 0 ? raw.subarray(take) : shown };
      taken += take;
    }
    this.#held = this.#held.slice(length);
    return Buffer.concat(out);
  }

  /** Behind a mark that ends a block, or words before the answer. */
  #behind(rest: string): Split {
    const bytes = Buffer.from(rest, 'latin1');
    this.#waiting = 0;
    this.#held = rest;
    this.#pieces = [{ raw: bytes, shown: bytes }];
    return rest === '' ? { reasoning: '', content: NO_BYTES } : this.#open();
  }

  #think(text: string): Split {
    this.#held += text;
    if (!this.#wrote) this.#held = this.#held.trimStart();
    const end = this.#held.indexOf(this.#end);
    const call = firstMarkIn(this.#held, this.#calls);
    if (call >= 0 && (end < 0 || call < end)) {
      const reasoning = this.#decode(this.#held.slice(0, call).trimEnd());
      const { content } = this.#said(Buffer.from(this.#held.slice(call), 'latin1'));
      return { reasoning, content };
    }
    if (end >= 0) {
      const reasoning = this.#decode(this.#held.slice(0, end).trimEnd());
      const rest = this.#held.slice(end + this.#end.length);
      this.phase = 'between';
      this.marks += 1;
      const more = this.#behind(rest);
      return { reasoning: reasoning + more.reasoning, content: more.content };
    }
    const certain = this.#held.slice(0, markBegunAt(this.#held, [this.#end, ...this.#calls]));
    const blanks = certain.length - certain.trimEnd().length;
    const take = certain.length - (blanks <= MAX_BLANKS ? blanks : 0);
    this.#held = this.#held.slice(take);
    return { reasoning: this.#decode(certain.slice(0, take)), content: NO_BYTES };
  }

  #isMark(text: string): boolean {
    return this.#end.includes(text) || this.#calls.some((call) => call.includes(text));
  }

  #decode(text: string): string {
    this.#wrote ||= text !== '';
    return this.#decoder.decode(Buffer.from(text, 'latin1'), { stream: true });
  }
}

/**
 * The constraint of an answer that reasoning may precede. `start` makes one that has read no token; `within`
 * one that waits for a call, which may begin inside the block and ends it.
 */
export function afterReasoning(
  reader: ReasoningReader,
  { start, within }: { readonly start: () => Constraint; readonly within: () => Constraint | null },
  vocabulary: ConstraintVocabulary,
): Constraint & { moved(): void } {
  let inner = start();
  let inside = within();
  let marks = reader.marks;
  /** The text since the last mark is one that the grammar takes. */
  let alive = true;
  const innerAllows = (tokens: readonly number[]): boolean[] =>
    inner.filter()?.(tokens) ?? tokens.map(() => true);
  return {
    get active() {
      return reader.phase !== 'thinking' && inner.active;
    },
    filter() {
      if (reader.answering) return inner.filter();
      if (reader.phase === 'thinking') {
        const lets = inside?.filter();
        return (tokens) => {
          const allowed = lets?.(tokens);
          return tokens.map(
            (token, i) =>
              allowed?.[i] !== false &&
              !vocabulary.isEnd(token) &&
              !reader.overshoots(vocabulary.piece(token)),
          );
        };
      }
      return (tokens) => {
        const allowed = alive ? innerAllows(tokens) : tokens.map(() => false);
        return tokens.map((token, i) => {
          if (allowed[i] === true) return true;
          const piece = vocabulary.piece(token);
          return !vocabulary.isEnd(token) && (reader.continues(piece) || reader.isFraming(piece));
        });
      };
    },
    accept(token) {
      if (reader.phase === 'thinking') {
        inside?.accept(token);
        return;
      }
      if (!reader.answering) {
        const allowed = innerAllows([token])[0] === true;
        if (!allowed && reader.isFraming(vocabulary.piece(token))) return;
        alive &&= allowed;
      }
      if (alive) inner.accept(token);
    },
    /** To be called once the reader has read what was accepted. */
    moved() {
      if (inside?.active === true && reader.phase === 'answer') {
        // A call has begun inside the block: its grammar has read the text from the call's mark on.
        inner.free();
        inner = inside;
        inside = null;
        alive = true;
      }
      if (marks === reader.marks) return;
      marks = reader.marks;
      inner.free();
      inner = start();
      alive = true;
    },
    free() {
      inner.free();
      inside?.free();
    },
  };
}

function latin1(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1');
}

function shownOf(pieces: readonly Piece[]): Buffer {
  return Buffer.concat(pieces.map(({ shown }) => shown));
}

function blanksOf(bytes: Uint8Array): number {
  const at = bytes.findIndex((byte) => byte > 32);
  return at < 0 ? bytes.length : at;
}

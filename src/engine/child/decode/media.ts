// Images in a prompt: runs of vectors in the place of tokens. A decode has tokens or vectors, so a run is
// read in steps of its own, between those of the other sequences. Its vectors are computed beside the event
// loop, for one run at a time, the sequence that came first; until they are there the others go on.

import type { DecodeContext, Sequence } from './batch.ts';
import { positionAt, spanAt, type MediaSpan } from './media-span.ts';

/** The run that a sequence reads next; undefined where its next one is a token. */
function nextSpan({ request, slot }: Sequence): MediaSpan | undefined {
  return spanAt(request.job.media, slot.tokens.length);
}

interface Vectors {
  readonly span: MediaSpan;
  readonly rows: Float32Array;
}

export class MediaReader {
  readonly #context: DecodeContext;
  readonly #wake: () => void;
  readonly #failed: (sequence: Sequence, error: unknown) => void;
  /** Vectors that are not yet read. */
  readonly #ready = new WeakMap<Sequence, Vectors>();
  #encoding = false;
  /** The last step read vectors: tokens are next, where there are any. */
  #lastTurn = false;

  constructor(
    context: DecodeContext,
    { wake, failed }: { wake: () => void; failed: (sequence: Sequence, error: unknown) => void },
  ) {
    this.#context = context;
    this.#wake = wake;
    this.#failed = failed;
  }

  /** Whether a sequence has to wait for vectors. */
  waits(sequence: Sequence): boolean {
    const span = nextSpan(sequence);
    return span !== undefined && this.#encoding && this.#rowsOf(sequence, span) === null;
  }

  /** Starts the computation for the sequence that came first, unless one is under way. */
  start(live: readonly Sequence[]): void {
    if (this.#encoding) return;
    const [first] = live
      .filter((each) => !each.request.paused && !each.request.cancelled)
      .filter((each) => nextSpan(each) !== undefined && this.#rowsOf(each, nextSpan(each)!) === null)
      .toSorted((a, b) => a.order - b.order);
    if (first === undefined) return;
    this.#encoding = true;
    void this.#encode(first, nextSpan(first)!);
  }

  /** The sequence whose vectors this step reads; null: the step is for tokens. */
  turn(live: readonly Sequence[]): { readonly sequence: Sequence; readonly rows: Float32Array } | null {
    const free = live.filter((each) => !each.request.paused);
    const tokensWait = free.some((each) => nextSpan(each) === undefined);
    const skipped = this.#lastTurn && tokensWait;
    this.#lastTurn = false;
    if (skipped) return null;
    for (const sequence of free.toSorted((a, b) => a.turn - b.turn || a.order - b.order)) {
      const span = nextSpan(sequence);
      const rows = span === undefined ? null : this.#rowsOf(sequence, span);
      if (rows === null) continue;
      this.#lastTurn = true;
      return { sequence, rows };
    }
    return null;
  }

  /** Fills the native batch with at most `room` vectors of the sequence, or a whole run; returns how many. */
  fill(sequence: Sequence, rows: Float32Array, room: number): number {
    const span = nextSpan(sequence)!;
    const { slot, tokens, request } = sequence;
    const from = slot.tokens.length;
    const width = rows.length / span.length;
    const read = from - span.start;
    const left = span.length - read;
    const count = span.whole === true ? left : Math.max(1, Math.min(left, room, this.#context.batchTokens));
    const begin = read * width;
    const last = from + count === tokens.length;
    this.#context.addRows(rows.subarray(begin, begin + count * width), {
      sequence: slot.id,
      position: positionAt(request.job.media, from),
      last,
      columns: span.columns,
      read,
      whole: span.whole,
    });
    sequence.batched = count;
    sequence.output = last ? count - 1 : -1;
    return count;
  }

  /** Lets go of vectors that are read. */
  read(sequence: Sequence): void {
    const held = this.#ready.get(sequence);
    if (held !== undefined && held.span !== nextSpan(sequence)) this.#ready.delete(sequence);
  }

  #rowsOf(sequence: Sequence, span: MediaSpan): Float32Array | null {
    const held = this.#ready.get(sequence);
    return held?.span === span ? held.rows : null;
  }

  async #encode(sequence: Sequence, span: MediaSpan): Promise<void> {
    try {
      const rows = await span.encode();
      this.#ready.set(sequence, { span, rows });
    } catch (error) {
      if (!sequence.request.cancelled) this.#failed(sequence, error);
    } finally {
      this.#encoding = false;
      this.#wake();
    }
  }
}

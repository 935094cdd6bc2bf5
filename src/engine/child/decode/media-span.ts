// Where in a prompt an image has its vectors, and which positions these and the tokens after them have. Of
// most models it is one a vector. Where rotary positions have several components (M-RoPE), all vectors of an
// image stand at one moment, in rows and columns, and the text goes on after the longer of the two.

/** A run of vectors in a prompt, where its tokens are negative. */
export interface MediaSpan {
  readonly start: number;
  readonly length: number;
  /** Vectors of a row, where they have rows and columns: the last row is as long as the first. */
  readonly columns?: number | undefined;
  /** Every vector attends to all of the run, so that one decode has to have it whole. */
  readonly whole?: boolean | undefined;
  /** Its vectors, row by row. */
  encode(): Promise<Float32Array>;
}

export type Spans = readonly MediaSpan[] | undefined;

/** The run that place `at` is in; undefined where a token is there. */
export function spanAt(media: Spans, at: number): MediaSpan | undefined {
  return media?.find(({ start, length }) => start <= at && at < start + length);
}

/** Tokens from place `at` to the next run. */
export function tokensToSpan(media: Spans, at: number): number {
  const next = media?.find(({ start }) => start >= at);
  return next === undefined ? Infinity : next.start - at;
}

/** How many positions a run takes; never more than it has vectors. */
export function positionsOf({ length, columns }: Pick<MediaSpan, 'length' | 'columns'>): number {
  return columns === undefined ? length : Math.max(columns, length / columns);
}

/** The position of what stands at place `at` of a prompt; within rows and columns that of the whole run. */
export function positionAt(media: Spans, at: number): number {
  let position = at;
  for (const span of media ?? []) {
    if (span.start >= at) break;
    if (span.columns === undefined) continue;
    const read = Math.min(at - span.start, span.length);
    position -= read === span.length ? read - positionsOf(span) : read;
  }
  return position;
}

/** The last place up to `at` where no run is cut: keys and values are kept and forgotten run by run. */
export function wholeRuns(media: Spans, at: number): number {
  return spanAt(media, at)?.start ?? at;
}

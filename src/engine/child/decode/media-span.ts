// Where in a prompt an image has its vectors.

/** A run of vectors in a prompt, where its tokens are negative. */
export interface MediaSpan {
  readonly start: number;
  readonly length: number;
  /** Its vectors, row by row. */
  encode(): Promise<Float32Array>;
}

type Spans = readonly MediaSpan[] | undefined;

/** The run that position `at` is in; undefined where a token is there. */
export function spanAt(media: Spans, at: number): MediaSpan | undefined {
  return media?.find(({ start, length }) => start <= at && at < start + length);
}

/** Tokens from position `at` to the next run. */
export function tokensToSpan(media: Spans, at: number): number {
  const next = media?.find(({ start }) => start >= at);
  return next === undefined ? Infinity : next.start - at;
}

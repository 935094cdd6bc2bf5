// Running means of what a decode costs: a fixed part, and a part per prompt token. They choose how much of a
// prompt a step reads beside running streams, and whether a decode runs beside the event loop.

const DEFAULT_ASYNC_ABOVE_MS = 40;

export class StepCost {
  readonly #stallMs: number;
  readonly #asyncAboveMs: number;
  #msPerStep = 10;
  #msPerToken = 1;

  constructor(stallMs: number, asyncAboveMs = DEFAULT_ASYNC_ABOVE_MS) {
    this.#stallMs = stallMs;
    this.#asyncAboveMs = asyncAboveMs;
  }

  /** Records the time of a step with its prompt tokens and writers. */
  record(prompt: number, writers: number, ms: number): void {
    // A step without prompt tokens measures the fixed part: follows the best recent time, since a
    // busy moment says little.
    if (prompt === 0) this.#msPerStep = Math.min(ms, this.#msPerStep * 1.05 + 0.01);
    if (prompt < 16) return;
    const perToken = Math.max(ms - (writers > 0 ? this.#msPerStep : 0), 0.001) / prompt;
    this.#msPerToken += 0.3 * (perToken - this.#msPerToken);
  }

  /**
   * Whether a step with so many prompt tokens is expected to take so long that it should
   * run beside the event loop.
   */
  isLong(prompt: number): boolean {
    return this.#msPerStep + prompt * this.#msPerToken > this.#asyncAboveMs;
  }

  /**
   * Prompt tokens that may delay that many writers. More readers than writers may delay them for longer
   * in proportion, if all have then read their prompts: a burst of requests decodes together from there
   * on, not a few steps apart.
   */
  promptTokens(writers: number, readers: number, remaining: number): number {
    if (writers === 0) return Infinity;
    const polite = Math.max(16, Math.floor(this.#stallMs / this.#msPerToken));
    return readers > writers && remaining <= (polite * readers) / writers ? remaining : polite;
  }
}

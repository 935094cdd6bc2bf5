// Guesses the next tokens of a text from the text itself (prompt lookup): where its last tokens stood before,
// it may go on as it did there. Such a guess is decoded in one batch with the token before it, and every
// token of it that the model would have written anyway costs less than a step of its own.

/** Tokens that must agree before a place is taken for the source of a copy. */
const GRAM = 3;
/** Lengths of guesses: the fewer lengths, the sooner what each costs is known. */
const LENGTHS = [4, 8, 16, 32, 63] as const;
/** Agreement beyond this changes no guess. */
const LONGEST_RUN = 63;

/** Follows one text and finds what it copies. */
export class PromptLookup {
  /** By the hash of three tokens, the place after their last occurrence. */
  readonly #places = new Map<number, number>();
  #read = 0;
  /** Place of the token that a copy would write next; −1 without a source. */
  #source = -1;
  #run = 0;

  /** Reads what is new; `tokens` only ever grow. Returns how many of the last ones agree with the source. */
  follow(tokens: readonly number[]): number {
    for (; this.#read < tokens.length; this.#read += 1) {
      const goesOn = this.#source >= 0 && tokens[this.#source] === tokens[this.#read];
      this.#source = goesOn ? this.#source + 1 : -1;
      this.#run = goesOn ? Math.min(this.#run + 1, LONGEST_RUN) : 0;
      const end = this.#read + 1;
      if (end < GRAM) continue;
      const key = hashOf(tokens, end);
      const earlier = this.#places.get(key);
      if (!goesOn && earlier !== undefined) this.#take(tokens, earlier, end);
      this.#places.set(key, end);
    }
    return this.#run;
  }

  /** The tokens a copy would write next. Of a text that repeats itself, more than it has written. */
  guess(tokens: readonly number[], length: number): number[] {
    const guessed: number[] = [];
    for (let i = 0; i < length; i += 1) {
      const at = this.#source + i;
      const token = at < tokens.length ? tokens[at] : guessed[at - tokens.length];
      if (this.#source < 0 || token === undefined) break;
      guessed.push(token);
    }
    return guessed;
  }

  #take(tokens: readonly number[], earlier: number, end: number): void {
    let run = 0;
    while (run < LONGEST_RUN && run < earlier && tokens[earlier - 1 - run] === tokens[end - 1 - run])
      run += 1;
    // Fewer: another three tokens of the same hash.
    if (run < GRAM) return;
    this.#source = earlier;
    this.#run = run;
  }
}

function hashOf(tokens: readonly number[], end: number): number {
  let hash = 0;
  for (let i = end - GRAM; i < end; i += 1) hash = Math.imul(hash ^ tokens[i]!, 0x9e3779b1) ^ (hash >>> 15);
  return hash;
}

/** Running estimates for one length. */
interface Experience {
  /** Best recent time of a step with a guess of this length; NaN before the second one. */
  ms: number;
  steps: number;
  /** Part of the guessed tokens that the model writes. */
  accepted: number;
}

/** Part of all decoding that guesses may have lost. */
const MAX_LOSS = 0.01;
/** Steps of one token that guesses may lose at first. */
const CREDIT = 64;
/** Decisions until a length that does not pay is tried again. */
const RETRY_AFTER = 512;

/**
 * Decides whether a guess pays, from what steps of this context have taken: on CPUs a batch of eight can cost
 * as much as seven steps, or as two. Guesses stop while they have cost more than a hundredth of all decoding.
 */
export class DraftPolicy {
  readonly #experience = new Map<number, Experience>();
  #alone = NaN;
  #spent = 0;
  #balance = 0;
  #decisions = 0;

  /** Tokens to guess where the last `run` tokens agree with a source; at most `room`. 0: none. */
  length(run: number, room: number): number {
    if (Number.isNaN(this.#alone)) return 0;
    if (this.#balance + this.#spent * MAX_LOSS + CREDIT * this.#alone < 0) return 0;
    const fitting = LENGTHS.filter((length) => length <= run && length <= room);
    if (fitting.length === 0) return 0;
    this.#decisions += 1;
    if (this.#decisions % RETRY_AFTER === 0) return fitting.at(-1) ?? 0;
    const gains = fitting.map((length) => this.#gain(length));
    const best = Math.max(...gains);
    return best > 1.05 ? (fitting[gains.indexOf(best)] ?? 0) : 0;
  }

  /** A step of one token and no guess. */
  alone(ms: number): void {
    this.#spent += ms;
    // The best recent time: a slow moment of the machine is forgotten, a lasting change is followed.
    this.#alone = Number.isNaN(this.#alone) ? ms : Math.min(ms, this.#alone * 1.02);
  }

  /** A step with a guess of `length` tokens, of which the model wrote `accepted`. */
  guessed(length: number, accepted: number, ms: number): void {
    this.#spent += ms;
    this.#balance = Math.min(this.#balance + (accepted + 1) * this.#alone - ms, CREDIT * this.#alone);
    const found = this.#of(length);
    // The first step of a length also builds its graph.
    if (found.steps === 1) found.ms = ms;
    else if (found.steps > 1) found.ms = Math.min(ms, found.ms * 1.02);
    found.steps += 1;
    found.accepted += 0.2 * (accepted / length - found.accepted);
  }

  /** Tokens per time against steps of one token. Hopeful until a length was measured. */
  #gain(length: number): number {
    const { ms, accepted } = this.#of(length);
    const cost = Number.isNaN(ms) ? this.#alone * (1 + length / 2) : ms;
    return ((1 + accepted * length) * this.#alone) / cost;
  }

  #of(length: number): Experience {
    const found = this.#experience.get(length) ?? { ms: NaN, steps: 0, accepted: 0.9 };
    this.#experience.set(length, found);
    return found;
  }
}

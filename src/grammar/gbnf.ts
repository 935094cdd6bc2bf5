// Writing GBNF, llama.cpp's grammar notation (grammars/README.md), without surprises: literals and
// classes are quoted, repetitions exact. llama.cpp takes a count over 2000 for "unbounded" and refuses
// products of counts, so large counts are composed of smaller ones here. The builder bounds rules,
// characters, the elements llama.cpp makes of the counts, and the work for all of it, used or discarded;
// beyond a bound it throws GrammarTooLarge.

export class GrammarTooLarge extends Error {
  override readonly name = 'GrammarTooLarge';
}

/** An expression in GBNF text, safe to be a member of a sequence. */
export type Expression = string;

/** Counts work; throws when there has been too much of it. */
export type Spend = (steps: number) => void;

export interface GrammarBuilder {
  /** Counts steps (about a character written or compared each) towards `maxSteps`. */
  readonly spend: Spend;
  /** Adds a rule and gives its name. The same body under the same hint is one rule. */
  rule(hint: string, body: Expression): Expression;
  /** A name for a rule whose body comes later by `define`; for recursion. */
  declare(hint: string): Expression;
  define(name: Expression, body: Expression): void;
  /**
   * Takes back the rules that `work` has added when it throws; the steps it took stay counted. `share`: the
   * part of the remaining steps that it may take.
   */
  attempt<T>(work: () => T, share?: number): T;
  /** Like `attempt`, and leaves a part of every bound for what is written afterwards. Not within itself. */
  sparing<T>(work: () => T): T;
  text(): string;
}

const MAX_RULES = 20_000;
const MAX_CHARACTERS = 400_000;
/** Elements after llama.cpp has written the repetitions out: `x{0,99}` is 99 optional ones. */
const MAX_ELEMENTS = 400_000;
const MAX_STEPS = 1_500_000;

/** The room `sparing` leaves: enough to write 128 calls around the schemas of their arguments. */
const SPARED = { rules: 1000, characters: 60_000, elements: 10_000, steps: 150_000 };

/** The part of the remaining steps that `work` of `sparing` may take, so that the next one has some too. */
const SHARE = 0.75;

export function createGrammarBuilder(): GrammarBuilder {
  return new Builder();
}

class Builder implements GrammarBuilder {
  readonly #rules = new Map<string, string | null>();
  /** Names of rules in the order they were added. */
  readonly #order: string[] = [];
  readonly #byBody = new Map<string, string>();
  #characters = 0;
  #elements = 0;
  #steps = 0;
  #suffix = 0;
  #spared = false;
  #maxSteps = MAX_STEPS;

  readonly spend = (more: number): void => {
    if (this.#steps + more > this.#maxSteps) throw new GrammarTooLarge('the grammar takes too much work');
    this.#steps += more;
  };

  rule(hint: string, body: Expression): Expression {
    this.spend(8 + body.length);
    const known = this.#byBody.get(body);
    if (known !== undefined) return known;
    const key = this.#name(hint);
    this.#order.push(key);
    this.#put(key, body);
    this.#byBody.set(body, key);
    return key;
  }

  declare(hint: string): Expression {
    const key = this.#name(hint);
    this.#order.push(key);
    this.#rules.set(key, null);
    this.#assertFits();
    return key;
  }

  define(key: Expression, body: Expression): void {
    this.#put(key, body);
  }

  attempt<T>(work: () => T, share = 1): T {
    const [added, characters, elements] = [this.#order.length, this.#characters, this.#elements];
    const maxSteps = this.#maxSteps;
    this.#maxSteps = this.#steps + (maxSteps - this.#steps) * share;
    try {
      return work();
    } catch (error) {
      for (const key of this.#order.splice(added)) {
        const body = this.#rules.get(key);
        if (typeof body === 'string' && this.#byBody.get(body) === key) this.#byBody.delete(body);
        this.#rules.delete(key);
      }
      [this.#characters, this.#elements] = [characters, elements];
      throw error;
    } finally {
      this.#maxSteps = maxSteps;
    }
  }

  sparing<T>(work: () => T): T {
    const maxSteps = this.#maxSteps;
    this.#maxSteps = Math.max(this.#steps, MAX_STEPS - SPARED.steps);
    this.#spared = true;
    try {
      return this.attempt(work, SHARE);
    } finally {
      this.#maxSteps = maxSteps;
      this.#spared = false;
    }
  }

  text(): string {
    let out = '';
    for (const [key, body] of this.#rules) {
      if (body === null) throw new Error(`rule ${key} was declared and never defined`);
      out += `${key} ::= ${body}\n`;
    }
    return out;
  }

  #name(hint: string): string {
    const stem =
      hint
        .slice(0, 64)
        .replace(/[^a-zA-Z0-9]+/g, '-')
        .replace(/^-+|-+$/g, '')
        .slice(0, 24) || 'r';
    if (!this.#rules.has(stem)) return stem;
    // Never decreases: a name that is already taken costs one try, not one per rule.
    this.#suffix = Math.max(this.#suffix, this.#rules.size);
    while (this.#rules.has(`${stem}-${this.#suffix}`)) this.#suffix += 1;
    return `${stem}-${this.#suffix}`;
  }

  #put(key: string, body: string): void {
    this.#characters += key.length + body.length + 6;
    this.#elements += written(body);
    this.#rules.set(key, body);
    this.#assertFits();
  }

  #assertFits(): void {
    const spared = this.#spared ? SPARED : { rules: 0, characters: 0, elements: 0 };
    if (
      this.#rules.size > MAX_RULES - spared.rules ||
      this.#characters > MAX_CHARACTERS - spared.characters ||
      this.#elements > MAX_ELEMENTS - spared.elements
    )
      throw new GrammarTooLarge('the grammar is too large');
  }
}

/** Elements that llama.cpp adds for the counts in a body; braces in literals and classes are text. */
function written(body: string): number {
  if (!body.includes('{')) return 0;
  let sum = 0;
  for (const [, min, max] of body.matchAll(/"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|\{(\d+)(?:,(\d*))?\}/g))
    sum += Math.max(Number(min ?? 0), Number(max ?? 0));
  return sum;
}

/** The text itself. */
export function terminal(text: string): Expression {
  return `"${text.replaceAll(/[^ !#-[\]-~]/gu, (character) => quoted(character, '"'))}"`;
}

/** The text as a part of a sequence: empty for an empty one. */
export function verbatim(text: string): Expression {
  return text === '' ? '' : terminal(text);
}

/** The parts of a sequence, without the empty ones. */
export function joined(...parts: readonly Expression[]): Expression {
  return parts.filter((part) => part !== '').join(' ');
}

/** One character of some ranges of code points; ranges must not be empty. */
export function characterClass(ranges: readonly (readonly [number, number])[]): Expression {
  if (ranges.length === 0) throw new Error('an empty class matches nothing');
  return `[${ranges.map(([from, to]) => (from === to ? classCharacter(from) : `${classCharacter(from)}-${classCharacter(to)}`)).join('')}]`;
}

function classCharacter(code: number): string {
  return quoted(String.fromCodePoint(code), ']');
}

function quoted(character: string, close: string): string {
  const code = character.codePointAt(0) ?? 0;
  if (character === '\\') return '\\\\';
  if (character === '"' && close === '"') return '\\"';
  if (
    code >= 0x20 &&
    code < 0x7f &&
    (close === '"' || /[a-zA-Z0-9 _.,:;!#$%&'()*+/<=>?@`{|}~"]/.test(character))
  )
    return character;
  if (code < 0x100) return `\\x${code.toString(16).padStart(2, '0').toUpperCase()}`;
  if (code < 0x10000) return `\\u${code.toString(16).padStart(4, '0').toUpperCase()}`;
  return `\\U${code.toString(16).padStart(8, '0').toUpperCase()}`;
}

/** Alternatives, in parentheses where needed. */
export function alternatives(options: readonly Expression[]): Expression {
  return options.length === 1 ? (options[0] ?? '""') : `(${options.join(' | ')})`;
}

const BLOCK = 100;

/**
 * `item` from `min` to `max` times (Infinity: no limit); `item` must be a rule name, class or literal and
 * match at least one character. Counts over `block` go through rules of `block` items each.
 */
export function repeat(builder: GrammarBuilder, item: Expression, min: number, max: number): Expression {
  if (max < min) throw new Error('max is under min');
  if (max === 0) return '""';
  const atom = /^[\w-]+$|^\[(?:[^\]\\]|\\.)*\]$|^"(?:[^"\\]|\\.)*"$/.test(item)
    ? item
    : builder.rule('item', item);
  if (max === Infinity) {
    if (min <= 1) return min === 0 ? `${atom}*` : `${atom}+`;
    if (min <= BLOCK) return `${atom}{${min},}`;
    return `${exactly(builder, atom, min)} ${atom}*`;
  }
  if (min === max) return exactly(builder, atom, min);
  if (min > 0) return `${exactly(builder, atom, min)} ${repeat(builder, atom, 0, max - min)}`;
  if (max <= BLOCK) return max === 1 ? `${atom}?` : `${atom}{0,${max}}`;
  // 0…max = fewer than q whole blocks and a part of one, or q blocks and a part of the remainder.
  const whole = builder.rule('block', `${atom}{${BLOCK}}`);
  const q = Math.floor(max / BLOCK);
  const rest = max - q * BLOCK;
  const fewer = `${repeat(builder, whole, 0, q - 1)} ${atom}{0,${BLOCK - 1}}`;
  const full = `${exactly(builder, whole, q)}${rest > 0 ? ` ${repeat(builder, atom, 0, rest)}` : ''}`;
  return builder.rule('upto', `${fewer} | ${full}`);
}

function exactly(builder: GrammarBuilder, atom: Expression, count: number): Expression {
  if (count <= BLOCK) return count === 1 ? atom : `${atom}{${count}}`;
  const whole = builder.rule('block', `${atom}{${BLOCK}}`);
  const rest = count % BLOCK;
  return `${exactly(builder, whole, Math.floor(count / BLOCK))}${rest > 0 ? ` ${exactly(builder, atom, rest)}` : ''}`;
}

// Regular languages over code points as deterministic automata, so that a grammar made of one has a single
// reading of every text: llama.cpp keeps a stack for each reading and steps them all for every token.
// Expressions become an NFA (Thompson), the NFA a DFA by subset construction; the product intersects several
// languages and a range of lengths. All work is counted and bounded: refuses by TooComplex.

import type { Spend } from './gbnf.ts';

/** From and to, both included; code points. */
export type Range = readonly [number, number];

export type Regular =
  | { readonly kind: 'character'; readonly ranges: readonly Range[] }
  | { readonly kind: 'sequence'; readonly parts: readonly Regular[] }
  | { readonly kind: 'either'; readonly parts: readonly Regular[] }
  | { readonly kind: 'repeat'; readonly part: Regular; readonly min: number; readonly max: number };

export interface State {
  /** The text may end here. */
  readonly accepts: boolean;
  /** Transitions, each target once; the ranges are disjoint, and every target can still accept. */
  readonly steps: readonly { readonly target: number; readonly ranges: readonly Range[] }[];
}
/** The first state is the start. */
export type Automaton = readonly State[];

export interface Lengths {
  readonly min: number;
  readonly max: number;
}

export class TooComplex extends Error {
  override readonly name = 'TooComplex';
}

const MAX_POSITIONS = 6000;
const MAX_STATES = 2000;
const MAX_STEPS = 600_000;
/** The lowest value to which `max` is reduced when its count needs too many states. */
const SHORTEST_LIMIT = 64;

/**
 * The intersection of all `languages`, of a length (in code points) within `lengths`, less the texts of
 * `without`; null when it is empty. Where counting up to `max` takes too many states, a smaller one is
 * counted to: part of the language.
 */
export function automatonOf(
  languages: readonly Regular[],
  lengths: Lengths,
  spend: Spend,
  without: readonly Regular[] = [],
): Automaton | null {
  let steps = 0;
  const count: Spend = (more) => {
    steps += more;
    spend(more);
    if (steps > MAX_STEPS) throw new TooComplex('it takes too much work');
  };
  const nfa = createNfa(count);
  const starts = languages.map((language) => nfa.add(language));
  const excluded = without.map((language) => nfa.add(language));
  const symbols = symbolsOf(nfa.classes, count);
  const tables = [
    ...starts.map((start) => determine(nfa, start, symbols, count)),
    ...excluded.map((start) => complementOf(determine(nfa, start, symbols, count), symbols.length)),
  ];
  const { min, max } = lengths;
  const product = (limit: number): Table =>
    tables.length === 1 && tables[0] !== undefined && min === 0 && limit === Infinity
      ? tables[0]
      : intersect(tables, { min, max: limit }, symbols.length, count);
  const [only] = tables;
  // All characters are of one set: its repetitions are written as counts.
  const counted = tables.length === 1 && only?.accepts.length === 1 && only.accepts[0] === true;
  if (counted) return trimmed(only, symbols, count);
  let table: Table;
  try {
    table = product(max);
  } catch (error) {
    const most =
      Math.floor(MAX_STATES / (tables.reduce((all, each) => all * each.accepts.length, 1) || 1)) - 1;
    if (
      !(error instanceof TooComplex) ||
      max === Infinity ||
      most >= max ||
      most < Math.max(min, SHORTEST_LIMIT)
    )
      throw error;
    table = product(most);
  }
  return trimmed(table, symbols, count);
}

interface Nfa {
  /** Adds a language and gives the position it starts at. */
  add(language: Regular): number;
  readonly classes: readonly (readonly Range[])[];
  /** By position: its class; −1: an empty transition, −2: accepts. */
  readonly kinds: readonly number[];
  readonly next: readonly (readonly number[])[];
}

function createNfa(count: Spend): Nfa {
  const classes: (readonly Range[])[] = [];
  const known = new Map<string, number>();
  const kinds: number[] = [];
  const next: number[][] = [];
  const position = (kind: number, targets: number[]): number => {
    if (kinds.length >= MAX_POSITIONS) throw new TooComplex('it is too large');
    count(2);
    kinds.push(kind);
    next.push(targets);
    return kinds.length - 1;
  };
  /** Built from the end: `after` is the position that follows. */
  const build = (language: Regular, after: number): number => {
    switch (language.kind) {
      case 'character': {
        const key = language.ranges.join(' ');
        let kind = known.get(key);
        if (kind === undefined) {
          kind = classes.push(language.ranges) - 1;
          known.set(key, kind);
        }
        return position(kind, [after]);
      }
      case 'sequence':
        return language.parts.reduceRight((at, part) => build(part, at), after);
      case 'either':
        return position(
          -1,
          language.parts.map((part) => build(part, after)),
        );
      case 'repeat':
    }
    const { part, min, max } = language;
    let at = after;
    if (max === Infinity) {
      const targets = [after];
      at = position(-1, targets);
      targets.push(build(part, at));
    } else for (let i = min; i < max; i += 1) at = position(-1, [build(part, at), after]);
    for (let i = 0; i < min; i += 1) at = build(part, at);
    return at;
  };
  return { add: (language) => build(language, position(-2, [])), classes, kinds, next };
}

/** Characters that no class tells apart, and the classes each such set belongs to. */
interface Symbol {
  readonly ranges: readonly Range[];
  readonly classes: readonly number[];
}

function symbolsOf(classes: readonly (readonly Range[])[], count: Spend): readonly Symbol[] {
  const bounds = [
    ...new Set(classes.flatMap((ranges) => ranges.flatMap(([from, to]) => [from, to + 1]))),
  ].sort((a, b) => a - b);
  count(4 * bounds.length);
  const index = new Map(bounds.map((bound, i) => [bound, i]));
  const members: number[][] = bounds.map(() => []);
  for (const [kind, ranges] of classes.entries()) {
    for (const [from, to] of ranges) {
      const end = index.get(to + 1) ?? 0;
      for (let i = index.get(from) ?? 0; i < end; i += 1) members[i]?.push(kind);
      count(end - (index.get(from) ?? 0));
    }
  }
  const symbols = new Map<string, { ranges: [number, number][]; classes: readonly number[] }>();
  for (const [i, from] of bounds.entries()) {
    const own = members[i] ?? [];
    const to = (bounds[i + 1] ?? 0) - 1;
    if (own.length === 0) continue;
    const key = own.join();
    const found = symbols.get(key);
    const last = found?.ranges.at(-1);
    if (found === undefined) symbols.set(key, { ranges: [[from, to]], classes: own });
    else if (last !== undefined && last[1] + 1 === from) last[1] = to;
    else found.ranges.push([from, to]);
  }
  return [...symbols.values()];
}

/** States by number, 0 the start; by symbol the next state, −1 for none. */
interface Table {
  readonly accepts: boolean[];
  readonly next: (readonly number[])[];
}

function determine(nfa: Nfa, start: number, symbols: readonly Symbol[], count: Spend): Table {
  const ofClass: number[][] = nfa.classes.map(() => []);
  for (const [i, { classes }] of symbols.entries()) for (const kind of classes) ofClass[kind]?.push(i);
  const stamps = new Int32Array(nfa.kinds.length);
  let stamp = 0;
  /** Positions that read a character or accept, reachable by empty transitions. */
  const closure = (from: readonly number[]): number[] => {
    stamp += 1;
    const found: number[] = [];
    const todo = [...from];
    for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
      count(1);
      if (stamps[at] === stamp) continue;
      stamps[at] = stamp;
      if (nfa.kinds[at] === -1) todo.push(...(nfa.next[at] ?? []));
      else found.push(at);
    }
    return found.sort((a, b) => a - b);
  };
  const sets: (readonly number[])[] = [];
  const bySet = new Map<string, number>();
  const byTargets = new Map<string, number>();
  const stateOf = (targets: readonly number[]): number => {
    const short = targets.join();
    const seen = byTargets.get(short);
    if (seen !== undefined) return seen;
    const set = closure(targets);
    const key = set.join();
    let state = bySet.get(key);
    if (state === undefined) {
      if (sets.length >= MAX_STATES) throw new TooComplex('it needs too many states');
      state = sets.push(set) - 1;
      bySet.set(key, state);
    }
    byTargets.set(short, state);
    return state;
  };
  stateOf([start]);
  const next: number[][] = [];
  for (let state = 0; state < sets.length; state += 1) {
    const targets: number[][] = symbols.map(() => []);
    count(symbols.length);
    for (const at of sets[state] ?? []) {
      const own = ofClass[nfa.kinds[at] ?? -1] ?? [];
      count(own.length);
      for (const symbol of own) targets[symbol]?.push(...(nfa.next[at] ?? []));
    }
    next.push(targets.map((each) => (each.length === 0 ? -1 : stateOf(each))));
  }
  return { accepts: sets.map((set) => set.some((at) => nfa.kinds[at] === -2)), next };
}

/** Every text over the symbols that the table does not accept; one more state is for where it has stopped. */
function complementOf({ accepts, next }: Table, symbols: number): Table {
  const stopped = accepts.length;
  return {
    accepts: [...accepts.map((each) => !each), true],
    next: [
      ...next.map((row) => row.map((target) => (target < 0 ? stopped : target))),
      Array.from({ length: symbols }, () => stopped),
    ],
  };
}

/** Runs all tables at once, with a count of characters. */
function intersect(tables: readonly Table[], { min, max }: Lengths, symbols: number, count: Spend): Table {
  const states: (readonly number[])[] = [];
  const known = new Map<string, number>();
  /** The count is the last element; it stops where more characters make no difference. */
  const stateOf = (state: readonly number[]): number => {
    const key = state.join();
    let found = known.get(key);
    if (found === undefined) {
      if (states.length >= MAX_STATES) throw new TooComplex('it needs too many states');
      found = states.push(state) - 1;
      known.set(key, found);
    }
    return found;
  };
  stateOf([...tables.map(() => 0), 0]);
  const accepts: boolean[] = [];
  const next: number[][] = [];
  for (let i = 0; i < states.length; i += 1) {
    const state = states[i] ?? [];
    const length = state.at(-1) ?? 0;
    accepts.push(
      length >= min && length <= max && tables.every((table, j) => table.accepts[state[j] ?? 0] === true),
    );
    const longer = max === Infinity ? Math.min(length + 1, min) : length + 1;
    const row: number[] = [];
    count(symbols * (tables.length + 1));
    for (let symbol = 0; symbol < symbols; symbol += 1) {
      const targets = tables.map((table, j) => table.next[state[j] ?? 0]?.[symbol] ?? -1);
      row.push(longer > max || targets.includes(-1) ? -1 : stateOf([...targets, longer]));
    }
    next.push(row);
  }
  return { accepts, next };
}

/** Only states from which the end can be reached. */
function trimmed({ accepts, next }: Table, symbols: readonly Symbol[], count: Spend): Automaton | null {
  const before: number[][] = accepts.map(() => []);
  for (const [state, row] of next.entries()) for (const target of new Set(row)) before[target]?.push(state);
  count(accepts.length * symbols.length);
  const alive = new Set<number>();
  const todo = accepts.flatMap((each, state) => (each ? [state] : []));
  for (let at = todo.pop(); at !== undefined; at = todo.pop()) {
    if (alive.has(at)) continue;
    alive.add(at);
    todo.push(...(before[at] ?? []));
  }
  if (!alive.has(0)) return null;
  const numbers = new Map<number, number>();
  for (const state of accepts.keys()) if (alive.has(state)) numbers.set(state, numbers.size);
  return [...numbers.keys()].map((state) => {
    const steps = new Map<number, Range[]>();
    for (const [symbol, old] of (next[state] ?? []).entries()) {
      const target = numbers.get(old);
      if (target === undefined) continue;
      const ranges = symbols[symbol]?.ranges ?? [];
      count(ranges.length);
      const found = steps.get(target);
      if (found === undefined) steps.set(target, [...ranges]);
      else found.push(...ranges);
    }
    return {
      accepts: accepts[state] === true,
      steps: [...steps].map(([target, ranges]) => ({ target, ranges })),
    };
  });
}

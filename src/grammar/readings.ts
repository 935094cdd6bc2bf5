// How many readings of the same text a grammar may leave open at once. llama.cpp keeps a stack for each and
// steps them all for every candidate token; alternatives that begin alike multiply with every level of
// nesting, so a schema of a few kilobytes can ask for millions. This bounds them from above, on the schema's
// structure: by the first character (its opening), by the names and constants of properties in their order,
// and by repetitions that can be cut in several ways. Recursive schemas by iteration: a width that does not
// settle grows without bound.

import type { Spend } from './gbnf.ts';
import { groupsByLabel } from './label-groups.ts';

/** How a value opens: values of two openings differ in their first character. */
export const OPENINGS = ['object', 'array', 'string', 'number', 'word'] as const;
export type Opening = (typeof OPENINGS)[number];

export type Reading =
  /** `width` readings of one opening, none of which goes on into others. */
  | { readonly kind: 'leaf'; readonly opening: Opening; readonly width: number }
  | { readonly kind: 'any'; readonly of: readonly Reading[] }
  /** `times`: ways to cut the same items. */
  | { readonly kind: 'array'; readonly items: readonly Reading[]; readonly times: number }
  | { readonly kind: 'object'; readonly members: readonly Member[]; readonly others: Reading | null }
  /** A reference; its target is set once it has been read. */
  | { readonly kind: 'reference'; target: Reading | null };

export interface Member {
  readonly name: string;
  readonly required: boolean;
  /** The values it may have, each in the text it is written as; null when they are not listed. */
  readonly constants: readonly string[] | null;
  readonly value: Reading;
}

type ObjectReading = Extract<Reading, { kind: 'object' }>;
type Widths = ReadonlyMap<Opening, number>;

const ROUNDS = 64;
const NONE: Widths = new Map();

/** The most readings open at once, or Infinity when that is over `limit` or without bound. */
export function openReadings(root: Reading, limit: number, spend: Spend): number {
  const order = innermostFirst(root);
  const widths = new Map<Reading, Widths>();
  const recursive = order.some((each) => each.kind === 'reference');
  for (let round = 0; round < (recursive ? ROUNDS : 1); round += 1) {
    let settled = true;
    let most = 0;
    for (const each of order) {
      const next = widthsOf(each, widths, spend);
      const before = widths.get(each) ?? NONE;
      for (const [opening, width] of next) {
        if (width > limit) return Infinity;
        if (before.get(opening) !== width) settled = false;
        most = Math.max(most, width);
      }
      widths.set(each, next);
    }
    if (settled || !recursive) return most;
  }
  return Infinity;
}

/** Every reading after its parts, except where references go in a circle. */
function innermostFirst(root: Reading): Reading[] {
  const order: Reading[] = [];
  const seen = new Set<Reading>();
  const visit = (each: Reading): void => {
    if (seen.has(each)) return;
    seen.add(each);
    if (each.kind === 'any') each.of.forEach(visit);
    else if (each.kind === 'array') each.items.forEach(visit);
    else if (each.kind === 'object') {
      for (const { value } of each.members) visit(value);
      if (each.others !== null) visit(each.others);
    } else if (each.kind === 'reference' && each.target !== null) visit(each.target);
    order.push(each);
  };
  visit(root);
  return order;
}

function widthsOf(reading: Reading, widths: ReadonlyMap<Reading, Widths>, spend: Spend): Widths {
  const most = (each: Reading): number => Math.max(1, ...(widths.get(each) ?? NONE).values());
  spend(8);
  switch (reading.kind) {
    case 'leaf':
      return new Map([[reading.opening, reading.width]]);
    case 'reference':
      return (reading.target === null ? undefined : widths.get(reading.target)) ?? NONE;
    case 'array':
      return new Map([
        ['array', reading.times * reading.items.reduce((sum, each) => Math.max(sum, most(each)), 1)],
      ]);
    case 'object':
      return new Map([['object', ofObjects([reading], 0, most, spend)]]);
    case 'any':
  }
  const sums = new Map<Opening, number>();
  const objects = new Set<ObjectReading>();
  for (const each of alternatives(reading, spend)) {
    if (each.kind === 'object') objects.add(each);
    else
      for (const [opening, width] of widths.get(each) ?? NONE)
        sums.set(opening, (sums.get(opening) ?? 0) + width);
  }
  if (objects.size > 0)
    sums.set('object', (sums.get('object') ?? 0) + ofObjects([...objects], 0, most, spend));
  return sums;
}

/** Alternatives of alternatives, and of the targets of references. */
function alternatives(reading: Reading, spend: Spend): readonly Reading[] {
  const found: Reading[] = [];
  const seen = new Set<Reading>();
  const visit = (each: Reading): void => {
    spend(8);
    if (seen.has(each)) return;
    seen.add(each);
    if (each.kind === 'any') each.of.forEach(visit);
    else if (each.kind === 'reference') {
      if (each.target !== null) visit(each.target);
    } else found.push(each);
  };
  visit(reading);
  return found;
}

/** Readings of objects that were alike up to property `at`. */
function ofObjects(
  group: readonly ObjectReading[],
  at: number,
  most: (each: Reading) => number,
  spend: Spend,
): number {
  let width = group.length;
  let alike = group;
  for (let i = at; ; i += 1) {
    spend(8 * alike.length);
    // One object, or the property's values are not listed: each on its own, all open until the end.
    if (
      alike.length === 1 ||
      !alike.every(({ members, others }) => members[i]?.required === true && others === null)
    )
      return Math.max(
        width,
        sum(alike, (each) => ofRest(each, i, most, spend)),
      );
    const byName = apart(alike, ({ members }) => [members[i]?.name ?? ''], spend);
    if (byName.length > 1)
      return byName.reduce((max, part) => Math.max(max, ofObjects(part, i, most, spend)), width);
    width = Math.max(
      width,
      sum(alike, ({ members }) => members[i]?.constants?.length ?? most(members[i]?.value ?? EMPTY)),
    );
    if (!alike.every(({ members }) => members[i]?.constants !== null)) continue;
    const byValue = apart(alike, ({ members }) => members[i]?.constants ?? [], spend);
    if (byValue.length > 1)
      return byValue.reduce((max, part) => Math.max(max, ofObjects(part, i + 1, most, spend)), width);
    [alike = []] = byValue;
  }
}

const EMPTY: Reading = { kind: 'leaf', opening: 'word', width: 1 };

/** One object from property `at` on: its widest value, or the optional names that may come next. */
function ofRest(
  { members, others }: ObjectReading,
  at: number,
  most: (each: Reading) => number,
  spend: Spend,
): number {
  let width = others === null ? 1 : most(others);
  let optional = others === null ? 1 : 2;
  let run = optional;
  for (let i = members.length - 1; i >= at; i -= 1) {
    const member = members[i];
    if (member === undefined) continue;
    spend(4);
    run = member.required ? 1 : run + 1;
    optional = Math.max(optional, run);
    width = Math.max(width, most(member.value));
  }
  return Math.max(width, optional);
}

/** Objects in groups: those of two groups have no label in common. */
function apart(
  list: readonly ObjectReading[],
  labels: (each: ObjectReading) => readonly string[],
  spend: Spend,
): (readonly ObjectReading[])[] {
  return groupsByLabel(list, (each) => {
    const found = labels(each);
    spend(4 * found.length);
    return found;
  });
}

function sum<T>(list: readonly T[], of: (each: T) => number): number {
  return list.reduce((total, each) => total + of(each), 0);
}

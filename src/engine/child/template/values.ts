// Values of the template library, looked at from outside: what they hold and how much they weigh.

import { Environment, type Interpreter } from '@huggingface/jinja';

export type Value = ReturnType<Interpreter['run']>;

/** Weight of an element of a list or mapping, in characters. */
export const ELEMENT = 32;

function scratch(): Environment {
  return new Environment();
}
/** A JavaScript value as one of the library's. */
export function made(value: unknown): Value {
  return scratch().set('value', value);
}
const [LIST, TEXT, FUNCTION] = [made([]), made(''), made(() => null)];

/** A list of these very values. */
export function listOf(values: readonly Value[]): Value {
  const List = LIST.constructor as new (value: readonly Value[]) => Value;
  return new List([...values]);
}
export function textValue(text: string): Value {
  return new (TEXT.constructor as new (value: string) => Value)(text);
}
export function functionOf(work: (args: readonly Value[]) => Value): Value {
  return new (FUNCTION.constructor as new (value: typeof work) => Value)(work);
}
export function textOf(value?: Value): string | null {
  return typeof value?.value === 'string' ? value.value : null;
}
export function isList(value: Value): boolean {
  return Array.isArray(value.value);
}
export function isMapping(value: Value): boolean {
  return value.value instanceof Map;
}
export function entries(value: Value): ReadonlyMap<string, Value> {
  return value.value instanceof Map ? (value.value as Map<string, Value>) : new Map();
}
export function children(value: Value): readonly Value[] {
  return Array.isArray(value.value) ? (value.value as Value[]) : [...entries(value).values()];
}
/** Characters of a text, elements of a list or mapping. */
export function shallow(value: Value): number {
  return textOf(value)?.length ?? 1 + (isList(value) ? children(value).length : entries(value).size);
}
export function longestText(value: Value): number {
  return (
    textOf(value)?.length ??
    (isList(value)
      ? Math.max(
          0,
          ...children(value)
            .slice(0, 8)
            .map((each) => textOf(each)?.length ?? 0),
        )
      : 0)
  );
}

/**
 * Weighs a value with everything in it, each part as often as it would be written. Weights of lists and
 * mappings are kept, unless a namespace is in them, or a list that has been changed by a method. A value that
 * contains itself is infinitely heavy.
 */
export function scale(looked: (count: number) => void): {
  readonly weigh: (value: Value) => number;
  /** Must be called before a list changes. */
  readonly changes: (list: Value) => void;
} {
  let weights = new WeakMap<object, number>();
  const changed = new WeakSet<object>();
  const changes = (list: Value): void => {
    if (changed.has(list)) return;
    changed.add(list);
    // Whatever holds the list may have been weighed with it.
    weights = new WeakMap();
  };
  const weighed = (value: Value): number => {
    const now = new Map<Value, number>();
    let changing = false;
    const weigh = (each: Value): number => {
      const text = textOf(each);
      if (text !== null) return text.length;
      if (!isList(each) && !isMapping(each)) return ELEMENT;
      const kept = weights.get(each);
      if (kept !== undefined) return kept;
      const seen = now.get(each);
      if (seen !== undefined) {
        changing = true;
        return seen;
      }
      now.set(each, Infinity);
      const outer = changing;
      changing = each.type === 'NamespaceValue' || changed.has(each);
      let weight = ELEMENT;
      const parts = children(each);
      looked(parts.length);
      for (const child of parts) weight += ELEMENT + weigh(child);
      for (const key of entries(each).keys()) weight += key.length;
      now.set(each, weight);
      if (!changing) weights.set(each, weight);
      changing ||= outer;
      return weight;
    };
    return weigh(value);
  };
  return { weigh: weighed, changes };
}

export function depthOf(value: Value, depth = 1): number {
  if (depth > 1000) return Infinity;
  return children(value).reduce(
    (deepest, each) =>
      isList(each) || isMapping(each) ? Math.max(deepest, depthOf(each, depth + 1)) : deepest,
    depth,
  );
}

export function occurrences(text: string, part: string): number {
  if (part === '') return text.length + 1;
  let count = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count += 1;
  return count;
}

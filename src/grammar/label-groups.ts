// Groups items that share labels (union by label, with path halving): the schema compiler finds the
// alternatives that a property separates without comparing each pair.

/** Parts of a list, in its order: those in different parts have no label in common. */
export function groupsByLabel<T>(
  list: readonly T[],
  labels: (each: T) => Iterable<string>,
): (readonly T[])[] {
  const parent = list.map((_, i) => i);
  const root = (i: number): number => {
    let at = i;
    while (parent[at] !== at) {
      parent[at] = parent[parent[at] ?? at] ?? at;
      at = parent[at] ?? at;
    }
    return at;
  };
  const owner = new Map<string, number>();
  for (const [i, each] of list.entries()) {
    for (const label of labels(each)) {
      const other = owner.get(label);
      if (other === undefined) owner.set(label, i);
      else parent[root(i)] = root(other);
    }
  }
  const found = new Map<number, T[]>();
  for (const [i, each] of list.entries()) {
    const part = found.get(root(i));
    if (part === undefined) found.set(root(i), [each]);
    else part.push(each);
  }
  return [...found.values()];
}

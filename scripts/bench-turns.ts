// Measures ways of doing the same work in turns, each first in its share of the rounds, so that a machine
// that becomes slower or busy meets all of them. Beside the clock the processor time of this process, which
// other processes disturb less.

export interface Turned {
  /** Milliseconds of each round, in their order. */
  readonly wall: readonly number[];
  readonly cpu: readonly number[];
}

/** Runs every case once a round, `rounds` times, after `warm` rounds that are not counted. */
export async function inTurns<Name extends string>(
  rounds: number,
  warm: number,
  cases: Readonly<Record<Name, () => Promise<unknown>>>,
): Promise<Readonly<Record<Name, Turned>>> {
  const names = Object.keys(cases) as Name[];
  const made = Object.fromEntries(names.map((name) => [name, { wall: [], cpu: [] }])) as unknown as Record<
    Name,
    { readonly wall: number[]; readonly cpu: number[] }
  >;
  for (let round = -warm; round < rounds; round++)
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(turn + Math.max(0, round)) % names.length]!;
      const before = process.cpuUsage();
      const start = performance.now();
      await cases[name]();
      const took = performance.now() - start;
      const { user, system } = process.cpuUsage(before);
      if (round < 0) continue;
      made[name].wall.push(took);
      made[name].cpu.push((user + system) / 1000);
    }
  return made;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** Of each round, how much longer it took than the other case of the same round: the median. */
export function pairedDifference(values: readonly number[], others: readonly number[]): number {
  return median(values.map((value, i) => value - (others[i] ?? NaN)));
}

export function pairedRatio(values: readonly number[], others: readonly number[]): number {
  return median(values.map((value, i) => value / (others[i] ?? NaN)));
}

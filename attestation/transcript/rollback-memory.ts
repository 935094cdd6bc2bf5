// The memory of a verifier between runs, so that old, still valid, signed data cannot be played
// back to it: the highest CRL number, issue date or evaluation number seen per issuer. Time and
// storage belong to the caller.

/**
 * Keys are short paths such as `snp/<ARK key>/vcek/crlNumber`; values only ever grow.
 * Implementations may be asynchronous.
 */
export interface RollbackMemory {
  /** The highest value remembered under the key, or undefined when there is none. */
  highest(key: string): bigint | undefined | Promise<bigint | undefined>;
  /** Called only with values from data whose signature has been verified. */
  remember(key: string, value: bigint): void | Promise<void>;
}

/**
 * In memory; pass the entries of an earlier one to continue it.
 * @example
 * const memory = createRollbackMemory(saved);
 * const result = await verify(document, { ...options, memory });
 * const toSave = memory.entries();
 */
export function createRollbackMemory(
  entries: Iterable<readonly [string, bigint]> = [],
): RollbackMemory & { entries(): [string, bigint][] } {
  const highest = new Map<string, bigint>(entries);
  return {
    highest: (key) => highest.get(key),
    remember: (key, value) => {
      const before = highest.get(key);
      if (before === undefined || value > before) highest.set(key, value);
    },
    entries: () => [...highest],
  };
}

/**
 * Reads through, keeps what is to be remembered until it is committed: evidence that is
 * refused must not fill a memory.
 */
export function stagedMemory(memory: RollbackMemory): RollbackMemory & { commit(): Promise<void> } {
  const staged = createRollbackMemory();
  return {
    highest: async (key) => (await staged.highest(key)) ?? memory.highest(key),
    remember: (key, value) => staged.remember(key, value),
    commit: async () => {
      for (const [key, value] of staged.entries()) await memory.remember(key, value);
    },
  };
}

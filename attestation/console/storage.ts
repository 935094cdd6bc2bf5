// The two things this page keeps, in IndexedDB of its origin: the policy, and the highest versions it has
// seen (numbers of revocation lists and of collateral, and of releases), so that older ones are noticed. A
// verdict, a key or a text has no place here. Where IndexedDB is not there, or fails, the page
// forgets with its end.

import type { RollbackMemory } from '../transcript/rollback-memory.ts';

export interface KeptPolicy {
  readonly text: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

export interface ConsoleStorage {
  policy(): Promise<KeptPolicy | undefined>;
  keepPolicy(policy: KeptPolicy): Promise<void>;
  forgetPolicy(): Promise<void>;
  readonly memory: RollbackMemory;
}

const NAME = 'assay-console';
const POLICY = 'policy';
const SEEN = 'seen';

export async function openStorage(): Promise<ConsoleStorage> {
  const database = await opened();
  const run = async <T>(
    store: string,
    mode: IDBTransactionMode,
    ask: (of: IDBObjectStore) => IDBRequest<T>,
  ): Promise<T | undefined> =>
    database === undefined ? undefined : settled(ask(database.transaction(store, mode).objectStore(store)));
  return {
    async policy() {
      const kept: unknown = await run(POLICY, 'readonly', (store) => store.get(POLICY));
      return isKept(kept) ? kept : undefined;
    },
    keepPolicy: async ({ text, at }) => {
      await run(POLICY, 'readwrite', (store) => store.put({ text, at }, POLICY));
    },
    forgetPolicy: async () => {
      await run(POLICY, 'readwrite', (store) => store.delete(POLICY));
    },
    memory: memoryIn(database),
  };
}

/**
 * One transaction for the look and the write, so that two tabs never lower a number. A storage that is full,
 * or was taken away, is as none: this page remembers for as long as it is open.
 */
function memoryIn(database: IDBDatabase | undefined): RollbackMemory {
  const own = new Map<string, bigint>();
  const raise = (key: string, value: unknown): void => {
    if (typeof value === 'bigint' && value > (own.get(key) ?? -1n)) own.set(key, value);
  };
  return {
    async highest(key) {
      try {
        if (database !== undefined)
          raise(key, await settled(database.transaction(SEEN, 'readonly').objectStore(SEEN).get(key)));
      } catch {
        // As without one.
      }
      return own.get(key);
    },
    async remember(key, value) {
      raise(key, value);
      try {
        if (database === undefined) return;
        const store = database.transaction(SEEN, 'readwrite').objectStore(SEEN);
        const before: unknown = await settled(store.get(key));
        if (typeof before !== 'bigint' || value > before) await settled(store.put(value, key));
      } catch {
        // As without one.
      }
    },
  };
}

async function opened(): Promise<IDBDatabase | undefined> {
  try {
    const request = indexedDB.open(NAME, 1);
    request.addEventListener('upgradeneeded', () => {
      request.result.createObjectStore(POLICY);
      request.result.createObjectStore(SEEN);
    });
    return await settled(request);
  } catch {
    return undefined;
  }
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.addEventListener('success', () => resolve(request.result));
    request.addEventListener('error', () => reject(request.error ?? new Error('the storage failed')));
  });
}

function isKept(value: unknown): value is KeptPolicy {
  return (
    typeof value === 'object' &&
    value !== null &&
    'text' in value &&
    typeof value.text === 'string' &&
    'at' in value &&
    typeof value.at === 'number'
  );
}

const VERSION = /(?:^|\D)(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:\D|$)/;

/**
 * Remembers the version in the name a policy gives a build. Returns the highest one where this is lower:
 * an older build that the policy still lists.
 */
export async function olderThanSeen(
  memory: RollbackMemory,
  build: string | undefined,
): Promise<string | undefined> {
  const [, major, minor, patch] = VERSION.exec(build ?? '') ?? [];
  if (major === undefined || minor === undefined || patch === undefined) return undefined;
  const number = (BigInt(major) << 40n) | (BigInt(minor) << 20n) | BigInt(patch);
  const highest = await memory.highest('release');
  await memory.remember('release', number);
  if (highest === undefined || highest <= number) return undefined;
  return [highest >> 40n, (highest >> 20n) & 0xfffffn, highest & 0xfffffn].join('.');
}

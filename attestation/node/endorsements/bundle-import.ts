// Puts an offline bundle into a store that has items already. A bundle is as untrusted as the network: an
// item of the store gives way only to one that verifies and is newer by what its vendor signed, so that no
// old bundle, genuine or not, brings back what a later one replaced.

import { AttestationError } from '../../transcript/errors.ts';
import { parseBundle } from './bundle.ts';
import type { EndorsementOptions } from './endorsements.ts';
import type { EndorsementStore, StoredItem } from './store.ts';
import { AMD_KDS_URL, amdItemOf } from './kds.ts';
import { intelItemOf } from './pcs.ts';
import type { EndorsementItem } from './item.ts';

/**
 * Returns how many items the store took. Where it has no item under a key, the new one is taken unverified:
 * it is verified when it is asked for, and the clock of today may be the one that is wrong.
 * @throws malformed_json, malformed_base64, input_too_large
 * @example const taken = await importBundle(text, folderStore('endorsements'));
 */
export async function importBundle(
  text: string,
  store: EndorsementStore,
  options: Pick<EndorsementOptions, 'roots' | 'now'> = {},
): Promise<number> {
  const now = new Date((options.now ?? Date.now)());
  // Chains first: the rest of AMD's is checked with them.
  const items = parseBundle(text).toSorted((a, b) => Number(isChain(b)) - Number(isChain(a)));
  let taken = 0;
  for (const item of items) {
    const held = await store.get(item.key);
    if (held !== undefined && !(await isNewer(item, held, { store, roots: options.roots, now }))) continue;
    await store.put(item);
    taken += 1;
  }
  return taken;
}

function isChain({ key }: StoredItem): boolean {
  return key.endsWith('/cert_chain');
}

interface Judging {
  readonly store: EndorsementStore;
  readonly roots: EndorsementOptions['roots'];
  readonly now: Date;
}

async function isNewer(
  offered: StoredItem,
  held: StoredItem,
  { store, roots, now }: Judging,
): Promise<boolean> {
  const verified = async (item: EndorsementItem): Promise<StoredItem['parts'] | undefined> => {
    const found = await store.get(item.key);
    return found === undefined || (await orderOf(item, found, now)) === undefined ? undefined : found.parts;
  };
  const item =
    intelItemOf(held.key, { roots: roots?.intel }) ??
    (await amdItemOf(held.key, { baseUrl: AMD_KDS_URL, roots: roots?.amd }, verified));
  if (item === undefined) return false;
  const order = await orderOf(item, offered, now);
  const heldOrder = await orderOf(item, held, now);
  return order !== undefined && (heldOrder === undefined || order > heldOrder);
}

/** Grows with newer issues; undefined when it does not verify. */
async function orderOf(item: EndorsementItem, { parts }: StoredItem, now: Date): Promise<number | undefined> {
  try {
    return (await item.check(parts, now)).order;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    return undefined;
  }
}

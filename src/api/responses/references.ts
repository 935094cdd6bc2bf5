// References to stored items → the items. The id of an item begins with that of its response, so that one is
// found by reading one stored response of the caller's, each once. Refuses: unsupported_parameter where no
// response is stored, item_not_found, also for those of other keys, and request_too_large where the items are
// together longer than a body may be.

import { ApiError } from '../../base/errors.ts';
import { refuse } from '../../base/shape.ts';
import type { ResponseStore, StoredFor } from '../../files/response-store.ts';
import type { Item, ItemReference } from './items.ts';
import { type KeptItem, readItem, type ResolvedInput } from './stored-items.ts';

/** The digits of a response's id, and the place of the item. */
const ITEM_ID = /^[a-z]+_([0-9a-f]{32})[0-9a-f]{8}$/;

/** Makes ids of items of one response. */
export function itemIds(responseId: string): (prefix: string) => string {
  const digits = responseId.slice(responseId.indexOf('_') + 1);
  let count = 0;
  return (prefix) => {
    count += 1;
    return `${prefix}_${digits}${count.toString(16).padStart(8, '0')}`;
  };
}

export interface ReferenceOptions {
  /** Null: no response is stored. */
  readonly store: Pick<ResponseStore, 'get'> | null;
  readonly caller: StoredFor;
  /** Of the JSON of all items that are referred to, each as often as it is. */
  readonly maxBytes: number;
  /** Is told what is read, before it is held. */
  readonly onBytes: (bytes: number) => void;
}

interface Wanted {
  readonly at: number;
  readonly id: string;
}

export async function resolveReferences(
  given: string | readonly (Item | ItemReference)[],
  { store, caller, maxBytes, onBytes }: ReferenceOptions,
): Promise<ResolvedInput> {
  if (typeof given === 'string') return { items: given, kept: new Map() };
  const kept = new Map<number, KeptItem>();
  let left = maxBytes;
  for (const [response, wanted] of byResponse(given, store !== null)) {
    const items = await itemsOf(store, caller, response, wanted[0]);
    for (const { at, id } of wanted) {
      const found = items.find((each) => each['id'] === id);
      if (found === undefined) throw notFound(at);
      const bytes = JSON.stringify(found).length;
      left -= bytes;
      if (left < 0)
        throw new ApiError('request_too_large', 'the items that input refers to are too long together', {
          param: paramOf(at),
        });
      onBytes(bytes);
      kept.set(at, found);
    }
  }
  return { items: given.map((each, i) => itemOf(each, kept.get(i), i)), kept };
}

/** The references by the digits of their response. */
function byResponse(
  given: readonly (Item | ItemReference)[],
  stores: boolean,
): ReadonlyMap<string, readonly [Wanted, ...Wanted[]]> {
  const wanted = new Map<string, [Wanted, ...Wanted[]]>();
  for (const [at, each] of given.entries()) {
    if (each.type !== 'item_reference') continue;
    if (!stores)
      throw refuse(
        'unsupported_parameter',
        `input[${at}]`,
        `input[${at}] is not supported: no item is stored by itself, send the item (\`store: false\`)`,
      );
    const digits = ITEM_ID.exec(each.id)?.[1];
    if (digits === undefined) throw notFound(at);
    const others = wanted.get(digits);
    if (others === undefined) wanted.set(digits, [{ at, id: each.id }]);
    else others.push({ at, id: each.id });
  }
  return wanted;
}

async function itemsOf(
  store: ReferenceOptions['store'],
  caller: StoredFor,
  digits: string,
  { at }: Wanted,
): Promise<readonly KeptItem[]> {
  try {
    const stored = await store?.get(caller, `resp_${digits}`, paramOf(at));
    const output = (stored?.response['output'] ?? []) as readonly KeptItem[];
    return [...(stored?.input ?? []), ...output];
  } catch (error) {
    if (error instanceof ApiError && error.code === 'response_not_found') throw notFound(at);
    throw error;
  }
}

function itemOf(given: Item | ItemReference, kept: KeptItem | undefined, at: number): Item {
  if (given.type !== 'item_reference') return given;
  if (kept === undefined) throw notFound(at);
  return readItem(kept, `input[${at}]`);
}

function paramOf(at: number): string {
  return `input[${at}].id`;
}

function notFound(at: number): ApiError {
  return new ApiError(
    'item_not_found',
    'there is no stored item of that id for this key; items are stored with a response (`store: true`)',
    { param: paramOf(at) },
  );
}

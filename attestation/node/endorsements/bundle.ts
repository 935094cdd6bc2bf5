// The offline bundle: endorsements fetched where there is a network, carried to where there is none. One
// JSON text with the items of a store; what is read from it is verified when it is used, like everything
// read from a store; bundle-import.ts puts it into another store. Refused: another format or version, over
// 32 MiB, over 4096 items.

import { malformed } from '../../transcript/errors.ts';
import { parseJson, shapeReaders } from '../../encoding/json.ts';
import { encodeItem, itemOf, memoryStore, type EndorsementStore, type StoredItem } from './store.ts';

const BUNDLE_FORMAT = 'assay-endorsements';
const MAX_BUNDLE_BYTES = 32 << 20;
const MAX_ITEMS = 4096;

/**
 * Everything in the store as one text, items in the order of their keys.
 * @example const text = await exportBundle(folderStore('endorsements'));
 */
export async function exportBundle(store: EndorsementStore): Promise<string> {
  const items = (await store.items()).toSorted((a, b) => (a.key < b.key ? -1 : 1));
  return `{"format":"${BUNDLE_FORMAT}","version":1,"items":[\n${items.map(encodeItem).join(',\n')}\n]}\n`;
}

/** @throws malformed_json, malformed_base64, input_too_large */
export function parseBundle(text: string): readonly StoredItem[] {
  const read = shapeReaders('malformed_json');
  const bundle = read.object(parseJson(text, 'bundle', MAX_BUNDLE_BYTES), 'bundle', [
    'format',
    'version',
    'items',
  ]);
  if (bundle['format'] !== BUNDLE_FORMAT || bundle['version'] !== 1) {
    throw malformed('malformed_json', `bundle is not ${BUNDLE_FORMAT} version 1`, {
      expected: `${BUNDLE_FORMAT}, 1`,
    });
  }
  return read.list(bundle['items'], 'bundle items', 0, MAX_ITEMS).map(itemOf);
}

/**
 * A store that is the bundle, for `createEndorsements({ offline: true, store })`.
 * @example const endorsements = createEndorsements({ offline: true, store: bundleStore(text) });
 */
export function bundleStore(text: string): EndorsementStore {
  return memoryStore(parseBundle(text));
}

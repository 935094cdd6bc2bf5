// The form of an entry of the catalogue.

import { choice, flag, integer, list, object, text, type Infer } from '../../base/shape.ts';

const hex64 = text({ max: 64, pattern: /^[0-9a-f]{64}$/ });
const words = text({ max: 500 });
const size = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

const file = object({ path: words, size, sha256: hex64 });
const fields = {
  id: text({ max: 64, pattern: /^[a-z0-9][a-z0-9.-]*$/ }),
  name: words,
  /** Where the bytes come from, in words. */
  source: words,
  licence: words,
  /** Of the first file, the one that an engine or a job is given. */
  sha256: hex64,
  /** Of all files together. */
  size,
  files: list(file, { max: 100 }),
};

export const catalogEntry = object({ ...fields, kind: choice(['model', 'dataset', 'benchmark']) });

/** As the routes give it. */
export const assetAnswer = object({
  ...fields,
  downloaded: flag('Whether the store has a file of this digest and size.'),
});

export type CatalogEntry = Infer<typeof catalogEntry>;

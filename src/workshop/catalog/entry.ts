// The form of an entry of the catalogue.

import { choice, integer, list, object, text, type Infer } from '../../base/shape.ts';

const hex64 = text({ max: 64, pattern: /^[0-9a-f]{64}$/ });
const words = text({ max: 500 });
const size = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });

const file = object({ path: words, size, sha256: hex64 });
export const catalogEntry = object({
  id: text({ max: 64, pattern: /^[a-z0-9][a-z0-9.-]*$/ }),
  kind: choice(['model', 'dataset', 'benchmark']),
  name: words,
  /** Where the bytes come from, in words. */
  source: words,
  licence: words,
  /** Of the first file, the one that an engine or a job is given. */
  sha256: hex64,
  /** Of all files together. */
  size,
  files: list(file, { max: 100 }),
});

export type CatalogEntry = Infer<typeof catalogEntry>;

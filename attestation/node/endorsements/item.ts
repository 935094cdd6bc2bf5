// One thing an endorsement source obtains, and how it obtains it: what the stores, the vendors'
// services and bundles share.

import type { GetAnswer, GetRequest } from './http.ts';
import type { StoredItem } from './store.ts';

/** One thing a vendor endorses: where it is, how to read the answers, and what makes it valid. */
export interface EndorsementItem {
  readonly key: string;
  readonly what: string;
  /** Age after which a valid item is fetched anew; infinite for what never changes. */
  readonly refreshMs: number;
  readonly requests: Readonly<Record<string, GetRequest>>;
  read(answers: Readonly<Record<string, GetAnswer>>): StoredItem['parts'];
  /** Throws unless the parts verify at `now`; `order` grows with newer issues of the same item. */
  check(parts: StoredItem['parts'], now: Date): Promise<{ readonly order: number }>;
}

export type Obtain = (item: EndorsementItem) => Promise<StoredItem['parts']>;

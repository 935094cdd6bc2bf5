// The committed catalogue is what its pins give.

import { expect, test } from 'vitest';
import { computedEntries } from '../../scripts/catalog.ts';
import { findInstalled } from '../../scripts/real-models/install.ts';
import { PUBLISHED_MODEL_NAMES } from '../../scripts/real-models/list.ts';
import { CATALOG_ENTRIES } from '../../src/workshop/catalog/entries.ts';

test('the entries in the tree are those computed from the pins', async () => {
  expect(CATALOG_ENTRIES).toEqual(await computedEntries());
});

test('weights that are installed here have the digests of the catalogue', async () => {
  for (const name of PUBLISHED_MODEL_NAMES) {
    // Checks every byte against its pin.
    const installed = await findInstalled(name);
    const entry = CATALOG_ENTRIES.find(({ id }) => id === name);
    expect(entry).toBeDefined();
    if (installed !== undefined) expect(entry?.sha256).toBe(installed.sha256);
  }
});

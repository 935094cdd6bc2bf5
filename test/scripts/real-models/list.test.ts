// The list of published weights: pinned by size and digest, each with its licence, and few enough bytes for
// CI.

import { describe, expect, test } from 'vitest';
import { PUBLISHED_MODELS, type PublishedModel } from '../../../scripts/real-models/list.ts';

describe('the list', () => {
  const models = Object.entries<PublishedModel>(PUBLISHED_MODELS);

  test('names every byte: sizes, digests, and members of packages that are there', () => {
    for (const [name, { packages, files, licence }] of models) {
      expect(name).toMatch(/^[a-z0-9-]+$/);
      expect(licence).not.toBe('');
      for (const each of [...packages, ...files]) {
        expect(each.sha256).toMatch(/^[0-9a-f]{64}$/);
        expect(each.bytes).toBeGreaterThan(0);
      }
      for (const { path, from } of files) {
        expect(path).toMatch(/^(?:\w[\w.-]*\/)*\w[\w.-]*$/);
        for (const [place] of from) expect(packages[place]).toBeDefined();
      }
    }
  });

  test('CI fetches no more than 350 MB', () => {
    const fetched = models.filter(([, model]) => model.ci).flatMap(([, { packages }]) => packages);
    expect(fetched.reduce((sum, each) => sum + each.bytes, 0)).toBeLessThanOrEqual(350_000_000);
  });
});

// The part of pulls that makes a model of a repository's files: the conversion of a folder, one at a time.

import { open } from 'node:fs/promises';
import { readGguf } from './gguf/read.ts';
import type { Deriver } from './deriver.ts';
import { typeOfIsq } from './isq.ts';
import { isSourceName, openModelFiles } from './model-folder.ts';
import type { PullDeriver } from './pull/fetch-folder.ts';
import { derivedOf } from './stored-model.ts';

export function createPullDeriver(deriver: Deriver): PullDeriver {
  return {
    isSource: isSourceName,
    checkTag: (tag) => void typeOfIsq(tag, 'name'),
    async derive({ files, tag, signal }) {
      const isq = tag === undefined ? undefined : typeOfIsq(tag, 'name');
      const { blob, derivation } = await deriver.derive({ open: () => openModelFiles(files), isq, signal });
      try {
        const file = await open(blob.path);
        try {
          const sources = derivation.sources.map((source) => ({ role: 'source' as const, ...source }));
          return { blob, info: await readGguf(file), sources, derived: derivedOf(derivation) };
        } finally {
          await file.close();
        }
      } catch (error) {
        blob.release();
        throw error;
      }
    },
  };
}

// Tests mirror the sources: a test of test/src, test/attestation, test/image or test/scripts stands in the
// folder of its source and is named after it, or after it and what it asks of it:
// `bodies.test.ts`, `bodies-limits.test.ts` for `bodies.ts`. The exceptions only shrink.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sourcesBelow, TOP } from '../../scripts/closures.ts';

const MIRRORED = ['src', 'attestation', 'image', 'scripts'];

/** Tests that wait for their name or their place. */
const EXCEPTIONS: ReadonlySet<string> = new Set([
  'test/attestation/adversary-tdx.test.ts',
  'test/attestation/adversary.test.ts',
  'test/attestation/appraise/evidence-words.test.ts',
  'test/attestation/appraise/sections.test.ts',
  'test/attestation/authentic.test.ts',
  'test/attestation/browser.test.ts',
  'test/attestation/node/cli/save.test.ts',
  'test/attestation/node/proxy.test.ts',
  'test/attestation/simulated/docs.test.ts',
  'test/attestation/snp/bits.test.ts',
  'test/attestation/snp/vectors.test.ts',
  'test/attestation/tdx/parsers.test.ts',
  'test/attestation/tdx/vectors.test.ts',
  'test/image/boot.test.ts',
  'test/image/image.test.ts',
  'test/image/tsm.test.ts',
  'test/image/writers.test.ts',
  'test/src/api/chat/dialects.test.ts',
  'test/src/api/chat/mcp-servers.test.ts',
  'test/src/api/chat/parameters.test.ts',
  'test/src/api/chat/refused.test.ts',
  'test/src/api/clients.test.ts',
  'test/src/api/completions/parameters.test.ts',
  'test/src/api/docs.test.ts',
  'test/src/api/engines/chat.test.ts',
  'test/src/api/engines/dialects.test.ts',
  'test/src/api/engines/hostile.test.ts',
  'test/src/api/engines/parameters.test.ts',
  'test/src/api/engines/structured-output.test.ts',
  'test/src/api/engines/tools.test.ts',
  'test/src/api/engines/vectors.test.ts',
  'test/src/api/fuzz.test.ts',
  'test/src/api/generation/events.test.ts',
  'test/src/api/openai-names.test.ts',
  'test/src/api/samples.test.ts',
  'test/src/api/tokens/parameters.test.ts',
  'test/src/api/vectors/parameters.test.ts',
  'test/src/audit/admin-record.test.ts',
  'test/src/cli/wrong-start.test.ts',
  'test/src/config/keys.test.ts',
  'test/src/engine/child/llama/detokenize.test.ts',
  'test/src/engine/child/template/corpus.test.ts',
  'test/src/engine/child/template/variables.test.ts',
  'test/src/engine/engine.test.ts',
  'test/src/engine/identity.test.ts',
  'test/src/grammar/bounds.test.ts',
  'test/src/grammar/calls.test.ts',
  'test/src/grammar/loose.test.ts',
  'test/src/grammar/properties.test.ts',
  'test/src/grammar/table.test.ts',
  'test/src/http/admission/shares.test.ts',
  'test/src/http/edges.test.ts',
  'test/src/http/refusals.test.ts',
  'test/src/models/pull/full-disk.test.ts',
  'test/src/models/pull/progress-kept.test.ts',
  'test/src/models/pull/server.test.ts',
  'test/src/models/races.test.ts',
  'test/src/start/folders.test.ts',
]);

/** Whether a file is there that the test's name begins with, in the folder its own folder mirrors. */
function isNamedAfterSource(path: string, isThere: (source: string) => boolean): boolean {
  const words = path
    .replace(/^test\//, '')
    .replace(/\.test\.ts$/, '')
    .split('-');
  return words.some((_, i) => isThere(`${words.slice(0, words.length - i).join('-')}.ts`));
}

const strays = MIRRORED.flatMap((folder) => sourcesBelow(`test/${folder}`))
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) => !isNamedAfterSource(path, (source) => existsSync(join(TOP, source))));

test('a test is named after its source', () => {
  expect(strays.filter((path) => !EXCEPTIONS.has(path))).toEqual([]);
});

test('no exception that is not needed', () => {
  expect([...EXCEPTIONS].filter((path) => !strays.includes(path))).toEqual([]);
});

test.each([
  ['test/src/http/json.test.ts', true],
  ['test/src/http/json-server.test.ts', true],
  ['test/src/http/json-a-b.test.ts', true],
  ['test/src/http/jsons.test.ts', false],
  ['test/src/json.test.ts', false],
  ['test/attestation/http/json.test.ts', false],
  ['test/src/http/two-words.test.ts', true],
  ['test/src/http/two.test.ts', false],
])('%s: %s', (path, expected) => {
  const sources = ['src/http/json.ts', 'src/http/two-words.ts'];
  expect(isNamedAfterSource(path, (source) => sources.includes(source))).toBe(expected);
});

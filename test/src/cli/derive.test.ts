// `assay models derive` as a process: the file and the digests a server would have, --check against a store's
// manifest and against what the command itself printed, and what is not equal. Runs dist/.

import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Deriver } from '../../../src/models/deriver.ts';
import { openModelFolder } from '../../../src/models/model-folder.ts';
import { encodeManifest } from '../../../src/models/store/manifest.ts';
import { openStore } from '../../../src/models/store/store.ts';
import { derivedOf } from '../../../src/models/stored-model.ts';
import { spawnAssay } from '../../fixtures/e2e/assay.ts';
import { converters } from '../../fixtures/models/converters.ts';
import { mistral, writeFolder } from '../../fixtures/models/hf-folder.ts';

let work: string;
let folder: string;
beforeAll(() => {
  work = mkdtempSync(join(tmpdir(), 'assay-derive-'));
  folder = join(work, 'tiny');
  writeFolder(folder, mistral(16, 512));
});
afterAll(() => rmSync(work, { recursive: true }));

async function assay(
  ...args: readonly string[]
): Promise<{ readonly code: number | null; readonly out: string; readonly err: string }> {
  const spawned = spawnAssay(['models', 'derive', ...args], { cwd: work });
  const [code] = await spawned.ended;
  return { code, out: spawned.out(), err: spawned.err() };
}

interface Printed {
  readonly sha256: string;
  readonly derived: { readonly from: readonly string[]; readonly type: string; readonly sha256: string };
}

/** As a server's store has it, made by the server's own code. */
async function manifestOfServer(file: string): Promise<Printed['derived']> {
  const store = await openStore({ folder: mkdtempSync(join(work, 'data-')) });
  const { blob, derivation } = await new Deriver(store, converters).derive({
    open: () => openModelFolder(folder),
    isq: 'Q4_K_M',
    signal: new AbortController().signal,
  });
  const derived = derivedOf(derivation);
  const sources = derivation.sources.map(({ sha256, size }) => ({ role: 'source' as const, sha256, size }));
  writeFileSync(
    file,
    encodeManifest({
      version: 1,
      name: 'm',
      createdAt: '2026-11-29T00:00:00Z',
      format: 'gguf',
      blobs: [{ role: 'weights', sha256: blob.sha256, size: blob.size }, ...sources],
      derived,
      source: { kind: 'file', path: folder },
      gguf: {
        architecture: 'llama',
        type: 'chat',
        contextLength: 256,
        parameters: 1,
        quantization: 'Q4_K_M',
      },
    }),
  );
  blob.release();
  await store.close();
  return derived;
}

describe('derive', () => {
  test('writes the file a server makes, and prints what it is attested with', async () => {
    const made = await manifestOfServer(join(work, 'm.json'));
    const { code, out, err } = await assay(folder, '--isq', 'Q4K', '--output', 'tiny.gguf', '--json');
    expect([code, err]).toEqual([0, '']);
    const printed = JSON.parse(out) as Printed;
    expect(printed.derived).toMatchObject({ from: made.from, type: 'Q4_K_M', sha256: made.sha256 });
    const written = createHash('sha256').update(readFileSync(join(work, 'tiny.gguf')));
    expect(written.digest('hex')).toBe(made.sha256);
    const text = await assay(folder, '--isq', 'Q4_K_M');
    expect(text.out).toContain(`weights  ${made.sha256}  Q4_K_M, `);
    expect(text.out).toContain(`model    ${printed.sha256}  to pin`);
    expect(readdirSync(work).filter((name) => name.startsWith('.tmp-'))).toEqual([]);
    expect((await assay(folder, '--output', 'tiny.gguf')).code).toBe(2);
  });

  test('--check says equal of the manifest, with and without the folder, and of what it printed', async () => {
    const path = join(work, 'n.json');
    const { sha256 } = await manifestOfServer(path);
    const equal = { code: 0, err: '', out: `equal: ${folder} as Q4_K_M has sha256 ${sha256}\n` };
    expect(await assay('--check', path)).toEqual(equal);
    expect(await assay(folder, '--check', path)).toEqual(equal);
    const plain = await assay(folder, '--json');
    writeFileSync(join(work, 'plain.json'), plain.out);
    expect(await assay(folder, '--check', 'plain.json')).toMatchObject({ code: 0 });
    expect((await assay('--check', 'plain.json')).err).toContain('needs the folder as well');
  });

  test('--check says what is not equal', async () => {
    const path = join(work, 'o.json');
    const derived = await manifestOfServer(path);
    const other = join(work, 'other');
    writeFolder(other, mistral(16, 512));
    const config = readFileSync(join(other, 'config.json'), 'utf8');
    writeFileSync(join(other, 'config.json'), config.replace('"rope_theta": 10000', '"rope_theta": 20000'));
    const changed = await assay(other, '--check', path);
    expect(changed.code).toBe(1);
    expect(changed.out).toMatch(
      /^not equal: config\.json is another file; 1 of its sources are not in the folder; the folder makes sha256 [0-9a-f]{64}, expected [0-9a-f]{64}\n$/,
    );
    const manifest = JSON.parse(readFileSync(path, 'utf8')) as { derived: Printed['derived'] };
    const forged = { ...manifest, derived: { ...derived, sha256: '0'.repeat(64) } };
    writeFileSync(path, JSON.stringify(forged));
    expect(await assay('--check', path, '--json')).toMatchObject({
      code: 1,
      out: expect.stringContaining(`the folder makes sha256 ${derived.sha256}`) as string,
    });
    writeFileSync(path, JSON.stringify({ ...manifest, derived: { ...derived, converter: 'assay/0' } }));
    expect((await assay('--check', path)).out).toContain('it was made by assay/0, this is assay/1');
  });

  test.each([
    [[], 2, /needs a folder/],
    [['nowhere'], 1, /nowhere is no folder/],
    [['tiny', '--isq', 'HQQ4'], 1, /--isq is none of F32, .*\(unsupported_parameter\)/],
    [['tiny', '--isq', 'Q8_0', '--check', 'x'], 2, /takes format and type from what it checks/],
    [['tiny', '--check', 'tiny/config.json'], 1, /was not made of a folder/],
    [['tiny', '--check', 'tiny/tokenizer.model'], 1, /is no JSON/],
  ] as const)('%j ends with %i', async (args, code, message) => {
    const ended = await assay(...args);
    expect(ended.code).toBe(code);
    expect(ended.err).toMatch(message);
  });
});

// assay-verify job: exit codes and what is printed. Evidence that binds the key is tried with a real
// workshop in test/e2e/workshop.test.ts.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runCli } from '../../../../attestation/node/cli/commands.ts';
import { JOB_VECTORS } from '../../../../scripts/job-vectors.ts';

interface Vectors {
  readonly receipt_key: string;
  readonly vectors: readonly {
    readonly name: string;
    readonly record: string;
    readonly code: string | null;
  }[];
}
const { receipt_key: key, vectors } = JSON.parse(readFileSync(JOB_VECTORS, 'utf8')) as Vectors;
const folder = mkdtempSync(join(tmpdir(), 'assay-job-'));
afterAll(() => rmSync(folder, { recursive: true }));
const good = join(folder, 'good');
writeFileSync(good, Buffer.from(vectors[0]?.record ?? '', 'hex'));

async function run(...args: readonly string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ['', ''];
  const code = await runCli(['job', ...args], {
    stdout: (text) => void (out += text),
    stderr: (text) => void (err += text),
    stdin: () => Promise.resolve(new Uint8Array()),
    readBytes: (path) => Promise.resolve().then(() => new Uint8Array(readFileSync(path))),
    now: () => Date.UTC(2026, 10, 30),
    randomBytes: (length) => new Uint8Array(length),
    proxy: undefined,
    stop: () => AbortSignal.abort(),
  });
  return { code, out, err };
}

test('11: the signature holds, and nothing shows whose it is', async () => {
  const { code, out } = await run(good);
  expect(code).toBe(11);
  expect(out).toContain('NOTHING VOUCHES FOR');
  expect(JSON.parse((await run(good, '--json')).out)).toMatchObject({
    accepted: false,
    by: null,
    record: { kind: 'gguf/quantize' },
  });
});

test('0: signed by a key that was named; 10: by another', async () => {
  expect(await run(good, '--key', key)).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse((await run(good, '--json', '--key', key)).out)).toMatchObject({
    accepted: true,
    by: { key },
  });
  const other = await run(good, '--key', '00'.repeat(32));
  expect(other).toMatchObject({ code: 10, out: '' });
  expect(other.err).toContain('record_key');
});

test.each(vectors)('$name: $code', async ({ record, code }) => {
  const path = join(folder, 'record');
  writeFileSync(path, Buffer.from(record, 'hex'));
  const expected = code === 'record_signature' ? 10 : 30;
  const ran = await run(path, '--key', key, '--json');
  expect(ran.code).toBe(code === null ? 0 : expected);
  if (code !== null) expect(JSON.parse(ran.out)).toMatchObject({ accepted: false, code });
});

test.each([
  [[]],
  [[good, good]],
  [[good, '--policy', 'p.json']],
  [[good, '--any-model']],
  [[good, '--key', 'zz']],
  [[good, '--key', key, '--evidence', 'e.json']],
  [[join(folder, 'absent')]],
  [[good, '--nothing']],
])('30 for wrong usage: %j', async (args) => {
  expect(await run(...args)).toMatchObject({ code: 30, out: '' });
});

test('evidence that is no archive is refused', async () => {
  const path = join(folder, 'evidence');
  writeFileSync(path, '{"format":"assay/archive/v2","evidence":[]}');
  expect(await run(good, '--evidence', path, '--any-model', '--measurement', '00'.repeat(48))).toMatchObject({
    code: 20,
  });
  writeFileSync(path, '{}');
  expect(await run(good, '--evidence', path, '--any-model', '--measurement', '00'.repeat(48))).toMatchObject({
    code: 30,
  });
});

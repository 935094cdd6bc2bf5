// Which records of jobs a server trusts: by key or evidence, by kind, inputs and state; and which files of a
// model they must name. Evidence itself is tried by the attestation's own tests and end to end.

import { createHash, generateKeyPairSync, sign } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { encodeJobRecord, type JobRecord } from '@assay/attestation/job-record';
import { rawPublicKey } from '../../../src/attester/identity.ts';
import { readConfig } from '../../../src/config/read.ts';
import { admittedEntry, type Provenance } from '../../../src/models/provenance.ts';
import type { RegistryEntry } from '../../../src/models/model.ts';
import { createProvenance } from '../../../src/start/provenance.ts';

const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const KEY = rawPublicKey(publicKey);
const HEX = Buffer.from(KEY).toString('hex');
const OTHER = 'ab'.repeat(32);
const [INPUT, OUTPUT] = ['weights in', 'weights out'].map((each) =>
  createHash('sha256').update(each).digest(),
);

function recordOf(change: Partial<JobRecord> = {}): Uint8Array {
  const record: JobRecord = {
    receiptKey: KEY,
    kind: 'gguf/quantize',
    id: `job-${'0'.repeat(32)}`,
    inputs: [{ name: 'model', sha256: new Uint8Array(INPUT!) }],
    tool: { name: 'assay-gguf', version: '1', sha256: new Uint8Array(32) },
    parameters: new Map(),
    outputs: [{ name: 'a.gguf', sha256: new Uint8Array(OUTPUT!), size: 1 }],
    startedAt: 1,
    finishedAt: 2,
    state: 'done',
    code: null,
    barriers: [],
    ...change,
  };
  return encodeJobRecord(record, (bytes) => new Uint8Array(sign(null, bytes, privateKey)));
}

function proofOf(record: Uint8Array): { record: string } {
  return { record: Buffer.from(record).toString('base64') };
}

function provenanceOf(settings: string): Provenance | undefined {
  const file = { path: '/assay.toml', text: `[provenance]\n${settings}\n` };
  const config = readConfig({ file, environment: { HOME: '/' }, cwd: '/' });
  return createProvenance(config, { now: () => 10 });
}

function entryOf(
  digests: readonly string[],
  sources?: readonly string[],
  folder?: RegistryEntry['folder'],
): RegistryEntry {
  const derived =
    sources === undefined ? undefined : { sources: sources.map((sha256) => ({ sha256, size: 1 })) };
  const files = digests.map((sha256) => ({ sha256 }));
  // Of an entry, admission reads these alone.
  return { model: { derived }, files, folder } as unknown as RegistryEntry;
}

const MADE = OUTPUT!.toString('hex');

describe('judging a record', () => {
  test('a named key is trusted, another is not, and neither is an altered byte', async () => {
    const mine = provenanceOf(`keys = ["${HEX}"]`)!;
    const { origin, outputs } = await mine.judge(proofOf(recordOf()));
    expect(origin).toMatchObject({ kind: 'gguf/quantize', receiptKey: HEX, by: 'key' });
    expect([...outputs]).toEqual([['a.gguf', MADE]]);
    const theirs = provenanceOf(`keys = ["${OTHER}"]`)!;
    await expect(theirs.judge(proofOf(recordOf()))).rejects.toMatchObject({ code: 'job_record_refused' });
    const record = recordOf();
    for (const at of [3, 60, record.length - 1]) {
      const altered = Uint8Array.from(record);
      altered[at]! ^= 1;
      await expect(mine.judge(proofOf(altered))).rejects.toMatchObject({ code: 'job_record_refused' });
    }
    await expect(mine.judge({ record: '' })).rejects.toMatchObject({ code: 'job_record_refused' });
  });

  test.each<[string, Partial<JobRecord>, RegExp]>([
    ['kinds = ["gguf/convert"]', {}, /kind gguf\/quantize are not trusted/],
    [`inputs = ["${OTHER}"]`, {}, /given a file that is not trusted/],
    [`inputs = ["${OTHER}"]`, { inputs: [] }, /names no file the job was given/],
    ['', { state: 'failed', code: 'job_failed', outputs: [] }, /failed, not done/],
  ])('%s: refused', async (more, change, why) => {
    const provenance = provenanceOf(`keys = ["${HEX}"]\n${more}`)!;
    const judged = provenance.judge(proofOf(recordOf(change)));
    await expect(judged).rejects.toMatchObject({
      code: 'job_record_refused',
      message: expect.stringMatching(why),
    });
  });

  test('inputs that are trusted pass', async () => {
    const provenance = provenanceOf(`keys = ["${HEX}"]\ninputs = ["${INPUT!.toString('hex')}"]`)!;
    await expect(provenance.judge(proofOf(recordOf()))).resolves.toBeDefined();
  });

  test('a named key is trusted whatever evidence comes beside it, and only that key', async () => {
    const policy = JSON.stringify({ measurements: ['00'.repeat(48)], models: { 'assay-workshop': OTHER } });
    const proof = { ...proofOf(recordOf()), evidence: '{}' };
    const both = provenanceOf(`keys = ["${HEX}"]\npolicy = '${policy}'`)!;
    expect((await both.judge(proof)).origin.by).toBe('key');
    const other = provenanceOf(`keys = ["${OTHER}"]\npolicy = '${policy}'`)!;
    for (const shown of [proof, proofOf(recordOf())])
      await expect(other.judge(shown)).rejects.toMatchObject({ code: 'job_record_refused' });
  });

  test('evidence that is none is refused where a policy asks for it, and counts for nothing where none does', async () => {
    const policy = JSON.stringify({ measurements: ['00'.repeat(48)], models: { 'assay-workshop': OTHER } });
    const strict = provenanceOf(`policy = '${policy}'`)!;
    for (const evidence of ['', '{}', '[]', 'x'])
      await expect(strict.judge({ ...proofOf(recordOf()), evidence })).rejects.toMatchObject({
        code: 'job_record_refused',
      });
    await expect(strict.judge(proofOf(recordOf()))).rejects.toMatchObject({ code: 'job_record_refused' });
    const byKey = provenanceOf(`keys = ["${OTHER}"]`)!;
    await expect(byKey.judge({ ...proofOf(recordOf()), evidence: '{}' })).rejects.toMatchObject({
      code: 'job_record_refused',
    });
  });
});

describe('admitting a model', () => {
  const provenance = provenanceOf(`keys = ["${HEX}"]\nrequired = true`)!;

  test('every file must be an output; of a converted folder, every file of it', async () => {
    const proof = proofOf(recordOf());
    expect((await admittedEntry(entryOf([MADE]), proof, provenance)).model.job).toMatchObject({ by: 'key' });
    for (const entry of [entryOf([OTHER]), entryOf([MADE, OTHER]), entryOf([MADE], [OTHER])])
      await expect(admittedEntry(entry, proof, provenance)).rejects.toMatchObject({
        code: 'job_record_refused',
      });
    // A converted folder needs the names of its files.
    await expect(admittedEntry(entryOf([OTHER], [MADE]), proof, provenance)).rejects.toMatchObject({
      code: 'job_record_refused',
    });
    const named = (name: string): RegistryEntry =>
      entryOf([OTHER], [MADE], { kind: 'model', files: [{ name, sha256: MADE }] });
    expect((await admittedEntry(named('a.gguf'), proof, provenance)).model.job).toBeDefined();
    for (const entry of [
      named('b.gguf'),
      named('.gguf'),
      entryOf([]),
      entryOf([], undefined, { kind: 'model', files: [] }),
    ])
      // prettier-ignore
      await expect(admittedEntry(entry, proof, provenance)).rejects.toMatchObject({
        code: 'job_record_refused',
      });
  });

  test('without a record: refused where one is required, and only there', async () => {
    await expect(admittedEntry(entryOf([MADE]), undefined, provenance)).rejects.toMatchObject({
      code: 'job_record_required',
    });
    expect((await admittedEntry(entryOf([MADE]), undefined, undefined)).model.job).toBeUndefined();
    await expect(admittedEntry(entryOf([MADE]), proofOf(recordOf()), undefined)).rejects.toMatchObject({
      code: 'unsupported_parameter',
    });
  });
});

test.each([
  ['required = true', /trusts no job/],
  ['kinds = ["a"]', /trusts no job/],
  ["policy = '{'", /provenance\.policy/],
  [`policy = '{"measurements": [], "models": {"a": "${OTHER}"}}'`, /provenance\.policy/],
])('%s ends the start', (settings, why) => {
  expect(() => provenanceOf(settings)).toThrow(why);
});

test('nothing configured is no policy', () => {
  expect(provenanceOf('')).toBeUndefined();
});

// Inputs of jobs from a hub, in real jobs in a real jail: what the job reads is what the hub promised, pinned
// to a commit that the record names; a hub that lies, falters, refuses or is slow ends the job with a code; a
// cancel loses no byte that was proven. The program itself has no network.

import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openJobRecord } from '@assay/attestation/job-record';
import type { InputRef, JobKind } from '../../../../src/workshop/kind.ts';
import type { Jobs } from '../../../../src/workshop/jobs/jobs.ts';
import type { StoredJob } from '../../../../src/workshop/jobs/state.ts';
import {
  openHubInputs,
  type HubInputs,
  type HubInputsOptions,
  type PullLine,
} from '../../../../src/workshop/pulls/inputs.ts';
import { partly, startHub, type Hub, type HubFileSpec } from '../../../fixtures/models/hub.ts';
import { hastyClock } from '../../../fixtures/models/pull-service.ts';
import { LIMITS, openJobs, scratch, scriptKind } from '../../../fixtures/workshop/kinds.ts';

const DATA = Buffer.from('{"text":"one"}\n{"text":"two"}\n');
const CONFIG = Buffer.from('{"architectures":["LlamaForCausalLM"]}');
/** Eight bytes of length, a header, and weights. */
const WEIGHTS = Buffer.concat([
  Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]),
  Buffer.from('{}'),
  randomBytes(300_000),
]);
const IN_GIT = { claimed: { lfs: undefined } };

let folder: ReturnType<typeof scratch>;
let hub: Hub;
let lines: PullLine[];
let opened: { close(): Promise<void> }[];

beforeEach(async () => {
  folder = scratch();
  hub = await startHub([]);
  lines = [];
  opened = [];
});

afterEach(async () => {
  for (const each of opened.toReversed()) await each.close();
  await hub.close();
  folder.remove();
});

async function inputs(change: Partial<HubInputsOptions> = {}): Promise<HubInputs> {
  const made = await openHubInputs({
    endpoint: hub.endpoint,
    allowPrivate: true,
    folder: join(folder.path, 'hub'),
    maxBytes: 8 * 1024 * 1024,
    clock: hastyClock(),
    random: () => 0.5,
    maxFailures: 3,
    egress: (line) => Promise.resolve(void lines.push(line)),
    ...change,
  });
  opened.push(made);
  return made;
}

/** Shows what the program sees: its inputs, by digest, and whether it has a network. */
const LOOK = `cd /job/in; find . -type f | sort | xargs sha256sum > /job/out/seen; grep -c : /proc/net/dev > /job/out/interfaces || true; echo '{"result":{}}'`;

function kindOf(ref: Partial<InputRef>, change: Partial<JobKind> = {}): JobKind {
  const input = { name: 'dataset', field: 'dataset_source', given: 'owner/name', accepts: 'file', hub: 'dataset', ...ref } as const; // prettier-ignore
  const plan = (): ReturnType<JobKind['plan']> => ({ inputs: [input], parameters: { a: 1 } });
  return scriptKind('look', LOOK, { plan, requires: ['network', 'files', 'processes'], ...change });
}

const MODEL = { name: 'model', field: 'model_name', accepts: 'folder', hub: 'model' } as const;

async function workshop(
  kind: JobKind,
  change: Parameters<typeof openJobs>[2] & { asks?: HubInputs | null } = {},
): Promise<Jobs> {
  const { asks, ...rest } = change;
  const jobs = await openJobs(folder.path, [kind], {
    ...rest,
    hub: asks === null ? undefined : (asks ?? (await inputs())),
  });
  opened.push(jobs);
  return jobs;
}

async function done(jobs: Jobs, kind: JobKind, owner = 'me'): Promise<StoredJob> {
  const { id } = await jobs.submit(owner, kind, kind.plan({}));
  return jobs.wait(owner, id, AbortSignal.timeout(60_000));
}

async function run(ref: Partial<InputRef>, change: Partial<JobKind> = {}): Promise<StoredJob> {
  const kind = kindOf(ref, change);
  return done(await workshop(kind), kind);
}

function sha(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function file(name: string, bytes: Buffer, more: Partial<HubFileSpec> = {}): HubFileSpec {
  return { name, bytes, ...more };
}

function cdn(): readonly string[] {
  return hub.seen.filter(({ at }) => at === 'cdn').map(({ headers }) => headers.range ?? 'whole');
}

function seen(job: StoredJob): string {
  return readFileSync(join(folder.path, 'jobs', job.id, 'out', 'seen'), 'utf8');
}

describe('an input of a hub', () => {
  test('a data set: what the job reads, the record and the audit lines have its digest and commit', async () => {
    hub.files = [file('README.md', Buffer.from('#')), file('data/train-0.jsonl', DATA, IN_GIT)];
    const kind = kindOf({});
    const jobs = await workshop(kind);
    const job = await done(jobs, kind);
    expect(job).toMatchObject({
      state: 'done',
      inputs: [{ name: 'dataset', sha256: sha(DATA), size: DATA.length }],
    });
    expect(seen(job)).toBe(`${sha(DATA)}  ./dataset\n`);
    expect(readFileSync(join(folder.path, 'jobs', job.id, 'out', 'interfaces'), 'utf8').trim()).toMatch(
      /^[01]$/,
    );
    const record = await openJobRecord(new Uint8Array((await jobs.record('me', job.id))!));
    expect(record.parameters.get('dataset_hub')).toBe(`dataset:owner/name@${hub.commit}/data/train-0.jsonl`);
    expect(record.inputs.map(({ sha256 }) => Buffer.from(sha256).toString('hex'))).toEqual([sha(DATA)]);
    expect(hub.seen.map(({ url }) => url.split('?')[0])).toEqual([
      '/api/datasets/owner/name/revision/main',
      `/datasets/owner/name/resolve/${hub.commit}/data/train-0.jsonl`,
      '/cdn/data%2Ftrain-0.jsonl',
    ]);
    expect(lines).toMatchObject([
      { phase: 'begin', files: [] },
      { phase: 'done', commit: hub.commit, files: [{ sha256: sha(DATA), bytes: DATA.length }] },
    ]);
    // Kept: another job of this caller fetches no byte, one of another caller its own.
    expect(await done(jobs, kind)).toMatchObject({ state: 'done' });
    expect(cdn()).toHaveLength(1);
    expect(lines.at(-1)).toMatchObject({ phase: 'done', files: [] });
    expect(await done(jobs, kind, 'you')).toMatchObject({ state: 'done' });
    expect(cdn()).toHaveLength(2);
  });

  test('a model: descriptions and safetensors as a folder, and nothing else of the repository', async () => {
    hub.files = [
      file('config.json', CONFIG, IN_GIT),
      file('model.safetensors', WEIGHTS),
      file('evil.py', Buffer.from('x')),
      file('pytorch_model.bin', Buffer.from('x')),
    ];
    const stages: (string | null)[] = [];
    const kind = kindOf({ ...MODEL, given: 'owner/name@v1' });
    const jobs = await workshop(kind);
    const { id } = await jobs.submit('me', kind, kind.plan({}));
    hub.faults.cdn = () => {
      stages.push(jobs.get('me', id).stage);
      return false;
    };
    const job = await jobs.wait('me', id, AbortSignal.timeout(60_000));
    expect(job).toMatchObject({
      state: 'done',
      plan: { parameters: { a: 1, model_hub: `model:owner/name@${hub.commit}` } },
    });
    expect(seen(job)).toBe(
      `${sha(CONFIG)}  ./model/config.json\n${sha(WEIGHTS)}  ./model/model.safetensors\n`,
    );
    expect(job.log).toContain('fetch model');
    expect(stages.at(-1)).toBe('fetch model');
    expect(hub.seen[0]?.url).toContain('/api/models/owner/name/revision/v1');
  });

  test('a path below a root goes before a name of the hub, and the hub is not asked', async () => {
    const root = join(folder.path, 'root');
    mkdirSync(join(root, 'owner'), { recursive: true });
    writeFileSync(join(root, 'owner', 'name'), DATA);
    const kind = kindOf({});
    const job = await done(await workshop(kind, { roots: [root] }), kind);
    expect(job).toMatchObject({ state: 'done', plan: { parameters: { a: 1 } } });
    expect(hub.seen).toEqual([]);
  });

  test('without workshop.pull it is refused at once, with what the operator may set', async () => {
    const kind = kindOf({});
    const jobs = await workshop(kind, { asks: null });
    await expect(jobs.submit('me', kind, kind.plan({}))).rejects.toMatchObject({
      code: 'pull_disabled',
      param: 'dataset_source',
      message: expect.stringContaining('workshop.pull'),
    });
  });

  test('a field that names no repository is what it was', async () => {
    const kind = kindOf({ hub: undefined });
    const jobs = await workshop(kind);
    await expect(jobs.submit('me', kind, kind.plan({}))).rejects.toMatchObject({ code: 'path_not_allowed' });
  });
});

type Setup = () => void;
function answers(status: number): Setup {
  return () => {
    hub.faults.api = (_, response) => {
      response.writeHead(status).end();
      return true;
    };
  };
}

describe('refused', () => {
  const model =
    (...more: HubFileSpec[]): Setup =>
    () => {
      hub.files = [file('model.safetensors', WEIGHTS), ...more];
    };
  const data =
    (...specs: HubFileSpec[]): Setup =>
    () => {
      hub.files = specs;
    };

  test.each<[string, Partial<InputRef>, Setup, string]>([
    ['an unknown repository', {}, answers(404), 'hub_not_found'],
    ['one that wants a token', {}, answers(401), 'hub_unauthorized'],
    ['a gated one', {}, answers(403), 'hub_forbidden'],
    ['a hub that is broken', {}, answers(503), 'hub_unavailable'],
    [
      'a data set too large',
      {},
      data(file('a.jsonl', DATA, { claimed: { size: 5 * 1024 * 1024 } })),
      'request_too_large',
    ],
    [
      'bytes of another digest',
      {},
      data(file('a.jsonl', DATA, { claimed: { sha256: sha(CONFIG) } })),
      'digest_mismatch',
    ],
    [
      'bytes of another git id',
      {},
      data(file('a.jsonl', DATA, { claimed: { lfs: undefined, blobId: 'a'.repeat(40) } })),
      'digest_mismatch',
    ],
    [
      'a file without any digest',
      {},
      data(file('a.jsonl', DATA, { claimed: { lfs: undefined, blobId: 'x' } })),
      'digest_unknown',
    ],
    [
      'names that leave the folder',
      {},
      data(file('../../a.jsonl', DATA), file('/etc/a.jsonl', DATA), file('x/../a.jsonl', DATA)),
      'hub_not_found',
    ],
    [
      'Parquet that is a page',
      {},
      data(file('a.parquet', Buffer.from('<html>'))),
      'unsupported_model_format',
    ],
    ['several files', {}, data(file('a.jsonl', DATA), file('b.jsonl', DATA)), 'invalid_value'],
    [
      'weights as pickles alone',
      MODEL,
      data(file('config.json', CONFIG), file('pytorch_model.bin', WEIGHTS)),
      'unsupported_model_format',
    ],
    [
      'no safetensors inside',
      MODEL,
      data(file('model.safetensors', randomBytes(64).fill(0))),
      'invalid_safetensors',
    ],
    [
      'a model with code',
      MODEL,
      model(file('config.json', Buffer.from('{"auto_map":{"AutoModel":"evil.Evil"}}'))),
      'invalid_model_config',
    ],
    [
      'a configuration that is none',
      MODEL,
      model(file('config.json', Buffer.from('link'))),
      'invalid_model_config',
    ],
  ])('%s', async (_, ref, setup, code) => {
    setup();
    const job = await run(ref);
    expect(job).toMatchObject({
      state: 'failed',
      error: { code, param: ref.field ?? 'dataset_source' },
      outputs: [],
    });
    expect(lines.at(-1)).toMatchObject({ phase: 'failed', error: code });
    // None of it was kept as a file, and no weights of a model that is refused by its description were
    // asked for.
    expect(
      readdirSync(join(folder.path, 'hub'), { recursive: true }).filter((name) =>
        /jsonl|parquet/.test(String(name)),
      ),
    ).toEqual([]);
    if (code === 'invalid_model_config')
      expect(hub.seen.some(({ url }) => url.includes('model.safetensors'))).toBe(false);
  });

  test('a hub that ends each transfer early', async () => {
    hub.files = [file('a.jsonl', DATA)];
    hub.faults.cdn = (_, response) => {
      partly(hub.files[0]!, 0, response);
      return true;
    };
    expect(await run({})).toMatchObject({ state: 'failed', error: { code: 'hub_unavailable' } });
  });

  test('a hub that is not there', async () => {
    const kind = kindOf({});
    const asks = await inputs({ endpoint: 'http://127.0.0.1:9' });
    expect(await done(await workshop(kind, { asks }), kind)).toMatchObject({
      error: { code: 'hub_unavailable' },
    });
  });

  test('a hub that sends a byte now and then: within the time of the job', async () => {
    hub.files = [file('a.jsonl', DATA)];
    hub.faults.cdn = (_, response) => {
      partly(hub.files[0]!, 1, response, () => undefined);
      return true;
    };
    const job = await run({}, { limits: { ...LIMITS, wallMs: 1500 } });
    expect(job).toMatchObject({ state: 'failed', error: { code: 'job_over_limit' } });
  });

  test('where the audit log takes no line: the hub is not asked', async () => {
    hub.files = [file('a.jsonl', DATA)];
    const kind = kindOf({});
    const asks = await inputs({ egress: () => Promise.reject(new Error('full')) });
    expect(await done(await workshop(kind, { asks }), kind)).toMatchObject({ state: 'failed' });
    expect(hub.seen).toEqual([]);
  });
});

describe('cut off', () => {
  const long = Buffer.concat([randomBytes(400_000)]);

  test('by a cancel: the next job takes up what was fetched', async () => {
    hub.files = [file('a.jsonl', long)];
    const kind = kindOf({});
    const jobs = await workshop(kind);
    const { id } = await jobs.submit('me', kind, kind.plan({}));
    const cancelled = new Promise<StoredJob>((resolve) => {
      hub.faults.cdn = (_, response, nth) => {
        if (nth > 1) return false;
        partly(hub.files[0]!, 200_000, response, () => {
          const look = setInterval(() => {
            if (jobs.get('me', id).progress === 0) return;
            clearInterval(look);
            resolve(jobs.cancel('me', id));
          }, 10);
        });
        return true;
      };
    });
    expect(await cancelled).toMatchObject({ state: 'cancelled', error: { code: 'job_cancelled' } });
    expect(lines.at(-1)).toMatchObject({ phase: 'failed', error: 'pull_cancelled' });
    expect(await done(jobs, kind)).toMatchObject({ state: 'done', inputs: [{ sha256: sha(long) }] });
    expect(cdn()).toEqual(['whole', expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
  });

  test('a file that changed on the disk since is no input, and is fetched again', async () => {
    hub.files = [file('a.jsonl', DATA)];
    const kind = kindOf({});
    const jobs = await workshop(kind);
    expect(await done(jobs, kind)).toMatchObject({ state: 'done' });
    const [kept] = readdirSync(join(folder.path, 'hub'), { recursive: true, encoding: 'utf8' }).filter(
      (name) => name.endsWith(sha(DATA)),
    );
    const path = join(folder.path, 'hub', kept!);
    chmodSync(path, 0o600);
    writeFileSync(path, DATA.toString().replace('one', 'two'));
    chmodSync(path, 0o444);
    expect(await done(jobs, kind)).toMatchObject({ state: 'failed', error: { code: 'digest_mismatch' } });
    expect(await done(jobs, kind)).toMatchObject({ state: 'done', inputs: [{ sha256: sha(DATA) }] });
    expect(cdn()).toHaveLength(2);
  });
});

// `assay workshop ACTION …`: the jobs of a workshop that runs on this machine, by their routes. Starts
// none: jobs have their jail, queue and record from the workshop alone. Ctrl-C cancels the job in the
// workshop (workshop-follow).

import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, writeFileSync } from 'node:fs';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { environment } from '../config/read.ts';
import { CommandError, optionText, parseArguments, UsageError, type Parsed } from './arguments.ts';
import { localClient, shownText, type LocalClient } from './local-client.ts';
import { type WorkshopAnswer, Cancelled, followed, pathOf } from './workshop-follow.ts';

interface Twin {
  readonly path: string;
  /** Fields that arguments without a name fill, in order. */
  readonly fields: readonly string[];
  /** How many of them there must be. */
  readonly needed: number;
}

const TRAIN: Twin = {
  path: '/api/finetune/train',
  fields: ['model_name', 'dataset_source'],
  needed: 2,
};

const TWINS: Readonly<Record<string, Twin>> = {
  convert: { path: '/api/gguf/convert/hf-to-gguf', fields: ['model_dir', 'output_type'], needed: 1 },
  quantize: { path: '/api/gguf/quantize', fields: ['input_path', 'quant_type'], needed: 1 },
  imatrix: { path: '/api/gguf/imatrix', fields: ['input_path', 'data_path'], needed: 2 },
  inspect: { path: '/api/gguf/inspect', fields: ['input_path'], needed: 1 },
  split: { path: '/api/gguf/split', fields: ['input_path'], needed: 1 },
  merge: { path: '/api/gguf/merge', fields: ['input_path'], needed: 1 },
  'merge-lora': { path: '/api/gguf/merge/lora', fields: ['base_path', 'lora_path'], needed: 2 },
  cross: { path: '/api/convert/cross', fields: ['path', 'input_path'], needed: 2 },
  litert: { path: '/api/litert/convert/pytorch-to-tflite', fields: ['model_path'], needed: 1 },
  train: TRAIN,
  finetune: TRAIN,
};

const PUBLISHED: Readonly<Record<string, string>> = {
  model: 'model_path',
  gguf: 'gguf_path',
  dataset: 'dataset_path',
};

const TABLES: Readonly<Record<string, string>> = {
  catalog: '/api/assets/catalog',
  paths: '/api/convert/cross/paths',
  status: '/api/gguf/pipeline/status',
  training: '/api/finetune/status',
};

export const WORKSHOP_ACTIONS: ReadonlySet<string> = new Set([
  ...Object.keys(TWINS),
  ...Object.keys(TABLES),
  'jobs',
  'publish',
  'fetch',
]);

const DEFAULT_URL = 'https://127.0.0.1:8444';
const KEY_VARIABLE = 'ASSAY_API_API_KEY';

export async function workshopJobCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      url: { type: 'string' },
      'key-file': { type: 'string' },
      'token-file': { type: 'string' },
      set: { type: 'string', multiple: true },
      out: { type: 'string' },
      json: { type: 'boolean' },
      detach: { type: 'boolean' },
    },
    true,
  );
  const [action = '', ...rest] = positionals;
  const client = localClient({
    url: optionText(values['url']) ?? DEFAULT_URL,
    keyFile: optionText(values['key-file']),
    keyVariable: KEY_VARIABLE,
  });
  try {
    return await act(client, { action, given: rest, values });
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    process.stderr.write(`assay: ${error.message}\n`);
    return error.exitCode;
  }
}

async function act(client: LocalClient, asked: Asked): Promise<number> {
  const { action, given, values } = asked;
  const table = TABLES[action];
  if (table !== undefined) return print(await client.call('GET', table));
  if (action === 'jobs') return jobs(client, given, values);
  if (action === 'publish') return publish(client, given, values);
  if (action === 'fetch') return fetchJob(client, given, values);
  return runJob(client, asked);
}

interface Asked {
  readonly action: string;
  readonly given: readonly string[];
  readonly values: Parsed['values'];
}

async function runJob(client: LocalClient, { action, given, values }: Asked): Promise<number> {
  const twin = TWINS[action];
  if (twin === undefined) throw new UsageError(`assay workshop has no ${JSON.stringify(action)}`);
  const { path, fields, needed } = twin;
  if (given.length < needed || given.length > fields.length)
    throw new UsageError(
      `usage: assay workshop ${action} ${fields.map((field, i) => (i < needed ? field : `[${field}]`)).join(' ')} [--set FIELD=VALUE]...`,
    );
  const body = {
    ...settings(values),
    ...Object.fromEntries(given.map((value, i) => [fields[i] ?? '', value])),
  };
  const submitted = (await client.form(`${path}?wait=false`, body)) as WorkshopAnswer;
  const id = idOf(submitted, 'job_id');
  if (values['detach'] === true) return values['json'] === true ? print(submitted) : say(`${id}\n`);
  return finished(client, id, values);
}

/** Follows it to its end, and hands out what a job made. */
async function finished(client: LocalClient, id: string, values: Parsed['values']): Promise<number> {
  const job = await followed(client, id);
  if (job['object'] === 'publication') return print(job);
  const out = optionText(values['out']);
  if (out !== undefined) await download(client, job, out);
  if (values['json'] === true) return print(job);
  return say(`${id} done\n${outputsOf(job).map(lineOf).join('')}`);
}

const JOBS_USAGE = 'usage: assay workshop jobs [show|wait|cancel|remove JOB]';

async function jobs(
  client: LocalClient,
  [verb, job, ...more]: readonly string[],
  values: Parsed['values'],
): Promise<number> {
  if (verb === undefined) {
    const answer = (await client.call('GET', '/api/jobs?limit=1000')) as WorkshopAnswer;
    const all = Array.isArray(answer['data']) ? (answer['data'] as readonly WorkshopAnswer[]) : [];
    return values['json'] === true ? print(answer) : say(all.map(rowOf).join(''));
  }
  if (job === undefined || !JOB.test(job) || more.length > 0) throw new UsageError(JOBS_USAGE);
  switch (verb) {
    case 'show':
      return print(await client.call('GET', pathOf(job)));
    case 'wait':
      return finished(client, job, values);
    case 'cancel': {
      const { status } = (await client.call('POST', `${pathOf(job)}/cancel`)) as WorkshopAnswer;
      return say(`${job} ${String(status)}\n`);
    }
    case 'remove':
      await client.call('DELETE', pathOf(job));
      return 0;
    default:
      throw new UsageError(JOBS_USAGE);
  }
}

function rowOf(job: WorkshopAnswer): string {
  const percent = Math.floor((Number(job['progress']) || 0) * 100);
  return `${shownText(job, 'id')}  ${shownText(job, 'status').padEnd(11)}  ${String(percent).padStart(3)} %  ${shownText(job, 'kind')}\n`;
}

function settings(values: Parsed['values']): Readonly<Record<string, string>> {
  const given = (values['set'] ?? []) as readonly string[];
  return Object.fromEntries(
    given.map((each) => {
      const at = each.indexOf('=');
      if (at < 1) throw new UsageError(`--set ${JSON.stringify(each)} is not FIELD=VALUE`);
      return [each.slice(0, at), each.slice(at + 1)];
    }),
  );
}

const JOB = /^[a-z]+-[0-9a-f]{32}$/;

function idOf(answer: WorkshopAnswer, key: 'job_id' | 'publication_id'): string {
  const id = shownText(answer, key);
  if (!JOB.test(id)) throw new CommandError('the workshop named no job');
  return id;
}

interface OutputFile {
  readonly name: string;
  readonly sha256: string;
  readonly path: string;
}

function outputsOf(job: WorkshopAnswer): readonly OutputFile[] {
  const outputs = Array.isArray(job['outputs']) ? (job['outputs'] as readonly unknown[]) : [];
  return outputs.map((output) => ({
    name: shownText(output, 'name'),
    sha256: shownText(output, 'sha256'),
    path: `${shownText(job, 'id')}/${shownText(output, 'name')}`,
  }));
}

function lineOf({ path, sha256 }: OutputFile): string {
  return `${sha256}  ${path}\n`;
}

async function fetchJob(
  client: LocalClient,
  [id = '']: readonly string[],
  values: Parsed['values'],
): Promise<number> {
  const out = optionText(values['out']);
  if (out === undefined || !JOB.test(id))
    throw new UsageError('usage: assay workshop fetch JOB --out FOLDER');
  const job = (await client.call('GET', `/api/jobs/${id}`)) as WorkshopAnswer;
  await download(client, job, out);
  return 0;
}

/** As a workshop names outputs: no part of it leads out of a folder. */
const OUTPUT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}$/;

/**
 * Outputs under their names, each compared with the SHA-256 the job has; `record.cose`, and `evidence.json`
 * where there is a TEE. Overwrites no file.
 */
async function download(client: LocalClient, job: WorkshopAnswer, folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const at = `/api/jobs/${shownText(job, 'id')}`;
  for (const { name, sha256 } of outputsOf(job)) {
    if (!OUTPUT_NAME.test(name)) throw new CommandError('the workshop names an output that no job has');
    const path = join(folder, name);
    mkdirSync(dirname(path), { recursive: true });
    const response = await client.stream('GET', `${at}/output/${name}`, undefined);
    const hash = createHash('sha256');
    response.on('data', (piece: Buffer) => hash.update(piece));
    await pipeline(response, createWriteStream(path, { flags: 'wx' }));
    if (hash.digest('hex') !== sha256) throw new CommandError(`${name} is not what the job made`);
  }
  const record = await client.bytes(`${at}/record`);
  if (record !== undefined) writeFileSync(join(folder, 'record.cose'), record, { flag: 'wx' });
  const evidence = await client.bytes(`${at}/evidence`);
  if (evidence !== undefined) writeFileSync(join(folder, 'evidence.json'), evidence, { flag: 'wx' });
}

async function publish(
  client: LocalClient,
  given: readonly string[],
  values: Parsed['values'],
): Promise<number> {
  const [kind = '', path, repo] = given;
  const field = PUBLISHED[kind];
  if (field === undefined || path === undefined || repo === undefined)
    throw new UsageError(
      'usage: assay workshop publish model|gguf|dataset INPUT OWNER/NAME [--token-file FILE]',
    );
  const file = optionText(values['token-file']);
  const token = file === undefined ? environment()['HF_TOKEN'] : readFileSync(file, 'utf8').trim();
  if (token === undefined || token === '')
    throw new UsageError('the token of the hub is missing: --token-file FILE, or HF_TOKEN');
  const body = { ...settings(values), [field]: path, repo_id: repo, token };
  const begun = (await client.form(`/api/finetune/publish/${kind}?wait=false`, body)) as WorkshopAnswer;
  const id = idOf(begun, 'publication_id');
  return values['detach'] === true ? say(`${id}\n`) : finished(client, id, values);
}

function say(text: string): number {
  process.stdout.write(text);
  return 0;
}

function print(answer: unknown): number {
  process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  return 0;
}

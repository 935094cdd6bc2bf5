// `assay workshop ACTION …`: the jobs of a workshop that runs on this machine, by their routes. Starts
// none: jobs have their jail, queue and record from the workshop alone. Ctrl-C ends the command, not the
// job.

import { createHash } from 'node:crypto';
import { createWriteStream, mkdirSync, writeFileSync } from 'node:fs';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { environment } from '../config/read.ts';
import { CommandError, optionText, parseArguments, UsageError, type Parsed } from './arguments.ts';
import { localClient, shownText, type LocalClient } from './local-client.ts';

interface Twin {
  readonly path: string;
  /** Fields that arguments without a name fill, in order. */
  readonly fields: readonly string[];
  /** How many of them there must be. */
  readonly needed: number;
}

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
  train: { path: '/api/finetune/train', fields: ['model_name', 'dataset_source'], needed: 2 },
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
  jobs: '/api/jobs',
};

export const WORKSHOP_ACTIONS: ReadonlySet<string> = new Set([
  ...Object.keys(TWINS),
  ...Object.keys(TABLES),
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
    },
    true,
  );
  const [action = '', ...rest] = positionals;
  const client = localClient({
    url: optionText(values['url']) ?? DEFAULT_URL,
    keyFile: optionText(values['key-file']),
    keyVariable: KEY_VARIABLE,
  });
  const table = TABLES[action];
  if (table !== undefined) return print(await client.call('GET', table));
  if (action === 'publish') return publish(client, rest, values);
  if (action === 'fetch') return fetchJob(client, rest, values);
  return runJob(client, { action, given: rest, values });
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
  const submitted = await client.form(`${path}?wait=false`, body);
  const job = await followed(client, idOf(submitted));
  if (job['status'] !== 'done') throw new CommandError(endOf(job));
  const out = optionText(values['out']);
  if (out !== undefined) await download(client, job, out);
  if (values['json'] === true) return print(job);
  process.stdout.write(`${shownText(job, 'id')} done\n${outputsOf(job).map(lineOf).join('')}`);
  return 0;
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

type Answer = Readonly<Record<string, unknown>>;

function idOf(answer: unknown): string {
  const id = shownText(answer, 'job_id');
  if (!/^[a-z]+-[0-9a-f]{32}$/.test(id)) throw new CommandError('the workshop named no job');
  return id;
}

/** Each request waits in the workshop for the end of the job, at most a second. */
async function followed(client: LocalClient, id: string): Promise<Answer> {
  const bar = jobBar(process.stderr.isTTY);
  for (;;) {
    const job = (await client.call('GET', `/api/jobs/${id}?wait=1`)) as Answer;
    bar(job);
    if (job['status'] !== 'queued' && job['status'] !== 'running') return job;
  }
}

const WIDTH = 20;

/** One line that is rewritten; silent where standard error is no terminal. */
export function jobBar(
  terminal: boolean,
  write = (line: string): unknown => process.stderr.write(line),
): (job: Answer) => void {
  return (job) => {
    if (!terminal) return;
    const fraction = Math.min(1, Math.max(0, Number(job['progress']) || 0));
    const filled = Math.floor(fraction * WIDTH);
    const stage = shownText(job, 'stage') || shownText(job, 'status');
    const over = job['status'] === 'queued' || job['status'] === 'running' ? '' : '\n';
    write(
      `\r\u001b[K[${'#'.repeat(filled)}${'-'.repeat(WIDTH - filled)}] ${Math.floor(fraction * 100)} % ${stage}${over}`,
    );
  };
}

function endOf(job: Answer): string {
  const error = job['error'];
  return `${shownText(job, 'id')} ${shownText(job, 'status')}: ${shownText(error, 'message')} (${shownText(error, 'code')})`;
}

interface OutputFile {
  readonly name: string;
  readonly sha256: string;
  readonly path: string;
}

function outputsOf(job: Answer): readonly OutputFile[] {
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
  if (out === undefined || !/^[a-z]+-[0-9a-f]{32}$/.test(id))
    throw new UsageError('usage: assay workshop fetch JOB --out FOLDER');
  const job = (await client.call('GET', `/api/jobs/${id}`)) as Answer;
  await download(client, job, out);
  return 0;
}

/** As a workshop names outputs: no part of it leads out of a folder. */
const OUTPUT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(?:\/[A-Za-z0-9][A-Za-z0-9._-]{0,127}){0,7}$/;

/**
 * Outputs under their names, each compared with the SHA-256 the job has; `record.cose`, and `evidence.json`
 * where there is a TEE. Overwrites no file.
 */
async function download(client: LocalClient, job: Answer, folder: string): Promise<void> {
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
  return print(await client.form(`/api/finetune/publish/${kind}`, body));
}

function print(answer: unknown): number {
  process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  return 0;
}

// Seed 004 about the workshop's routes: every path, field, default and member of an answer, as
// one table, against the routes and kinds themselves. Members are those of the original
// (shared/reference/models.md §7); where ours differs, the row says why.

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { JsonSchema } from '../../../src/base/shape.ts';
import { QUANTIZE_TYPES } from '../../../src/engine/seam/quantize.ts';
import { allWorkshopRoutes } from '../../../src/workshop/all-routes.ts';
import { Publications } from '../../../src/workshop/hub/publications.ts';
import { Jobs } from '../../../src/workshop/jobs/jobs.ts';
import { allKinds } from '../../../src/workshop/kinds.ts';
import { CROSS_PATH_IDS } from '../../../src/workshop/python/cross-paths.ts';
import { PythonEnvironment } from '../../../src/workshop/python/environment.ts';
import { seedFiles } from '../../fixtures/shared.ts';

const python = new PythonEnvironment({ folder: '/nowhere' });
const kinds = allKinds(python);
const routes = allWorkshopRoutes({
  kinds,
  jobs: Object.create(Jobs.prototype) as Jobs,
  hub: { endpoint: 'https://hub.example', pull: false, publish: false },
  python,
  publications: Object.create(Publications.prototype) as Publications,
  assets: { dataFolder: '/nowhere', signature: undefined },
});

interface Row {
  readonly path: string;
  readonly method: 'GET' | 'POST';
  /** Fields of the body. */
  readonly fields?: string;
  /** Members of the answer; `a.b` is a member of a member, `a[].b` one of each entry of a list. */
  readonly answer: string;
  /** A body of required fields, the parameters it means, and the fields that have these defaults. */
  readonly defaults?: readonly [body: object, parameters: object];
}

const PUBLISH = 'success repo_id url';
const SEED: readonly Row[] = [
  {
    method: 'GET',
    path: '/api/gguf/pipeline/status',
    answer:
      'llama_cpp_tools.tools llama_cpp_tools.available llama_cpp_tools.any_available gguf_python_lib.available gguf_python_lib.version quant_types_available supported_architectures ' +
      'capabilities.read_metadata capabilities.quantize capabilities.convert_hf capabilities.imatrix capabilities.split_join capabilities.lora_merge capabilities.inference',
  },
  {
    method: 'POST',
    path: '/api/gguf/quantize',
    fields: 'input_path quant_type output_name n_threads imatrix_path',
    answer:
      'success input_path output_path quant_type input_size output_size compression_ratio elapsed_seconds',
    defaults: [
      { input_path: 'm.gguf' },
      { quant_type: 'Q4_K_M', n_threads: null, imatrix: 'own', output_name: 'm-Q4_K_M.gguf' },
    ],
  },
  {
    method: 'POST',
    path: '/api/gguf/convert/hf-to-gguf',
    fields: 'model_dir output_type output_name vocab_type',
    answer: 'success output_path output_type file_size elapsed_seconds',
    defaults: [{ model_dir: 'm' }, { output_type: 'F16', output_name: 'm-F16.gguf' }],
  },
  {
    method: 'GET',
    path: '/api/convert/cross/paths',
    answer:
      'paths[].id paths[].from_format paths[].to_format paths[].source_extensions paths[].available paths[].note total available_count',
  },
  {
    method: 'POST',
    path: '/api/convert/cross',
    fields: 'path input_path output_name',
    answer: 'success output_path',
    defaults: [
      { path: 'pytorch_to_onnx', input_path: 'm.pt2' },
      { path: 'pytorch_to_onnx', output_name: null, architecture: null },
    ],
  },
  {
    method: 'POST',
    path: '/api/litert/convert/pytorch-to-tflite',
    fields: 'model_path output_name',
    answer: 'success output_path format converter file_size',
    defaults: [{ model_path: 'm.pt2' }, { path: 'pytorch_to_tflite_litert', output_name: null }],
  },
  {
    method: 'GET',
    path: '/api/finetune/status',
    // "Unsloth & HuggingFace Hub ecosystem status"
    answer:
      'ready unsloth.version torch.version peft.version transformers.version trl.version bitsandbytes.version huggingface_hub.version datasets.version accelerate.version tokenizers.version safetensors.version hub.endpoint hub.pull hub.publish export_formats',
  },
  {
    method: 'POST',
    path: '/api/finetune/train',
    fields:
      'model_name dataset_source num_epochs learning_rate lora_r lora_alpha lora_dropout max_seq_length use_4bit batch_size gradient_accumulation_steps max_steps warmup_steps seed exports',
    answer: 'job_id status',
    defaults: [
      { model_name: 'm', dataset_source: 'd.jsonl' },
      {
        model_name: 'm',
        num_epochs: 1,
        learning_rate: 2e-4,
        lora_r: 16,
        lora_alpha: 16,
        lora_dropout: 0,
        max_seq_length: 2048,
        use_4bit: true,
        batch_size: 2,
        gradient_accumulation_steps: 4,
        max_steps: null,
        warmup_steps: 0,
        seed: 42,
        exports: ['lora'],
      },
    ],
  },
  {
    method: 'POST',
    path: '/api/finetune/publish/model',
    // `private` is true where the original's default is false: what is published by mistake stays unseen.
    fields: 'model_dir model_path repo_id token private commit_message generate_card',
    answer: PUBLISH,
  },
  {
    method: 'POST',
    path: '/api/finetune/publish/gguf',
    fields: 'gguf_path repo_id token private commit_message generate_card',
    answer: PUBLISH,
  },
  {
    method: 'POST',
    path: '/api/finetune/publish/dataset',
    fields: 'data_dir dataset_path repo_id token private commit_message generate_card',
    answer: PUBLISH,
  },
  {
    method: 'GET',
    path: '/api/assets/catalog',
    answer:
      'models datasets benchmarks total_models downloaded_models asset_dir models[].sha256 models[].downloaded',
  },
];

function routeOf({ method, path }: Pick<Row, 'method' | 'path'>) {
  const found = routes.find((route) => route.method === method && route.path === path);
  expect(found, `${method} ${path}`).toBeDefined();
  return found!;
}

/** The schema of a member; undefined where there is none. */
function memberOf(schema: JsonSchema | undefined, member: string): JsonSchema | undefined {
  let at = schema;
  for (const step of member.split('.')) {
    const properties = at?.['properties'] as Readonly<Record<string, JsonSchema>> | undefined;
    at = properties?.[step.replace(/\[\]$/, '')];
    if (step.endsWith('[]')) at = at?.['items'] as JsonSchema | undefined;
  }
  return at;
}

test.each(SEED)('$method $path: the members, fields and defaults of the original', (row) => {
  const { answer, body } = routeOf(row);
  for (const member of row.answer.split(' ')) expect(memberOf(answer?.schema, member), member).toBeDefined();
  for (const field of row.fields?.split(' ') ?? [])
    expect(memberOf(body?.schema, field), field).toBeDefined();
  if (row.defaults === undefined) return;
  // The record has them as well: they are the parameters of the job.
  const [given, parameters] = row.defaults;
  const kind = [...kinds.values()].find(({ path }) => path === row.path)!;
  expect(kind.plan(kind.body.read(given, '')).parameters).toMatchObject(parameters);
});

test('at least the 21 types, the 14 paths, and the path of the original code', () => {
  expect(Object.keys(QUANTIZE_TYPES).length).toBeGreaterThanOrEqual(21);
  expect(CROSS_PATH_IDS).toHaveLength(14);
  expect(routes.some(({ aliases }) => aliases?.includes('/api/assets/litert/convert'))).toBe(true);
});

const SEED_FILE = seedFiles().find((path) => /\/004_[^/]*$/.test(path));

test.skipIf(SEED_FILE === undefined)('the table has every path below /api/ that the seed names', () => {
  const text = readFileSync(SEED_FILE!, 'utf8');
  const named = [...text.matchAll(/^(?:GET|POST) \/api\/\S+$/gm)].map(([line]) => line);
  expect(named).toHaveLength(9);
  const ours = SEED.map(({ method, path }) => `${method} ${path}`);
  for (const each of named) {
    const begin = each.replace(/\*$/, '');
    expect(
      ours.some((line) => (each === begin ? line === each : line.startsWith(begin))),
      each,
    ).toBe(true);
  }
});

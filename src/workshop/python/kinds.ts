// The kinds of jobs that run Python of the managed environment: conversions between formats, LiteRT,
// training. None has the network, and none runs without the barriers that keep it from other files and
// processes: the libraries read strangers' models.

import { ApiError } from '../../base/errors.ts';
import {
  anything,
  choice,
  decimal,
  either,
  flag,
  integer,
  list,
  map,
  object,
  optionalOrEmpty,
  text,
  type Infer,
} from '../../base/shape.ts';
import {
  DONE_FIELDS,
  FILE_FIELDS,
  firstOutput,
  GGUF_LIMITS,
  inputPath,
  outputPath,
  outputPathText,
  sha256Text,
} from '../gguf/common.ts';
import {
  jobKind,
  type Barrier,
  type DoneJob,
  type JobKind,
  type JobLimits,
  type JobParameters,
} from '../kind.ts';
import { ownProgram } from '../own-program.ts';
import { CROSS_PATH_IDS, CROSS_PATHS, crossProgram, packagesOf, type CrossPathId } from './cross-paths.ts';
import type { PythonEnvironment } from './environment.ts';
import { EXPORTS } from './finetune-status.ts';
import { PICKLE_BARRIERS, pickleParameter, type Allowed } from './pickles.ts';
import { pythonProgram, TOOL_PACKAGES, type PythonProgram } from './tools.ts';

const REQUIRES: readonly Barrier[] = PICKLE_BARRIERS;
const LIMITS: JobLimits = { ...GGUF_LIMITS, processes: 1024 };
const LITERT: CrossPathId = 'pytorch_to_tflite_litert';

const architecture = optionalOrEmpty(
  text({ max: 128, about: 'Of bare weights: a class of torchvision, such as `resnet18`.' }),
);
const axis = integer({ min: 1, max: 65_536 });
const axes = list(axis, { min: 1, max: 8 });
/** As a form has it: `1,3,224,224`. */
const shapeText = map(
  text({ max: 64, pattern: /^\d{1,5}(?:,\d{1,5}){0,7}$/, form: 'whole numbers with commas between them' }),
  (given) => given.split(',').map(Number),
);
const inputShape = optionalOrEmpty(
  either(
    { string: shapeText, array: axes },
    'whole numbers, as a list or with commas',
    'Shape of the example input that the model is exported with.',
  ),
);
const sequenceLength = optionalOrEmpty(
  integer({ min: 1, max: 4096, about: 'Of the example of a model of text. Default: 16.' }),
);
/** The program adds the ending of its format. */
const resultName = optionalOrEmpty(
  text({
    max: 64,
    pattern: /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
    form: 'a name of letters, digits, ".", "_" and "-"',
  }),
);

const outputPaths = list(outputPathText, { max: 256 });

const crossBody = object({
  path: choice(CROSS_PATH_IDS, 'Which conversion, by its id in `GET /api/convert/cross/paths`.'),
  input_path: inputPath('The model'),
  output_name: resultName,
  architecture,
  input_shape: inputShape,
  sequence_length: sequenceLength,
});

const litertBody = object({
  model_path: inputPath('A .pt2 program, a folder of safetensors, or one .safetensors file'),
  output_name: resultName,
  architecture,
  input_shape: inputShape,
  sequence_length: sequenceLength,
});

interface Example {
  readonly output_name?: string | undefined;
  readonly architecture?: string | undefined;
  readonly input_shape?: readonly number[] | undefined;
  readonly sequence_length?: number | undefined;
}

function conversion(path: CrossPathId, given: Example): JobParameters {
  return {
    path,
    output_name: given.output_name ?? null,
    architecture: given.architecture ?? null,
    input_shape: given.input_shape ?? null,
    sequence_length: given.sequence_length ?? null,
  };
}

export function crossKind(environment: PythonEnvironment, allowed: Allowed): JobKind {
  return jobKind<Infer<typeof crossBody>>({
    name: 'convert/cross',
    summary:
      'Convert a model to another format; the result is run beside the original where that can be done.',
    path: '/api/convert/cross',
    body: crossBody,
    answers: 'result',
    network: false,
    requires: REQUIRES,
    limits: LIMITS,
    missing: () => environment.missing(TOOL_PACKAGES.cross),
    plan({ path, input_path: given, ...example }) {
      packagesOf(path);
      return {
        inputs: [{ name: 'model', field: 'input_path', given, accepts: 'either' }],
        parameters: { ...conversion(path, example), ...pickleParameter(allowed) },
      };
    },
    program: async ({ path }) =>
      withOwnCode(
        await crossProgram(path as CrossPathId, environment),
        CROSS_PATHS[path as CrossPathId].builtin,
      ),
    answerFields: {
      ...DONE_FIELDS,
      output_path: outputPathText,
      output_paths: outputPaths,
      sha256: sha256Text,
      result: anything,
    },
    answer: (done) => ({
      success: true,
      output_path: outputPath(done.id, firstOutput(done)),
      output_paths: done.outputs.map((output) => outputPath(done.id, output)),
      elapsed_seconds: done.elapsedSeconds,
      sha256: firstOutput(done).sha256,
      result: done.result,
    }),
  });
}

export function litertKind(environment: PythonEnvironment, allowed: Allowed): JobKind {
  return jobKind<Infer<typeof litertBody>>({
    name: 'litert/convert',
    summary: 'Convert a PyTorch model to TFLite with litert-torch; the result is run beside the original.',
    path: '/api/litert/convert/pytorch-to-tflite',
    // The path of the original's code; the other is of its documentation.
    aliases: ['/api/assets/litert/convert'],
    body: litertBody,
    answers: 'result',
    network: false,
    requires: REQUIRES,
    limits: LIMITS,
    missing: () => environment.missing(packagesOf(LITERT)),
    plan: ({ model_path: given, ...example }) => ({
      inputs: [{ name: 'model', field: 'model_path', given, accepts: 'either' }],
      parameters: { ...conversion(LITERT, example), ...pickleParameter(allowed) },
    }),
    program: () => crossProgram(LITERT, environment),
    answerFields: {
      ...FILE_FIELDS,
      format: choice(['tflite']),
      converter: choice(['litert-torch']),
      result: anything,
    },
    answer(done) {
      const output = firstOutput(done);
      return {
        success: true,
        output_path: outputPath(done.id, output),
        format: 'tflite',
        converter: 'litert-torch',
        file_size: output.size,
        elapsed_seconds: done.elapsedSeconds,
        sha256: output.sha256,
        result: done.result,
      };
    },
  });
}

const oneExport = choice(EXPORTS);
const exportsText = map(text({ max: 64, about: 'Names with commas between them.' }), (given) =>
  given.split(',').map((each) => {
    const found = EXPORTS.find((name) => name === each.trim());
    if (found === undefined)
      throw new ApiError('invalid_value', `exports takes ${EXPORTS.join(', ')}`, { param: 'exports' });
    return found;
  }),
);

const trainBody = object({
  model_name: inputPath('The folder of the model, safetensors with its tokenizer', 'model'),
  dataset_source: inputPath('The data set, a file of JSON, lines of JSON, CSV or Parquet', 'dataset'),
  num_epochs: optionalOrEmpty(decimal({ min: 0.001, max: 1000, about: 'Default: 1.' })),
  learning_rate: optionalOrEmpty(decimal({ min: 1e-9, max: 1, about: 'Default: 0.0002.' })),
  lora_r: optionalOrEmpty(integer({ min: 1, max: 1024, about: 'Rank of the adapter. Default: 16.' })),
  lora_alpha: optionalOrEmpty(integer({ min: 1, max: 65_536, about: 'Default: 16.' })),
  lora_dropout: optionalOrEmpty(decimal({ min: 0, max: 0.9, about: 'Default: 0.' })),
  max_seq_length: optionalOrEmpty(integer({ min: 8, max: 131_072, about: 'Default: 2048.' })),
  use_4bit: optionalOrEmpty(
    flag('Default: true; falls to false without CUDA, which the log of the job says.'),
  ),
  batch_size: optionalOrEmpty(integer({ min: 1, max: 256, about: 'Default: 2.' })),
  gradient_accumulation_steps: optionalOrEmpty(integer({ min: 1, max: 1024, about: 'Default: 4.' })),
  max_steps: optionalOrEmpty(integer({ min: 1, max: 1_000_000, about: 'Instead of `num_epochs`.' })),
  warmup_steps: optionalOrEmpty(integer({ min: 0, max: 100_000, about: 'Default: 0.' })),
  seed: optionalOrEmpty(integer({ min: 0, max: 4_294_967_295, about: 'Default: 42.' })),
  exports: optionalOrEmpty(
    either(
      { string: exportsText, array: list(oneExport, { min: 1, max: EXPORTS.length }) },
      'names of exports, as a list or with commas',
      `Of ${EXPORTS.join(', ')}. Default: lora.`,
    ),
  ),
});

export function trainKind(environment: PythonEnvironment): JobKind {
  return jobKind<Infer<typeof trainBody>>({
    name: 'finetune/train',
    summary: 'Train a LoRA adapter of a model with peft and trl.',
    path: '/api/finetune/train',
    body: trainBody,
    answers: 'job',
    idPrefix: 'train-',
    network: false,
    requires: REQUIRES,
    limits: LIMITS,
    missing: () => environment.missing(TOOL_PACKAGES.finetune),
    plan: (body) => ({
      inputs: [
        { name: 'model', field: 'model_name', given: body.model_name, accepts: 'folder', hub: 'model' },
        {
          name: 'dataset',
          field: 'dataset_source',
          given: body.dataset_source,
          accepts: 'file',
          hub: 'dataset',
        },
      ],
      parameters: trainParameters(body),
    }),
    program: async ({ exports }) => {
      const builtin = (exports as readonly string[]).some((each) => each.startsWith('gguf'));
      return withOwnCode(await pythonProgram(environment, 'finetune', { builtin }), builtin);
    },
    answerFields: { ...DONE_FIELDS, status: choice(['done']), output_paths: outputPaths, result: anything },
    answer: (done: DoneJob) => ({
      success: true,
      status: 'done',
      elapsed_seconds: done.elapsedSeconds,
      output_paths: done.outputs.map((output) => outputPath(done.id, output)),
      result: done.result,
    }),
  });
}

/** With the defaults of the original, so that the record says them. */
function trainParameters(body: Infer<typeof trainBody>): JobParameters {
  return {
    model_name: body.model_name,
    num_epochs: body.num_epochs ?? 1,
    learning_rate: body.learning_rate ?? 2e-4,
    lora_r: body.lora_r ?? 16,
    lora_alpha: body.lora_alpha ?? 16,
    lora_dropout: body.lora_dropout ?? 0,
    max_seq_length: body.max_seq_length ?? 2048,
    use_4bit: body.use_4bit ?? true,
    batch_size: body.batch_size ?? 2,
    gradient_accumulation_steps: body.gradient_accumulation_steps ?? 4,
    max_steps: body.max_steps ?? null,
    warmup_steps: body.warmup_steps ?? 0,
    seed: body.seed ?? 42,
    exports: body.exports ?? ['lora'],
  };
}

/** The half of the job that is our own code reads what our own programs read. */
function withOwnCode(program: PythonProgram, builtin: boolean | undefined): PythonProgram {
  if (builtin !== true) return program;
  return { ...program, reads: [...new Set([...program.reads, ...ownProgram('gguf').reads])] };
}

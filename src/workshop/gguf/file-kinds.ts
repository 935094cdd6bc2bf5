// The kinds of jobs on GGUF files beside quantising and converting: describe, split, merge parts, merge an
// adapter, collect an importance matrix. The work is that of the modules beside this one, in the program
// of tool/gguf.

import { ApiError } from '../../base/errors.ts';
import {
  anyObject,
  choice,
  decimal,
  integer,
  list,
  nullable,
  object,
  optional,
  optionalOrEmpty,
  flag,
  text,
  type Infer,
  type Shape,
} from '../../base/shape.ts';
import { MAX_PARTS, namesOfParts } from '../../models/gguf/part-name.ts';
import { type DoneJob, type InputRef, type JobKind, jobKind, type JobParameters } from '../kind.ts';
import { ownProgram } from '../own-program.ts';
import {
  byteCount,
  DONE_FIELDS,
  FILE_FIELDS,
  firstOutput,
  ggufName,
  GGUF_LIMITS,
  IMATRIX_FORMATS,
  inputPath,
  outputName,
  outputPath,
  outputPathText,
  sha256Text,
} from './common.ts';

const MAX = Number.MAX_SAFE_INTEGER;
/** As llama-gguf-split's `--split-max-tensors`. */
const SPLIT_TENSORS = 128;
/** About what llama-imatrix is given in practice: 512 windows of 512 tokens. */
const IMATRIX_TOKENS = 262_144;

/** The parts that all of them have in common. */
function fileKind<Body>(own: {
  readonly name: string;
  readonly path: string;
  readonly summary: string;
  readonly body: Shape<Body>;
  readonly plan: (body: Body) => { readonly inputs: readonly InputRef[]; readonly parameters: JobParameters };
  readonly answer: (done: DoneJob) => object;
  readonly answerFields: Readonly<Record<string, Shape<unknown>>>;
}): JobKind {
  return jobKind<Body>({
    ...own,
    answers: 'result',
    network: false,
    requires: [],
    limits: GGUF_LIMITS,
    missing: () => Promise.resolve(null),
    program: () => Promise.resolve(ownProgram('gguf')),
  });
}

function fileInput(name: string, field: string, given: string): InputRef {
  return { name, field, given, accepts: 'file' };
}

const count = integer({ min: 0, max: MAX });
const words = text({ max: 8192 });

/** As GgufDescription, cut short by the program. */
const described = {
  version: count,
  architecture: nullable(words),
  name: nullable(words),
  type: words,
  quantization: nullable(words),
  parameters: count,
  file_size: byteCount,
  data_offset: byteCount,
  alignment: count,
  metadata_count: count,
  metadata: anyObject('Long lists as their type and count.'),
  tensor_count: count,
  tensors: list(
    object({ name: words, type: words, shape: list(count, { max: 4 }), offset: byteCount, bytes: byteCount }),
    { max: 200 },
  ),
  types: anyObject('By type: how many tensors and bytes.'),
  split: nullable(object({ no: count, count })),
  truncated: flag('Whether tensors or keys were left out of the answer beyond what was asked for.'),
};

const inspectBody = object({
  input_path: inputPath('The GGUF file'),
  tensor_limit: optionalOrEmpty(integer({ min: 0, max: 200, about: 'Tensors in the answer. Default: 100.' })),
  tensor_offset: optionalOrEmpty(integer({ min: 0, max: 65_536, about: 'The first of them. Default: 0.' })),
});

export const inspectKind = fileKind<Infer<typeof inspectBody>>({
  name: 'gguf/inspect',
  path: '/api/gguf/inspect',
  summary: 'Describe a GGUF file: metadata and tensors; the whole description is the output.',
  body: inspectBody,
  plan: ({ input_path: given, tensor_limit: limit = 100, tensor_offset: offset = 0 }) => ({
    inputs: [fileInput('model', 'input_path', given)],
    parameters: { tensor_limit: limit, tensor_offset: offset },
  }),
  answerFields: { success: flag(), output_path: outputPathText, ...described },
  answer: (done) => ({
    success: true,
    output_path: outputPath(done.id, firstOutput(done)),
    ...(done.result as object),
  }),
});

const splitBody = object({
  input_path: inputPath('The GGUF file'),
  max_tensors: optionalOrEmpty(integer({ min: 1, max: 65_536, about: 'Tensors of a part. Default: 128.' })),
  max_bytes: optionalOrEmpty(integer({ min: 1, max: MAX, about: 'Bytes of tensors of a part, instead.' })),
  no_tensor_first_split: optionalOrEmpty(flag('The first part has the metadata alone. Default: false.')),
  output_name: outputName,
});

export const splitKind = fileKind<Infer<typeof splitBody>>({
  name: 'gguf/split',
  path: '/api/gguf/split',
  summary: 'Split a GGUF model into parts, as llama-gguf-split does.',
  body: splitBody,
  plan({
    input_path: given,
    max_tensors: tensors,
    max_bytes: bytes,
    no_tensor_first_split: first,
    output_name: name,
  }) {
    if (tensors !== undefined && bytes !== undefined)
      throw new ApiError('invalid_value', 'max_tensors and max_bytes do not go together', {
        param: 'max_bytes',
      });
    return {
      inputs: [fileInput('model', 'input_path', given)],
      parameters: {
        by: bytes === undefined ? 'tensors' : 'bytes',
        max: bytes ?? tensors ?? SPLIT_TENSORS,
        no_tensor_first_split: String(first ?? false),
        output_name: ggufName(name, given, 'split').replace(/\.gguf$/i, ''),
      },
    };
  },
  answerFields: {
    ...DONE_FIELDS,
    parts: list(object({ output_path: outputPathText, file_size: byteCount, sha256: sha256Text }), {
      max: MAX_PARTS,
    }),
  },
  answer: ({ id, outputs, elapsedSeconds }) => ({
    success: true,
    parts: outputs.map((output) => ({
      output_path: outputPath(id, output),
      file_size: output.size,
      sha256: output.sha256,
    })),
    elapsed_seconds: elapsedSeconds,
  }),
});

const mergeBody = object({
  input_path: optionalOrEmpty(
    inputPath('The first part, `…-00001-of-0000N.gguf`; the others are found by it'),
  ),
  input_paths: optional(list(inputPath('A part'), { max: MAX_PARTS })),
  output_name: outputName,
});

export const mergeKind = fileKind<Infer<typeof mergeBody>>({
  name: 'gguf/merge',
  path: '/api/gguf/merge',
  summary: 'Merge the parts of a split GGUF model into one file.',
  body: mergeBody,
  plan({ input_path: first, input_paths: all, output_name: name }) {
    if ((first === undefined) === (all === undefined))
      throw new ApiError('missing_required_parameter', 'one of input_path and input_paths is needed', {
        param: 'input_path',
      });
    const given = all ?? namesOfParts(first ?? '');
    const field = all === undefined ? 'input_path' : 'input_paths';
    const stem = (given[0] ?? '').replace(/-\d{5}-of-\d{5}\.gguf$/i, '');
    return {
      inputs: given.map((each, i) => fileInput(`part-${String(i + 1).padStart(5, '0')}`, field, each)),
      parameters: { parts: given.length, output_name: ggufName(name, stem, 'merged') },
    };
  },
  answerFields: { ...FILE_FIELDS, tensors: count },
  answer: oneFile,
});

const loraBody = object({
  base_path: inputPath('The base, of F32, F16 or BF16'),
  lora_path: inputPath('The adapter, a GGUF file'),
  scale: optionalOrEmpty(decimal({ min: -100, max: 100, about: 'Default: 1, as it was trained.' })),
  output_name: outputName,
});

export const mergeLoraKind = fileKind<Infer<typeof loraBody>>({
  name: 'gguf/merge-lora',
  path: '/api/gguf/merge/lora',
  summary: 'Merge a LoRA adapter into its base.',
  body: loraBody,
  plan: ({ base_path: base, lora_path: lora, scale = 1, output_name: name }) => ({
    inputs: [fileInput('base', 'base_path', base), fileInput('lora', 'lora_path', lora)],
    parameters: { scale: String(scale), output_name: ggufName(name, base, 'merged') },
  }),
  answerFields: { ...FILE_FIELDS, merged_tensors: count },
  answer: oneFile,
});

const imatrixBody = object({
  input_path: inputPath('The GGUF model'),
  data_path: inputPath('The text, in UTF-8'),
  max_tokens: optionalOrEmpty(integer({ min: 1, max: 16_777_216, about: 'Of the text. Default: 262144.' })),
  format: optionalOrEmpty(
    choice(IMATRIX_FORMATS, 'Of the file; `dat` is llama.cpp’s older one. Default: gguf.'),
  ),
  output_name: outputName,
});

export const imatrixKind = fileKind<Infer<typeof imatrixBody>>({
  name: 'gguf/imatrix',
  path: '/api/gguf/imatrix',
  summary: 'Collect the importance matrix of a model over a text.',
  body: imatrixBody,
  plan({
    input_path: given,
    data_path: data,
    max_tokens: tokens = IMATRIX_TOKENS,
    format = 'gguf',
    output_name: name,
  }) {
    const bare = name?.replace(/\.dat$/i, '');
    const output = ggufName(format === 'dat' ? bare : name, given, 'imatrix');
    return {
      inputs: [fileInput('model', 'input_path', given), fileInput('text', 'data_path', data)],
      parameters: {
        max_tokens: tokens,
        format,
        output_name: format === 'dat' ? output.replace(/\.gguf$/i, '.dat') : output,
      },
    };
  },
  answerFields: { ...FILE_FIELDS, tokens: count, chunks: count, tensors: count },
  answer: oneFile,
});

function oneFile(done: DoneJob): object {
  const output = firstOutput(done);
  return {
    success: true,
    output_path: outputPath(done.id, output),
    file_size: output.size,
    sha256: output.sha256,
    elapsed_seconds: done.elapsedSeconds,
    ...(done.result as object),
  };
}

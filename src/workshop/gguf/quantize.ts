// `POST /api/gguf/quantize` (seed 004): a GGUF file in another type. Fields, defaults and answer are the
// original's; the importance matrix that the lowest types need is the one given, or made of the model
// itself over a fixed text, so that the result depends on the model alone.

import { decimal, flag, type Infer, integer, list, map, object, optionalOrEmpty, text } from '../../base/shape.ts'; // prettier-ignore
import { QUANTIZE_TYPES } from '../../engine/seam/quantize.ts';
import { typeOfIsq } from '../../models/isq.ts';
import { type DoneJob, jobKind } from '../kind.ts';
import { ownProgram } from '../own-program.ts';
import {
  byteCount,
  DONE_FIELDS,
  firstOutput,
  ggufName,
  GGUF_LIMITS,
  inputPath,
  outputName,
  outputPath,
  outputPathText,
  sha256Text,
} from './common.ts';

const quantType = map(
  text({ max: 16, about: `One of ${Object.keys(QUANTIZE_TYPES).join(', ')}. Default: Q4_K_M.` }),
  (given) => typeOfIsq(given, 'quant_type'),
);

const body = object({
  input_path: inputPath('The GGUF file'),
  quant_type: optionalOrEmpty(quantType),
  output_name: outputName,
  n_threads: optionalOrEmpty(integer({ min: 1, max: 256, about: 'The bytes are the same for any number.' })),
  imatrix_path: optionalOrEmpty(
    inputPath(
      'An importance matrix, in the GGUF form or the older one (.dat); without it one is made of the model where needed',
    ),
  ),
});
type Body = Infer<typeof body>;

export const quantizeKind = jobKind<Body>({
  name: 'gguf/quantize',
  summary: 'Quantise a GGUF model; the types that need an importance matrix get one.',
  path: '/api/gguf/quantize',
  body,
  answers: 'result',
  network: false,
  requires: [],
  limits: GGUF_LIMITS,
  missing: () => Promise.resolve(null),
  plan({
    input_path: given,
    quant_type: type = 'Q4_K_M',
    output_name: name,
    n_threads: threads,
    imatrix_path: matrix,
  }) {
    return {
      inputs: [
        { name: 'model', field: 'input_path', given, accepts: 'file' },
        ...(matrix === undefined
          ? []
          : [{ name: 'imatrix', field: 'imatrix_path', given: matrix, accepts: 'file' } as const]),
      ],
      parameters: {
        quant_type: type,
        output_name: ggufName(name, given, type),
        n_threads: threads ?? null,
        imatrix: matrix === undefined ? 'own' : 'given',
      },
    };
  },
  program: () => Promise.resolve(ownProgram('gguf')),
  answerFields: {
    ...DONE_FIELDS,
    input_path: text({ max: 4096, about: 'As it was given.' }),
    output_path: outputPathText,
    quant_type: text({ max: 16 }),
    input_size: byteCount,
    output_size: byteCount,
    compression_ratio: decimal({ min: 0, max: Number.MAX_SAFE_INTEGER }),
    sha256: sha256Text,
    used_imatrix: flag(),
    warnings: list(text({ max: 1024 }), { max: 16 }),
  },
  answer(done: DoneJob) {
    const [input] = done.inputs;
    const output = firstOutput(done);
    const inputSize = input?.size ?? 0;
    return {
      success: true,
      input_path: input?.given,
      output_path: outputPath(done.id, output),
      quant_type: done.parameters['quant_type'],
      input_size: inputSize,
      output_size: output.size,
      compression_ratio: output.size === 0 ? 0 : Math.round((inputSize / output.size) * 100) / 100,
      elapsed_seconds: done.elapsedSeconds,
      sha256: output.sha256,
      used_imatrix:
        done.parameters['imatrix'] === 'given' ||
        QUANTIZE_TYPES[typeOfIsq(String(done.parameters['quant_type']))].needsMatrix,
      warnings: warningsOf(done.result),
    };
  },
});

/** Rows that do not fit the type's blocks get another type, which llama.cpp says only in its log. */
function warningsOf(result: unknown): readonly string[] {
  const count = Number(Reflect.get(result as object, 'fallback_count'));
  return Number.isSafeInteger(count) && count > 0
    ? [`${count} tensors have rows that do not fit the type, and have another`]
    : [];
}

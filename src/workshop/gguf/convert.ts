// `POST /api/gguf/convert/hf-to-gguf` (seed 004): a Hugging Face folder of safetensors as one GGUF file, by
// the converter of serving, without Python. Pickles and code of a folder are neither shown to it nor read.

import { ApiError } from '../../base/errors.ts';
import { type Infer, map, object, optionalOrEmpty, text } from '../../base/shape.ts';
import { typeOfIsq } from '../../models/isq.ts';
import { jobKind } from '../kind.ts';
import { ownProgram } from '../own-program.ts';
import {
  FILE_FIELDS,
  firstOutput,
  ggufName,
  GGUF_LIMITS,
  inputPath,
  outputName,
  outputPath,
} from './common.ts';

/** The files the converter opens of a folder (models/model-folder). */
const READ =
  '^(?:(?:config|generation_config|tokenizer|tokenizer_config|added_tokens|modules)\\.json|tokenizer\\.model|merges\\.txt|chat_template\\.(?:jinja|json)|model[\\w.-]*\\.safetensors(?:\\.index\\.json)?|\\d_Pooling/config\\.json)$';

const outputType = map(
  text({
    max: 16,
    about: 'f16, f32, bf16, auto (the type of the weights), or a type to quantise to. Default: f16.',
  }),
  (given) => (given.toLowerCase() === 'auto' ? 'AUTO' : typeOfIsq(given, 'output_type')),
);

const body = object({
  model_dir: inputPath('The folder', 'model'),
  output_type: optionalOrEmpty(outputType),
  output_name: outputName,
  vocab_type: optionalOrEmpty(
    text({ max: 32, about: 'Refused but for `auto`: the tokenizer of the folder says which it is.' }),
  ),
});
type Body = Infer<typeof body>;

export const convertKind = jobKind<Body>({
  name: 'gguf/convert',
  summary: 'Convert a Hugging Face folder of safetensors to GGUF.',
  path: '/api/gguf/convert/hf-to-gguf',
  body,
  answers: 'result',
  network: false,
  requires: [],
  limits: GGUF_LIMITS,
  missing: () => Promise.resolve(null),
  plan({ model_dir: given, output_type: type = 'F16', output_name: name, vocab_type: vocabulary = 'auto' }) {
    if (vocabulary !== 'auto')
      throw new ApiError(
        'unsupported_parameter',
        'vocab_type is not taken: the tokenizer of the folder says which it is',
        { param: 'vocab_type' },
      );
    return {
      inputs: [{ name: 'model', field: 'model_dir', given, accepts: 'folder', only: READ, hub: 'model' }],
      parameters: { output_type: type, output_name: ggufName(name, given, type) },
    };
  },
  program: () => Promise.resolve(ownProgram('gguf')),
  answerFields: { ...FILE_FIELDS, output_type: text({ max: 16 }) },
  answer(done) {
    const output = firstOutput(done);
    return {
      success: true,
      output_path: outputPath(done.id, output),
      output_type: String(done.parameters['output_type']).toLowerCase(),
      file_size: output.size,
      elapsed_seconds: done.elapsedSeconds,
      sha256: output.sha256,
    };
  },
});

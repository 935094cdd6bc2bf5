// The settings of one model, `[api.models.<id>]`.

import { measured, number, oneOf, path, string, whole } from './fields.ts';
import type { Section } from './fields.ts';
import { SHA256_HEX } from './forms.ts';

const MI_B = 1024 * 1024;

/** Values of `isq`: names of other servers, and those of llama.cpp. */
const ISQ_NAMES = [
  'Q2K',
  'Q3K',
  'Q4K',
  'Q5K',
  'Q6K',
  'F32',
  'F16',
  'BF16',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q8_0',
  'Q2_K',
  'Q3_K_S',
  'Q3_K_M',
  'Q3_K_L',
  'Q4_K_S',
  'Q4_K_M',
  'Q5_K_S',
  'Q5_K_M',
  'Q6_K',
  'IQ4_NL',
  'IQ1_S',
  'IQ2_XXS',
  'IQ2_XS',
  'IQ3_XXS',
] as const;

export const MODEL_ENTRY = {
  path: measured(
    path(
      'GGUF file, the first part (`NAME-00001-of-00003.gguf`) of a split model, or a folder: of one GGUF model, or as `format` says',
    ),
  ),
  format: measured(
    oneOf(
      ['gguf', 'whisper', 'safetensors', 'huggingface', 'vision'],
      'what `path` names; `safetensors` and `huggingface` are folders as a hub has them, of which a GGUF file is made at the first start; `vision` is a folder of a model that sees, refused where the server cannot use it: a GGUF file and its projector, or as a hub has it, of which both are made. Unset: `gguf` or `whisper` (a model of whisper.cpp), as the file says',
    ),
  ),
  isq: measured(
    oneOf(
      ISQ_NAMES,
      'type the weights of such a folder are quantised to, a projector not; unset: they are not',
    ),
  ),
  type: measured(
    oneOf(
      ['chat', 'completion', 'embedding', 'rerank', 'transcription'],
      'what the model is for; unset: read from the file',
    ),
  ),
  sha256: measured(
    string('SHA-256 the file must have, of a split model or a folder its manifest; another refuses to load', {
      form: SHA256_HEX,
    }),
  ),
  context_length: measured(whole(16, 16 * MI_B, 'tokens one sequence may hold')),
  default_temperature: measured(number(0, 2, 'temperature when a request gives none')),
  default_top_p: measured(number(0, 1, 'top_p when a request gives none')),
  default_max_tokens: measured(whole(1, 16 * MI_B, 'max_tokens when a request gives none')),
  kv_type: measured(oneOf(['f16', 'q8_0'], 'instead of `models.kv_type`')),
  dimensions: measured(whole(1, 65_536, 'embedding width when a request asks for none')),
  job_record: measured(
    path('signed record of the job of a workshop that made the files; see `[provenance]`'),
  ),
  job_evidence: measured(path('evidence that binds the key of `job_record`, an archive of a workshop')),
  chat_template: measured(
    path('file with a Jinja template that replaces the one in the GGUF; it enters the model manifest'),
  ),
} as const satisfies Section;

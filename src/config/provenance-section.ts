// Settings of the jobs whose results the server takes as models (docs/workshop.md, "Admission"). The policy
// stands in the configuration itself, so that the digest of the configuration covers it.

import { boolean, measured, string, strings } from './fields.ts';
import type { Section } from './fields.ts';
import { SHA256_HEX } from './forms.ts';

export const provenanceSection = {
  required: measured(
    boolean(
      'take no model and no adapter without the record of a job that is trusted; models are not pulled then',
      false,
    ),
  ),
  keys: measured(
    strings(64, 'keys of workshops whose records are trusted without evidence, 64 hex digits each', {
      form: SHA256_HEX,
    }),
  ),
  policy: measured(
    string(
      'appraisal policy, as JSON text, that the evidence of a record must be accepted by; its `models` names `assay-workshop`',
    ),
  ),
  allow_simulated: measured(
    boolean('accept evidence of the simulated TEE, which proves nothing about hardware', false),
  ),
  kinds: measured(strings(64, 'kinds of jobs whose results are taken, such as `gguf/quantize`; unset: all')),
  inputs: measured(
    strings(1000, 'SHA-256 of the files that jobs may have been given; unset: any', { form: SHA256_HEX }),
  ),
} as const satisfies Section;

// Shared by the kinds that make GGUF files: fields, names and limits.

import { ApiError } from '../../base/errors.ts';
import { decimal, flag, integer, optionalOrEmpty, type Shape, text } from '../../base/shape.ts';
import type { DoneJob, JobLimits, JobOutputFile } from '../kind.ts';

const GI_B = 1024 * 1024 * 1024;

/** The workshop's own limits lower these. */
export const GGUF_LIMITS: JobLimits = {
  wallMs: 12 * 3600_000,
  memoryBytes: 16 * GI_B,
  processes: 256,
  outputBytes: 1024 * GI_B,
  cpuSeconds: 48 * 3600,
};

/** Of a file with an importance matrix. */
export const IMATRIX_FORMATS = ['gguf', 'dat'] as const;
export type ImatrixFormat = (typeof IMATRIX_FORMATS)[number];
export const byteCount = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
export const sha256Text = text({ max: 64, about: 'SHA-256 of the output, lower-case hex.' });
export const outputPathText = text({ max: 1200, about: '`job-…/NAME`: an input of other jobs.' });
const seconds = decimal({ min: 0, max: Number.MAX_SAFE_INTEGER, about: 'Seconds it ran.' });

/** Of every answer about a job that is done. */
export const DONE_FIELDS = { success: flag(), elapsed_seconds: seconds };

/** Of every answer about one file. */
export const FILE_FIELDS = {
  ...DONE_FIELDS,
  output_path: outputPathText,
  file_size: byteCount,
  sha256: sha256Text,
};

const HUB_NAMES = {
  model: '`owner/name`',
  dataset: '`owner/name`, `owner/name:SPLIT` or `owner/name/FILE`',
} as const;

/** `hub`: or of a repository there, where the operator allows it. */
export function inputPath(what: string, hub?: keyof typeof HUB_NAMES): Shape<string> {
  return text({
    min: 1,
    max: 4096,
    about: `${what}: the id of an own file, \`job-…/NAME\` of an own job, the id of a configured model, ${hub === undefined ? 'or a path below a root.' : `a path below a root, or, with \`workshop.pull\`, ${HUB_NAMES[hub]} of the hub, each with \`@revision\` or without.`}`,
  });
}

export const outputName = optionalOrEmpty(
  text({
    max: 120,
    pattern: /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
    form: 'a name of letters, digits, ".", "_" and "-"',
    about: 'The name of the result; `.gguf` is added where it is missing.',
  }),
);

/** The original's: the input's name and the type. */
export function ggufName(name: string | undefined, given: string, type: string): string {
  const last = given.split('/').findLast((part) => part !== '') ?? '';
  const stem = last
    .replace(/\.gguf$/i, '')
    .replaceAll(/[^A-Za-z0-9._-]/g, '_')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 90);
  const chosen = name ?? `${stem === '' ? 'model' : stem}-${type}`;
  return /\.gguf$/i.test(chosen) ? chosen : `${chosen}.gguf`;
}

/** As `input_path` of the next job takes it, and as `GET /api/jobs/ID/output/NAME` has it. */
export function outputPath(id: string, { name }: JobOutputFile): string {
  return `${id}/${name}`;
}

export function firstOutput({ outputs }: DoneJob): JobOutputFile {
  const [output] = outputs;
  if (output === undefined) throw new ApiError('job_failed', 'the job is done and made no file');
  return output;
}

// Whether a model may be served by what is known of its making: its files must be outputs of a job whose
// record the server trusts (docs/workshop.md, "Admission"). The digests compared are those that loading
// enforces, so a file that is replaced later is refused there. Of what the server itself makes of a folder,
// the folder must be one that the job left: the same names with the same bytes, and none left out.

import { ApiError } from '../base/errors.ts';
import { isRead } from './model-folder.ts';
import type { FolderFiles, JobProof } from '../base/job-proof.ts';
import type { JobOrigin, RegistryEntry } from './model.ts';

/** A record that holds, of a job that is done. */
export interface JudgedJob {
  readonly origin: JobOrigin;
  /** The SHA-256 of every output by its name, lower-case hex. */
  readonly outputs: ReadonlyMap<string, string>;
}

export interface Provenance {
  /** Models without a record are refused. */
  readonly required: boolean;
  /** 400 job_record_refused, unsupported_parameter where the server trusts no job. */
  judge(proof: JobProof): Promise<JudgedJob>;
}

/** The entry as it may be registered. 400 job_record_required, and as `judge`. */
export async function admittedEntry(
  entry: RegistryEntry,
  proof: JobProof | undefined,
  provenance: Provenance | undefined,
): Promise<RegistryEntry> {
  checkShown(proof, provenance);
  if (proof === undefined) return entry;
  if (provenance === undefined)
    throw new ApiError('unsupported_parameter', 'this server trusts no job: see [provenance]', {
      param: 'job_record',
    });
  const { origin, outputs } = await provenance.judge(proof);
  const problem = problemOf(entry, outputs);
  if (problem !== undefined)
    throw new ApiError('job_record_refused', `the job ${origin.id} ${problem}`, { param: 'job_record' });
  return { ...entry, model: { ...entry.model, job: origin }, jobProof: proof };
}

function problemOf(
  { model, files, folder }: RegistryEntry,
  outputs: ReadonlyMap<string, string>,
): string | undefined {
  const made = new Set(outputs.values());
  const shown = folder?.files ?? model.derived?.sources ?? files;
  const foreign = shown.find(({ sha256 }) => !made.has(sha256));
  if (foreign !== undefined)
    return `made no file with the sha256 ${foreign.sha256}, which is one of the model`;
  if (folder !== undefined) return leftFolder(folder, outputs) ? undefined : NOT_ITS_FOLDER;
  // Without their names the files of a folder cannot be told from others of the same job.
  return model.derived === undefined && shown.length > 0 ? undefined : NOT_ITS_FOLDER;
}

const NOT_ITS_FOLDER = 'left no folder with exactly these files under these names';

/** Whether one folder of the outputs has each of the files under its name, and no other that is read. */
function leftFolder({ kind, files }: FolderFiles, outputs: ReadonlyMap<string, string>): boolean {
  const names = new Set(files.map(({ name }) => name));
  const [first] = names;
  if (first === undefined) return false;
  const places = [...outputs.keys()].filter((name) => name === first || name.endsWith(`/${first}`));
  return places.some((place) => {
    const below = place.slice(0, place.length - first.length);
    const has = files.every(({ name, sha256 }) => outputs.get(below + name) === sha256);
    const rest = [...outputs.keys()]
      .filter((name) => name.startsWith(below))
      .map((name) => name.slice(below.length));
    return has && rest.every((name) => names.has(name) || !isRead(name, kind));
  });
}

/** Also before anything is fetched or converted. 400 job_record_required. */
export function checkShown(
  proof: JobProof | undefined,
  provenance: Pick<Provenance, 'required'> | undefined,
): void {
  if (proof !== undefined || provenance?.required !== true) return;
  throw new ApiError(
    'job_record_required',
    'this server takes only models that come with the record of a job it trusts',
    { param: 'job_record' },
  );
}

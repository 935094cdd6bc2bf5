// The interface of a kind of job: one route, the shape of its body, the inputs and parameters a body means,
// and the program that does the work in the jail. A kind is data and pure functions: it opens no file and
// starts no process. The core resolves inputs, queues, confines, collects outputs and signs. kinds.ts lists
// them all; docs/workshop.md describes the program's side (request.json, lines of JSON on stdout).

import type { ApiCode } from '../base/api-codes.ts';
import type { Shape } from '../base/shape.ts';

/** A parameter as the record keeps it. A number that is no whole one ≥ 0 is recorded as its text. */
export type Parameter = string | number | boolean | null | readonly Parameter[];
export type JobParameters = Readonly<Record<string, Parameter>>;

/** One input of a job, as its caller named it. */
export interface InputRef {
  /** Its name in the jail and in the record: letters, digits, `.`, `_`, `-`. */
  readonly name: string;
  /** The field of the body it came from, for errors. */
  readonly field: string;
  /**
   * As given: id of an own file (`file-…`), an output of an own job (`job-…/NAME`), id of a configured model,
   * or a path below a configured root. Everything else is refused.
   */
  readonly given: string;
  readonly accepts: 'file' | 'folder' | 'either';
  /** Of a folder: a regular expression of the paths below it that are shown and recorded; absent: all. */
  readonly only?: string | undefined;
  /**
   * Where `given` is none of these: it may name a repository of this kind on the configured hub, a model
   * as a folder, a data set as a file (pulls/name).
   */
  readonly hub?: 'model' | 'dataset' | undefined;
}

/** The decision a body amounts to. */
export interface JobPlan {
  readonly inputs: readonly InputRef[];
  /** Everything the program is told beside its inputs; signed in the record. */
  readonly parameters: JobParameters;
  /** Instead of the kind's own. */
  readonly limits?: Partial<JobLimits> | undefined;
}

/** The barriers a jail may have on this machine. A kind does not run without the ones it requires. */
export type Barrier =
  /** A user of its own, which owns its output alone. */
  | 'user'
  /** No network at all. Kept from kinds with `network: true`. */
  | 'network'
  /** Sees its inputs, its program, its output and no other file. */
  | 'files'
  /** Sees no other process, and ends with all it started. */
  | 'processes'
  /** The kernel bounds the memory of all its processes together. */
  | 'memory';

export interface JobLimits {
  /** From its start; then it is ended and fails with `job_timeout`. */
  readonly wallMs: number;
  /** Of all its processes together. */
  readonly memoryBytes: number;
  /** Processes and threads. */
  readonly processes: number;
  /** Of the output folder. */
  readonly outputBytes: number;
  readonly cpuSeconds: number;
}

/** The command that runs, confined. `--request FILE` is appended to the command. */
export interface JobProgram {
  readonly command: readonly [string, ...string[]];
  /**
   * Files and folders beside the system's libraries that it reads; the jail shows them under the same path.
   */
  readonly reads: readonly string[];
  readonly environment?: Readonly<Record<string, string>> | undefined;
  /** Its name, version and digest in the record: a SHA-256 over these files (folders: every file below). */
  readonly tool: { readonly name: string; readonly version: string; readonly files: readonly string[] };
}

/** An output as it is kept: a path below the output folder, of at most four parts. */
export interface JobOutputFile {
  readonly name: string;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly size: number;
}

/** A job that is done, as `answer` sees it. */
export interface DoneJob {
  readonly id: string;
  readonly parameters: JobParameters;
  readonly inputs: readonly { readonly name: string; readonly given: string; readonly size: number }[];
  readonly outputs: readonly JobOutputFile[];
  /** The program's `{"result": …}`: a stranger's, so read it by a shape. At most 64 KiB. */
  readonly result: unknown;
  readonly elapsedSeconds: number;
}

export interface JobKind<Body = unknown> {
  /** In the record and the list of jobs: `gguf/quantize`. */
  readonly name: string;
  readonly summary: string;
  /** `POST` path of its route, with the other spellings that callers use. */
  readonly path: string;
  readonly aliases?: readonly string[] | undefined;
  /** JSON, and forms of the same fields, are read by it; unknown fields are refused. */
  readonly body: Shape<Body>;
  /** `job`: the route answers 202 with the id at once, unless it is asked to wait. */
  readonly answers: 'result' | 'job';
  /** `train-` instead of `job-`. */
  readonly idPrefix?: string | undefined;
  /** Needs the network; then it runs only where `workshop.network` is on. */
  readonly network: boolean;
  readonly requires: readonly Barrier[];
  readonly limits: JobLimits;
  /** Null when its program is there; else the missing part, and the one command that installs it. */
  missing(): Promise<string | null>;
  /** Pure. Throws ApiError for bodies whose fields do not go together. */
  plan(body: Body): JobPlan;
  /** Called when the job starts. */
  program(parameters: JobParameters): Promise<JobProgram>;
  /** The route's answer once it is done, with the fields of `answerFields`; the core adds `job_id`. */
  answer(done: DoneJob): object;
  readonly answerFields: Readonly<Record<string, Shape<unknown>>>;
}

/** Keeps the body's type inside one declaration. */
export function jobKind<Body>(declared: JobKind<Body>): JobKind {
  return declared;
}

/** Codes a program may refuse its job with (`{"refused": {code, message, param?}}`). */
export const PROGRAM_REFUSALS: ReadonlySet<ApiCode> = new Set<ApiCode>([
  'invalid_value',
  'missing_required_parameter',
  'unsupported_parameter',
  'invalid_gguf',
  'adapter_mismatch',
  'invalid_input',
  'invalid_safetensors',
  'invalid_model_config',
  'unsupported_model_format',
  'storage_full',
]);

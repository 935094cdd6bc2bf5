// One job from its plan to its end: inputs found and hashed, the program in its jail, outputs hashed.
// Settles with what is to be recorded, also when the job fails; what a program writes is never believed
// further than its protocol goes.

import { ApiError } from '../../base/errors.ts';
import type { Barrier, JobKind, JobLimits, JobOutputFile, JobPlan, JobProgram } from '../kind.ts';
import { type Jailed, type JailBuild, type JailEnd, startInJail, uidOf } from '../jail/jail.ts';
import { type InputOptions, type InputSources, resolveInput } from './inputs.ts';
import type { JobInputFiles, Recorded } from './shown.ts';
import type { JobFolder } from './folder.ts';
import { protocolReader, type Said, stderrReader } from './lines.ts';
import { collectOutputs } from './outputs.ts';
import { assertRecordable, type RunTool } from './record.ts';
import type { StoredJob } from './state.ts';
import { toolDigest } from './tool.ts';

export interface JobContext {
  readonly folder: JobFolder;
  readonly build: JailBuild;
  readonly sources: InputSources;
  readonly threads: number;
  /** Names this workshop in the marks of its processes. */
  readonly instance: string;
  readonly network: boolean;
  /** The operator's; a kind's own limits are lowered to them. */
  readonly caps: Pick<JobLimits, 'wallMs' | 'memoryBytes' | 'outputBytes'>;
}

export interface JobRun {
  readonly id: string;
  readonly owner: string;
  readonly kind: JobKind;
  readonly plan: JobPlan;
  /** Which of the places, from 0. */
  readonly place: number;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: number, stage: string | undefined) => void;
  readonly onLog: (line: string) => void;
  /** The report has all inputs, the tool and the barriers; the program starts once this resolves. */
  readonly onKnown: () => Promise<void>;
}

/** As far as the run came. */
export interface RunReport {
  inputs: readonly Recorded[];
  /** Parameters of the record: `NAME_hub`, where an input came from a hub. */
  origins: Readonly<Record<string, string>>;
  tool: RunTool | undefined;
  barriers: readonly Barrier[];
}

/** The report as the state of the job has it. */
export function ranAs({
  inputs,
  tool,
  barriers,
}: RunReport): Pick<StoredJob, 'inputs' | 'tool' | 'barriers'> {
  const kept = tool && { name: tool.name, version: tool.version, sha256: hexOf(tool.sha256) };
  return { inputs: [...inputs], barriers: [...barriers], tool: kept };
}

/** The program that a job was started with, if it was. */
export function toolOf({ tool }: StoredJob): RunTool | undefined {
  return tool === undefined
    ? undefined
    : { ...tool, sha256: new Uint8Array(Buffer.from(tool.sha256, 'hex')) };
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

export interface RunResult {
  readonly outputs: readonly JobOutputFile[];
  readonly result: unknown;
}

export function markOf(instance: string, id: string): string {
  return `${instance}/${id}`;
}

/** Rejects with an ApiError, or with the reason of the signal. It settles once the whole of it has ended. */
export async function runJob(context: JobContext, run: JobRun, report: RunReport): Promise<RunResult> {
  const { folder, build, sources } = context;
  const { id, kind, plan, signal } = run;
  assertConfined(kind, build);
  const uid = uidOf(build, run.place);
  const { output, staging } = await folder.prepare(id, uid);
  const limits = capped({ ...kind.limits, ...plan.limits }, context.caps);
  const started = performance.now();
  const inputs: JobInputFiles[] = [];
  try {
    const onFetched = await resolveInputs(run, inputs, report, {
      sources,
      staging,
      otherUser: uid !== undefined,
      limits,
    });
    const program = await kind.program(plan.parameters);
    const { tool } = program;
    report.tool = { ...tool, sha256: await toolDigest(tool.files, signal) };
    report.barriers = build.barriers.filter((each) => each !== 'network' || !kind.network);
    await run.onKnown();
    signal.throwIfAborted();
    const wallMs = Math.max(1, limits.wallMs - Math.floor(performance.now() - started));
    const jailed = { program, inputs, output, limits: { ...limits, wallMs } };
    const result = await inJail(context, { ...run, onProgress: onFetched }, jailed);
    for (const input of inputs) await input.check();
    return { outputs: await collectOutputs(output, signal), result };
  } finally {
    for (const input of inputs) input.release?.();
  }
}

/** Of a job with inputs of a hub: the part of its progress that is for fetching them. */
const FETCHING = 0.25;

/** Resolves with what tells the rest of the progress. */
async function resolveInputs(
  { owner, plan, signal, onProgress }: JobRun,
  inputs: JobInputFiles[],
  report: RunReport,
  options: Pick<InputOptions, 'sources' | 'staging' | 'otherUser'> & { readonly limits: JobLimits },
): Promise<JobRun['onProgress']> {
  const late = AbortSignal.timeout(options.limits.wallMs);
  const of = { ...options, owner, signal: AbortSignal.any([signal, late]) };
  let fetched = 0;
  try {
    for (const ref of plan.inputs) {
      const each = (progress: number): void =>
        onProgress((FETCHING * (inputs.length + progress)) / plan.inputs.length, `fetch ${ref.name}`);
      const input = await resolveInput(ref, { ...of, onProgress: each });
      inputs.push(input);
      // One by one: of a job that ends meanwhile the record has what was read by then.
      const recorded = inputs.flatMap((own) => own.recorded);
      assertRecordable(recorded);
      report.inputs = recorded;
      report.origins = originsOf(inputs);
      if (input.origin !== undefined) fetched += 1;
    }
  } catch (error) {
    signal.throwIfAborted();
    if (late.aborted) throw new ApiError('job_over_limit', OVER.time, { shouldRetry: false });
    throw error;
  }
  if (fetched === 0) return onProgress;
  return (progress, stage) => onProgress(FETCHING + (1 - FETCHING) * progress, stage);
}

function originsOf(inputs: readonly JobInputFiles[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    inputs.flatMap(({ name, origin }) => (origin === undefined ? [] : [[`${name}_hub`, origin]])),
  );
}

function capped(limits: JobLimits, caps: JobContext['caps']): JobLimits {
  return {
    ...limits,
    wallMs: Math.min(limits.wallMs, caps.wallMs),
    memoryBytes: Math.min(limits.memoryBytes, caps.memoryBytes),
    outputBytes: Math.min(limits.outputBytes, caps.outputBytes),
  };
}

/** 503 confinement_missing: fail closed. */
export function assertConfined(kind: JobKind, { barriers }: Pick<JailBuild, 'barriers'>): void {
  const missing = kind.requires.filter((each) => !barriers.includes(each));
  if (missing.length > 0)
    throw new ApiError(
      'confinement_missing',
      `this machine lacks a barrier that ${kind.name} requires: ${missing.join(', ')}`,
    );
}

interface Started {
  readonly program: JobProgram;
  readonly inputs: readonly JobInputFiles[];
  readonly output: string;
  readonly limits: JobLimits;
}

async function inJail(
  context: JobContext,
  run: JobRun,
  { program, inputs, output, limits }: Started,
): Promise<unknown> {
  const { folder, build, instance, threads } = context;
  const { id, kind, plan, signal } = run;
  const apart = build.mode !== 'none';
  const request = await folder.writeRequest(id, {
    kind: kind.name,
    parameters: plan.parameters,
    inputs: Object.fromEntries(inputs.map((each) => [each.name, apart ? each.target : each.source])),
    output: apart ? '/job/out' : output,
    threads,
  });
  const jailed = startInJail(build, {
    mark: markOf(instance, id),
    name: `assay-${id}`,
    place: run.place,
    command: [...program.command, '--request', apart ? '/job/request.json' : request],
    environment: { OMP_NUM_THREADS: String(threads), ...program.environment },
    mounts: [
      ...inputs.flatMap(({ mounts }) => mounts),
      { source: request, target: '/job/request.json' },
      ...program.reads.map((path) => ({ source: path, target: path })),
    ],
    output,
    network: kind.network && context.network,
    limits,
  });
  const stop = (): void => jailed.kill();
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await conversation(jailed, run);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

async function conversation(jailed: Jailed, { signal, onProgress, onLog }: JobRun): Promise<unknown> {
  let last: Extract<Said, { kind: 'result' | 'refused' }> | undefined;
  let broken = false;
  const read = protocolReader((said) => {
    if (said.kind === 'progress') onProgress(said.progress, said.stage);
    else if (said.kind === 'log') onLog(said.text);
    else last ??= said;
  });
  jailed.stdout.on('data', (piece: Buffer) => {
    if (broken) return;
    try {
      read(piece);
    } catch {
      broken = true;
      jailed.kill();
    }
  });
  const readError = stderrReader(onLog);
  jailed.stderr.on('data', (piece: Buffer) => readError(piece));
  const closed = Promise.all([jailed.stdout, jailed.stderr].map((stream) => new Promise<void>((resolve) => void stream.once('close', resolve)))); // prettier-ignore
  const end = await jailed.end;
  await closed;
  signal.throwIfAborted();
  if (broken) throw failed('its program did not keep to the protocol');
  if (last?.kind === 'refused') {
    const { code, message, param } = last;
    throw new ApiError(code, message, { param });
  }
  assertExit(end);
  if (last === undefined) throw failed('its program ended without a result');
  return last.result;
}

const OVER = {
  memory: 'it took more memory than it may',
  output: 'it wrote more than it may',
  processes: 'it started more processes than it may',
  time: 'it took more time than it may',
} as const;

function assertExit(end: JailEnd): void {
  if (end.kind === 'ended') {
    const { why } = end;
    if (why === 'killed' || why === 'signal') throw failed('its program was ended by a signal');
    throw new ApiError('job_over_limit', OVER[why], { shouldRetry: false });
  }
  if (end.code !== 0) throw failed(`its program ended with code ${end.code}`);
}

function failed(why: string): ApiError {
  return new ApiError('job_failed', why, { shouldRetry: false });
}

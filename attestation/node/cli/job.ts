// `assay-verify job RECORD`: the signed record of a workshop's job, judged offline by the evidence beside
// it or by keys the command line names. Prints what the record says only once its signature holds.

import { fromHex, toHex } from '../../encoding/bytes.ts';
import { parseJson } from '../../encoding/json.ts';
import type { JobRecord } from '../../receipts/job.ts';
import { AttestationError } from '../../transcript/errors.ts';
import { type JobTrust, type JobVerdict, judgeJobRecord } from '../../appraise/job-record.ts';
import { policyOf } from './accept.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { cloudVerifier } from './judging-options.ts';
import { printable, printableJson } from './printable.ts';
import { columns } from './table.ts';
import { type CliWorld, EXIT, type ExitCode, readNamed, readReleases, readTextFile } from './world.ts';

const MAX_ARCHIVE_CHARACTERS = 16 * 1024 * 1024;

type JobCommand = Extract<Command, { kind: 'job' }>;

export async function commandJob(command: JobCommand, world: CliWorld): Promise<ExitCode> {
  const bytes = await readNamed(command.record, 'record', world);
  const trust = await trustOf(command, world);
  try {
    const verdict = await judgeJobRecord(bytes, trust);
    world.stdout(command.json ? `${printableJson(asJson(verdict), 2)}\n` : asText(verdict));
    return verdict.kind === 'signed' ? 11 : 0;
  } catch (error) {
    if (!command.json || !(error instanceof AttestationError)) throw error;
    const { kind, code, message, check, expected, actual, hint, transcript } = errorInFlags(error);
    const checks = transcript.filter(({ status }) => status === 'fail');
    const refusal = {
      accepted: false,
      code,
      error: { kind, message, check, expected, actual, hint },
      checks,
    };
    world.stdout(`${printableJson(refusal, 2)}\n`);
    return EXIT[kind];
  }
}

async function trustOf(command: JobCommand, world: CliWorld): Promise<JobTrust> {
  const { evidenceFile, accept } = command;
  const keys = command.keys.map((key) => fromHex(key, 'key'));
  if (evidenceFile === undefined) return { keys, now: world.now() };
  const text = await readTextFile(evidenceFile, 'evidence', world);
  const file = accept.policyFile;
  const policyText = file === undefined ? undefined : await readTextFile(file, 'policy file', world);
  const policy = policyOf(accept, policyText, await readReleases(accept.referenceFile, world));
  const archive = parseJson(text, 'evidence', MAX_ARCHIVE_CHARACTERS);
  const vtpm = await cloudVerifier(policy);
  return { evidence: { archive, policy, vtpm }, now: world.now() };
}

/** Names and hex: a view, never read back. */
function plain(record: JobRecord): Readonly<Record<string, unknown>> {
  const { receiptKey, kind, id, inputs, tool, parameters, outputs, startedAt, finishedAt } = record;
  return {
    kind,
    id,
    state: record.state,
    code: record.code,
    started: timeOf(startedAt),
    finished: timeOf(finishedAt),
    tool: { name: tool.name, version: tool.version, sha256: toHex(tool.sha256) },
    parameters: Object.fromEntries(parameters),
    inputs: inputs.map(({ name, sha256 }) => ({ name, sha256: toHex(sha256) })),
    outputs: outputs.map(({ name, sha256, size }) => ({ name, sha256: toHex(sha256), size })),
    barriers: record.barriers,
    receipt_key: toHex(receiptKey),
  };
}

function asJson(verdict: JobVerdict): unknown {
  return {
    accepted: verdict.kind !== 'signed',
    code: null,
    by: byOf(verdict),
    record: plain(verdict.record),
  };
}

/** The reason that makes the key one to trust. */
function byOf(verdict: JobVerdict): Readonly<Record<string, unknown>> | null {
  if (verdict.kind === 'signed') return null;
  if (verdict.kind === 'key') return { key: toHex(verdict.record.receiptKey) };
  const { teeType, simulated, measurement, build, models } = verdict.result;
  return { tee: teeType, simulated, measurement, build, models: Object.fromEntries(models) };
}

function asText(verdict: JobVerdict): string {
  const { record } = verdict;
  const rows = [
    ['job', `${record.kind} ${record.id}`],
    ['state', record.code === null ? record.state : `${record.state} (${record.code})`],
    ['time', `${timeOf(record.startedAt)} to ${timeOf(record.finishedAt)}`],
    ['tool', `${record.tool.name} ${record.tool.version}, sha256 ${toHex(record.tool.sha256)}`],
    ...[...record.parameters].map(([name, value]) => [`  ${name}`, JSON.stringify(value)]),
    ...record.inputs.map(({ name, sha256 }) => ['input', `${toHex(sha256)}  ${name}`]),
    ...record.outputs.map(({ name, sha256, size }) => ['output', `${toHex(sha256)}  ${name}, ${size} bytes`]),
    ['confined', record.barriers.length === 0 ? 'by nothing' : record.barriers.join(', ')],
    ['key', toHex(record.receiptKey)],
  ];
  const lines = [...columns(rows), '', verdictLine(verdict)];
  return lines.map((line) => `${printable(line)}\n`).join('');
}

function verdictLine(verdict: JobVerdict): string {
  switch (verdict.kind) {
    case 'signed':
      return 'SIGNED, BY A KEY THAT NOTHING VOUCHES FOR: give --evidence FILE with a policy, or --key HEX';
    case 'key':
      return 'ACCEPTED: signed by a key that was named';
    case 'attested': {
      const { simulated, teeType, build, measurement } = verdict.result;
      const what = `${teeType}, ${build ?? measurement.slice(0, 16)}`;
      return simulated
        ? `ACCEPTED, SIMULATED: this proves nothing about hardware (${what})`
        : `ACCEPTED: the key is bound by accepted evidence (${what})`;
    }
  }
}

function timeOf(milliseconds: number): string {
  return milliseconds <= 8_640_000_000_000_000 ? new Date(milliseconds).toISOString() : `${milliseconds} ms`;
}

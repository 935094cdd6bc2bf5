// `assay-verify receipt FILE`: a signed receipt, judged offline by the evidence beside it. Prints what the
// receipt says only once its signature holds.

import type { ArchivedResult } from '../../appraise/appraise.ts';
import { explainReceipt } from '../../appraise/explain-receipt.ts';
import {
  judgeReceipt,
  type ReceiptFile,
  receiptsIn,
  type ReceiptJudgement,
  type ReceiptTrust,
} from '../../appraise/receipt-verdict.ts';
import { fromUtf8, toHex } from '../../encoding/bytes.ts';
import { type Json, parseJson } from '../../encoding/json.ts';
import type { Receipt } from '../../receipts/body.ts';
import { AttestationError, malformed } from '../../transcript/errors.ts';
import { policyOf } from './accept.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { cloudVerifier } from './judging-options.ts';
import { printable, printableJson } from './printable.ts';
import { columns } from './table.ts';
import { type CliWorld, EXIT, type ExitCode, readNamed, readReleases, readTextFile } from './world.ts';

const MAX_CHARACTERS = 128 * 1024 * 1024;
const [OPENING_BRACE, COSE_SIGN1] = [0x7b, 0x84];

type ReceiptCommand = Extract<Command, { kind: 'receipt' }>;

export async function commandReceipt(command: ReceiptCommand, world: CliWorld): Promise<ExitCode> {
  const { files, archive } = await readReceipts(command, world);
  const trust = await trustOf(command, archive, world);
  let worst: ExitCode = 0;
  for (const file of files) {
    const code = await judgeOne(command, await withTexts(file, command, world), { trust, world });
    if (worst === 0) worst = code;
  }
  return worst;
}

interface Judging {
  readonly trust: ReceiptTrust;
  readonly world: CliWorld;
}

async function judgeOne(
  command: ReceiptCommand,
  file: ReceiptFile,
  { trust, world }: Judging,
): Promise<ExitCode> {
  try {
    const judged = await judgeReceipt(file, trust);
    if (command.json) world.stdout(`${printableJson(asJson(judged), 2)}\n`);
    else if (command.explain) world.stdout(`${explainReceipt(judged).map(printable).join('\n')}\n`);
    else world.stdout(asText(judged));
    return judged.kind === 'signed' ? 11 : 0;
  } catch (error) {
    if (!command.json || !(error instanceof AttestationError)) throw error;
    const { kind, code, message, check, expected, actual, hint } = errorInFlags(error);
    const refusal = { accepted: false, code, error: { kind, message, check, expected, actual, hint } };
    world.stdout(`${printableJson(refusal, 2)}\n`);
    return EXIT[kind];
  }
}

/** A receipt as it is (COSE), or JSON: an archive, or `{receipt, salt}` of GET /v1/receipts/{id}. */
async function readReceipts(
  { file }: ReceiptCommand,
  world: CliWorld,
): Promise<{ readonly files: readonly ReceiptFile[]; readonly archive: Json | undefined }> {
  const bytes = await readNamed(file, 'receipt', world);
  if (bytes[0] === COSE_SIGN1) return { files: [{ receipt: bytes }], archive: undefined };
  if (bytes[0] !== OPENING_BRACE) throw malformed('receipt_malformed', 'the file is no receipt, and no JSON');
  const json = parseJson(fromUtf8(bytes, 'receipt'), 'receipt', MAX_CHARACTERS);
  const isArchive = typeof json === 'object' && json !== null && 'format' in json;
  return { files: receiptsIn(json), archive: isArchive ? json : undefined };
}

async function withTexts(
  file: ReceiptFile,
  { requestFile, responseFile }: ReceiptCommand,
  world: CliWorld,
): Promise<ReceiptFile> {
  const request = requestFile === undefined ? file.request : await readNamed(requestFile, 'request', world);
  const response =
    responseFile === undefined ? file.response : await readNamed(responseFile, 'response', world);
  return { ...file, request, response };
}

async function trustOf(
  command: ReceiptCommand,
  own: Json | undefined,
  world: CliWorld,
): Promise<ReceiptTrust> {
  const { evidenceFile, accept, at } = command;
  const given =
    evidenceFile === undefined
      ? own
      : parseJson(await readTextFile(evidenceFile, 'evidence', world), 'evidence', MAX_CHARACTERS);
  if (given === undefined) return { now: world.now() };
  const file = accept.policyFile;
  const policyText = file === undefined ? undefined : await readTextFile(file, 'policy file', world);
  const policy = policyOf(accept, policyText, await readReleases(accept.referenceFile, world));
  const vtpm = await cloudVerifier(policy);
  return { evidence: { archive: given, policy, vtpm }, at, now: world.now() };
}

/** Names and hex: a view, never read back. */
function plain(receipt: Receipt): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(receipt)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => [snakeCase(name), viewOf(value)]),
  );
}

function viewOf(value: unknown): unknown {
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(viewOf);
  if (typeof value !== 'object' || value === null) return value;
  return plain(value as Receipt);
}

function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function asJson(judged: ReceiptJudgement): unknown {
  const result = judged.kind === 'attested' ? judged.result : undefined;
  return {
    accepted: result !== undefined,
    code: null,
    compared: judged.compared,
    at: judged.kind === 'attested' ? new Date(judged.at).toISOString() : null,
    endorsements_valid: result === undefined ? null : endorsedOf(result),
    later_revocations: result === undefined ? null : 'not looked at',
    by: result === undefined ? null : byOf(result),
    receipt: plain(judged.receipt),
  };
}

function byOf({ teeType, simulated, measurement, build }: ArchivedResult): object {
  return { tee: teeType, simulated, measurement, build };
}

function asText(judged: ReceiptJudgement): string {
  const { receipt } = judged;
  const { model, engine, outcome } = receipt;
  const rows = [
    ['receipt', `${toHex(receipt.id)}, ${receipt.kind}`],
    ['chain', `${toHex(receipt.chain)}, answer ${receipt.seq}`],
    ['model', `${model.id}, sha256 ${toHex(model.sha256)}`],
    ...model.adapters.map(({ sha256, scale }) => ['adapter', `${toHex(sha256)}, scale ${scale}`]),
    [
      'engine',
      `${engine.release}, ${engine.cpuVariant}, ${engine.threads} threads, class ${engine.replayClass}`,
    ],
    [
      'outcome',
      `${outcome.status}, ${outcome.end ?? 'goes on'}${outcome.errorCode === undefined ? '' : ` (${outcome.errorCode})`}, ${outcome.events} events`,
    ],
    ...(receipt.kind === 'final' ? finalRows(receipt) : []),
    ['compared', judged.compared.length === 0 ? 'nothing' : judged.compared.join(', ')],
    ['key', toHex(receipt.receiptKey)],
  ];
  const lines = [...columns(rows), '', ...verdictLines(judged)];
  return lines.map((line) => `${printable(line)}\n`).join('');
}

function finalRows(receipt: Extract<Receipt, { kind: 'final' }>): readonly string[][] {
  const { request, usage, sampling } = receipt;
  const seed = sampling === null ? 'none' : `${sampling.seed}${sampling.seedGiven ? '' : ' (drawn)'}`;
  return [
    ['request', `${request.method} ${request.path}`],
    [
      'tokens',
      `${usage.promptTokens} of prompt (${usage.cachedTokens} cached), ${usage.completionTokens} written`,
    ],
    ['sampling', sampling === null ? 'none' : `temperature ${sampling.temperature}, seed ${seed}`],
    ['time', `${timeOf(receipt.receivedAt)} to ${timeOf(receipt.finishedAt)}, by the guest's clock`],
  ];
}

function verdictLines(judged: ReceiptJudgement): readonly string[] {
  if (judged.kind === 'signed')
    return ['SIGNED, BY A KEY THAT NOTHING VOUCHES FOR: give --evidence FILE with a policy'];
  const { simulated, teeType, build, measurement } = judged.result;
  const what = `${teeType}, ${build ?? measurement.slice(0, 16)}`;
  const verdict = simulated
    ? `ACCEPTED, SIMULATED: this proves nothing about hardware (${what})`
    : `ACCEPTED: the key is bound by accepted evidence (${what})`;
  const [from, until] = windowText(judged.result);
  return [
    verdict,
    `Judged at ${timeOf(judged.at)}. All endorsements were valid from ${from} to ${until}.`,
    'Later revocations were not looked at.',
  ];
}

function endorsedOf(result: ArchivedResult): { readonly from: string; readonly until: string } {
  const [from, until] = windowText(result);
  return { from, until };
}

/** The window in which all endorsements of the evidence were valid. */
function windowText({ window: { from, until } }: ArchivedResult): readonly [string, string] {
  return [timeOf(from), timeOf(until)];
}

function timeOf(milliseconds: number): string {
  return milliseconds <= 8_640_000_000_000_000 ? new Date(milliseconds).toISOString() : `${milliseconds} ms`;
}

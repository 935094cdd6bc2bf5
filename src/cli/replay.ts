// `assay replay RECEIPT`: the request of a signed receipt, computed again on this build and compared
// (docs/receipts.md §5). Prints stages, digests and ids of tokens, and no text unless it is asked to.

import { readFile } from 'node:fs/promises';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import {
  allowSimulated,
  AttestationError,
  type AttestationErrorKind,
  type Json,
  parseJson,
  parsePolicy,
  type Policy,
  toHex,
} from '@assay/attestation';
import { type FinalReceipt, openReceipt } from '@assay/attestation/receipt';
import { judgeReceipt, type ReceiptFile, receiptsIn, tokenLists } from '@assay/attestation/receipt-verdict';
import { createLog } from '../base/log.ts';
import { systemReason } from '../base/system-error.ts';
import { checkTemplate, openEngine } from '../engine/open.ts';
import type { ReplayStage, StageResult } from '../receipts/compare.ts';
import { Replayer } from '../start/replay/replay.ts';
import type { ReplayVerdict } from '../start/replay/verdict.ts';
import {
  CONFIG_OPTIONS,
  currentFolder,
  optionText,
  parseArguments,
  type Parsed,
  UsageError,
  version,
} from './arguments.ts';
import { converters } from './converters.ts';
import { engineOptions } from './engine-options.ts';
import { synopsisOf } from './help.ts';
import { servedConfig } from './serve.ts';
import { shown } from './terminal.ts';

const DEFAULT_POLICY = '.assay/policy.json';
const MAX_CHARACTERS = 256 * 1024 * 1024;
const [OPENING_BRACE, COSE_SIGN1] = [0x7b, 0x84];
const ALLOWED: readonly string[] = ['build', 'cpu', 'threads'] satisfies readonly ReplayStage[];

/** By the kind of what a receipt or evidence is refused for. */
const REFUSED: Readonly<Record<AttestationErrorKind, number>> = {
  refused: 10,
  unsupported: 20,
  malformed: 30,
  internal: 1,
};
const EXIT: Readonly<Record<ReplayVerdict['verdict'], number>> = {
  equal: 0,
  different: 10,
  'not comparable': 12,
  undecided: 12,
};

/** Resolves with the exit code: 0 equal, 10 different, 12 neither, and those of malformed receipts. */
export async function replayCommand(args: readonly string[]): Promise<number> {
  const { values, positionals } = parseArguments(
    args,
    {
      ...CONFIG_OPTIONS,
      request: { type: 'string' },
      response: { type: 'string' },
      tokens: { type: 'string' },
      evidence: { type: 'string' },
      policy: { type: 'string' },
      'allow-simulated': { type: 'boolean' },
      model: { type: 'string', multiple: true },
      adapter: { type: 'string' },
      demo: { type: 'boolean' },
      data: { type: 'string' },
      allow: { type: 'string', multiple: true },
      'show-text': { type: 'boolean' },
      json: { type: 'boolean' },
    },
    true,
  );
  const [path, ...more] = positionals;
  if (path === undefined || more.length > 0) throw new UsageError(synopsisOf('replay'));
  const allow = allowedIn(values);
  const replayer = new Replayer();
  try {
    const { files, archive } = receiptsOf(await fileOf(path, 'the receipt'));
    let worst = 0;
    for (const file of files) {
      const code = await replayOne(await withFiles(file, values), { replayer, values, allow, archive });
      if (worst === 0 || code === EXIT.different) worst = code;
    }
    return worst;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    tell(values, { code: error.code, message: error.message });
    return REFUSED[error.kind];
  } finally {
    await replayer.close();
  }
}

interface Asked {
  readonly replayer: Replayer;
  readonly values: Parsed['values'];
  readonly allow: ReadonlySet<ReplayStage>;
  readonly archive: Json | undefined;
}

async function replayOne(file: ReceiptFile, { replayer, values, allow, archive }: Asked): Promise<number> {
  const receipt = await openReceipt(file.receipt);
  if (receipt.kind !== 'final')
    throw new UsageError('a checkpoint cannot be replayed: take the last receipt');
  const { salt, request, response, tokens } = file;
  if (salt === undefined)
    throw new UsageError('the receipt has no salt, so no request can be compared with it');
  if (request === undefined) throw new UsageError('the request is missing: give --request FILE');
  const by = await voucher(file, values, archive);
  const config = servedConfig(values);
  const engines = engineOptions(config);
  const adapter = optionText(values['adapter']);
  const verdict = await replayer.replay({
    config,
    receipt,
    salt,
    request,
    response,
    tokens,
    allow,
    adapter: adapter === undefined ? undefined : resolve(currentFolder(), adapter),
    openEngine: openEngine(engines),
    checkTemplate: (source) => checkTemplate(engines, source),
    converters: converters(),
    log: createLog({ level: 'silent' }),
    version: version(),
    showText: values['show-text'] === true,
  });
  const code = EXIT[verdict.verdict];
  process.stdout.write(
    values['json'] === true ? jsonOf(receipt, verdict, { by, code }) : tableOf(receipt, verdict, by),
  );
  return code;
}

function allowedIn(values: Parsed['values']): ReadonlySet<ReplayStage> {
  const words = (values['allow'] ?? []) as readonly string[];
  const wrong = words.find((word) => !ALLOWED.includes(word));
  if (wrong !== undefined) throw new UsageError(`--allow ${wrong} is none of ${ALLOWED.join(', ')}`);
  return new Set(words as readonly ReplayStage[]);
}

async function fileOf(path: string, what: string): Promise<Uint8Array> {
  try {
    return new Uint8Array(await readFile(path));
  } catch (error) {
    throw new UsageError(`${what} cannot be read: ${systemReason(error)}`);
  }
}

function receiptsOf(bytes: Uint8Array): {
  readonly files: readonly ReceiptFile[];
  readonly archive: Json | undefined;
} {
  if (bytes[0] === COSE_SIGN1) return { files: [{ receipt: bytes }], archive: undefined };
  if (bytes[0] !== OPENING_BRACE)
    throw new AttestationError('malformed', 'receipt_malformed', 'the file is no receipt, and no JSON');
  const json = jsonIn(bytes, 'receipt');
  const isArchive = typeof json === 'object' && json !== null && 'format' in json;
  return { files: receiptsIn(json), archive: isArchive ? json : undefined };
}

function jsonIn(bytes: Uint8Array, what: string): Json {
  return parseJson(Buffer.from(bytes).toString(), what, MAX_CHARACTERS);
}

async function withFiles(file: ReceiptFile, values: Parsed['values']): Promise<ReceiptFile> {
  const given = async (name: 'request' | 'response' | 'tokens'): Promise<Uint8Array | undefined> => {
    const path = optionText(values[name]);
    return path === undefined ? undefined : fileOf(path, `--${name} ${path}`);
  };
  const ids = await given('tokens');
  return {
    ...file,
    request: (await given('request')) ?? file.request,
    response: (await given('response')) ?? file.response,
    tokens: ids === undefined ? file.tokens : tokenLists(jsonIn(ids, 'tokens')),
  };
}

/** The guest whose evidence binds the key; null: there is no evidence to judge. Throws AttestationError. */
async function voucher(
  file: ReceiptFile,
  values: Parsed['values'],
  own: Json | undefined,
): Promise<string | null> {
  const path = optionText(values['evidence']);
  const archive = path === undefined ? own : jsonIn(await fileOf(path, `--evidence ${path}`), 'evidence');
  const policyPath = optionText(values['policy']);
  const there = policyPath !== undefined || existsSync(DEFAULT_POLICY);
  if (archive === undefined && policyPath !== undefined)
    throw new UsageError('--policy judges evidence: give --evidence FILE as well');
  if (archive === undefined || (path === undefined && !there)) return null;
  const policy = policyIn(policyPath ?? DEFAULT_POLICY, values['allow-simulated'] === true);
  const { receipt } = file;
  const judged = await judgeReceipt({ receipt }, { evidence: { archive, policy }, now: Date.now() });
  if (judged.kind !== 'attested') return null;
  const { simulated, teeType, build, measurement } = judged.result;
  return `${simulated ? 'SIMULATED ' : ''}${teeType}, ${build ?? measurement.slice(0, 16)}`;
}

function policyIn(path: string, simulated: boolean): Policy {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`the policy ${path} cannot be read: ${systemReason(error)}`);
  }
  return parsePolicy(text, simulated ? { [allowSimulated]: true } : {});
}

function tell(values: Parsed['values'], { code, message }: { code: string; message: string }): void {
  if (values['json'] === true)
    process.stdout.write(
      `${JSON.stringify({ verdict: 'refused', code, message: shown(message) }, null, 2)}\n`,
    );
  else process.stderr.write(`assay: ${shown(message)} (${code})\n`);
}

interface Told {
  readonly by: string | null;
  readonly code: number;
}

function jsonOf(receipt: FinalReceipt, verdict: ReplayVerdict, { by, code }: Told): string {
  const { stage = null, why = null, stages, difference = null, farthest } = verdict;
  const told = {
    verdict: verdict.verdict,
    exit: code,
    stage,
    why,
    receipt: toHex(receipt.id),
    class: receipt.engine.replayClass,
    attested: by,
    stages,
    difference,
    farthest,
  };
  return `${JSON.stringify(told, null, 2)}\n`;
}

const CLASSES = [
  '0: not exact, so that rounding may pick other tokens',
  '1: exact, in shared batches or with a cached prefix',
  '2: alone and exact, so that a difference is wrong',
] as const;

function tableOf(receipt: FinalReceipt, verdict: ReplayVerdict, by: string | null): string {
  const { model, engine, usage } = receipt;
  const rows: (readonly [string, string])[] = [
    ['id', toHex(receipt.id)],
    ['answered', `${model.id}, sha256 ${toHex(model.sha256)}`],
    ['claims', `class ${CLASSES[engine.replayClass]}`],
    ['counts', `${usage.promptTokens} tokens of prompt, ${usage.completionTokens} written`],
    ['signature', by === null ? 'holds, by a key that nothing vouches for' : `holds, by a key of ${by}`],
    ...verdict.stages.flatMap(stageRows),
    ...differenceRows(verdict),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  const lines = rows.map(([name, text]) => `${name.padEnd(width)}  ${text}`);
  return [...lines, '', ...verdictLines(verdict)].map((line) => `${shown(line)}\n`).join('');
}

const STATES = {
  equal: 'equal',
  different: 'DIFFERENT',
  apart: 'ANOTHER HERE',
  undecided: 'undecided',
  skipped: 'skipped',
} as const;

function stageRows({ stage, state, receipt, here }: StageResult): readonly (readonly [string, string])[] {
  const sides = [
    ...(receipt === undefined ? [] : [['', `  receipt: ${receipt}`] as const]),
    ...(here === undefined ? [] : [['', `  here:    ${here}`] as const]),
  ];
  return [[stage === 'tokens' ? 'output tokens' : stage, STATES[state]], ...sides];
}

function differenceRows({ difference, farthest }: ReplayVerdict): readonly (readonly [string, string])[] {
  if (difference === undefined) return [];
  const { choice, at, recorded, picked, gap, distance, by, texts } = difference;
  const number = (value: number | null): string => (value === null ? 'none' : value.toPrecision(4));
  const name = (token: number | null, text: string | null | undefined): string =>
    `${token ?? 'the end'}${text === null || text === undefined ? '' : ` ${JSON.stringify(text)}`}`;
  return [
    ['first', `token ${at} of choice ${choice}${by === 'response' ? ', as the text suggests' : ''}`],
    ['recorded', name(recorded, texts?.recorded)],
    ['here', name(picked, texts?.picked)],
    ['distance', `${number(distance)} in logits (${number(gap)} between the two)`],
    ...(farthest === undefined ? [] : [['farthest', number(farthest)] as const]),
  ];
}

function verdictLines({ verdict, stage, why }: ReplayVerdict): readonly string[] {
  const head = {
    equal: 'EQUAL',
    different: `DIFFERENT: ${stage}`,
    'not comparable': `NOT COMPARABLE: ${stage}`,
    undecided: `UNDECIDED: ${stage}`,
  }[verdict];
  return why === undefined ? [head] : [head, `${why.slice(0, 1).toUpperCase()}${why.slice(1)}.`];
}

// A receipt beside the receipt of the same request computed again, with the same salt: the stages of a replay
// in their order (docs/receipts.md §5), each with what both say. It knows no engine and holds no text.

import { equalBytes, toHex } from '@assay/attestation';
import type { FinalReceipt, ReceiptSampling } from '@assay/attestation/receipt';

/** In the order in which they are compared. */
export type ReplayStage =
  | 'signature'
  | 'evidence'
  | 'class'
  | 'end'
  | 'build'
  | 'cpu'
  | 'threads'
  | 'model'
  | 'context'
  | 'request'
  | 'response'
  | 'recorded tokens'
  | 'template'
  | 'prompt'
  | 'sampling'
  | 'tokens'
  | 'text'
  | 'finish'
  | 'usage'
  | 'answer';

export interface StageResult {
  readonly stage: ReplayStage;
  /** `apart`: what is here cannot be compared with what answered. */
  readonly state: 'equal' | 'different' | 'apart' | 'undecided' | 'skipped';
  /** A fact about either side, never a text. */
  readonly receipt?: string | undefined;
  readonly here?: string | undefined;
}

type Side = Pick<FinalReceipt, 'engine' | 'model' | 'request' | 'sampling' | 'outcome' | 'usage'>;

/** Where what is here must be what answered. */
export function comparePlaces(receipt: Side, here: Side): readonly StageResult[] {
  const { engine, model } = receipt;
  const other = here.engine;
  return [
    apart('build', buildText(engine), buildText(other)),
    apart('cpu', engine.cpuVariant, other.cpuVariant),
    apart('threads', String(engine.threads), String(other.threads)),
    apart('model', modelText(model), modelText(here.model)),
    apart('context', contextText(engine), contextText(other)),
  ];
}

/** Template, prompt and sampling: what was asked of the engine. */
export function compareQuestion(receipt: Side, here: Side): readonly StageResult[] {
  return [
    apart('template', hexOf(receipt.model.template), hexOf(here.model.template)),
    same('prompt', hexOf(receipt.request.promptTokens), hexOf(here.request.promptTokens)),
    same('sampling', ...samplingTexts(receipt.sampling, here.sampling)),
  ];
}

/** Tokens, text, finish and usage: what the engine answered. */
export function compareAnswer(receipt: Side, here: Side): readonly StageResult[] {
  const [theirs, ours] = [receipt.outcome.choices, here.outcome.choices];
  const texts = (of: (choice: (typeof theirs)[number]) => string): [string, string] => [
    theirs.map(of).join(' '),
    ours.map(of).join(' '),
  ];
  return [
    same('tokens', ...texts(({ tokens, outputTokens }) => `${tokens}:${toHex(outputTokens)}`)),
    same('text', ...texts(({ outputText }) => toHex(outputText))),
    same(
      'finish',
      ...(texts(({ finishReason }) => finishReason ?? '-').map((text, i) =>
        `${(i === 0 ? receipt : here).outcome.end ?? '-'} ${text}`.trim(),
      ) as [string, string]),
    ),
    same('usage', usageText(receipt), usageText(here)),
  ];
}

/** Whether both answers are the same bytes: of answers with no random part. */
export function sameTranscript(receipt: Side, here: Side): boolean {
  return (
    receipt.outcome.events === here.outcome.events &&
    equalBytes(receipt.outcome.transcript, here.outcome.transcript)
  );
}

function usageText({ usage }: Side): string {
  return `${usage.promptTokens} of prompt, ${usage.completionTokens} written`;
}

function buildText({ release, digest }: FinalReceipt['engine']): string {
  return `${release} ${toHex(digest)}`;
}

function contextText({ context, batch }: FinalReceipt['engine']): string {
  return `${context} tokens, ${batch} at once`;
}

function modelText({ form, sha256, adapters }: FinalReceipt['model']): string {
  const more = adapters.map((each) => `${toHex(each.sha256)}×${each.scale}`);
  return [form, toHex(sha256), ...more].join(' ');
}

function hexOf(bytes: Uint8Array | null): string {
  return bytes === null ? 'none' : toHex(bytes);
}

function apart(stage: ReplayStage, receipt: string, here: string): StageResult {
  return receipt === here ? { stage, state: 'equal' } : { stage, state: 'apart', receipt, here };
}

function same(stage: ReplayStage, receipt: string, here: string): StageResult {
  return receipt === here ? { stage, state: 'equal' } : { stage, state: 'different', receipt, here };
}

/** Only the fields that differ are named. */
function samplingTexts(receipt: ReceiptSampling | null, here: ReceiptSampling | null): [string, string] {
  if (receipt === null || here === null)
    return [receipt === null ? 'none' : 'some', here === null ? 'none' : 'some'];
  const names = [...new Set([...Object.keys(receipt), ...Object.keys(here)])] as (keyof ReceiptSampling)[];
  const shown = (value: unknown): string => {
    if (value instanceof Uint8Array) return toHex(value);
    return value === undefined || value === null ? 'none' : JSON.stringify(value);
  };
  const apartNames = names.filter((name) => shown(receipt[name]) !== shown(here[name]));
  const text = (side: ReceiptSampling): string =>
    apartNames.map((name) => `${name} ${shown(side[name])}`).join(', ');
  return [text(receipt), text(here)];
}

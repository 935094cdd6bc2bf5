// The payload of a receipt as canonical CBOR (docs/receipts.md §1). A number that no unsigned integer says is
// eight bytes, binary64, big-endian. Refuses NaN, an infinity and -0.

import { type Cbor, type CborMap, encodeCbor } from '../encoding/cbor.ts';
import { viewOf } from '../encoding/bytes.ts';
import {
  type FinalReceipt,
  type Receipt,
  RECEIPT_ENDS,
  RECEIPT_LABEL,
  type ReceiptChannel,
  type ReceiptChoice,
  type ReceiptModel,
  type ReceiptOutcome,
  type ReceiptSampling,
} from './body.ts';

export function encodeBody(receipt: Receipt): Uint8Array {
  const { engine } = receipt;
  const fields = new Map<number, Cbor>([
    [0, RECEIPT_LABEL],
    [1, receipt.kind === 'final' ? 1 : 0],
    [2, receipt.id],
    [3, receipt.chain],
    [4, receipt.seq],
    [5, receipt.prev],
    [6, receipt.receiptKey],
    [7, channelMap(receipt.channel)],
    [8, modelMap(receipt.model)],
    [
      9,
      numbered([
        engine.release,
        engine.digest,
        engine.cpuVariant,
        engine.threads,
        engine.replayClass,
        engine.context,
        engine.batch,
      ]),
    ],
    [12, outcomeMap(receipt.outcome)],
  ]);
  if (receipt.kind === 'final') addFinal(fields, receipt);
  if (receipt.nonce !== undefined) fields.set(15, receipt.nonce);
  return encodeCbor(fields);
}

function addFinal(fields: Map<number, Cbor>, receipt: FinalReceipt): void {
  const { request, sampling, usage, lastCheckpoint, auditHead } = receipt;
  fields.set(10, numbered([request.method, request.path, request.body, request.promptTokens]));
  fields.set(11, sampling === null ? null : samplingMap(sampling));
  fields.set(13, numbered([usage.promptTokens, usage.completionTokens, usage.cachedTokens]));
  fields.set(14, numbered([receipt.receivedAt, receipt.finishedAt]));
  if (lastCheckpoint !== undefined) fields.set(16, lastCheckpoint);
  if (auditHead !== undefined) fields.set(17, auditHead);
}

/** A map with the keys 0, 1, 2, … */
function numbered(values: readonly Cbor[]): CborMap {
  return new Map(values.map((value, i) => [i, value]));
}

function channelMap(channel: ReceiptChannel): CborMap {
  switch (channel.kind) {
    case 'attested':
      return numbered([0, channel.claims, channel.report]);
    case 'sealed':
      return numbered([1, channel.request]);
    case 'none':
      return numbered([2]);
  }
}

function modelMap({ id, form, sha256, adapters, template }: ReceiptModel): CborMap {
  const scaled = adapters.map((adapter): Cbor => [adapter.sha256, encodeF64(adapter.scale)]);
  return numbered([id, form, sha256, scaled, template]);
}

function samplingMap(sampling: ReceiptSampling): CborMap {
  const numbers = [
    sampling.temperature,
    sampling.topP,
    sampling.topK,
    sampling.minP,
    sampling.presencePenalty,
    sampling.frequencyPenalty,
    sampling.repeatPenalty,
  ];
  const map = new Map<number, Cbor>(numbers.map((value, i) => [i, encodeNumber(value)]));
  map.set(7, sampling.seed);
  map.set(8, sampling.seedGiven);
  map.set(9, sampling.maxTokens);
  map.set(10, sampling.n);
  for (const [i, commitment] of [sampling.stop, sampling.logitBias, sampling.grammar].entries())
    if (commitment !== undefined) map.set(11 + i, commitment);
  return map;
}

function outcomeMap({ status, transcript, events, choices, end, errorCode }: ReceiptOutcome): CborMap {
  // RECEIPT_ENDS are the texts themselves; an end of another name is refused by the reader's rules.
  const ended = end === null ? null : (RECEIPT_ENDS.find((each) => each === end) ?? 'unknown');
  const map = new Map(numbered([status, transcript, events, choices.map(choiceMap), ended]));
  if (errorCode !== undefined) map.set(5, errorCode);
  return map;
}

function choiceMap({ index, finishReason, tokens, outputTokens, outputText }: ReceiptChoice): CborMap {
  return numbered([index, finishReason, tokens, outputTokens, outputText]);
}

/** A whole number from 0 on as such, any other as eight bytes. */
function encodeNumber(value: number): Cbor {
  return Number.isSafeInteger(value) && value >= 0 && !Object.is(value, -0) ? value : encodeF64(value);
}

/** Binary64, big-endian. @throws TypeError for NaN, an infinity and -0 */
export function encodeF64(value: number): Uint8Array {
  if (!Number.isFinite(value) || Object.is(value, -0)) throw new TypeError('a number that no receipt says');
  const bytes = new Uint8Array(8);
  viewOf(bytes).setFloat64(0, value);
  return bytes;
}

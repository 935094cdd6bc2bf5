// Reads the payload of a receipt (docs/receipts.md §1). The maps are closed: a key that is not known, a field
// of another type or size, a number with a second spelling and fields that contradict each other are refused,
// all with `receipt_malformed`; a later version with `receipt_version`, which says no more than that.

import { isZero, utf8, viewOf } from '../encoding/bytes.ts';
import { type Cbor, type CborMap, decodeCbor } from '../encoding/cbor.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import {
  MAX_RECEIPT_BYTES,
  MAX_RECEIPT_CHOICES,
  MAX_RECEIPT_PATH_BYTES,
  type Receipt,
  RECEIPT_ENDS,
  RECEIPT_LABEL,
  type ReceiptChannel,
  type ReceiptChoice,
  type ReceiptEngine,
  type ReceiptModel,
  type ReceiptOutcome,
  type ReceiptRequest,
  type ReceiptSampling,
} from './body.ts';

const CHECKPOINT_KEYS = { needed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12], allowed: [15] };
const FINAL_KEYS = {
  needed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14],
  allowed: [15, 16, 17],
};
const NONCE_BYTES = { min: 16, max: 32 };
const MAX_TEXT_BYTES = 1024;
const MAX_ADAPTERS = 8;
const WORD = /^[a-z][a-z0-9_]{0,63}$/;

/** @throws AttestationError receipt_malformed, receipt_version */
export function decodeBody(bytes: Uint8Array): Receipt {
  const fields = mapOf(decodeCbor(bytes, 'the payload of the receipt', MAX_RECEIPT_BYTES), 'payload');
  const label = fields.get(0);
  if (label !== RECEIPT_LABEL) {
    if (typeof label === 'string' && /^assay\/receipt\/v[0-9]{1,9}$/.test(label))
      throw unsupported('receipt_version', `the receipt is of the version ${label}`, {
        expected: RECEIPT_LABEL,
        actual: label,
      });
    throw wrong(`is not of the domain ${RECEIPT_LABEL}`);
  }
  const kind = fields.get(1);
  if (kind !== 0 && kind !== 1) throw wrong('is neither checkpoint nor final');
  closed(fields, kind === 0 ? CHECKPOINT_KEYS : FINAL_KEYS, 'payload');
  const common = {
    id: bytesOf(fields.get(2), 'id', 16),
    chain: bytesOf(fields.get(3), 'chain', 16),
    seq: uintOf(fields.get(4), 'seq'),
    prev: hashOf(fields.get(5), 'prev'),
    receiptKey: hashOf(fields.get(6), 'receipt_key'),
    channel: channelOf(fields.get(7)),
    model: modelOf(fields.get(8)),
    engine: engineOf(fields.get(9)),
    outcome: outcomeOf(fields.get(12)),
    nonce: nonceOf(fields.get(15)),
  };
  const final = kind === 1;
  if ((common.seq === 0) !== isZero(common.prev))
    throw wrong('names one before it if and only if it is not the first');
  if (final !== (common.outcome.end !== null)) throw wrong('has an end if and only if it is final');
  if (!final) return { kind: 'checkpoint', ...common };
  const times = numbered(fields.get(14), 'times', 2);
  const usage = numbered(fields.get(13), 'usage', 3);
  const [receivedAt, finishedAt] = [uintOf(times[0], 'received'), uintOf(times[1], 'finished')];
  if (finishedAt < receivedAt) throw wrong('finished before it was received');
  return {
    kind: 'final',
    ...common,
    request: requestOf(fields.get(10)),
    sampling: fields.get(11) === null ? null : samplingOf(fields.get(11)),
    usage: {
      promptTokens: uintOf(usage[0], 'prompt tokens'),
      completionTokens: uintOf(usage[1], 'completion tokens'),
      cachedTokens: uintOf(usage[2], 'cached tokens'),
    },
    receivedAt,
    finishedAt,
    lastCheckpoint: optionalHash(fields.get(16), 'last checkpoint'),
    auditHead: optionalHash(fields.get(17), 'audit head'),
  };
}

function channelOf(value: Cbor | undefined): ReceiptChannel {
  const fields = mapOf(value, 'channel');
  switch (fields.get(0)) {
    case 0: {
      const parts = numbered(fields, 'channel', 3);
      return { kind: 'attested', claims: hashOf(parts[1], 'claims'), report: hashOf(parts[2], 'report') };
    }
    case 1:
      return { kind: 'sealed', request: hashOf(numbered(fields, 'channel', 2)[1], 'sealed request') };
    case 2:
      numbered(fields, 'channel', 1);
      return { kind: 'none' };
    default:
      throw wrong('channel is none of 0, 1, 2');
  }
}

function modelOf(value: Cbor | undefined): ReceiptModel {
  const [id, form, sha256, adapters, template] = numbered(value, 'model', 5);
  if (form !== 'blob' && form !== 'manifest') throw wrong('model is neither blob nor manifest');
  return {
    id: textOf(id, 'model id'),
    form,
    sha256: hashOf(sha256, 'model digest'),
    adapters: listOf(adapters, 'adapters', MAX_ADAPTERS).map((each) => {
      const pair = listOf(each, 'adapter', 2);
      if (pair.length !== 2) throw wrong('an adapter is not [digest, scale]');
      return { sha256: hashOf(pair[0], 'adapter'), scale: f64Of(pair[1], 'scale') };
    }),
    template: template === null ? null : hashOf(template, 'template'),
  };
}

function engineOf(value: Cbor | undefined): ReceiptEngine {
  const [release, digest, cpuVariant, threads, replayClass, context, batch] = numbered(value, 'engine', 7);
  if (replayClass !== 0 && replayClass !== 1 && replayClass !== 2)
    throw wrong('replay class is none of 0, 1, 2');
  return {
    release: textOf(release, 'release'),
    digest: hashOf(digest, 'engine digest'),
    cpuVariant: textOf(cpuVariant, 'CPU variant'),
    threads: uintOf(threads, 'threads'),
    replayClass,
    context: uintOf(context, 'context'),
    batch: uintOf(batch, 'batch'),
  };
}

function requestOf(value: Cbor | undefined): ReceiptRequest {
  const [method, path, body, promptTokens] = numbered(value, 'request', 4);
  return {
    method: textOf(method, 'method'),
    path: textOf(path, 'path', MAX_RECEIPT_PATH_BYTES),
    body: hashOf(body, 'body'),
    promptTokens: promptTokens === null ? null : hashOf(promptTokens, 'prompt tokens'),
  };
}

const SAMPLING_KEYS = { needed: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], allowed: [11, 12, 13] };

function samplingOf(value: Cbor | undefined): ReceiptSampling {
  const fields = mapOf(value, 'sampling');
  closed(fields, SAMPLING_KEYS, 'sampling');
  const number = (key: number, name: string): number => numberOf(fields.get(key), name);
  const given = fields.get(8);
  if (typeof given !== 'boolean') throw wrong('does not say whether the seed was given');
  const maxTokens = fields.get(9);
  return {
    temperature: number(0, 'temperature'),
    topP: number(1, 'top_p'),
    topK: number(2, 'top_k'),
    minP: number(3, 'min_p'),
    presencePenalty: number(4, 'presence_penalty'),
    frequencyPenalty: number(5, 'frequency_penalty'),
    repeatPenalty: number(6, 'repeat_penalty'),
    seed: uintOf(fields.get(7), 'seed'),
    seedGiven: given,
    maxTokens: maxTokens === null ? null : uintOf(maxTokens, 'max_tokens'),
    n: uintOf(fields.get(10), 'n'),
    stop: optionalHash(fields.get(11), 'stop'),
    logitBias: optionalHash(fields.get(12), 'logit_bias'),
    grammar: optionalHash(fields.get(13), 'grammar'),
  };
}

const OUTCOME_KEYS = { needed: [0, 1, 2, 3, 4], allowed: [5] };

function outcomeOf(value: Cbor | undefined): ReceiptOutcome {
  const fields = mapOf(value, 'outcome');
  closed(fields, OUTCOME_KEYS, 'outcome');
  const choices = listOf(fields.get(3), 'choices', MAX_RECEIPT_CHOICES).map(choiceOf);
  for (const [i, { index }] of choices.entries()) if (index !== i) throw wrong('choices are not in order');
  const ended = fields.get(4);
  const end = ended === null ? null : RECEIPT_ENDS.find((each) => each === ended);
  if (end === undefined) throw wrong(`end is none of ${RECEIPT_ENDS.join(', ')}`);
  const code = fields.get(5);
  if ((end === 'error') !== (code !== undefined))
    throw wrong('has an error code if and only if it ended with an error');
  const status = uintOf(fields.get(0), 'status');
  if (status < 100 || status > 599) throw wrong('status is no HTTP status');
  return {
    status,
    transcript: hashOf(fields.get(1), 'transcript'),
    events: uintOf(fields.get(2), 'events'),
    choices,
    end,
    errorCode: code === undefined ? undefined : wordOf(code, 'error code'),
  };
}

function choiceOf(value: Cbor): ReceiptChoice {
  const [index, finish, tokens, outputTokens, outputText] = numbered(value, 'choice', 5);
  return {
    index: uintOf(index, 'index'),
    finishReason: finish === null ? null : wordOf(finish, 'finish_reason'),
    tokens: uintOf(tokens, 'tokens'),
    outputTokens: hashOf(outputTokens, 'output tokens'),
    outputText: hashOf(outputText, 'output text'),
  };
}

function mapOf(value: Cbor | undefined, what: string): CborMap {
  if (!(value instanceof Map)) throw wrong(`${what} is no map`);
  return value as CborMap;
}

interface Keys {
  readonly needed: readonly number[];
  readonly allowed: readonly number[];
}

function closed(fields: CborMap, { needed, allowed }: Keys, what: string): void {
  for (const key of needed) if (!fields.has(key)) throw wrong(`${what} has no key ${key}`);
  for (const key of fields.keys())
    if (typeof key !== 'number' || !(needed.includes(key) || allowed.includes(key)))
      throw wrong(`${what} has the unknown key ${JSON.stringify(key).slice(0, 64)}`);
}

/** The values of a map with the keys 0 to `count` - 1 and no other. */
function numbered(value: Cbor | undefined, what: string, count: number): readonly Cbor[] {
  const fields = mapOf(value, what);
  const needed = Array.from({ length: count }, (_, i) => i);
  closed(fields, { needed, allowed: [] }, what);
  return needed.map((key) => fields.get(key) ?? null);
}

function listOf(value: Cbor | undefined, what: string, max: number): readonly Cbor[] {
  if (!Array.isArray(value)) throw wrong(`${what} is no list`);
  const list = value as readonly Cbor[];
  if (list.length > max) throw wrong(`${what} has ${list.length} entries, at most ${max} are read`);
  return list;
}

function textOf(value: Cbor | undefined, what: string, maxBytes = MAX_TEXT_BYTES): string {
  if (typeof value !== 'string') throw wrong(`${what} is no text`);
  if (utf8(value).length > maxBytes) throw wrong(`${what} has more than ${maxBytes} bytes`);
  return value;
}

function wordOf(value: Cbor | undefined, what: string): string {
  const text = textOf(value, what);
  if (!WORD.test(text)) throw wrong(`${what} is no lower-case word`);
  return text;
}

function bytesOf(value: Cbor | undefined, what: string, length: number): Uint8Array {
  if (value instanceof Uint8Array && value.length === length) return value;
  throw wrong(`${what} is not ${length} bytes`);
}

function hashOf(value: Cbor | undefined, what: string): Uint8Array {
  return bytesOf(value, what, 32);
}

function optionalHash(value: Cbor | undefined, what: string): Uint8Array | undefined {
  return value === undefined ? undefined : hashOf(value, what);
}

function nonceOf(value: Cbor | undefined): Uint8Array | undefined {
  if (value === undefined) return undefined;
  if (value instanceof Uint8Array && value.length >= NONCE_BYTES.min && value.length <= NONCE_BYTES.max)
    return value;
  throw wrong(`nonce is not ${NONCE_BYTES.min} to ${NONCE_BYTES.max} bytes`);
}

function uintOf(value: Cbor | undefined, what: string): number {
  if (typeof value === 'number') return value;
  throw wrong(`${what} is no whole number`);
}

function f64Of(value: Cbor | undefined, what: string): number {
  const number = viewOf(bytesOf(value, what, 8)).getFloat64(0);
  if (!Number.isFinite(number) || Object.is(number, -0)) throw wrong(`${what} is no number a receipt says`);
  return number;
}

/** `f64 / uint`: a number that an unsigned integer says has no other spelling. */
function numberOf(value: Cbor | undefined, what: string): number {
  if (typeof value === 'number') return value;
  const number = f64Of(value, what);
  if (Number.isSafeInteger(number) && number >= 0) throw wrong(`${what} is a whole number in eight bytes`);
  return number;
}

function wrong(what: string): Error {
  return malformed('receipt_malformed', `the receipt ${what}`);
}

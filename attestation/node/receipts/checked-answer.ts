// An answer with its receipts checked (docs/receipts.md §4): a whole one is held until its receipt holds, a
// stream passes on as it comes and its end is withheld. A refusal before the first byte is an answer of the
// client's own, 502 with the code and `x-should-retry: false`: SDKs send again what a fetch throws, and this
// request ran.

import { createHash } from 'node:crypto';
import { Response as UndiciResponse } from 'undici';
import { AttestationError, refused } from '../../transcript/errors.ts';
import { fromBase64 } from '../../encoding/bytes.ts';
import {
  checkAnswer,
  checkUsage,
  type ExpectedAnswer,
  type OpenedReceipt,
  usageIn,
} from '../../receipts/check.ts';
import type { ReceiptSequence } from '../../receipts/sequence.ts';
import { StreamCheck } from '../../receipts/stream-check.ts';
import type { KeptAnswer, ReceiptOptions, ReceiptVerdict } from './options.ts';

export interface AnswerContext {
  readonly expected: ExpectedAnswer;
  readonly options: ReceiptOptions;
  readonly sequence: ReceiptSequence;
  readonly kept: Omit<KeptAnswer, 'receipt' | 'salt' | 'content' | 'responseBody'>;
}

/** Headers and body of an answer as it arrives. */
export interface ArrivedAnswer {
  readonly status: number;
  readonly header: (name: string) => string | null;
  readonly body: AsyncIterable<Uint8Array>;
}

/** The bytes that may be handed on, and the verdict as it stands. */
export class CheckedAnswer {
  readonly #context: AnswerContext;
  readonly #arrived: ArrivedAnswer;
  readonly #received: Uint8Array[] = [];
  verdict: ReceiptVerdict = { state: 'pending' };

  constructor(context: AnswerContext, arrived: ArrivedAnswer) {
    this.#context = context;
    this.#arrived = arrived;
  }

  /** @throws AttestationError receipt_… where bytes must not be handed on, or no end be seen */
  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      if (isStream(this.#arrived)) yield* this.#stream();
      else yield await this.#whole();
    } catch (error) {
      if (error instanceof AttestationError) this.verdict = { state: 'refused', code: error.code };
      throw error;
    }
  }

  async *#stream(): AsyncGenerator<Uint8Array, void, undefined> {
    const { expected } = this.#context;
    const check = new StreamCheck(expected, { onFinal: (opened, salt) => this.#accept(opened, salt) });
    for await (const bytes of this.#arrived.body) {
      if (this.#context.options.keepContent === true) this.#received.push(bytes);
      yield* await check.push(bytes);
    }
    yield* await check.end();
  }

  async #whole(): Promise<Uint8Array> {
    const { receipt, salt } = headerReceipt(this.#arrived);
    const body = await collected(this.#arrived.body);
    if (this.#context.options.keepContent === true) this.#received.push(body);
    const digest = new Uint8Array(createHash('sha256').update(body).digest());
    const opened = await checkAnswer(receipt, salt, digest, this.#context.expected);
    const { status, end } = opened.receipt.outcome;
    if (status !== this.#arrived.status || status >= 400 !== (end === 'error'))
      throw refused('receipt_transcript', 'the receipt is of an answer with another status', {
        expected: String(this.#arrived.status),
        actual: String(status),
      });
    const usage = end === 'complete' ? usageIn(jsonOf(body)) : undefined;
    if (usage !== undefined) checkUsage(opened.receipt, usage);
    await this.#accept(opened, salt);
    return body;
  }

  async #accept({ receipt, bytes, digest }: OpenedReceipt, salt: Uint8Array): Promise<void> {
    const { options, sequence, kept } = this.#context;
    const order = sequence.note(receipt, digest);
    if (order === 'apart' && options.sequence === 'strict')
      throw refused('receipt_sequence', 'the receipt does not follow the one before it');
    const responseBody =
      options.keepContent === true ? new Uint8Array(Buffer.concat(this.#received)) : undefined;
    await options.sink?.({ ...kept, receipt: bytes, salt, content: receipt, responseBody });
    const connection = this.#context.expected.channel === undefined ? 'skipped' : 'compared';
    this.verdict = { state: 'verified', receipt, digest, order, connection };
  }
}

/** The answer for a refusal before the first byte. */
export function refusalResponse(error: AttestationError): UndiciResponse {
  const { code, message } = error;
  return new UndiciResponse(
    JSON.stringify({
      error: { message: `receipt refused: ${message}`, type: 'attestation_error', param: null, code },
    }),
    { status: 502, headers: { 'content-type': 'application/json', 'x-should-retry': 'false' } },
  );
}

function isStream({ header }: ArrivedAnswer): boolean {
  return /^text\/event-stream\b/i.test(header('content-type') ?? '');
}

const ITEM = /^:([A-Za-z0-9+/]+={0,2}):;salt=:([A-Za-z0-9+/]+={0,2}):$/;

function headerReceipt({ header }: ArrivedAnswer): {
  readonly receipt: Uint8Array;
  readonly salt: Uint8Array;
} {
  const text = header('assay-receipt');
  if (text === null) throw refused('receipt_missing', 'the answer has no receipt');
  const [, receipt = '', salt = ''] = ITEM.exec(text) ?? [];
  try {
    return { receipt: fromBase64(receipt), salt: fromBase64(salt) };
  } catch (cause) {
    throw refused('receipt_malformed', 'the header of the receipt is of another form', { cause });
  }
}

async function collected(body: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for await (const piece of body) pieces.push(piece);
  return new Uint8Array(Buffer.concat(pieces));
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return null;
  }
}

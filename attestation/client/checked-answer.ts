// An answer with its receipts checked (docs/receipts.md §4): a whole one is held until its receipt holds, a
// stream passes on as it comes and its end is withheld. A refusal before the first byte is an answer of the
// client's own, 502 with the code and `x-should-retry: false`: SDKs send again what a fetch throws, and this
// request ran.

import { concatBytes, fromBase64 } from '../encoding/bytes.ts';
import {
  checkAnswer,
  checkUsage,
  type ExpectedAnswer,
  type OpenedReceipt,
  usageIn,
} from '../receipts/check.ts';
import type { ReceiptSequence } from '../receipts/sequence.ts';
import { StreamCheck } from '../receipts/stream-check.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import { sha256Digest } from './asking.ts';
import type { HeldBytes, HeldShare } from './held-bytes.ts';
import type { ReceiptRecord, ReceiptSettings, ReceiptVerdict } from './receipt-options.ts';

export interface AnswerContext<E> {
  readonly expected: ExpectedAnswer;
  readonly options: ReceiptSettings<E>;
  readonly sequence: ReceiptSequence;
  /** Shared by all answers of one fetch or proxy. */
  readonly held: HeldBytes;
  readonly kept: Omit<ReceiptRecord<E>, 'receipt' | 'salt' | 'content' | 'responseBody' | 'tokens'>;
}

/** Headers and body of an answer as it arrives. */
export interface ArrivedAnswer {
  readonly status: number;
  readonly header: (name: string) => string | null;
  readonly body: AsyncIterable<Uint8Array>;
}

/** The bytes that may be handed on, and the verdict as it stands. */
export class CheckedAnswer<E> {
  readonly #context: AnswerContext<E>;
  readonly #arrived: ArrivedAnswer;
  readonly #share: HeldShare;
  readonly #received: Uint8Array[] = [];
  #receivedBytes = 0;
  verdict: ReceiptVerdict = { state: 'pending' };

  constructor(context: AnswerContext<E>, arrived: ArrivedAnswer) {
    this.#context = context;
    this.#arrived = arrived;
    this.#share = context.held.share();
  }

  /** @throws AttestationError receipt_… where bytes must not be handed on, or no end be seen */
  async *bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      if (isStream(this.#arrived)) yield* this.#stream();
      else yield await this.#whole();
    } catch (error) {
      if (error instanceof AttestationError) this.verdict = { state: 'refused', code: error.code };
      throw error;
    } finally {
      this.#share.release();
    }
  }

  async *#stream(): AsyncGenerator<Uint8Array, void, undefined> {
    const { expected } = this.#context;
    const { status } = this.#arrived;
    if (status !== STREAM_STATUS) throw otherStatus(status, STREAM_STATUS);
    const check = new StreamCheck(expected, {
      keepTokens: this.#context.options.tokens,
      onFinal: (opened, salt) =>
        this.#accept(opened, salt, { bytes: check.wholeBytes, tokens: check.tokens }),
    });
    for await (const bytes of this.#arrived.body) {
      this.#keep(bytes);
      const passed = await check.push(bytes);
      this.#share.hold(this.#receivedBytes + check.heldBytes);
      yield* passed;
    }
    yield* await check.end();
  }

  async #whole(): Promise<Uint8Array> {
    const { receipt, salt } = headerReceipt(this.#arrived);
    const body = await collected(this.#arrived.body, this.#share);
    this.#keep(body);
    const opened = await checkAnswer(receipt, salt, sha256Digest(body), this.#context.expected);
    const { status, end } = opened.receipt.outcome;
    if (status !== this.#arrived.status || status >= 400 !== (end === 'error'))
      throw otherStatus(this.#arrived.status, status);
    const usage = end === 'complete' ? usageIn(jsonOf(body)) : undefined;
    if (usage !== undefined) checkUsage(opened.receipt, usage);
    await this.#accept(opened, salt);
    return body;
  }

  #keep(bytes: Uint8Array): void {
    if (this.#context.options.keepContent !== true) return;
    this.#received.push(bytes);
    this.#receivedBytes += bytes.length;
  }

  async #accept(
    { receipt, bytes, digest }: OpenedReceipt,
    salt: Uint8Array,
    streamed: {
      readonly bytes?: number | undefined;
      readonly tokens?: ReceiptRecord<E>['tokens'] | undefined;
    } = {},
  ): Promise<void> {
    const { options, sequence, kept } = this.#context;
    const order = sequence.note(receipt, digest);
    if (order === 'apart' && options.sequence === 'strict')
      throw refused('receipt_sequence', 'the receipt does not follow the one before it');
    const responseBody =
      options.keepContent === true ? concatBytes(...this.#received).subarray(0, streamed.bytes) : undefined;
    const { tokens } = streamed;
    try {
      await options.sink?.({ ...kept, receipt: bytes, salt, content: receipt, responseBody, tokens });
    } catch (cause) {
      // Not as the sink threw it: a fetch that throws is sent again, and this request ran.
      throw new AttestationError(
        'internal',
        'receipt_unkept',
        'the receipt of the answer could not be kept',
        {
          cause,
        },
      );
    }
    const connection = this.#context.expected.channel === undefined ? 'skipped' : 'compared';
    this.verdict = { state: 'verified', receipt, digest, order, connection };
  }
}

/** A connection that broke behind its header: the request ran. */
export function brokenOff(cause: unknown): AttestationError {
  return refused('receipt_truncated', 'the connection broke before the last receipt', { cause });
}

/** Of every stream: its head is sent before anything can fail. */
const STREAM_STATUS = 200;

function otherStatus(arrived: number, signed: number): AttestationError {
  return refused('receipt_transcript', 'the receipt is of an answer with another status', {
    expected: String(arrived),
    actual: String(signed),
  });
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

async function collected(body: AsyncIterable<Uint8Array>, share: HeldShare): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  for await (const piece of body) {
    length += piece.length;
    share.hold(length);
    pieces.push(piece);
  }
  return concatBytes(...pieces);
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

const answers = new WeakMap<object, { readonly verdict: ReceiptVerdict }>();

/**
 * The verdict on the receipts of a response of {@link attestedFetch} or {@link sealedFetch}; undefined for
 * one without: of a route that computes no answer, or where receipts were not asked for.
 * @example const verdict = receiptOf(response);
 */
export function receiptOf(response: object): ReceiptVerdict | undefined {
  return answers.get(response)?.verdict;
}

/** Makes a response of the class that its fetch gives out. */
export type MakeResponse = (body: ReadableStream<Uint8Array> | string | null, init: ResponseInit) => Response;

/** Waits for the first bytes that may pass, so that a refusal before them has a status. */
export async function handedOn<E>(
  response: Response,
  context: AnswerContext<E>,
  { make, signal }: { readonly make: MakeResponse; readonly signal: AbortSignal | undefined },
): Promise<Response> {
  const { status, statusText, headers, url } = response;
  const source = new Source(response.body, signal);
  const checked = new CheckedAnswer(context, {
    status,
    header: (name) => headers.get(name),
    body: source.pieces(),
  });
  const pieces = checked.bytes();
  let first: IteratorResult<Uint8Array, void>;
  try {
    first = await pieces.next();
  } catch (error) {
    await source.drop();
    if (!(error instanceof AttestationError)) throw error;
    return noted(refusalResponse(error, make), checked);
  }
  let waiting: IteratorResult<Uint8Array, void> | undefined = first;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const next = waiting ?? (await pieces.next());
      waiting = undefined;
      if (next.done === true) controller.close();
      else controller.enqueue(next.value);
    },
    cancel: () => source.drop(),
  });
  const empty = status === 204 || status === 304;
  const answer = make(empty ? null : body, { status, statusText, headers });
  Object.defineProperty(answer, 'url', { value: url });
  return noted(answer, checked);
}

function noted<E>(answer: Response, checked: CheckedAnswer<E>): Response {
  answers.set(answer, checked);
  return answer;
}

/** The answer for a refusal before the first byte. */
function refusalResponse({ code, message }: AttestationError, make: MakeResponse): Response {
  const text =
    code.startsWith('receipt_') && code !== 'receipt_unkept' ? `receipt refused: ${message}` : message;
  const error = { message: text, type: 'attestation_error', param: null, code };
  return make(JSON.stringify({ error }), {
    status: 502,
    headers: { 'content-type': 'application/json', 'x-should-retry': 'false' },
  });
}

/**
 * A body that can be dropped while a read of it is pending. A connection that breaks is a refusal as any
 * other: SDKs send again after errors of the network, and this request ran. An abort by the caller stays one.
 */
class Source {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #signal: AbortSignal | undefined;
  #dropped = false;

  constructor(body: ReadableStream<Uint8Array> | null, signal: AbortSignal | undefined) {
    this.#reader = body?.getReader();
    this.#signal = signal;
  }

  async *pieces(): AsyncGenerator<Uint8Array, void, undefined> {
    try {
      for (;;) {
        const next = await this.#reader?.read().catch((cause: unknown) => this.#broken(cause));
        // The reader has left: that is no cut stream.
        if (this.#dropped) throw new Error('the answer was dropped');
        if (next === undefined || next.done) return;
        yield next.value;
      }
    } finally {
      await this.drop();
    }
  }

  #broken(cause: unknown): never {
    if (this.#dropped || this.#signal?.aborted === true || cause instanceof AttestationError) throw cause;
    throw brokenOff(cause);
  }

  async drop(): Promise<void> {
    this.#dropped = true;
    await this.#reader?.cancel().catch(() => undefined);
  }
}

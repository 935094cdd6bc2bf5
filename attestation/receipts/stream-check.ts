// The receipts of a stream, checked while its bytes pass (docs/receipts.md §3, §4). Every event but the last
// goes on at once; what ends an answer for an SDK is withheld until the last receipt holds. A stream that was
// cut, edited or has no receipt ends with an error, since one that only stops looks complete.

import { equalBytes, fromBase64Url, fromHex } from '../encoding/bytes.ts';
import { AttestationError, malformed, refused } from '../transcript/errors.ts';
import type { FinalReceipt, ReceiptCheckpoint } from './body.ts';
import {
  checkFinal,
  checkReceipt,
  checkTranscript,
  checkUsage,
  type ExpectedAnswer,
  type OpenedReceipt,
  type ReportedUsage,
  usageIn,
} from './check.ts';
import { EventSplitter, jsonOf, roleOf, type StreamBlock } from './events.ts';
import { openReceipt, receiptDigest } from './receipt.ts';
import { opensTokens, TokenLists } from './token-runs.ts';
import { TranscriptHash } from './transcript-hash.ts';

/** Settings of {@link StreamCheck}. */
export interface StreamCheckOptions {
  /** Keeps the ids of output tokens, which must be those the last receipt commits to. */
  readonly keepTokens?: boolean | undefined;
  /** Called once, when the last receipt holds and before anything that ends the answer is handed on. */
  readonly onFinal?: ((opened: OpenedReceipt, salt: Uint8Array) => Promise<void> | void) | undefined;
}

/**
 * One stream. Give it the bytes as they come and hand on what it returns; at its end, call `end`.
 * @example
 * const check = new StreamCheck(answered);
 * for await (const piece of body) for (const part of await check.push(piece)) controller.enqueue(part);
 * for (const part of await check.end()) controller.enqueue(part);
 */
export class StreamCheck {
  readonly #expected: ExpectedAnswer;
  readonly #onFinal: StreamCheckOptions['onFinal'];
  readonly #tokens: TokenLists | undefined;
  readonly #splitter = new EventSplitter();
  readonly #transcript = new TranscriptHash();
  #opened: { readonly id: Uint8Array; readonly salt: Uint8Array } | undefined;
  #checkpoints = 0;
  #lastCheckpoint: Uint8Array | undefined;
  #final: OpenedReceipt | undefined;
  /** Events that end an answer, and what came after them. */
  #withheld: Uint8Array[] = [];
  /** Responses have come to their end; `failed`: to one that tells of an error. */
  #covered: { readonly failed: boolean } | undefined;
  #withheldBytes = 0;
  #usage: ReportedUsage | undefined;
  /** Its events have names, as in all streams of one dialect or in none. */
  #named: boolean | undefined;
  #ended = false;

  constructor(expected: ExpectedAnswer, { onFinal, keepTokens }: StreamCheckOptions = {}) {
    this.#expected = expected;
    this.#tokens = keepTokens === true ? new TokenLists() : undefined;
    this.#onFinal = onFinal;
  }

  /** The last receipt, once it holds. */
  get final(): OpenedReceipt | undefined {
    return this.#final;
  }

  /** The ids of output tokens of each choice so far; undefined where they are not kept. */
  get tokens(): readonly (readonly number[])[] | undefined {
    return this.#tokens?.lists;
  }

  /** Bytes that arrived in whole events and comments. */
  get wholeBytes(): number {
    return this.#splitter.taken;
  }

  /** Bytes of an event that is not whole, and of an end that waits for its receipt. */
  get heldBytes(): number {
    return this.#splitter.heldBytes + this.#withheldBytes;
  }

  /** The bytes to hand on. @throws AttestationError receipt_… */
  async push(bytes: Uint8Array): Promise<readonly Uint8Array[]> {
    const passed: Uint8Array[] = [];
    for (const block of this.#splitter.push(bytes)) await this.#take(block, passed);
    return passed;
  }

  /** The rest. @throws AttestationError receipt_truncated, receipt_missing and the others */
  async end(): Promise<readonly Uint8Array[]> {
    const passed: Uint8Array[] = [];
    const { blocks, whole } = this.#splitter.end();
    for (const block of blocks) await this.#take(block, passed);
    if (this.#final === undefined)
      throw this.#opened === undefined
        ? refused('receipt_missing', 'the stream has no receipt')
        : refused('receipt_truncated', 'the stream ended before its last receipt');
    if (!whole || !(this.#ended || this.#covered !== undefined))
      throw refused('receipt_truncated', 'the stream ended before its last event');
    return passed;
  }

  async #take(block: StreamBlock, passed: Uint8Array[]): Promise<void> {
    if (block.kind === 'assay') {
      await this.#comment(block.words);
      if (this.#final !== undefined) {
        passed.push(...this.#withheld.splice(0));
        this.#withheldBytes = 0;
      }
      return;
    }
    if (block.kind === 'event') {
      if (this.#final !== undefined) this.#last(block.name, block.data, this.#final.receipt);
      else this.#event(block.name, block.data);
    }
    if (this.#covered !== undefined && this.#final === undefined) {
      this.#withheld.push(block.bytes);
      this.#withheldBytes += block.bytes.length;
    } else passed.push(block.bytes);
  }

  #event(name: string, data: string): void {
    if (this.#opened === undefined) throw refused('receipt_missing', 'the stream has no receipt');
    if (this.#covered !== undefined)
      throw refused('receipt_transcript', 'the stream goes on after its last event');
    const event = roleOf(name, data);
    if (event.kind === 'last') throw refused('receipt_missing', 'the stream ends without its last receipt');
    if (event.kind === 'doubtful')
      throw refused('receipt_transcript', 'the stream has an event that ends it for some readers only');
    this.#transcript.add(name, data);
    this.#named ??= name !== '';
    if (event.kind === 'covered') this.#covered = event;
    if (data.includes('"usage":{')) this.#usage = usageIn(jsonOf(data)) ?? this.#usage;
  }

  /** The one event that may follow the last receipt. */
  #last(name: string, data: string, { outcome }: FinalReceipt): void {
    const event = roleOf(name, data);
    const ofDialect = this.#named === undefined || this.#named === (name !== '');
    if (this.#ended || this.#covered !== undefined || event.kind !== 'last' || !ofDialect)
      throw refused('receipt_transcript', 'the stream has an event that no receipt covers');
    if (event.errorCode !== outcome.errorCode)
      throw refused('receipt_transcript', 'the stream ends in another way than its receipt says', {
        expected: outcome.errorCode ?? 'no error',
        actual: event.errorCode ?? 'no error',
      });
    this.#ended = true;
  }

  async #comment([kind, ...words]: readonly string[]): Promise<void> {
    if (this.#final !== undefined)
      throw refused('receipt_transcript', 'the stream has a receipt after its last one');
    if (kind === 'assay-open') this.#open(words);
    else if (kind === 'assay-receipt') await this.#receipt(words);
    else if (kind !== 'assay-tokens' || words.length !== 1) throw malformedComment();
    else this.#tokens?.add(readWords(() => fromBase64Url(words[0] ?? '')));
  }

  #open(words: readonly string[]): void {
    const [id = '', salt = ''] = words;
    if (this.#opened !== undefined || words.length !== 2 || this.#transcript.events > 0)
      throw malformedComment();
    const opened = readWords(() => ({ id: fromHex(id), salt: fromBase64Url(salt) }));
    if (opened.id.length !== 16 || opened.salt.length !== 32) throw malformedComment();
    this.#opened = opened;
  }

  async #receipt(words: readonly string[]): Promise<void> {
    const opened = this.#opened;
    const [text = ''] = words;
    if (opened === undefined || words.length !== 1) throw malformedComment();
    const bytes = readWords(() => fromBase64Url(text));
    const receipt = await openReceipt(bytes);
    if (!equalBytes(receipt.id, opened.id))
      throw refused('receipt_transcript', 'the receipt is of another answer');
    checkTranscript(receipt, opened.salt, this.#transcript.digest(), this.#transcript.events);
    const digest = receiptDigest(bytes);
    if (receipt.kind === 'checkpoint') return this.#checkpoint(receipt, digest);
    checkFinal(receipt, opened.salt, this.#expected);
    if (!sameHash(receipt.lastCheckpoint, this.#lastCheckpoint))
      throw refused('receipt_transcript', 'the last receipt names another checkpoint than arrived');
    const { end } = receipt.outcome;
    if (end === 'aborted')
      throw refused('receipt_truncated', 'the receipt says that the answer was broken off');
    if (this.#covered !== undefined && this.#covered.failed !== (end === 'error'))
      throw refused('receipt_transcript', 'the stream ends in another way than its receipt says');
    if (this.#usage !== undefined && end === 'complete') checkUsage(receipt, this.#usage);
    if (this.#tokens !== undefined && !opensTokens(receipt.outcome, opened.salt, this.#tokens.lists))
      throw refused('receipt_transcript', 'the tokens of the stream are not those of its receipt');
    const final = { receipt, bytes, digest };
    await this.#onFinal?.(final, opened.salt);
    this.#final = final;
    return undefined;
  }

  #checkpoint(receipt: ReceiptCheckpoint, digest: Uint8Array): void {
    checkReceipt(receipt, this.#expected);
    const { seq, prev } = receipt;
    if (seq !== this.#checkpoints || !equalBytes(prev, this.#lastCheckpoint ?? new Uint8Array(32)))
      throw refused('receipt_transcript', 'the checkpoints of the stream are not in their order', {
        expected: String(this.#checkpoints),
        actual: String(seq),
      });
    this.#checkpoints += 1;
    this.#lastCheckpoint = digest;
  }
}

function sameHash(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : equalBytes(a, b);
}

function readWords<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof AttestationError) throw malformedComment();
    throw error;
  }
}

function malformedComment(): Error {
  return malformed('receipt_malformed', 'the stream has a comment of receipts that is of another form');
}

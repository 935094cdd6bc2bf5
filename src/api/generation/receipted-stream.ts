// The receipts of a stream (docs/receipts.md §3): every event is hashed as it is sent; a client that asked
// gets its receipts as comments, the last one before the event that ends the stream. On Responses the last
// event is part of the answer, and the receipt comes after it.

import type { Exchange } from '../../http/exchange.ts';
import type { EventStream } from '../../http/sse.ts';
import type { AnswerReceipt } from '../../receipts/answer.ts';
import { endOfExchange } from '../../http/exchange.ts';

const CHECKPOINT_EVENTS = 64;
const CHECKPOINT_MS = 1000;
const COMMENT_BYTES = 256;

/** The same stream with its receipts; `exchange` knows how it ends. */
export function receiptedStream(
  stream: EventStream,
  receipt: AnswerReceipt,
  exchange: Exchange,
): EventStream {
  const { mode } = receipt.ask;
  let uncovered = 0;
  let timer: NodeJS.Timeout | undefined;
  const comment = (words: string): void => {
    if (mode !== null) stream.comment(padded(words));
  };
  const checkpoint = (): void => {
    clearTimeout(timer);
    timer = undefined;
    if (uncovered === 0 || stream.ended) return;
    uncovered = 0;
    comment(`assay-receipt ${base64url(receipt.checkpoint())}`);
  };
  const tokens = (): void => {
    const written = receipt.output.takeTokens();
    if (written !== undefined) comment(`assay-tokens ${base64url(written)}`);
  };
  const event = (data: string, name: string | undefined): void => {
    tokens();
    receipt.event(name ?? '', data);
    stream.send(data, name);
  };
  comment(`assay-open ${receipt.hexId} ${base64url(receipt.salt)}`);
  return {
    get ended() {
      return stream.ended;
    },
    comment: (text) => stream.comment(text),
    flush: () => stream.flush(),
    send(data, name) {
      if (stream.ended) return;
      event(data, name);
      if (mode !== 'rolling') return;
      uncovered += 1;
      if (uncovered >= CHECKPOINT_EVENTS) checkpoint();
      else timer ??= setTimeout(checkpoint, CHECKPOINT_MS).unref();
    },
    end(data, name) {
      if (stream.ended) return;
      clearTimeout(timer);
      const covered = name?.startsWith('response.') === true;
      if (data !== undefined && covered) event(data, name);
      // Of tokens without text, such as the one that ends an answer.
      tokens();
      const { bytes } = receipt.seal({ status: 200, ...endOfExchange(exchange), usage: exchange.usage });
      comment(`assay-receipt ${base64url(bytes)}`);
      if (covered) stream.end();
      else stream.end(data, name);
    },
  };
}

/** A comment of a multiple of 256 bytes: its length tells only how many those are. */
function padded(words: string): string {
  const bare = `: ${words}\n\n`.length;
  return words + ' '.repeat((COMMENT_BYTES - (bare % COMMENT_BYTES)) % COMMENT_BYTES);
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url');
}

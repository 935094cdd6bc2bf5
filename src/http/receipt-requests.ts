// How a client asks for receipts (docs/receipts.md §3): `assay-receipts: final` or `rolling`, with `tokens`
// and `alone` as further words, and `assay-receipt-nonce`. Every answer that computes gets a receipt, asked
// or not; asking decides where it travels.

import type { FastifyRequest } from 'fastify';
import type { ReceiptChannel } from '@assay/attestation/receipt';
import type { AnswerReceipt, ReceiptAsk } from '../receipts/answer.ts';
import { ApiError } from '../base/errors.ts';
import { refuse } from '../base/shape.ts';
import type { ConnectionPins } from './connection-pins.ts';
import type { ReceiptService } from './deps.ts';
import type { Route } from './route.ts';
import { sealedConnectionOf } from './sealed-connections.ts';

const NONCE = /^(?:[0-9a-fA-F]{2}){16,32}$/;
/** The longest path with its query that a receipt holds. */
const MAX_PATH_BYTES = 512;

/** Opens the receipt of a request to a route that computes. 400 invalid_value, 414 url_too_long. */
export function openAnswerReceipt(
  { receipts, connectionPins }: OpenReceipts,
  request: FastifyRequest,
  route: Route,
): AnswerReceipt | null {
  const { exchange } = request;
  if (receipts === null || route.computes !== true || exchange.principal === null) return null;
  if (Buffer.byteLength(request.url) > MAX_PATH_BYTES)
    throw new ApiError('url_too_long', `the path and its query are longer than ${MAX_PATH_BYTES} bytes`);
  const { socket } = request.raw;
  return receipts.open({
    ask: receiptAsk(request.headers),
    caller: exchange.principal.owner,
    channel: receiptChannelOf(socket, connectionPins),
    method: request.method,
    path: request.url,
  });
}

/** Key 7 of a receipt: the sealed request itself, or the evidence its connection was shown. */
export function receiptChannelOf(
  socket: object,
  connectionPins: Pick<ConnectionPins, 'evidenceOf'>,
): ReceiptChannel {
  const sealed = sealedConnectionOf(socket)?.digest;
  if (sealed !== undefined) return { kind: 'sealed', request: sealed };
  const shown = connectionPins.evidenceOf(socket);
  return shown === undefined ? { kind: 'none' } : { kind: 'attested', ...shown };
}

export interface OpenReceipts {
  /** Null: receipts are off. */
  readonly receipts: ReceiptService | null;
  readonly connectionPins: Pick<ConnectionPins, 'evidenceOf'>;
}

/** How these headers ask. 400 invalid_value. */
export function receiptAsk(headers: FastifyRequest['headers']): ReceiptAsk {
  const asked = headers['assay-receipts'];
  const nonce = headers['assay-receipt-nonce'];
  if (nonce !== undefined && (typeof nonce !== 'string' || !NONCE.test(nonce)))
    throw refuse('invalid_value', 'assay-receipt-nonce', 'assay-receipt-nonce is not 16 to 32 bytes in hex');
  const bytes = nonce === undefined ? undefined : new Uint8Array(Buffer.from(nonce, 'hex'));
  if (asked === undefined) return { mode: null, nonce: bytes };
  const words = String(asked)
    .split(/[,\s]+/)
    .filter((word) => word !== '');
  const modes = words.filter((word) => word === 'final' || word === 'rolling');
  const further = words.filter((word) => word === 'tokens' || word === 'alone');
  const [mode, ...more] = modes;
  const once = new Set(words).size === words.length;
  if (mode === undefined || more.length > 0 || modes.length + further.length < words.length || !once)
    throw refuse(
      'invalid_value',
      'assay-receipts',
      'assay-receipts is final or rolling, and beside it tokens and alone, each once',
    );
  return { mode, nonce: bytes, tokens: further.includes('tokens'), alone: further.includes('alone') };
}

/** The headers of an answer that is not streamed. */
export function receiptHeaders(receipt: AnswerReceipt): Readonly<Record<string, string>> {
  const { sealed } = receipt;
  const id = { 'assay-receipt-id': receipt.hexId };
  if (sealed === undefined || receipt.ask.mode === null) return id;
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  return { ...id, 'assay-receipt': `:${base64(sealed.bytes)}:;salt=:${base64(receipt.salt)}:` };
}

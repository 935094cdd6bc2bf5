// A stored request, sent through its route without a connection: for the lines of a batch. It has an
// exchange of its own, stands under the limits of its caller, and reaches log, metrics and audit like any
// other; it holds places of its own, so that a batch takes none from its caller's live requests. Streams are
// refused.

import { Socket } from 'node:net';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ReceiptChannel } from '@assay/attestation/receipt';
import { ApiError } from '../base/errors.ts';
import { isRecord } from '../base/shape.ts';
import type { AnswerReceipt } from '../receipts/answer.ts';
import { errorBody, toApiError } from './errors.ts';
import { endOfExchange, type Exchange, openExchange } from './exchange.ts';
import { type HookContext, recordEnd } from './hooks.ts';
import { freshRequestId } from './listener.ts';
import type { Replay, Replayed, Route } from './route.ts';
import type { Shared } from './routing.ts';

export function createReplay(context: HookContext, shared: Shared): Replay {
  return async ({ route, body, raw, bodyBytes, heapBytes, principal, shown, channel, signal }) => {
    const exchange = openExchange({
      given: undefined,
      freshId: freshRequestId,
      startedAt: performance.now(),
      background: true,
    });
    exchange.route = route.path;
    exchange.principal = {
      ...principal,
      bucket: `batch ${principal.bucket}`,
      cacheScope: `batch ${principal.cacheScope}`,
    };
    exchange.receipt = openReplayed(context, route, { caller: principal.owner, channel });
    exchange.receipt?.received(raw);
    const leave = (): void => exchange.abort(() => signal.reason as Error);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    let replayed: Replayed;
    try {
      exchange.leave = context.permits.work.enter(exchange.principal.bucket);
      exchange.admission = context.limiter.admit(principal);
      exchange.held = context.bodies.open(exchange.principal.bucket);
      exchange.held.add(bodyBytes);
      exchange.held.grow(Math.max(0, heapBytes - bodyBytes));
      exchange.bodyBytes = bodyBytes;
      const answer = await handled(route, shared, { exchange, body, shown });
      const status = route.status ?? 200;
      if (exchange.receipt?.begun === true)
        exchange.receipt.seal({ status, end: 'complete', body: answer, usage: exchange.usage });
      replayed = { status, body: answer, ...about(exchange), error: null };
    } catch (thrown) {
      const error = toApiError(signal.aborted ? signal.reason : thrown);
      exchange.errorCode = error.code;
      const { status } = error;
      const told = JSON.stringify(errorBody(error));
      if (exchange.receipt?.begun === true && !signal.aborted)
        exchange.receipt.seal({ status, ...endOfExchange(exchange), body: told, usage: exchange.usage });
      replayed = { status, body: told, ...about(exchange), error };
    } finally {
      signal.removeEventListener('abort', leave);
    }
    const complete = !signal.aborted;
    recordEnd(context, { exchange, method: route.method, status: replayed.status, admitted: true, complete });
    if (!complete) throw signal.reason;
    return replayed;
  };
}

function about({ id, usage, receipt }: Exchange): Pick<Replayed, 'requestId' | 'usage' | 'receipt'> {
  const sealed = receipt?.sealed;
  return {
    requestId: id,
    usage,
    receipt: sealed === undefined || receipt === null ? null : { receipt: sealed.bytes, salt: receipt.salt },
  };
}

/** Of a line of a batch: by the channel of the request that made the batch, without a nonce. */
function openReplayed(
  { deps: { receipts = null } }: HookContext,
  { computes, method, path }: Route,
  { caller, channel }: { readonly caller: string; readonly channel: ReceiptChannel },
): AnswerReceipt | null {
  if (receipts === null || computes !== true) return null;
  return receipts.open({
    ask: { mode: null, nonce: undefined },
    caller,
    channel,
    method,
    path,
  });
}

interface Handled {
  readonly exchange: Exchange;
  readonly body: unknown;
  readonly shown: ReadonlyMap<string, string>;
}

async function handled(route: Route, shared: Shared, { exchange, body, shown }: Handled): Promise<string> {
  exchange.throwIfOver();
  if (isRecord(body) && body['stream'] === true) throw unstreamed();
  // Never connected: it stands for the connection the batch was made on.
  const socket = new Socket();
  shared.connectionPins.pin(socket, shown);
  const answer = await route.handle({
    ...shared,
    exchange,
    body: route.body?.read(body, ''),
    query: undefined,
    upload: null,
    params: {},
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of its request a route that answers JSON reads the socket alone
    request: { raw: { socket } } as FastifyRequest,
    reply: unsent(),
  });
  exchange.settle();
  return typeof answer === 'string' ? answer : JSON.stringify(answer);
}

/** Takes the headers of an answer that is not sent. */
function unsent(): FastifyReply {
  const reply = { header: () => reply, headers: () => reply, type: () => reply, code: () => reply };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a route that answers JSON returns it, and only sets headers
  return reply as unknown as FastifyReply;
}

function unstreamed(): ApiError {
  return new ApiError('unsupported_parameter', 'stream is true, and the lines of a batch are not streamed', {
    param: 'stream',
  });
}

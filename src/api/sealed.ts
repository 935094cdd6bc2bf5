// POST /v1/sealed (docs/sealed.md §4 to §7): a request sealed to claim 7, for clients that cannot prove their
// TLS connection. Its inner request goes through the same server as any other, and its answer is sealed.
// Open: the key is inside. What does not open has one answer, byte for byte. GET /v1/sealed/keys (§2): the
// X-Wing key that belongs to claim 7.

import type { ServerResponse } from 'node:http';
import { KEY_LIST_TYPE } from '@assay/attestation/receipt';
import { ANY_TYPE, RESPONSE_TYPE } from '@assay/attestation/sealed-envelope';
import { ApiError } from '../base/errors.ts';
import { route } from '../http/route.ts';
import type { OpenedSealed, OuterAnswer } from '../sealed/gateway.ts';

export const sealed = route({
  method: 'POST',
  path: '/v1/sealed',
  access: 'open',
  sealed: true,
  untimed: true,
  summary: 'A request sealed to the attested key; its answer is sealed, too.',
  tag: 'Attestation',
  bytes: RESPONSE_TYPE,
  errors: [
    'sealed_key',
    'sealed_malformed',
    'sealed_replayed',
    'sealed_clock',
    'tee_not_enabled',
    'request_timeout',
  ],
  async handle({ deps, exchange, upload, request, reply, sealedHost }) {
    if (deps.sealed === null || deps.sealed === undefined || upload === null) throw withoutTee();
    const form = isAny(request.headers['content-type']) ? 'any' : 'one';
    const opened = await opening(deps.sealed.open(upload, form), deps.config.timeouts.headersMs);
    // The request inside has a place and a share of memory of its own.
    exchange.leave?.();
    exchange.leave = null;
    exchange.held?.release();
    exchange.held = null;
    const headers = reply.getHeaders();
    reply.hijack();
    await opened.serve(outerAnswer(reply.raw, headers), sealedHost);
    return undefined;
  },
});

export const sealedKeys = route({
  method: 'GET',
  path: '/v1/sealed/keys',
  access: 'open',
  apart: true,
  summary: 'The X-Wing key to seal to, signed by the receipt key; where sealed.post_quantum is on.',
  tag: 'Attestation',
  bytes: KEY_LIST_TYPE,
  errors: ['unknown_url', 'tee_not_enabled'],
  async handle({ deps, reply }) {
    if (deps.sealed === null || deps.sealed === undefined) throw withoutTee();
    const list = deps.sealed.keyList();
    if (list === undefined)
      throw new ApiError('unknown_url', 'this server has no X-Wing key: sealed.post_quantum is off');
    reply.type(KEY_LIST_TYPE).header('cache-control', 'no-store');
    await reply.send(Buffer.from(list));
    return undefined;
  },
});

function withoutTee(): ApiError {
  return new ApiError('tee_not_enabled', 'this server runs without a TEE and proves no key to seal to', {
    shouldRetry: false,
  });
}

function isAny(contentType: string | undefined): boolean {
  return contentType?.split(';', 1)[0]?.trim().toLowerCase() === ANY_TYPE;
}

/** Rejects with the one answer to every failure to open, or 408 when the head does not come. */
async function opening(opened: Promise<OpenedSealed>, withinMs: number): Promise<OpenedSealed> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new ApiError('request_timeout', 'the request did not arrive in time')),
      withinMs,
    );
  });
  try {
    return await Promise.race([opened, late]);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError('sealed_key', 'key identifier unknown');
  } finally {
    clearTimeout(timer);
  }
}

export function outerAnswer(response: ServerResponse, headers: object): OuterAnswer {
  return {
    begin() {
      for (const [name, value] of Object.entries(headers) as [string, string][])
        response.setHeader(name, value);
      response.setHeader('content-type', RESPONSE_TYPE);
      response.setHeader('incremental', '?1');
      // Proxies that buffer would turn a stream into one late answer.
      response.setHeader('x-accel-buffering', 'no');
      response.writeHead(200);
    },
    write: (bytes) => response.destroyed || response.write(bytes),
    onDrain: (call) => void response.once('drain', call),
    end: () => void response.end(),
    destroy: () => void response.destroy(),
    onClose(call) {
      // It may have closed while keys were made for its answer.
      if (response.closed || response.destroyed) call();
      else response.once('close', call);
    },
  };
}

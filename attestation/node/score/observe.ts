// All that `assay-verify score` looks at, gathered and not yet judged: two connections attested with a nonce
// each, what the first one answers about sealed bodies and receipts once it was accepted, and the probes. No
// content is sent: every request is a GET without a body.

import type { TLSSocket } from 'node:tls';
import type { Outcome } from '../../appraise/explain.ts';
import { onChannel, type Policy } from '../../appraise/policy.ts';
import type { Releases } from '../../appraise/policy-references.ts';
import { verify } from '../../appraise/appraise.ts';
import { fromUtf8, toHex } from '../../encoding/bytes.ts';
import { type Claims, decodeClaims } from '../../protocol/claims.ts';
import { MAX_DOCUMENT_BYTES, parseDocument } from '../../protocol/document.ts';
import { AttestationError } from '../../transcript/errors.ts';
import { connectAttested, type ConnectOptions, type ReceivedEvidence } from '../connect.ts';
import { type BoundedResponse, errorCodeOf, getRequest, readResponse } from '../response.ts';
import { probeOldTls, probePlainHttp, probeResumption, type Sighting } from './probes.ts';

/** One connection, attested with a nonce of its own. */
export interface Attempt {
  readonly outcome: Outcome;
  /** Undefined where none came that can be read. */
  readonly received: ReceivedEvidence | undefined;
  /** As decoded; whether they are signed is in the transcript. */
  readonly claims: Claims | undefined;
}

export interface Observations {
  readonly policy: Policy;
  /** Of `--reference-values`; undefined without. */
  readonly releases: Releases | undefined;
  readonly first: Attempt;
  readonly second: Attempt;
  readonly resumption: Sighting;
  readonly oldTls: Sighting;
  readonly plainHttp: Sighting;
  /** Undefined where the connection was not accepted: an answer there has no known author. */
  readonly receipts: Receipts | undefined;
  readonly sealed: SealedOffer | undefined;
}

/** The answer to GET /v1/receipts/{a random id}. */
export interface Receipts {
  /** Whether there is such a route; undefined where only a caller with an API key is told. */
  readonly route: boolean | undefined;
  readonly seen: string;
}

/** The result of asking for evidence of the sealed channel. */
export interface SealedOffer {
  /** Every rule passed but that of the exporter, which this channel has not. */
  readonly verified: boolean;
  readonly seen: string;
}

export interface ObserveOptions extends ConnectOptions {
  readonly releases: Releases | undefined;
}

/**
 * Looks at a server. Throws the AttestationError of the first connection when no grade is possible: no
 * connection, no evidence, or none that can be read.
 */
export async function observe(origin: URL, options: ObserveOptions): Promise<Observations> {
  const { policy, releases } = options;
  const found: { receipts?: Receipts | undefined; sealed?: SealedOffer | undefined } = {};
  const first = await attempt(origin, options, async (socket, received) => {
    found.receipts = await askReceipts(socket, origin, options);
    found.sealed = await askSealed(socket, origin, { ...options, received });
  });
  if ('error' in first.outcome && first.outcome.error.transcript.length === 0) throw first.outcome.error;
  const second = await attempt(origin, options);
  const probing = { timeoutMs: options.connectTimeoutMs, randomBytes: options.randomBytes };
  return {
    policy,
    releases,
    first,
    second,
    resumption: await probeResumption(origin, probing),
    oldTls: await probeOldTls(origin, probing),
    plainHttp: await probePlainHttp(origin, probing),
    receipts: found.receipts,
    sealed: found.sealed,
  };
}

async function attempt(
  origin: URL,
  options: ObserveOptions,
  accepted?: (socket: TLSSocket, received: ReceivedEvidence) => Promise<void>,
): Promise<Attempt> {
  let received: ReceivedEvidence | undefined;
  const onEvidence = (evidence: ReceivedEvidence): void => {
    received = evidence;
  };
  const claims = (): Claims | undefined => received && claimsOf(received.document.claims);
  try {
    const { socket, result } = await connectAttested(origin, { ...options, onEvidence });
    try {
      if (received !== undefined) await accepted?.(socket, received);
    } finally {
      socket.destroy();
    }
    return { outcome: { result }, received, claims: claims() };
  } catch (error) {
    if (error instanceof AttestationError) return { outcome: { error }, received, claims: claims() };
    throw error;
  }
}

function claimsOf(bytes: Uint8Array): Claims | undefined {
  try {
    return decodeClaims(bytes);
  } catch {
    return undefined;
  }
}

async function askReceipts(socket: TLSSocket, origin: URL, options: ObserveOptions): Promise<Receipts> {
  const answer = await ask(socket, origin, `/v1/receipts/${toHex(options.randomBytes(16))}`, options);
  if (typeof answer === 'string') return { route: false, seen: answer };
  const code = errorCodeOf(answer);
  // The one answer of a server that keeps receipts to an id that it does not know (docs/receipts.md §3).
  const known = answer.status === 404 && code === 'no_such_receipt';
  const route = answer.status === 401 && code !== undefined ? undefined : known;
  return { route, seen: `GET /v1/receipts/{id}: ${answer.status}${code === undefined ? '' : ` ${code}`}` };
}

async function askSealed(
  socket: TLSSocket,
  origin: URL,
  options: ObserveOptions & { readonly received: ReceivedEvidence },
): Promise<SealedOffer> {
  const nonce = options.randomBytes(32);
  const path = `/v1/attestation?nonce=${toHex(nonce)}&channel=sealed`;
  const answer = await ask(socket, origin, path, options);
  if (typeof answer === 'string') return { verified: false, seen: answer };
  if (answer.status !== 200)
    return {
      verified: false,
      seen: `evidence for channel=sealed: ${answer.status} ${errorCodeOf(answer) ?? ''}`,
    };
  try {
    const document = parseDocument(fromUtf8(answer.body, 'attestation document'));
    const { policy, keys, memory, endorsements, vtpm } = options;
    const judging = { nonce, policy: onChannel(policy, 'sealed'), keys, memory, endorsements, vtpm };
    await verify(document, { channel: 'sealed', ...judging, now: options.now() });
    return {
      verified: true,
      seen: 'evidence for channel=sealed answers a nonce of its own, and holds without a connection',
    };
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    return { verified: false, seen: `evidence for channel=sealed does not hold: ${error.code}` };
  }
}

/** The answer, or why there is none, in words. */
async function ask(
  socket: TLSSocket,
  origin: URL,
  path: string,
  { attestTimeoutMs }: ObserveOptions,
): Promise<BoundedResponse | string> {
  if (socket.destroyed || !socket.writable) return 'the connection was closed';
  socket.write(getRequest(origin, path));
  try {
    return await readResponse(socket, {
      maxHeaderBytes: 16 * 1024,
      maxBodyBytes: MAX_DOCUMENT_BYTES,
      timeoutMs: attestTimeoutMs,
    });
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    // Where in the stream of bytes the socket stands is not known any more.
    socket.destroy();
    return `no answer that can be read (${error.code})`;
  }
}

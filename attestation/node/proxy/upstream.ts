// The upstream of the local proxy: a pool of attested connections, or for `channel: sealed` requests that are
// sealed one by one. A sealed body is gathered first, at most 64 MiB, since it is sealed whole.

import { Readable } from 'node:stream';
import type { Verified } from '../../appraise/appraise.ts';
import { sealedFetch, type SealedFetchOptions } from '../../client/sealed-fetch.ts';
import { malformed } from '../../transcript/errors.ts';
import type { ReceiptEvidence } from '../receipts/options.ts';
import { sealedTransport } from '../sealed-transport.ts';

/** A request on its way up: raw fields, a body that is read once. */
export interface UpstreamRequest {
  readonly method: string;
  readonly path: string;
  /** Name, value, name, value … */
  readonly headers: readonly string[];
  readonly body: Readable | Uint8Array | null;
  readonly signal: AbortSignal;
}

export interface UpstreamAnswer {
  readonly statusCode: number;
  /** Name, value, name, value … */
  readonly headers: readonly (string | Buffer)[];
  readonly body: Readable;
  /** Of the connection it came on; a sealed answer has none. */
  readonly evidence: () => ReceiptEvidence | undefined;
}

export interface Upstream {
  readonly result: Verified | undefined;
  attest(): Promise<Verified>;
  send(request: UpstreamRequest): Promise<UpstreamAnswer>;
  destroy(): Promise<void>;
}

const MAX_SEALED_BYTES = 64 * 1024 * 1024;

export function sealedUpstream(
  origin: string,
  options: Pick<SealedFetchOptions, 'policy' | 'memory' | 'endorsements' | 'now'> & {
    readonly connectTimeoutMs: number;
  },
): Upstream {
  const transport = sealedTransport(options.connectTimeoutMs);
  const sealed = sealedFetch({ ...options, fetch: transport.fetch });
  return {
    get result() {
      return sealed.result(origin);
    },
    attest: () => sealed.verify(origin),
    async send({ method, path, headers, body, signal }) {
      const content = body === null ? undefined : await gathered(body);
      const answer = await sealed(`${origin}${path}`, {
        method,
        headers: pairsOf(headers),
        body: content ?? null,
        signal,
      });
      return {
        statusCode: answer.status,
        headers: [...answer.headers].flat(),
        body: answer.body === null ? Readable.from([]) : Readable.fromWeb(answer.body as never),
        evidence: () => undefined,
      };
    },
    destroy: () => transport.close(),
  };
}

function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i] ?? '', raw[i + 1] ?? '']);
  // Of the connection to the proxy; fetch writes its own.
  return pairs.filter(([name]) => !/^(host|content-length)$/i.test(name));
}

async function gathered(body: Readable | Uint8Array): Promise<Buffer<ArrayBuffer>> {
  if (body instanceof Uint8Array) return Buffer.from(body);
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of body as AsyncIterable<Buffer>) {
    length += piece.length;
    if (length > MAX_SEALED_BYTES)
      throw malformed(
        'input_too_large',
        `the request body is over ${MAX_SEALED_BYTES} bytes, which is the most that is sealed`,
      );
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

// The upstream of the local proxy: a pool of attested connections, or for `channel: sealed` requests that are
// sealed one by one, of whole bodies.

import { Readable } from 'node:stream';
import type { Verified } from '../../appraise/appraise.ts';
import { evidenceOf, type SealedEvidence } from '../../client/evidence.ts';
import { sealedFetch, type SealedFetchOptions } from '../../client/sealed-fetch.ts';
import type { ReceiptEvidence } from '../receipts/options.ts';
import { refused } from '../../transcript/errors.ts';
import { sealedTransport } from '../sealed-transport.ts';

/** A request on its way up: raw fields, a body that is read once. */
export interface UpstreamRequest {
  readonly method: string;
  readonly path: string;
  /** Name, value, name, value … */
  readonly headers: readonly string[];
  readonly body: Readable | Uint8Array<ArrayBuffer> | null;
  readonly signal: AbortSignal;
}

export interface UpstreamAnswer {
  readonly statusCode: number;
  /** Name, value, name, value … */
  readonly headers: readonly (string | Buffer)[];
  readonly body: Readable;
  /** Of the connection it came on, or of the key its request was sealed to. */
  readonly evidence: () => ReceiptEvidence | SealedEvidence | undefined;
}

export interface Upstream {
  /** Takes no body that is a stream. */
  readonly whole: boolean;
  readonly result: Verified | undefined;
  attest(): Promise<Verified>;
  send(request: UpstreamRequest): Promise<UpstreamAnswer>;
  destroy(): Promise<void>;
}

export function sealedUpstream(
  origin: string,
  options: Pick<
    SealedFetchOptions,
    'policy' | 'memory' | 'endorsements' | 'now' | 'vtpm' | 'evidenceTimeout'
  > & {
    readonly connectTimeoutMs: number;
  },
): Upstream {
  const transport = sealedTransport(options.connectTimeoutMs);
  const sealed = sealedFetch({ ...options, fetch: transport.fetch });
  return {
    whole: true,
    get result() {
      return sealed.result(origin);
    },
    attest: () => sealed.verify(origin),
    async send({ method, path, headers, body, signal }) {
      if (body instanceof Readable) throw new TypeError('a body that is a stream cannot be sealed');
      const content = body?.length === 0 ? null : body;
      refuseUnfetchable(method, content);
      const answer = await sealed(`${origin}${path}`, {
        method,
        headers: pairsOf(headers),
        body: content,
        signal,
      });
      return {
        statusCode: answer.status,
        headers: [...answer.headers].flat(),
        body: answer.body === null ? Readable.from([]) : Readable.fromWeb(answer.body as never),
        evidence: () => evidenceOf(answer),
      };
    },
    destroy: () => transport.close(),
  };
}

/** Requests that `fetch` takes from no one. */
function refuseUnfetchable(method: string, content: Uint8Array | null): void {
  if (/^(?:TRACE|TRACK)$/i.test(method)) throw refused('sealed_unsupported', `${method} cannot be sealed`);
  if (content !== null && /^(?:GET|HEAD)$/i.test(method))
    throw refused('sealed_unsupported', `${method} with a body cannot be sealed`);
}

function pairsOf(raw: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([raw[i] ?? '', raw[i + 1] ?? '']);
  // Of the connection to the proxy; fetch writes its own.
  return pairs.filter(([name]) => !/^(host|content-length)$/i.test(name));
}

// `attestedFetch`: a fetch that sends a request only after the evidence of the very socket it uses
// was accepted, to hand to `new OpenAI({ baseURL, apiKey, fetch })` or anything else that takes a
// fetch. Refused before a byte leaves: plain http, redirects to another origin, requests naming a
// model that is not attested.

import {
  Dispatcher,
  fetch as undiciFetch,
  FormData as UndiciFormData,
  type RequestInit as UndiciInit,
} from 'undici';
import type { AttestationResult } from '../appraise/appraise.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import { parseJson } from '../encoding/json.ts';
import { type Policy, parsePolicy } from '../appraise/policy.ts';
import { AttestedPool, type EvidenceSeen, poolOptions, type AttestedFetchOptions, SeenPool } from './pool.ts';
import { ReceiptedFetch, toUndiciForm } from './receipts/receipted-fetch.ts';

/**
 * The result of {@link attestedFetch}: a `fetch` that sends no byte before the proof holds, with
 * its evidence and its end.
 */
export interface AttestedFetch {
  (input: string | URL | Request, init?: RequestInit): Promise<Response>;
  /** The evidence of the newest verified connection to the origin of `url`, if there is one. */
  result(url: string | URL): AttestationResult | undefined;
  /** Opens and verifies a connection to the origin, without sending a request. */
  verify(url: string | URL): Promise<AttestationResult>;
  /** Ends all connections, after the responses in flight. */
  close(): Promise<void>;
}

/**
 * A fetch that sends a request only after the evidence of the very socket it uses was accepted. It throws the
 * AttestationError of a refusal; times in its options are milliseconds. Protocol: docs/protocol.md §5.
 *
 * @example
 * const client = new OpenAI({ baseURL: 'https://host:8443/v1', apiKey, fetch: attestedFetch({ policy }) });
 */
export function attestedFetch(options: AttestedFetchOptions): AttestedFetch {
  const policy = parsePolicy(options.policy);
  const pools = new Map<string, AttestedPool>();
  const { receipts } = options;
  const receipted =
    receipts === undefined ? undefined : new ReceiptedFetch(receipts === 'verify' ? {} : receipts);
  let closed = false;
  const poolOf = (origin: string): AttestedPool => {
    if (closed) throw new TypeError('this attestedFetch is closed');
    const known = pools.get(origin);
    if (known !== undefined) return known;
    const pool = new AttestedPool(origin, poolOptions(options, policy, origin));
    pools.set(origin, pool);
    return pool;
  };

  const run = async (input: string | URL | Request, init: RequestInit = {}): Promise<Response> => {
    const url = new URL(input instanceof Request ? input.url : input);
    requireHttps(url);
    const merged = input instanceof Request ? requestInit(input, init) : init;
    requireAttestedModel(merged.body, policy, options.model);
    const pool = poolOf(url.origin);
    const body = merged.body instanceof FormData ? { body: toUndiciForm(merged.body) } : {};
    const sent = { ...(merged as unknown as UndiciInit), ...body };
    try {
      if (receipted !== undefined)
        return await receipted.fetch(url, sent, (seen) => new OneOrigin(pool, seen));
      return await undiciFetch(url, { ...sent, dispatcher: new OneOrigin(pool) });
    } catch (error) {
      throw attestationCause(error) ?? error;
    }
  };

  return Object.assign(run, {
    result: (url: string | URL) => pools.get(new URL(url).origin)?.result,
    verify: async (url: string | URL) => {
      const target = new URL(url);
      requireHttps(target);
      return poolOf(target.origin).attest();
    },
    close: async () => {
      closed = true;
      await Promise.all([...pools.values()].map((pool) => pool.close()));
    },
  });
}

/**
 * fetch follows redirects through its dispatcher: this one knows a single origin, so following
 * one elsewhere fails here.
 */
class OneOrigin extends Dispatcher {
  readonly #pool: AttestedPool;
  readonly #sends: Dispatcher;

  constructor(pool: AttestedPool, seen?: EvidenceSeen) {
    super();
    this.#pool = pool;
    this.#sends = seen === undefined ? pool : new SeenPool(pool, seen);
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const origin = new URL(String(options.origin)).origin;
    if (origin !== this.#pool.origin) {
      throw refused('redirect_refused', `redirect from ${this.#pool.origin} to ${origin} is not followed`, {
        expected: this.#pool.origin,
        actual: origin,
        hint: 'only the origin that was asked for is attested; use the other one directly if it is the right one',
      });
    }
    return this.#sends.dispatch(options, handler);
  }
}

function requireHttps(url: URL): void {
  if (url.protocol === 'https:') return;
  throw refused('plain_http', `${url.protocol}//${url.host} cannot be attested, expected https`, {
    expected: 'https:',
    actual: url.protocol,
  });
}

/** Merges as `fetch(request, init)` does: init wins, the rest is the request's. */
function requestInit(request: Request, init: RequestInit): RequestInit {
  return {
    method: request.method,
    headers: request.headers,
    body: request.body,
    redirect: request.redirect,
    signal: request.signal,
    duplex: 'half',
    ...init,
  };
}

/**
 * A request may only name a model whose digest was in the evidence. With a policy that lists models this is a
 * courtesy (the evidence of every connection must list no other model); when one model alone is attested it
 * is what P3 rests on, so a body that cannot be read here is refused.
 */
function requireAttestedModel(body: RequestInit['body'], policy: Policy, model: string | undefined): void {
  const named = modelNamed(body);
  const attested = model === undefined ? policy.models : new Map([[model, '']]);
  if (attested === undefined || named === 'no body') return;
  if (named === 'unreadable') {
    if (model === undefined) return;
    throw refused(
      'model_not_attested',
      `request body does not show which model it is for, expected ${JSON.stringify(model)} in a json text`,
      {
        hint: 'attest all models (leave out `model`) to send bodies that are streams or forms',
      },
    );
  }
  if (attested.has(named.model)) return;
  throw refused(
    'model_not_attested',
    `request names the model ${JSON.stringify(named.model.slice(0, 128))}, which is not attested`,
    {
      expected: [...attested.keys()].slice(0, 8).join(', '),
      actual: named.model.slice(0, 128),
      hint: 'list the model and its sha256 in the policy',
    },
  );
}

function modelNamed(body: RequestInit['body']): 'no body' | 'unreadable' | { readonly model: string } {
  if (body === undefined || body === null) return 'no body';
  if (body instanceof FormData || body instanceof UndiciFormData) {
    // With the field twice, the server could read the other one.
    const [model, ...more]: unknown[] = body.getAll('model');
    return typeof model === 'string' && more.length === 0 ? { model } : 'unreadable';
  }
  if (typeof body !== 'string') return 'unreadable';
  try {
    const json: unknown = onlyOneModel(body)
      ? JSON.parse(body)
      : parseJson(body, 'request body', Number.POSITIVE_INFINITY);
    const model = typeof json === 'object' && json !== null && 'model' in json ? json.model : undefined;
    return typeof model === 'string' ? { model } : 'unreadable';
  } catch (error) {
    if (!(error instanceof AttestationError || error instanceof SyntaxError)) throw error;
    return 'unreadable';
  }
}

/**
 * With a key twice, the server could read another model than we do; the strict reader refuses that, at the
 * price of reading every value itself, and no more than 16 384 of them. Where `"model"` stands once and the
 * text has no \u escapes, there is no second one.
 */
function onlyOneModel(body: string): boolean {
  const first = body.indexOf('"model"');
  return first >= 0 && body.indexOf('"model"', first + 1) < 0 && !body.includes('\\u');
}

/**
 * undici wraps what a dispatcher throws in `TypeError: fetch failed`; the verdict is what
 * the caller needs to see.
 */
function attestationCause(error: unknown): AttestationError | undefined {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    if (cause instanceof AttestationError) return cause;
  }
  return undefined;
}

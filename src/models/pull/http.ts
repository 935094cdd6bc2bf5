// HTTP for pulls and images: undici with redirects followed by hand. Refuses URLs that could lead a hub's
// answer to inner services (SSRF): schemes other than https, credentials in URLs, private and special
// addresses — checked for literal addresses before, and for names at the moment of connecting, so that a name
// cannot change in between. A configured private hub lifts this. The token goes to the hub's own origin only.
// No URL's query is ever repeated: a CDN's holds a signature.

import { lookup as systemLookup } from 'node:dns';
import type { LookupAddress, LookupAllOptions } from 'node:dns';
import { isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import { EnvHttpProxyAgent, request, type Dispatcher } from 'undici';
import { ApiError, ConfigError } from '../../base/errors.ts';
import { isPrivateAddress } from './public-address.ts';

export { isPrivateAddress } from './public-address.ts';

export interface PullProxy {
  /** URLs, as in HTTP_PROXY and HTTPS_PROXY. A proxy may be on a private address. */
  readonly http?: string | undefined;
  readonly https?: string | undefined;
  /** As in NO_PROXY. */
  readonly no?: string | undefined;
}

/** dns.lookup with `all: true`. */
export type Lookup = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: Error | null, addresses: LookupAddress[]) => void,
) => void;

export interface WebOptions {
  /** The hub; only its origin gets the token. */
  readonly endpoint: URL;
  /** Private addresses and plain http are allowed. */
  readonly allowPrivate: boolean;
  readonly proxy?: PullProxy | undefined;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  /** Longest silence within a body. */
  readonly bodyTimeoutMs: number;
  /** Resolves names; dns.lookup when absent. */
  readonly lookup?: Lookup | undefined;
  /** Whether an address that a name has is connected to; absent: unless it is private. */
  readonly mayConnect?: ((address: string) => boolean) | undefined;
  /** PEM; absent: the authorities that Node trusts. */
  readonly authorities?: string | undefined;
}

export interface WebResponse {
  readonly status: number;
  /** Lower-case name; undefined when absent, the first when repeated. */
  header(name: string): string | undefined;
  readonly body: AsyncIterable<Uint8Array>;
  /** Ends the transfer. */
  discard(): void;
}

export interface Web {
  get(
    url: URL,
    options: {
      readonly headers: Readonly<Record<string, string>>;
      readonly token?: string | undefined;
      readonly signal: AbortSignal;
    },
  ): Promise<WebResponse>;
  close(): Promise<void>;
}

const MAX_REDIRECTS = 5;
export const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** One for each room that speaks to the hub. Resolves names by the rules above. */
export function openAgent(options: WebOptions): EnvHttpProxyAgent {
  // Empty strings keep undici from reading the environment itself; configuration is read in one place only.
  return new EnvHttpProxyAgent({
    httpProxy: options.proxy?.http ?? '',
    httpsProxy: options.proxy?.https ?? '',
    noProxy: options.proxy?.no ?? '',
    connections: 16,
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: options.bodyTimeoutMs,
    maxHeaderSize: 64 * 1024,
    connect: {
      timeout: options.connectTimeoutMs,
      ca: options.authorities,
      ...(options.allowPrivate ? {} : { lookup: publicLookup(options) }),
    },
  });
}

export function createWeb(options: WebOptions): Web {
  const agent = openAgent(options);
  return {
    get: async (start, { headers, token, signal }) => {
      let url = start;
      for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
        checkUrl(url, options);
        const authorized = token !== undefined && url.origin === options.endpoint.origin;
        const response = await request(url, {
          method: 'GET',
          headers: {
            'user-agent': 'assay',
            'accept-encoding': 'identity',
            ...headers,
            ...(authorized ? { authorization: `Bearer ${token}` } : {}),
          },
          dispatcher: agent,
          signal,
        }).catch((error: unknown) => {
          throw refusalWithin(error) ?? error;
        });
        const answer = hubAnswerOf(response);
        if (!REDIRECTS.has(answer.status)) return answer;
        answer.discard();
        const location = answer.header('location');
        if (location === undefined || !URL.canParse(location, url.href))
          throw new ApiError('hub_error', `${url.host} redirects to nowhere`);
        url = new URL(location, url.href);
      }
      throw new ApiError('hub_error', `more than ${MAX_REDIRECTS} redirects`);
    },
    close: () => agent.destroy(),
  };
}

/** An answer of undici's. */
export function hubAnswerOf(response: Dispatcher.ResponseData): WebResponse {
  return {
    status: response.statusCode,
    header: (name) => {
      const value = response.headers[name];
      return Array.isArray(value) ? value[0] : value;
    },
    body: response.body as AsyncIterable<Uint8Array>,
    // Destroying a body emits an error that has no other listener.
    discard: () => void response.body.on('error', () => undefined).destroy(),
  };
}

/** The hub's address as it is configured. */
export function parseEndpoint(text: string, allowPrivate: boolean): URL {
  if (!URL.canParse(text)) throw new ConfigError('models.hub is not a URL', 'models.hub');
  const url = new URL(text);
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && allowPrivate))
    throw new ConfigError('models.hub must be an https address', 'models.hub');
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '')
    throw new ConfigError('models.hub holds more than an address', 'models.hub');
  return url;
}

function refusedAddress(message: string): ApiError {
  return new ApiError('address_refused', message, { shouldRetry: false });
}

/** Throws 502 `address_refused`. */
export function checkUrl(url: URL, options: Pick<WebOptions, 'endpoint' | 'allowPrivate'>): void {
  if (
    url.protocol !== 'https:' &&
    !(url.protocol === 'http:' && options.allowPrivate && options.endpoint.protocol === 'http:')
  ) {
    throw refusedAddress(`the hub leads to a ${url.protocol} address, only https is followed`);
  }
  if (url.username !== '' || url.password !== '')
    throw refusedAddress('the hub leads to an address with credentials');
  if (options.allowPrivate) return;
  const host = url.hostname.replace(/^\[|\]$/g, '');
  const local = /(^|\.)(localhost|local|internal|home\.arpa)\.?$/i.test(host) || !host.includes('.');
  if (isIP(host) === 0 ? local : isPrivateAddress(host))
    throw refusedAddress(`the hub leads to the private address ${host}`);
}

/** Resolves a name as usual and refuses it when any of its addresses is private. */
function publicLookup({
  lookup = systemLookup,
  mayConnect = (address) => !isPrivateAddress(address),
}: Pick<WebOptions, 'lookup' | 'mayConnect'>): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '', 0);
      if (addresses.length === 0 || !addresses.every(({ address }) => mayConnect(address))) {
        return callback(refusedAddress(`${hostname} has a private address`), '', 0);
      }
      if (options.all === true) return callback(null, addresses);
      return callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

/** Our own refusal inside an error of the socket layer. */
export function refusalWithin(error: unknown): ApiError | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++)
    if (at instanceof ApiError) return at;
  return undefined;
}

// HTTP for pulls: undici with redirects followed by hand. Refuses what could turn a hub into a way inward (SSRF): schemes
// other than https, credentials in URLs, private and special addresses — checked for literal addresses before, and for names
// at the moment of connecting, so that a name cannot change in between. A configured private hub lifts that.
// The token goes to the hub's own origin only. No URL's query is ever repeated: a CDN's holds a signature.

import { lookup as systemLookup } from 'node:dns';
import type { LookupAddress, LookupAllOptions } from 'node:dns';
import { BlockList, isIP, isIPv6 } from 'node:net';
import type { LookupFunction } from 'node:net';
import { EnvHttpProxyAgent, request } from 'undici';
import { ApiError } from '../../base/errors.ts';

export interface ProxySettings {
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
  readonly proxy?: ProxySettings | undefined;
  readonly connectTimeoutMs: number;
  readonly headersTimeoutMs: number;
  /** Longest silence within a body. */
  readonly bodyTimeoutMs: number;
  /** Resolves names; dns.lookup when absent. */
  readonly lookup?: Lookup | undefined;
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

export function createWeb(options: WebOptions): Web {
  // Empty strings keep undici from reading the environment itself; configuration is read in one place only.
  const agent = new EnvHttpProxyAgent({
    httpProxy: options.proxy?.http ?? '',
    httpsProxy: options.proxy?.https ?? '',
    noProxy: options.proxy?.no ?? '',
    connections: 16,
    headersTimeout: options.headersTimeoutMs,
    bodyTimeout: options.bodyTimeoutMs,
    maxHeaderSize: 64 * 1024,
    connect: {
      timeout: options.connectTimeoutMs,
      ...(options.allowPrivate ? {} : { lookup: publicLookup(options.lookup ?? systemLookup) }),
    },
  });
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
        const header = (name: string): string | undefined => {
          const value = response.headers[name];
          return Array.isArray(value) ? value[0] : value;
        };
        const discard = (): void => {
          // Destroying a body emits an error nobody else listens for.
          response.body.on('error', () => undefined).destroy();
        };
        if (![301, 302, 303, 307, 308].includes(response.statusCode)) {
          return {
            status: response.statusCode,
            header,
            body: response.body as AsyncIterable<Uint8Array>,
            discard,
          };
        }
        discard();
        const location = header('location');
        if (location === undefined || !URL.canParse(location, url.href))
          throw new ApiError('hub_error', `${url.host} redirects to nowhere`);
        url = new URL(location, url.href);
      }
      throw new ApiError('hub_error', `more than ${MAX_REDIRECTS} redirects`);
    },
    close: () => agent.destroy(),
  };
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

/** Not reachable from the public internet, or not one machine (IANA special-purpose registries). */
export function isPrivateAddress(address: string): boolean {
  if (!isIPv6(address)) return SPECIAL.check(address, 'ipv4');
  if (SPECIAL.check(address, 'ipv6')) return true;
  const embedded = embeddedIpv4(address);
  return embedded !== undefined && SPECIAL.check(embedded, 'ipv4');
}

const SPECIAL = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const) {
  SPECIAL.addSubnet(network, prefix, 'ipv4');
}
for (const [network, prefix] of [
  ['::', 127],
  ['64:ff9b:1::', 48],
  ['100::', 64],
  ['2001::', 23],
  ['2001:db8::', 32],
  ['3fff::', 20],
  ['5f00::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8],
] as const) {
  SPECIAL.addSubnet(network, prefix, 'ipv6');
}

/** The IPv4 address inside ::ffff:a.b.c.d, ::a.b.c.d, 64:ff9b::a.b.c.d and 2002:aabb:ccdd:: addresses. */
function embeddedIpv4(address: string): string | undefined {
  // The URL parser writes every IPv6 address in one canonical form, in hex.
  const canonical = new URL(`http://[${address.split('%')[0]}]/`).hostname.slice(1, -1);
  const [head = '', tail] = canonical.split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const words = [...left, ...Array.from({ length: 8 - left.length - right.length }, () => '0'), ...right].map(
    (word) => parseInt(word, 16),
  );
  if (words[0] === 0x2002) return dotted(words[1]!, words[2]!);
  const prefix = words.slice(0, 6).join(' ');
  const mapped = prefix === '0 0 0 0 0 65535' || prefix === '0 0 0 0 0 0' || prefix === `100 65435 0 0 0 0`;
  return mapped ? dotted(words[6]!, words[7]!) : undefined;
}

function dotted(high: number, low: number): string {
  return [high >> 8, high & 255, low >> 8, low & 255].join('.');
}

/** Resolves a name as usual and refuses it when any of its addresses is private. */
function publicLookup(lookup: Lookup): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, '', 0);
      if (addresses.length === 0 || addresses.some(({ address }) => isPrivateAddress(address))) {
        return callback(refusedAddress(`${hostname} has a private address`), '', 0);
      }
      if (options.all === true) return callback(null, addresses);
      return callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

/** Our own refusal inside an error of the socket layer. */
function refusalWithin(error: unknown): ApiError | undefined {
  for (let at = error, depth = 0; at instanceof Error && depth < 5; at = at.cause, depth++)
    if (at instanceof ApiError) return at;
  return undefined;
}

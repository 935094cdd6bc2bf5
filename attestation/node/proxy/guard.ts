// Which requests the proxy forwards. It stands on loopback, where every program of this machine and every web
// page that a browser of this machine shows can reach it; pages are let in only when their origin was named.
// Refused: another Host (DNS rebinding), an Origin that was not named, what a browser marks as coming from
// another origin (an image or a form sends no Origin), targets that are not a path, and what cannot work
// without switching protocols.

import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { malformed } from '../../transcript/errors.ts';
import { tokensOf } from './headers.ts';

export interface Door {
  /** The address the proxy listens on. */
  readonly listen: string;
  /** Origins of web pages that may use the proxy, as browsers write them. */
  readonly origins: Set<string>;
}

export interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly message: string;
}

/** Why a request is not forwarded; undefined when it is. */
export function refusalOf(request: IncomingMessage, door: Door): Refusal | undefined {
  if (request.url?.startsWith('/') !== true)
    return { status: 400, code: 'bad_request_target', message: 'request target must be a path' };
  return hostRefusal(request, door) ?? upgradeRefusal(request) ?? pageRefusal(request, door);
}

/** 127.0.0.0/8, ::1 and localhost. */
export function isLoopbackHost(host: string): boolean {
  return (
    host === 'localhost' ||
    host === '::1' ||
    host === '[::1]' ||
    (isIP(host) === 4 && host.startsWith('127.'))
  );
}

/**
 * A page that points its own name at 127.0.0.1 sends that name as Host: exactly one, exactly a
 * name or address we have.
 */
function hostRefusal(request: IncomingMessage, { listen }: Door): Refusal | undefined {
  const hosts = request.rawHeaders.filter((name, i) => i % 2 === 0 && name.toLowerCase() === 'host').length;
  if (hosts === 0 && request.httpVersion === '1.1')
    return { status: 400, code: 'host_missing', message: 'the Host header is missing' };
  const host = hosts === 1 ? hostName(request.headers.host ?? '') : undefined;
  const anywhere = listen === '0.0.0.0' || listen === '::';
  if (host !== undefined && (anywhere || isLoopbackHost(host) || host === listen.toLowerCase()))
    return undefined;
  return { status: 403, code: 'host_not_allowed', message: 'the Host header does not name this proxy' };
}

/**
 * Name or address of a Host field (RFC 9110 §7.2), an IPv6 address without its brackets; undefined
 * when it is anything else.
 */
export function hostName(value: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9](?:[a-z0-9._-]*[a-z0-9])?))(?::(\d{1,5}))?$/.exec(
    value.toLowerCase(),
  );
  if (match === null || Number(match[3] ?? 0) > 65_535) return undefined;
  const [, address, name] = match;
  if (address === undefined) return name;
  return isIP(address) === 6 ? new URL(`http://[${address}]`).hostname.slice(1, -1) : undefined;
}

/**
 * An upgrade is an offer that a server may ignore (RFC 9110 §7.8): the answer comes in HTTP/1.1. Only
 * websocket cannot do without; offered beside others it is meant when its key is there.
 */
function upgradeRefusal({ headers }: IncomingMessage): Refusal | undefined {
  const offered = tokensOf(headers.upgrade ?? '').map((protocol) => protocol.split('/')[0]?.trim());
  if (!offered.includes('websocket')) return undefined;
  const alone = offered.every((protocol) => protocol === 'websocket');
  if (!alone && headers['sec-websocket-key'] === undefined) return undefined;
  return { status: 501, code: 'upgrade_not_supported', message: 'websocket connections are not forwarded' };
}

/**
 * Programs send neither field. Pages of other ports of this machine are as foreign as
 * pages of other machines.
 */
function pageRefusal({ headers }: IncomingMessage, { origins }: Door): Refusal | undefined {
  const { origin } = headers;
  if (origin !== undefined) {
    if (origins.has(origin)) return undefined;
    return {
      status: 403,
      code: 'origin_not_allowed',
      message:
        'requests of web pages are not forwarded, unless the proxy was started with --allow-origin for them',
    };
  }
  const site = headers['sec-fetch-site'];
  if (site === undefined || site === 'none' || site === 'same-origin') return undefined;
  return {
    status: 403,
    code: 'cross_site_request',
    message: 'the browser marks this request as one of a web page of another origin',
  };
}

/**
 * An origin as browsers write it in the Origin field (RFC 6454 §6.2).
 * @throws AttestationError `wrong_usage` for `null`, which is many origins, and for what is more than an
 * origin
 */
export function canonicalOrigin(text: string): string {
  const wrong = malformed('wrong_usage', `${JSON.stringify(text)} is not an origin`, {
    expected: 'such as http://localhost:3000',
    actual: text,
    hint: 'scheme, host and port of the page, without a path',
  });
  if (!URL.canParse(text)) throw wrong;
  const url = new URL(text);
  const bare = url.username === '' && url.password === '' && url.search === '' && url.hash === '';
  if (!bare || !['', '/'].includes(url.pathname) || url.host === '' || url.host.includes('*')) throw wrong;
  // Apps have schemes of their own (app://name, vscode-webview://id), for which URL knows no origin.
  return url.origin === 'null' ? `${url.protocol}//${url.host}`.toLowerCase() : url.origin;
}

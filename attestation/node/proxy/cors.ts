// CORS for pages of named origins that use the proxy: the answers to preflights, and the headers of every
// other answer (Fetch standard, "CORS protocol"; Private Network Access for pages that come from other
// machines). The proxy decides this, not the upstream: its own Origin and access-control fields are not
// passed on, in neither direction.

import type { IncomingMessage } from 'node:http';

/** For how long a browser may keep the answer to a preflight. */
const MAX_AGE_SECONDS = 600;

export function isCorsField(name: string): boolean {
  return name === 'origin' || name.startsWith('access-control-');
}

/** OPTIONS of a page is answered here; a program's own OPTIONS is forwarded. */
export function isPreflight({ method, headers }: IncomingMessage): boolean {
  return (
    method === 'OPTIONS' &&
    headers.origin !== undefined &&
    headers['access-control-request-method'] !== undefined
  );
}

/** Raw fields for an answer to a page of `origin`, which was let in. */
export function corsFields(origin: string | undefined): string[] {
  if (origin === undefined) return [];
  // `*` is every field where no credentials are sent; cookies have no meaning here.
  return ['access-control-allow-origin', origin, 'access-control-expose-headers', '*', 'vary', 'origin'];
}

export function preflightFields({ headers }: IncomingMessage): string[] {
  const wanted = headers['access-control-request-headers'];
  const method = headers['access-control-request-method'] ?? '';
  const fields = [
    ...corsFields(headers.origin),
    'access-control-allow-methods',
    // Methods that are no token never come this far: Node refuses them in a request line, not in this field.
    /^[A-Za-z]{1,32}$/.test(method) ? method : 'GET, POST, DELETE',
    'access-control-max-age',
    String(MAX_AGE_SECONDS),
  ];
  // `*` would leave Authorization out, which every SDK sends.
  if (typeof wanted === 'string' && /^[\w!#$%&'*+.^`|~, \t-]{1,4096}$/.test(wanted))
    fields.push('access-control-allow-headers', wanted);
  if (headers['access-control-request-private-network'] === 'true')
    fields.push('access-control-allow-private-network', 'true');
  return fields;
}

// The console at the local proxy (docs/console.md): the page at `/`, what the proxy was started with at
// `/console.json`, and no more beside `/v1/`. A page of another port of this machine, or of a name that
// was pointed here, is refused: Host and Origin have the proxy's own port. What the upstream answers is no
// page of this origin: a browser that is shown it runs none of it.

import type { IncomingMessage, ServerResponse } from 'node:http';
import type { ConsolePage } from '../console-page.ts';
import { isLoopbackHost, type Refusal } from './guard.ts';

/** The console of a proxy. */
export interface ProxyConsoleOptions {
  readonly page: ConsolePage;
  /** Offered to the reader like a pasted one; undefined: none can be written as JSON. */
  readonly policy: string | undefined;
}

const SANDBOXED = ['content-security-policy', 'sandbox', 'x-content-type-options', 'nosniff'];
const SANDBOXED_NAMES = new Set(SANDBOXED.filter((_, i) => i % 2 === 0));

export function isSandboxField(name: string): boolean {
  return SANDBOXED_NAMES.has(name);
}

export class ProxyConsole {
  readonly #page: ConsolePage;
  readonly #given: Buffer;
  #port: number | undefined;

  constructor({ page, policy }: ProxyConsoleOptions, upstream: string) {
    this.#page = page;
    this.#given = Buffer.from(JSON.stringify({ upstream, policy }));
  }

  /** Raw fields of every answer but the page. */
  readonly fields: readonly string[] = SANDBOXED;

  /** Called once it listens. The origins of its own page. */
  listensOn(port: number): readonly string[] {
    this.#port = port;
    return ['127.0.0.1', 'localhost', '[::1]'].map((host) => `http://${host}:${port}`);
  }

  /** Beside the refusals of every proxy. */
  refusalOf({ headers, url = '/' }: IncomingMessage): Refusal | undefined {
    const host = headers.host ?? '';
    const [, name = '', port] = /^(.+):(\d{1,5})$/.exec(host) ?? [];
    if (Number(port) !== this.#port || !isLoopbackHost(name.toLowerCase()))
      return { status: 403, code: 'host_not_allowed', message: 'the Host header does not name this console' };
    if (headers.origin !== undefined && headers.origin !== `http://${host}`)
      return {
        status: 403,
        code: 'origin_not_allowed',
        message: 'requests of other pages are not forwarded',
      };
    const path = pathOf(url);
    const known = OWN.has(path) || (path.startsWith('/v1/') && !DOTS.test(path));
    if (known) return undefined;
    return { status: 404, code: 'unknown_url', message: 'this proxy serves its console and forwards /v1/' };
  }

  /** Answers what is not for the upstream; false: the request is. */
  answers({ url = '/', method }: IncomingMessage, response: ServerResponse): boolean {
    const path = pathOf(url);
    if (!OWN.has(path)) return false;
    const isPage = path === '/';
    if (method !== 'GET' && method !== 'HEAD') {
      response.writeHead(405, ['allow', 'GET, HEAD', 'content-length', '0', ...this.fields]);
      response.end();
      return true;
    }
    const body = isPage ? this.#page.html : this.#given;
    const fields = isPage
      ? Object.entries(this.#page.headers).flat()
      : ['content-type', 'application/json', 'cache-control', 'no-store', ...this.fields];
    response.writeHead(200, [...fields, 'content-length', String(body.length)]);
    response.end(method === 'HEAD' ? undefined : body);
    return true;
  }
}

const OWN: ReadonlySet<string> = new Set(['/', '/console.json']);
/** Segments that a server could take for another path. */
const DOTS = /(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|%3b|$)/i;

function pathOf(url: string): string {
  return url.split(/[?#]/, 1)[0] ?? '';
}

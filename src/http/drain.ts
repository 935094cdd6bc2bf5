// How the server ends: it refuses new work, gives answers under way the drain time, then sends the
// rest an error and cuts them.

import type { FastifyInstance } from 'fastify';
import { shuttingDown } from '../base/errors.ts';
import type { Exchange } from './exchange.ts';
import type { Listener } from './listener.ts';
import type { OpenRequests } from './open-requests.ts';

/** Time for error events at the end of the drain time. */
const LAST_WORDS_MS = 500;

export class Drain {
  readonly #open: OpenRequests<Exchange>;
  #on = false;

  constructor(open: OpenRequests<Exchange>) {
    this.#open = open;
  }

  /** New work is refused. */
  get on(): boolean {
    return this.#on;
  }

  async run(app: FastifyInstance, listener: Listener | undefined, withinMs: number): Promise<void> {
    this.#on = true;
    listener?.server.closeIdleConnections();
    await this.#open.ended(withinMs);
    for (const exchange of this.#open.exchanges()) exchange.abort(shuttingDown);
    // Handlers write their error events in answer to the abort; the rest is cut then.
    await this.#open.ended(LAST_WORDS_MS);
    listener?.destroyConnections();
    await app.close();
    // Sockets report their close a moment later, and the request log must include all of them.
    await this.#open.ended(LAST_WORDS_MS);
  }
}

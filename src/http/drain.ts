// How the server ends: new work is refused, answers under way have so long, what is left then is told why and cut.

import type { FastifyInstance } from 'fastify';
import { shuttingDown } from '../base/errors.ts';
import type { Exchange } from './exchange.ts';
import type { Listener } from './listener.ts';
import type { OpenRequests } from './open-requests.ts';

/** Time for error events after the end was decided. */
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
    // Handlers write their error events in answer to the abort; whatever is left then is cut.
    await this.#open.ended(LAST_WORDS_MS);
    listener?.destroyConnections();
    await app.close();
    // Sockets say a moment later that they are closed, and the log of requests must have heard of all of them.
    await this.#open.ended(LAST_WORDS_MS);
  }
}

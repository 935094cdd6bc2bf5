// The proxy's own clients: which requests are open on which connection. Node tells a response of its
// connection's end only while it has the socket; pipelined ones (RFC 9112 §9.3.2) wait for it and would never
// hear. Here the close of a socket is the close of every response that is still to be sent on it.

import type { ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Requests of one connection at once: no client we know of sends one before it has the answer to the last.
 */
export const MAX_PIPELINED = 16;

/** Refused ones wait for their turn as well; where so many do, the connection is cut. */
const MAX_WAITING = 4 * MAX_PIPELINED;

export interface Client {
  readonly open: Set<ServerResponse>;
  /**
   * An answer that ends the connection is on its way: later requests of the connection are not
   * forwarded (RFC 9112 §9.6).
   */
  last: boolean;
}

export class Clients {
  readonly #known = new WeakMap<Socket, Client>();
  readonly #waiting: (() => void)[] = [];
  #inFlight = 0;

  get inFlight(): number {
    return this.#inFlight;
  }

  of(socket: Socket): Client {
    const known = this.#known.get(socket);
    if (known !== undefined) return known;
    const client: Client = { open: new Set(), last: false };
    this.#known.set(socket, client);
    socket.once('close', () => {
      for (const response of client.open) {
        if (isClosedByNode(response, socket)) continue;
        response.destroy();
        response.emit('close');
      }
    });
    return client;
  }

  /** Counts a request until its response is closed. */
  begin(socket: Socket, response: ServerResponse): Client {
    const client = this.of(socket);
    client.open.add(response);
    this.#inFlight += 1;
    response.once('close', () => {
      client.open.delete(response);
      this.#inFlight -= 1;
      if (this.#inFlight === 0) for (const wake of this.#waiting.splice(0)) wake();
    });
    // So many answers wait that Node has stopped reading, and would not see the client leave.
    if (client.open.size > MAX_WAITING || (socket.isPaused() && !socket.writableNeedDrain)) socket.destroy();
    return client;
  }

  /** Resolves once no request is open. */
  async idle(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

/** The response that has the socket, and one that was sent to its end a moment ago. */
function isClosedByNode(response: ServerResponse, socket: Socket): boolean {
  return response.socket === socket || response.closed || (response.writableFinished && !response.destroyed);
}

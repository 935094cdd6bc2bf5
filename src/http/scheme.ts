// Plain HTTP on the TLS port (a browser, or a client with http:// in its configuration): one answer that
// names the mistake, instead of a closed connection. A TLS client speaks first, and its first byte is 0x16, a
// handshake record (RFC 8446 §5.1); a request of HTTP/1 begins with the letters of its method.

import type { Server } from 'node:https';
import type { Socket } from 'node:net';
import { ApiError } from '../base/errors.ts';
import { rawErrorResponse } from './errors.ts';

/** Time for a first byte, and for the client to take the answer. */
const PATIENCE_MS = 10_000;

/** `onPlain` returns the id of the answer. */
export function refusePlainHttp(server: Server, onPlain: () => string): void {
  // Node's only listener here begins the handshake. It gets the byte read before (net.Socket.unshift).
  const handshakes = server.listeners('connection');
  server.removeAllListeners('connection');
  server.on('connection', (socket: Socket) => {
    // A socket that is already closed must not end the process.
    socket.on('error', () => socket.destroy());
    const late = setTimeout(() => socket.destroy(), PATIENCE_MS).unref();
    const ended = (): void => void socket.destroy();
    socket.once('end', ended);
    socket.once('close', () => clearTimeout(late));
    socket.once('data', (first: Buffer) => {
      if (isLetter(first[0])) {
        socket.resume().end(rawErrorResponse(speaksHttps(), onPlain()));
        return;
      }
      clearTimeout(late);
      socket.off('end', ended);
      socket.pause();
      socket.unshift(first);
      for (const handshake of handshakes) handshake.call(server, socket);
    });
  });
}

function isLetter(byte: number | undefined): boolean {
  return byte !== undefined && byte >= 0x41 && byte <= 0x5a;
}

function speaksHttps(): ApiError {
  return new ApiError('tls_required', 'this port speaks https; see assay-verify proxy');
}

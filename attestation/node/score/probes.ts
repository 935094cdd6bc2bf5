// Offers a server the things that an attested client never uses, and sees whether it takes them: plain http,
// TLS before 1.3, an old session. No probe sends content: the one request is GET /v1/attestation with a
// random nonce. A probe that could not be made is never a refusal.

import { once } from 'node:events';
import { connect, isIP, type Socket } from 'node:net';
import { connect as tlsConnect, type ConnectionOptions, type TLSSocket } from 'node:tls';
import { toHex } from '../../encoding/bytes.ts';
import { getRequest, readResponse } from '../response.ts';

/** The finding of a probe. `refused`: the server did not take what was offered. */
export interface Sighting {
  readonly refused: boolean;
  /** In words, for a person. */
  readonly seen: string;
}

export interface ProbingOptions {
  /** Milliseconds, for each connection and each answer. */
  readonly timeoutMs: number;
  readonly randomBytes: (length: number) => Uint8Array;
}

const MAX_HEADER_BYTES = 16 * 1024;
const MAX_BODY_BYTES = 1024 * 1024;
const MAX_STATUS_LINE = 1024;

/** A session of one connection, offered on the next. */
export async function probeResumption(origin: URL, options: ProbingOptions): Promise<Sighting> {
  const sessions: Buffer[] = [];
  const first = await handshake(origin, { minVersion: 'TLSv1.3' }, options, (socket) =>
    socket.on('session', (session: Buffer) => sessions.push(session)),
  );
  if (first.socket === undefined) return unseen(`no connection to take a session from: ${first.why}`);
  try {
    // Tickets follow the handshake: once an answer has come, so have they.
    first.socket.write(request(origin, options));
    await readResponse(first.socket, {
      maxHeaderBytes: MAX_HEADER_BYTES,
      maxBodyBytes: MAX_BODY_BYTES,
      timeoutMs: options.timeoutMs,
    });
  } catch (error) {
    return unseen(`no answer to take a session with: ${reason(error)}`);
  } finally {
    first.socket.destroy();
  }
  const session = sessions.at(-1);
  if (session === undefined) return { refused: true, seen: 'no session ticket came with an answer' };
  const second = await handshake(origin, { minVersion: 'TLSv1.3', session }, options);
  if (second.socket === undefined)
    return second.reached
      ? { refused: true, seen: `a handshake with an earlier session was refused: ${second.why}` }
      : unseen(second.why);
  if (!second.socket.isSessionReused()) {
    second.socket.destroy();
    return { refused: true, seen: 'an earlier session was offered, and a full handshake was made' };
  }
  second.socket.write(request(origin, options));
  const answer = await firstBytes(second.socket, options.timeoutMs);
  if (answer.kind === 'closed')
    return { refused: true, seen: 'a resumed session was ended before it was answered' };
  return answer.kind === 'bytes'
    ? { refused: false, seen: 'a request on a resumed session was answered' }
    : unseen(`a resumed session was left open without an answer for ${options.timeoutMs} ms`);
}

/** TLS 1.2 and below, all of them at once. */
export async function probeOldTls(origin: URL, options: ProbingOptions): Promise<Sighting> {
  // Without the level, OpenSSL itself would not offer 1.0 and 1.1, and would refuse in the server's place.
  const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.2', ciphers: 'DEFAULT:@SECLEVEL=0' } as const;
  const { socket, why, refusal } = await handshake(origin, old, options);
  if (socket === undefined)
    return refusal ? { refused: true, seen: `TLS 1.0 to 1.2 were refused: ${why}` } : unseen(why);
  const version = socket.getProtocol() ?? 'an old version';
  socket.destroy();
  return { refused: false, seen: `a handshake of ${version} was completed` };
}

/** An HTTP request without TLS on the same port. */
export async function probePlainHttp(origin: URL, options: ProbingOptions): Promise<Sighting> {
  const socket = connect({ host: hostOf(origin), port: portOf(origin) });
  socket.on('error', ignore);
  if (!(await connected(socket, options.timeoutMs))) return unseen('no TCP connection');
  socket.write(request(origin, options));
  const answer = await firstBytes(socket, options.timeoutMs, isStatusOrAlert);
  if (answer.kind === 'silent')
    return unseen(`plain http was left open without an answer for ${options.timeoutMs} ms`);
  if (answer.kind !== 'bytes')
    return { refused: true, seen: 'a connection with plain http was closed without an answer' };
  if (isAlert(answer.bytes)) return { refused: true, seen: 'plain http was answered with an alert of TLS' };
  const status = /^HTTP\/\d\.\d (\d{3})/.exec(answer.bytes.toString('latin1'))?.[1];
  if (status === undefined) return { refused: false, seen: 'plain http was answered, and not with HTTP/1' };
  return status.startsWith('4')
    ? { refused: true, seen: `plain http was refused with ${status}` }
    : { refused: false, seen: `plain http was answered with ${status}` };
}

/** RFC 8446 §5.1: a record of the type 21. */
function isAlert(bytes: Buffer): boolean {
  return bytes[0] === 21 && bytes[1] === 3;
}

/** Whether a status line is whole, or something else has begun. */
function isStatusOrAlert(bytes: Buffer): boolean {
  return bytes.length >= MAX_STATUS_LINE || bytes.includes('\n') || isAlert(bytes);
}

interface Shaken {
  readonly socket?: TLSSocket | undefined;
  /** Why there is none. */
  readonly why: string;
  /** The peer took the TCP connection. */
  readonly reached: boolean;
  /** The peer refused: an alert or an end, not a fault at this end. */
  readonly refusal: boolean;
}

function handshake(
  origin: URL,
  offer: ConnectionOptions,
  { timeoutMs }: ProbingOptions,
  prepare: (socket: TLSSocket) => void = ignore,
): Promise<Shaken> {
  const host = hostOf(origin);
  return new Promise((resolve) => {
    const socket = tlsConnect({
      host,
      port: portOf(origin),
      servername: isIP(host) === 0 ? host : undefined,
      ALPNProtocols: ['http/1.1'],
      // A probe sends no secret, and its findings are about the handshake, not about the peer.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      ...offer,
    });
    let reached = false;
    const none = (why: string, refusal: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ why, reached, refusal: reached && refusal });
    };
    const timer = setTimeout(() => none(`no handshake after ${timeoutMs} ms`, false), timeoutMs);
    prepare(socket);
    socket.once('connect', () => (reached = true));
    // For as long as the socket lives: a later error without a listener would end the process.
    socket.on('error', (error: NodeJS.ErrnoException) =>
      none(reason(error), /ALERT|ECONNRESET|EPIPE/.test(error.code ?? '')),
    );
    socket.once('close', () => none('the peer closed the connection', true));
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      resolve({ socket, why: '', reached, refusal: false });
    });
  });
}

type FirstBytes = { readonly kind: 'bytes'; readonly bytes: Buffer } | { readonly kind: 'closed' | 'silent' };

/** Reads until it is enough, or until no more comes; then ends the socket. */
function firstBytes(
  socket: Socket,
  timeoutMs: number,
  isEnough: (bytes: Buffer) => boolean = () => true,
): Promise<FirstBytes> {
  return new Promise((resolve) => {
    let bytes = Buffer.alloc(0);
    const settle = (kind: 'closed' | 'silent'): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(bytes.length > 0 ? { kind: 'bytes', bytes } : { kind });
    };
    const timer = setTimeout(() => settle('silent'), timeoutMs);
    socket.on('data', (piece: Buffer) => {
      bytes = Buffer.concat([bytes, piece]);
      if (isEnough(bytes)) settle('closed');
    });
    socket.once('end', () => settle('closed'));
    socket.once('close', () => settle('closed'));
    if (socket.destroyed) settle('closed');
  });
}

async function connected(socket: Socket, timeoutMs: number): Promise<boolean> {
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(timeoutMs) });
    return true;
  } catch {
    socket.destroy();
    return false;
  }
}

function request(origin: URL, { randomBytes }: ProbingOptions): string {
  return getRequest(origin, `/v1/attestation?nonce=${toHex(randomBytes(32))}`);
}

function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[(.*)\]$/, '$1');
}

function portOf({ port }: URL): number {
  return port === '' ? 443 : Number(port);
}

function unseen(why: string): Sighting {
  return { refused: false, seen: `not seen: ${why}` };
}

function reason(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return typeof code === 'string' ? code : message;
}

function ignore(): void {}

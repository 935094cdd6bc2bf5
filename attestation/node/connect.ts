// Opens a TLS connection and verifies its peer before anything else is sent on it (docs/protocol.md §5): TLS
// 1.3 handshake, our own random nonce, GET /v1/attestation on that very socket, appraisal, and only then the
// socket. Refused: plain http, resumed sessions, other TLS versions, any failed check. The peer's key is read
// from the socket after `secureConnect`, because Node skips checkServerIdentity on resumed sessions and when
// rejectUnauthorized is false.

import { isIP } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as tlsConnect, type TLSSocket } from 'node:tls';
import { fromUtf8, toHex } from '../encoding/bytes.ts';
import {
  type AttestationResult,
  isAttestationResult,
  verify,
  type VerifyOptions,
} from '../appraise/appraise.ts';
import { EXPORTER_LABEL, EXPORTER_LENGTH } from '../protocol/claims.ts';
import { type AttestationDocument, MAX_DOCUMENT_BYTES, parseDocument } from '../protocol/document.ts';
import { AttestationError, refused } from '../transcript/errors.ts';
import type { Policy } from '../appraise/policy.ts';
import { RULES } from '../appraise/rules.ts';
import { type BoundedResponse, errorCodeOf, getRequest, readResponse } from './response.ts';

/** The evidence of a peer, before it is judged. */
export interface ReceivedEvidence {
  readonly document: AttestationDocument;
  readonly nonce: Uint8Array;
  readonly exporter: Uint8Array;
  /** DER SubjectPublicKeyInfo of the peer. */
  readonly peerSpki: Uint8Array;
}

/** Settings of {@link connectAttested}; times are milliseconds. */
export interface ConnectOptions extends Pick<VerifyOptions, 'memory' | 'endorsements' | 'keys' | 'vtpm'> {
  readonly policy: Policy;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Cryptographically random bytes. */
  readonly randomBytes: (length: number) => Uint8Array;
  /** Attest this model alone instead of all the server serves. */
  readonly model?: string | undefined;
  /** TCP and TLS together. */
  readonly connectTimeoutMs: number;
  /** From the attestation request to the end of its answer; TDX quotes queue on the platform. */
  readonly attestTimeoutMs: number;
  /** Called with the evidence before it is judged, whatever the verdict, so that it can be kept. */
  readonly onEvidence?: ((received: ReceivedEvidence) => void) | undefined;
}

/** A TLS connection whose peer has proved what it is, and the proof. */
export interface AttestedConnection {
  /** Idle: the attestation response has been read to its end, and no byte beyond it. */
  readonly socket: TLSSocket;
  readonly result: AttestationResult;
  /** The evidence that was accepted. */
  readonly evidence: ReceivedEvidence;
}

/**
 * Connects to an https origin and attests it (docs/protocol.md §5); the socket is destroyed when anything
 * fails. Throws the AttestationError of a refusal, `connection_failed` (kind `internal`) when there is no
 * connection. Times are milliseconds.
 *
 * @example
 * const { socket, result } = await connectAttested(new URL('https://host:8443'), {
 *   policy: parsePolicy(text), now: Date.now, randomBytes, connectTimeoutMs: 10_000, attestTimeoutMs: 30_000,
 * });
 */
export async function connectAttested(origin: URL, options: ConnectOptions): Promise<AttestedConnection> {
  if (origin.protocol !== 'https:') {
    throw refused('plain_http', `${origin.protocol}// cannot be attested, expected https://`, {
      expected: 'https:',
      actual: origin.protocol,
      hint: 'evidence is bound to a TLS connection; plain http has none',
    });
  }
  const socket = await openTls(origin, options.connectTimeoutMs);
  // An error event without a listener would end the process. The user of the socket sees its failures by
  // itself.
  socket.on('error', ignore);
  try {
    const { result, evidence } = await attest(socket, origin, options);
    if (!isAttestationResult(result))
      throw new AttestationError(
        'internal',
        'internal',
        'a connection was to be handed over without a result',
      );
    if (socket.destroyed || !socket.writable)
      throw refused('attestation_response', 'peer closed the connection after its attestation');
    return { socket, result, evidence };
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function ignore(): void {}

function openTls(origin: URL, timeoutMs: number): Promise<TLSSocket> {
  const host = origin.hostname.replace(/^\[(.*)\]$/, '$1');
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({
      host,
      port: origin.port === '' ? 443 : Number(origin.port),
      servername: isIP(host) === 0 ? host : undefined,
      minVersion: 'TLSv1.3',
      maxVersion: 'TLSv1.3',
      ALPNProtocols: ['http/1.1'],
      // The certificate is usually self-signed: the evidence, which names the certificate's key,
      // identifies the peer. The handshake still proves that the peer holds that key
      // (CertificateVerify, RFC 8446 §4.4.3).
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
      // No `session`, so no resumption is offered; a peer that says otherwise is refused below.
    });
    // Or the attestation request waits for the acknowledgement of the handshake's last flight.
    socket.setNoDelay(true);
    const timer = setTimeout(() => {
      socket.destroy();
      reject(failed(origin, `no TLS connection after ${timeoutMs} ms`));
    }, timeoutMs);
    const onError = (error: Error): void => {
      clearTimeout(timer);
      socket.destroy();
      reject(failed(origin, 'TLS connection failed', error));
    };
    const onClose = (): void => onError(new Error('peer closed the connection during the handshake'));
    socket.once('error', onError);
    socket.once('close', onClose);
    socket.once('secureConnect', () => {
      clearTimeout(timer);
      socket.off('error', onError);
      socket.off('close', onClose);
      resolve(socket);
    });
  });
}

function failed(origin: URL, what: string, cause?: Error): AttestationError {
  return new AttestationError(
    'internal',
    'connection_failed',
    `${origin.host}: ${what}${cause === undefined ? '' : ` (${reason(cause)})`}`,
    { cause },
  );
}

function reason(error: Error & { readonly code?: unknown }): string {
  return typeof error.code === 'string' ? error.code : error.message;
}

async function attest(
  socket: TLSSocket,
  origin: URL,
  options: ConnectOptions,
): Promise<Omit<AttestedConnection, 'socket'>> {
  requireFreshTls13(socket);
  const certificate = socket.getPeerX509Certificate();
  if (certificate === undefined)
    throw refused('tls_key_mismatch', 'peer presented no certificate', { check: RULES.tlsKey.id });
  const nonce = options.randomBytes(32);
  const exporter = new Uint8Array(
    socket.exportKeyingMaterial(EXPORTER_LENGTH, EXPORTER_LABEL, Buffer.from(nonce)),
  );
  const response = await obtainDocument(socket, origin, nonce, options);
  const document = parseDocument(fromUtf8(response.body, 'attestation document'));
  const peerSpki = new Uint8Array(certificate.publicKey.export({ type: 'spki', format: 'der' }));
  const evidence = { document, nonce, exporter, peerSpki };
  options.onEvidence?.(evidence);
  const result = await verify(document, {
    nonce,
    exporter,
    peerSpki,
    tls: { version: socket.getProtocol() ?? 'none', resumed: socket.isSessionReused() },
    policy: options.policy,
    now: options.now(),
    model: options.model,
    keys: options.keys,
    memory: options.memory,
    endorsements: options.endorsements,
    vtpm: options.vtpm,
  });
  return { result, evidence };
}

/** [M11] [M12]: checked on the socket itself, before a byte of HTTP. */
export function requireFreshTls13(
  socket: Pick<TLSSocket, 'isSessionReused' | 'getProtocol' | 'alpnProtocol'>,
): void {
  if (socket.isSessionReused()) {
    throw refused('session_resumed', 'TLS session was resumed, expected a full handshake', {
      check: RULES.session.id,
    });
  }
  const protocol = socket.getProtocol() ?? 'none';
  if (protocol !== 'TLSv1.3') {
    throw refused('tls_version', `connection is ${protocol}, expected TLSv1.3`, {
      check: RULES.tlsVersion.id,
      expected: 'TLSv1.3',
      actual: protocol,
    });
  }
  // `false`: the peer does not speak ALPN, and HTTP/1.1 is what is spoken without it.
  if (socket.alpnProtocol !== 'http/1.1' && socket.alpnProtocol !== false && socket.alpnProtocol !== null) {
    throw refused('tls_version', `connection speaks ${socket.alpnProtocol}, expected http/1.1`, {
      check: RULES.tlsVersion.id,
    });
  }
}

/**
 * A server that is asked by many at once may say when to ask again; on the same connection, the
 * same nonce is still fresh.
 */
async function obtainDocument(
  socket: TLSSocket,
  origin: URL,
  nonce: Uint8Array,
  options: ConnectOptions,
): Promise<BoundedResponse> {
  let patienceMs = options.attestTimeoutMs;
  for (let tries = 1; ; tries++) {
    const response = await requestDocument(socket, origin, nonce, options);
    if (response.status === 200) return response;
    const retryAfter = response.headers.get('retry-after') ?? '';
    const waitMs = /^\d{1,4}$/.test(retryAfter) ? Number(retryAfter) * 1000 : Number.POSITIVE_INFINITY;
    patienceMs -= waitMs;
    if (response.status !== 429 || tries === MAX_TRIES || patienceMs < 0) throw unavailable(response);
    await delay(waitMs);
  }
}

const MAX_TRIES = 4;

async function requestDocument(
  socket: TLSSocket,
  origin: URL,
  nonce: Uint8Array,
  options: ConnectOptions,
): Promise<BoundedResponse> {
  const query = new URLSearchParams({ nonce: toHex(nonce) });
  if (options.model !== undefined) query.set('model', options.model);
  // No credentials: the API key belongs to the request, and the request comes after the verdict.
  socket.write(getRequest(origin, `/v1/attestation?${query.toString()}`));
  const response = await readResponse(socket, {
    maxHeaderBytes: 16 * 1024,
    maxBodyBytes: MAX_DOCUMENT_BYTES,
    timeoutMs: options.attestTimeoutMs,
  });
  if (/(^|,)\s*close\s*(,|$)/i.test(response.headers.get('connection') ?? '')) {
    if (response.status !== 200) throw unavailable(response);
    throw refused('attestation_response', 'peer closes the connection it attested', {
      hint: 'the server must answer GET /v1/attestation with keep-alive',
    });
  }
  return response;
}

function unavailable(response: BoundedResponse): AttestationError {
  const code = errorCodeOf(response);
  const what = `attestation request was answered with ${response.status}${code === undefined ? '' : ` ${code}`}`;
  return refused('attestation_unavailable', what, {
    expected: '200',
    actual: String(response.status),
    hint: code === undefined ? undefined : HINTS[code],
  });
}

const HINTS: Readonly<Record<string, string>> = {
  tee_not_enabled:
    'the server does not run in a TEE; it can be started with the simulated one for trying things out',
  model_not_found: 'the server does not serve the model that was to be attested',
  attestation_rate_limited: 'the server makes no more reports for now; try again later',
};

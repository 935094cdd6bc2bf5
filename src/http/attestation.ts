// GET /v1/attestation of the server and of the workshop (docs/protocol.md §4): evidence for this TLS
// connection and the caller's nonce, or for the key of sealed bodies (docs/sealed.md §1), which needs no TLS.
// Open to everyone, since a client proves the server before it shows its key. A nonce that is not 8–64 bytes
// is refused; without one the server makes one: the answer then proves the channel, but not its freshness.

import { createHash, randomBytes } from 'node:crypto';
import { TLSSocket } from 'node:tls';
import { EXPORTER_LABEL, EXPORTER_LENGTH, parseNonce, toHex } from '@assay/attestation';
import { documentToJson } from '@assay/attestation/issue';
import { ApiError } from '../base/errors.ts';
import { choice, integer, list, literal, object, optional, text, type Shape } from '../base/shape.ts';
import { peerOf } from './address.ts';
import { modelNotFound } from './errors.ts';
import { route } from './route.ts';

const words = text({ max: 1_000_000_000 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const record: Shape<unknown> = {
  schema: { type: 'object', additionalProperties: true },
  read: (value) => value,
};

export const attestationAnswer = object({
  version: literal('1'),
  tee_type: choice(['sev-snp', 'tdx', 'simulated']),
  report: words,
  report_data: words,
  measurement: words,
  timestamp: words,
  nonce: words,
  claims: words,
  inclusion: object({ index: count, size: count, path: list(words, { max: 64 }) }),
  models: list(
    object({
      id: words,
      sha256: words,
      kind: choice(['blob', 'manifest']),
      blobs: list(object({ role: words, sha256: words, size: count }), { max: 1024 }),
    }),
    { max: 1_000_000 },
  ),
  rtmr: optional(list(words, { min: 4, max: 4 })),
  event_log: optional(words),
  endorsements: optional(record),
});

export const attestation = route({
  method: 'GET',
  path: '/v1/attestation',
  access: 'open',
  limited: true,
  apart: true,
  unsealedOnly: true,
  summary: 'Evidence for this server, its model and this very connection.',
  tag: 'Attestation',
  query: object({
    nonce: optional(
      text({
        max: 1024,
        about:
          'Hex or base64url, 8 to 64 bytes, chosen at random by the caller; verifiers want 16 at least. 22 to 30 hex digits are read as base64url.',
      }),
    ),
    model: optional(
      text({ min: 1, max: 1024, about: 'Bind the evidence to this model; without it, to all models.' }),
    ),
    channel: optional(choice(['sealed'], 'Evidence for sealed bodies: of a key, and of no TLS connection.')),
  }),
  answer: attestationAnswer,
  errors: [
    'tee_not_enabled',
    'invalid_nonce',
    'model_not_found',
    'attestation_rate_limited',
    'attestation_failed',
    'tls_required',
  ],
  async handle({ deps, exchange, connectionPins, query, request }) {
    if (deps.attester === null)
      throw new ApiError('tee_not_enabled', 'this server runs without a TEE and has no evidence', {
        shouldRetry: false,
      });
    const nonce = query.nonce === undefined ? new Uint8Array(randomBytes(32)) : readNonce(query.nonce);
    const model = query.model === undefined ? undefined : deps.models.get(query.model);
    if (query.model !== undefined && model === undefined) throw modelNotFound();
    const sealed = query.channel === 'sealed';
    if (sealed && (deps.sealed ?? null) === null)
      throw new ApiError('tee_not_enabled', 'this server takes no sealed bodies', { shouldRetry: false });
    const socket = request.raw.socket;
    const exporter = sealed ? undefined : exporterOf(socket, nonce);
    const document = await deps.attester.attest({
      nonce,
      exporter,
      clientId: exchange.principal?.bucket ?? `peer ${peerOf(request.ip)}`,
      signal: exchange.signal,
      modelId: model?.id,
    });
    const digest = (bytes: Uint8Array): Uint8Array =>
      new Uint8Array(createHash('sha256').update(bytes).digest());
    // Sealed evidence does not speak of the connection it came on, which may carry many clients.
    if (!sealed)
      connectionPins.shown(socket, document.models, {
        claims: digest(document.claims),
        report: digest(document.report),
      });
    if (model !== undefined) {
      exchange.modelId = model.id;
      exchange.modelSha256 = model.sha256;
    }
    exchange.evidenceSha256 = createHash('sha256').update(document.report).digest('hex');
    return { ...documentToJson(document), nonce: query.nonce ?? toHex(nonce) };
  },
});

function exporterOf(socket: object, nonce: Uint8Array): Uint8Array {
  if (!(socket instanceof TLSSocket))
    throw new ApiError('tls_required', 'evidence is bound to a TLS connection; this one is plain HTTP', {
      shouldRetry: false,
    });
  return new Uint8Array(socket.exportKeyingMaterial(EXPORTER_LENGTH, EXPORTER_LABEL, Buffer.from(nonce)));
}

function readNonce(given: string): Uint8Array {
  try {
    return parseNonce(given);
  } catch {
    const hint = /^[0-9a-fA-F]{22,30}$/.test(given)
      ? '; 22 to 30 hex digits are read as base64url, in hex give 32 or more'
      : '';
    throw new ApiError('invalid_nonce', `nonce is not 8 to 64 bytes in hex or base64url${hint}`, {
      param: 'nonce',
    });
  }
}

// The models each connection was shown (docs/protocol.md §5, [M23]). A verified connection is used until
// its evidence is too old; if another model took a known id meanwhile, unmeasured bytes would answer
// requests on it. So the first evidence given on a connection fixes the digests that may answer there; a
// request for another is refused with 409 `attestation_stale` and the connection closed, and a retry goes
// to a newly attested connection.

import { toHex, type AttestedModel } from '@assay/attestation';
import { ApiError } from '../base/errors.ts';

/** SHA-256 of the claims and of the report, 32 bytes each. */
export interface ShownEvidence {
  readonly claims: Uint8Array;
  readonly report: Uint8Array;
}

/** One per server. Connections are known by their socket and forgotten with it. */
export interface ConnectionPins {
  /**
   * Records evidence given on the connection. Only the first counts: a client behind a verifying proxy may
   * ask for a later one, which must not widen what the proxy has accepted.
   */
  shown(
    socket: object,
    models: readonly Pick<AttestedModel, 'id' | 'sha256'>[],
    evidence?: ShownEvidence,
  ): void;
  /**
   * 409 unless the connection's evidence, if it has any, lists the model with this digest (lower-case hex).
   */
  check(socket: object, model: { readonly id: string; readonly sha256: string }): void;
  /** The digests a connection was shown, by id; undefined when it was given no evidence. */
  of(socket: object): ReadonlyMap<string, string> | undefined;
  /** The first evidence of a connection, which its receipts name. */
  evidenceOf(socket: object): ShownEvidence | undefined;
  /** For work that goes on without its connection: `socket` stands for one that was shown these. */
  pin(socket: object, shown: ReadonlyMap<string, string>): void;
}

/** For a request that says which digest it was shown, and not of which model: no id is this. */
export const ANY_MODEL = '*';

export function createConnectionPins(): ConnectionPins {
  const digests = new WeakMap<object, ReadonlyMap<string, string>>();
  const evidences = new WeakMap<object, ShownEvidence>();
  return {
    shown(socket, models, evidence) {
      if (digests.has(socket)) return;
      digests.set(socket, new Map(models.map(({ id, sha256 }) => [id, toHex(sha256)])));
      if (evidence !== undefined) evidences.set(socket, evidence);
    },
    check(socket, { id, sha256 }) {
      const pinned = digests.get(socket);
      if (pinned !== undefined && (pinned.get(ANY_MODEL) ?? pinned.get(id)) !== sha256) throw stale();
    },
    of: (socket) => digests.get(socket),
    evidenceOf: (socket) => evidences.get(socket),
    pin: (socket, shown) => void digests.set(socket, shown),
  };
}

/** Its answer closes the connection (http/server). */
export const STALE = 'attestation_stale';

function stale(): ApiError {
  return new ApiError(
    'attestation_stale',
    'this connection was attested before the model was what it is now; attest a new connection',
    {
      param: 'model',
      shouldRetry: true,
    },
  );
}

// How many requests of one kind are being answered at once, in all and per peer. Attestations have places of their own: they
// are open to everyone, so a stalled TEE full of them must not take the places of those who have a key.

import { ApiError } from '../../base/errors.ts';

export interface Places {
  /** Takes a place and returns what gives it back (idempotent); throws `full` of the reason when there is none. */
  enter(peer: string): () => void;
}

/** A limit of 0 is none. */
export function createPlaces(o: {
  readonly inAll: number;
  readonly perPeer: number;
  readonly full: (whose: 'all' | 'peer') => ApiError;
}): Places {
  const peers = new Map<string, number>();
  let taken = 0;
  return {
    enter(peer) {
      const ofPeer = peers.get(peer) ?? 0;
      if (o.perPeer > 0 && ofPeer >= o.perPeer) throw o.full('peer');
      if (o.inAll > 0 && taken >= o.inAll) throw o.full('all');
      peers.set(peer, ofPeer + 1);
      taken += 1;
      let left = false;
      return () => {
        if (left) return;
        left = true;
        taken -= 1;
        const rest = (peers.get(peer) ?? 1) - 1;
        if (rest > 0) peers.set(peer, rest);
        else peers.delete(peer);
      };
    },
  };
}

export function serverFull(): ApiError {
  return new ApiError(429, 'server_overloaded', 'the server is answering as many requests as it may', {
    retryAfterSeconds: 1,
  });
}

export function attestationsFull(whose: 'all' | 'peer'): ApiError {
  return new ApiError(
    429,
    'attestation_rate_limited',
    whose === 'peer'
      ? 'this address has as many attestations under way as it may'
      : 'too many attestations are under way',
    { retryAfterSeconds: 1 },
  );
}

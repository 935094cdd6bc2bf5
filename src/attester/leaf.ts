// Keeps the TLS leaf current: a certificate with fresh evidence at start, and a new one for the
// same key after half its lifetime. The key stays, because the claims bind it; existing
// connections keep their certificate.

import type { Clock } from '../base/clock.ts';
import type { BatchingAttester } from './batcher.ts';
import { issueServerCertificate } from './certificate.ts';
import type { Identity } from './identity.ts';

export interface LeafOptions {
  readonly identity: Identity;
  readonly names: readonly string[];
  readonly lifetimeMs: number;
  /** For the evidence. */
  readonly timeoutMs: number;
  /** Null: no TEE, a certificate without evidence. */
  readonly attester: Pick<BatchingAttester, 'attestCertificate'> | null;
  readonly clock: Clock;
  readonly onRenewed: (tls: Tls) => void;
  /** A renewal failed; it is tried again after a twentieth of the lifetime. */
  readonly onError: (error: unknown) => void;
}

/** PEM, as node:tls takes it. */
export interface Tls {
  readonly key: string;
  readonly cert: string;
}

export interface Leaf {
  /** The first certificate. */
  readonly tls: Tls;
  close(): void;
}

const LOOK_MS = 10 * 60_000;

export async function createLeaf(options: LeafOptions): Promise<Leaf> {
  const { clock, lifetimeMs, identity } = options;
  let cancel: (() => void) | undefined;
  let closed = false;
  let issuedAt = clock.now();
  let dueAt = issuedAt + lifetimeMs / 2;

  async function issue(): Promise<Tls> {
    const evidence = await options.attester?.attestCertificate(AbortSignal.timeout(options.timeoutMs));
    const { pem } = await issueServerCertificate({
      identity,
      names: options.names,
      now: new Date(clock.now()),
      lifetimeMs,
      evidence,
    });
    return { key: identity.tls.keyPem, cert: pem };
  }

  async function renew(): Promise<void> {
    const started = clock.now();
    try {
      options.onRenewed(await issue());
      issuedAt = started;
      dueAt = started + lifetimeMs / 2;
    } catch (error) {
      dueAt = started + lifetimeMs / 20;
      options.onError(error);
    }
  }

  /**
   * Checks the clock often, not once: a clock that jumps must not leave a certificate in
   * use outside its validity.
   */
  async function look(): Promise<void> {
    if (clock.now() >= dueAt || clock.now() < issuedAt) await renew();
    schedule();
  }

  function schedule(): void {
    if (!closed) cancel = clock.after(Math.min(lifetimeMs / 20, LOOK_MS), () => void look());
  }

  const tls = await issue();
  schedule();
  return {
    tls,
    close() {
      closed = true;
      cancel?.();
    },
  };
}

// The GPUs of this machine as a source of evidence for claim 9. They are not used before this
// process's own verifier has accepted all of them for a nonce it drew itself, with the manifests and OCSP
// answers that are stapled for clients; only then are they set ready (`ready`), and refused devices end the
// start. Afterwards each challenge is answered by every device again.

import type { JsonObject } from '@assay/attestation';
import {
  createManifestCache,
  type GpuContext,
  type GpuEvidence,
  gpuEvidenceDigest,
  gpuNonce,
  type GpuPolicy,
  verifyGpu,
  writeGpuEvidence,
} from '@assay/attestation/gpu';
import type { GpuCollector } from './collect.ts';

/** The section `gpu` of a document, and its claim 9. */
export interface GpuSection {
  readonly section: JsonObject;
  readonly claim: Uint8Array;
}

export interface GpuSource {
  /** Evidence that answers the nonce of a document's claims. */
  evidence(nonce: Uint8Array, signal: AbortSignal): Promise<GpuSection>;
  close(): Promise<void>;
}

export interface GpuSourceOptions {
  readonly collector: GpuCollector;
  /** Manifests and OCSP answers for what was collected. */
  readonly endorse: (devices: GpuEvidence['devices']) => Promise<Pick<GpuEvidence, 'manifests' | 'ocsp'>>;
  /** The demands that devices must meet before they are used. */
  readonly policy: GpuPolicy;
  readonly roots?: GpuContext['roots'] | undefined;
  readonly now: () => Date;
  /** 32 bytes for the devices to answer before they are used, drawn by this process. */
  readonly challenge: () => Uint8Array;
  /** Sets the devices ready, after they were accepted. */
  readonly ready: (signal: AbortSignal) => Promise<void>;
  /** Makes the error of devices that were not accepted: the code of the rule, and its finding. */
  readonly refused: (code: string, detail: string) => Error;
  readonly close?: (() => Promise<void>) | undefined;
}

/** Judges the devices, and sets them ready. Rejects, and sets none ready, when they are refused. */
export async function openGpuSource(options: GpuSourceOptions, signal: AbortSignal): Promise<GpuSource> {
  const { collector, endorse, policy, roots, now, challenge: draw, ready, refused } = options;
  const nonce = draw();
  const devices = await collector.collect(nonce, signal);
  const endorsed = await endorse(devices);
  const context = { now: now(), nonce, roots, manifests: createManifestCache() };
  const { accepted, transcript } = await verifyGpu({ devices, ...endorsed }, policy, context);
  const failure = transcript.firstFailure;
  if (!accepted || failure !== undefined)
    throw refused(failure?.code ?? 'internal', failure?.detail ?? 'devices were not accepted');
  await ready(signal);
  return {
    async evidence(challenge, aborted) {
      const answered = await collector.collect(gpuNonce(challenge), aborted);
      const found = { devices: answered, ...(await endorse(answered)) };
      return { section: writeGpuEvidence(found), claim: gpuEvidenceDigest(answered) };
    },
    close: async () => {
      await options.close?.();
    },
  };
}

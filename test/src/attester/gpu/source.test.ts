// GPUs are set ready after this program's own verifier accepted them, and never otherwise; their evidence for
// each nonce is bound as claim 9. Recorded evidence of an H100 is played by a stand-in for NVIDIA's tool: it
// shows the way from the tool to the verdict, and, since it answers its own nonce alone, no fresh document.

import { describe, expect, test } from 'vitest';
import { parsePolicy, verify, allowSimulated, attestedModel, toHex } from '@assay/attestation';
import { appraiseGpu, gpuNonce, readGpuEvidence } from '@assay/attestation/gpu';
import { createBatcher, type BatchingAttester } from '../../../../src/attester/batcher.ts';
import { helperCollector } from '../../../../src/attester/gpu/collect.ts';
import { createSimulatedGpus } from '../../../../src/attester/gpu/simulated.ts';
import { type GpuSource, type GpuSourceOptions, openGpuSource } from '../../../../src/attester/gpu/source.ts';
import { fromHex } from '../../../../attestation/encoding/bytes.ts';
import { COMPLETE_NONCE, completeEvidence, UNASKED } from '../../../fixtures/attestation/gpu-vectors.ts';
import { NOW, simulatedAmd } from '../../../fixtures/attestation/snp-simulated.ts';
import { haveVectors, vectorPath } from '../../../fixtures/shared.ts';

const HELPER = new URL('../../../fixtures/attester/gpu-helper.mjs', import.meta.url).pathname;
const SIGNAL = new AbortController().signal;

class Refused extends Error {
  override readonly name = 'Refused';
}

function helper(mode: string, file = '', timeoutMs = 60_000) {
  return helperCollector({ command: [process.execPath, HELPER, mode, file, '{nonce}'], timeoutMs });
}

function options(changes: Partial<GpuSourceOptions>, calls: string[] = []): GpuSourceOptions {
  const { manifests } = haveVectors ? completeEvidence() : { manifests: [] };
  return {
    collector: helper('play', vectorPath('gpu/hopper-595-complete/evidence.json')),
    endorse: () => Promise.resolve({ manifests, ocsp: [] }),
    policy: UNASKED,
    now: () => new Date('2026-09-16T00:00:00Z'),
    challenge: () => fromHex(COMPLETE_NONCE),
    ready: async () => {
      calls.push('ready');
    },
    refused: (code, detail) => new Refused(`${code}: ${detail}`),
    ...changes,
  };
}

describe.skipIf(!haveVectors)('recorded evidence, played by a stand-in for the vendor’s tool', () => {
  test('is accepted, and the devices are set ready', async () => {
    const calls: string[] = [];
    await openGpuSource(options({}, calls), SIGNAL);
    expect(calls).toEqual(['ready']);
  });

  test.each([
    ['another nonce', { challenge: () => new Uint8Array(32) }, 'gpu_nonce'],
    ['manifests that have run out', { now: () => new Date('2029-01-01') }, 'gpu_rim_expired'],
    ['no manifests', { endorse: () => Promise.resolve({ manifests: [], ocsp: [] }) }, 'gpu_rim_missing'],
    ['another number of GPUs', { policy: { ...UNASKED, count: 8 } }, 'gpu_count'],
    ['revocation asked for, and no answers', { policy: {} }, 'gpu_ocsp'],
  ] as const)('%s: refused, and nothing is set ready', async (_what, changes, code) => {
    const calls: string[] = [];
    await expect(openGpuSource(options(changes, calls), SIGNAL)).rejects.toThrow(code);
    expect(calls).toEqual([]);
  });
});

describe('the helper', () => {
  test.each([
    ['fails', 'fail', 'exit 3'],
    ['prints too much', 'much', 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER'],
    ['prints no evidence', 'words', 'output of the GPU helper'],
  ])('%s', async (_what, mode, message) => {
    const failing = helper(mode).collect(new Uint8Array(32), SIGNAL);
    await expect(failing).rejects.toThrow(message);
    await expect(failing).rejects.not.toThrow('secret');
  });

  test('takes too long, or is given up', async () => {
    await expect(helper('hang', '', 200).collect(new Uint8Array(32), SIGNAL)).rejects.toThrow('SIGKILL');
    const stop = new AbortController();
    const waiting = helper('hang').collect(new Uint8Array(32), stop.signal);
    stop.abort();
    await expect(waiting).rejects.toThrow('ABORT_ERR');
  });

  test('is not there', async () => {
    const collector = helperCollector({ command: ['/nonexistent/tool'], timeoutMs: 1000 });
    await expect(collector.collect(new Uint8Array(32), SIGNAL)).rejects.toThrow('ENOENT');
  });

  test('gets nothing of this process’s environment', async () => {
    const collected = helper('environment').collect(new Uint8Array(32), SIGNAL);
    // A list of names is no evidence: what is refused is its first entry.
    await expect(collected).rejects.toThrow('evidences[0]');
  });

  test('gets the nonce in hex, and calls go one at a time', async () => {
    if (!haveVectors) return;
    const collector = helper('play', vectorPath('gpu/hopper-595-complete/evidence.json'));
    const both = await Promise.all(
      [1, 2].map((byte) => collector.collect(new Uint8Array(32).fill(byte), SIGNAL)),
    );
    expect(both.map(({ length }) => length)).toEqual([1, 1]);
  });
});

describe('documents with GPU evidence', () => {
  const CONFIG = new Uint8Array(32).fill(0xc0);
  const MEASUREMENT = new Uint8Array(48).fill(0x4d);
  const model = attestedModel('a', [{ role: 'weights', sha256: new Uint8Array(32).fill(1), size: 1 }]);

  async function attester(gpu: GpuSource): Promise<BatchingAttester> {
    const amd = await simulatedAmd();
    return createBatcher({
      source: {
        teeType: 'simulated',
        available: true,
        report: async (reportData) => ({
          report: await amd.signReport({ reportData, measurement: MEASUREMENT }),
          measurement: MEASUREMENT,
          endorsements: { vek: amd.vek, chain: [amd.intermediate, amd.ark], crl: amd.crl },
        }),
        endorsementsExpireAt: () => null,
        endorsementsError: () => null,
        close: () => Promise.resolve(),
      },
      gpu,
      context: { tlsSpki: new Uint8Array(32), config: CONFIG, receiptKey: CONFIG, hpkeKey: () => new Uint8Array(32).fill(9) }, // prettier-ignore
      models: () => [model],
      now: () => NOW.getTime(),
      timeoutMs: 60_000,
      batchMax: 100,
      maxQueue: 100,
      perMinute: 0,
    });
  }

  test('[M26] [M27] each nonce of a batch is answered by all devices and accepted by a client', async () => {
    const now = (): Date => NOW;
    const played = await createSimulatedGpus(2, now);
    const challenge = (): Uint8Array => gpuNonce(new Uint8Array(32));
    const gpu = await openGpuSource(options({ ...played, now, challenge, policy: { count: 2 } }), SIGNAL);
    const made = await attester(gpu);
    const nonces = [1, 2, 3].map((byte) => new Uint8Array(32).fill(byte));
    const documents = await Promise.all(
      nonces.map((nonce) => made.attest({ nonce, clientId: null, signal: SIGNAL })),
    );
    const policy = parsePolicy(
      {
        measurements: [toHex(MEASUREMENT)],
        models: { a: toHex(model.sha256) },
        channel: 'sealed',
        gpu: { count: 2, mode: ['ppcie'] },
      },
      { [allowSimulated]: true },
    );
    for (const [i, document] of documents.entries()) {
      const nonce = nonces[i] ?? new Uint8Array();
      const judging = { channel: 'sealed', nonce, policy, now: NOW.getTime(), gpu: appraiseGpu } as const;
      const result = await verify(document, judging);
      expect(result.evidence['gpu']).toMatchObject({ devices: { length: 6 } });
      const [device] = readGpuEvidence(document.gpu ?? {}).devices;
      expect(device?.report.slice(4, 36)).toEqual(gpuNonce(nonce));
    }
    // Every document has reports of its own; the certificate's evidence has no nonce, and names no GPU.
    expect(new Set(documents.map(({ gpu: section }) => JSON.stringify(section))).size).toBe(3);
    expect((await made.attestCertificate(SIGNAL)).gpu).toBeUndefined();
    await made.close();
  });

  test('devices that no longer answer fail the request, and no other document takes its place', async () => {
    const gpu: GpuSource = {
      evidence: () => Promise.reject(new Error('fell off the bus')),
      close: () => Promise.resolve(),
    };
    const made = await attester(gpu);
    const asked = made.attest({ nonce: new Uint8Array(32), clientId: null, signal: SIGNAL });
    await expect(asked).rejects.toMatchObject({ code: 'attestation_failed' });
    await made.close();
  });
});

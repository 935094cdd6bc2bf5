// A server started with the settings of GPUs: its tool, a program of its own, prints what simulated devices
// answer; manifests and OCSP answers are fetched from local services; its own verifier accepts all of it, the
// devices are set ready, and a client with a policy for GPUs is verified. Then the tool answers no more.

import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { allowSimulated, type AppraisalPolicy, type Verified } from '@assay/attestation';
import { appraiseGpu, writeGpuEvidence } from '@assay/attestation/gpu';
import { attestedFetch } from '@assay/attestation/node';
import {
  createSimulatedNvidia,
  type SimulatedDevice,
  type SimulatedNvidia,
} from '@assay/attestation/simulated';
import { answerAsNvidia } from '../../fixtures/attestation/nvidia-services.ts';
import { spawnAssay } from '../../fixtures/e2e/assay.ts';
import { startRealServer } from '../../fixtures/e2e/real-server.ts';
import { refusalOf } from '../../fixtures/refusal.ts';

const TOOL = fileURLToPath(new URL('../../fixtures/attester/gpu-tool.mjs', import.meta.url));

let folder: string;
let services: Server;
let nvidia: SimulatedNvidia;
let devices: readonly SimulatedDevice[];
let url: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'assay-gpu-'));
  nvidia = await createSimulatedNvidia();
  devices = await nvidia.system(2, 4);
  const { manifests } = await nvidia.evidence(new Uint8Array(32), devices);
  const chains = [...devices.map(({ chain }) => chain), nvidia.manifestChain];
  services = createServer((request, response) => {
    const [, nonce] = /^\/evidence\/([0-9a-f]{64})$/.exec(request.url ?? '') ?? [];
    const answered =
      nonce === undefined
        ? answerAsNvidia(request, response, { nvidia, manifests, chains, ocsp: {} })
        : printed(nonce).then((text) => response.end(text));
    answered.catch(() => response.writeHead(500).end());
  });
  await new Promise<void>((resolve) => {
    services.listen(0, '127.0.0.1', resolve);
  });
  url = `http://127.0.0.1:${(services.address() as AddressInfo).port}`;
});
afterAll(async () => {
  services.closeAllConnections();
  services.close();
  await rm(folder, { recursive: true, force: true });
});

/** As NVIDIA's tool prints it. */
async function printed(nonce: string): Promise<string> {
  const { evidences } = writeGpuEvidence(await nvidia.evidence(Buffer.from(nonce, 'hex'), devices));
  return JSON.stringify({ evidences, result_code: 0 });
}

async function configFile(ready: string, count: number): Promise<string> {
  const path = join(folder, 'a.toml');
  const lines = {
    mode: 'simulated',
    gpu_collect: [process.execPath, TOOL, url, '{nonce}'],
    gpu_ready: [process.execPath, '-e', `fs.writeFileSync(${JSON.stringify(ready)}, '')`],
    gpu_count: count,
    gpu_rim_url: url,
    gpu_ocsp_url: url,
  };
  const text = Object.entries(lines).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
  await writeFile(path, ['[tee]', ...text, ''].join('\n'));
  return path;
}

test('[M26] a server with a GPU tool is verified by a client whose policy asks for GPUs', async () => {
  const ready = join(folder, 'ready');
  const server = await startRealServer({ args: ['--config', await configFile(ready, 2)] });
  const seen: Verified[] = [];
  const policy = (count: number): AppraisalPolicy => ({
    ...(server.policy as AppraisalPolicy),
    gpu: { count, mode: ['ppcie'] },
    [allowSimulated]: true,
  });
  const asking = async (count: number, gpu?: typeof appraiseGpu): Promise<Response> => {
    const client = attestedFetch({
      policy: policy(count),
      gpu,
      onResult: (result) => void seen.push(result),
    });
    try {
      return await client(`${server.url}/v1/models`);
    } finally {
      await client.close();
    }
  };
  try {
    expect(existsSync(ready)).toBe(true);
    expect((await asking(2, appraiseGpu)).status).toBe(200);
    expect(seen[0]?.evidence['gpu']).toMatchObject({ rootsReplaced: true, devices: { length: 6 } });
    expect((await refusalOf(() => asking(3, appraiseGpu)))?.code).toBe('gpu_count');
    expect((await refusalOf(() => asking(2)))?.code).toBe('gpu_evidence');
  } finally {
    expect(await server.stop()).toBe(0);
  }
});

test('devices its own verifier refuses end the start, and are not set ready', async () => {
  const ready = join(folder, 'not-ready');
  const config = await configFile(ready, 3);
  const args = [
    'serve',
    '--demo',
    '--config',
    config,
    '--listen',
    '127.0.0.1:0',
    '--data',
    join(folder, 'data'),
  ];
  const spawned = spawnAssay(args, { cwd: folder });
  const [code] = await spawned.ended;
  expect(spawned.err()).toMatch(/tee\.gpu_collect .*: GPUs are refused: gpu_count: /);
  expect(code).toBe(2);
  expect(existsSync(ready)).toBe(false);
});

// Manifests and OCSP answers fetched from local services: what is kept, ASKED for anew, and refused before it
// is kept. The verifier accepts evidence with what was fetched by its strict default policy.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createHash } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { toHex } from '../../../../attestation/encoding/bytes.ts';
import type { GpuEvidence } from '../../../../attestation/gpu/subject.ts';
import {
  createNvidiaEndorsements,
  type NvidiaEndorsementOptions,
  type NvidiaEndorsements,
} from '../../../../attestation/node/endorsements/nvidia.ts';
import type { OcspChanges } from '../../../../attestation/simulated/ocsp.ts';
import { GPU_NOW, hierarchy, judge, replacing } from '../../../fixtures/attestation/gpu-simulated.ts';
import { failedCodes } from '../../../fixtures/attestation/gpu-vectors.ts';
import { answerAsNvidia, rimAnswer } from '../../../fixtures/attestation/nvidia-services.ts';
import { codeOfAsync } from '../../../fixtures/refusal.ts';

let server: Server;
let base: string;
let evidence: GpuEvidence;
let chains: readonly (readonly Uint8Array[])[];
const ASKED: string[] = [];
/** A test sets these: the services' answers and the time. */
let rim: (id: string, xml: Uint8Array) => Readonly<Record<string, unknown>>;
let ocsp: OcspChanges;
let now: number;

beforeAll(async () => {
  const made = await hierarchy();
  ({ evidence } = made);
  chains = [made.device.chain, made.nvidia.manifestChain];
  server = createServer((request, response) => {
    answer(request, response).catch(() => response.writeHead(500).end());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

beforeEach(() => {
  ASKED.length = 0;
  ocsp = {};
  now = GPU_NOW.getTime();
  rim = rimAnswer;
});

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { nvidia } = await hierarchy();
  const answers = { rim, ocsp: { thisUpdate: new Date(now), ...ocsp }, asked: ASKED };
  await answerAsNvidia(request, response, { nvidia, manifests: evidence.manifests, chains, ...answers });
}

async function opened(changes: NvidiaEndorsementOptions = {}): Promise<NvidiaEndorsements> {
  const { nvidia } = await hierarchy();
  const roots = [nvidia.root, nvidia.manifestRoot];
  return createNvidiaEndorsements({
    rimUrl: base,
    ocspUrl: base,
    roots,
    now: () => now,
    maxTries: 1,
    ...changes,
  });
}

describe('what is fetched', () => {
  test('is all that the verifier asks for, and is kept', async () => {
    const endorsements = await opened();
    const found = await endorsements.for(evidence.devices);
    expect(failedCodes(await judge({ ...evidence, ...found }))).toEqual([]);
    expect(found.manifests.map(({ id }) => id)).toEqual(evidence.manifests.map(({ id }) => id));
    expect(ASKED).toHaveLength(6);
    expect(await endorsements.for(evidence.devices)).toEqual(found);
    expect(ASKED).toHaveLength(6);
    expect(endorsements.expireAt()).toBe(GPU_NOW.getTime() + 86_400_000);
    await endorsements.close();
  });

  test('is ASKED for anew before it runs out, and used until then where the service is not there', async () => {
    const endorsements = await opened();
    const first = await endorsements.for(evidence.devices);
    now += 86_400_000 - 1000;
    ocsp = { signer: (await hierarchy()).foreign.keys.root };
    expect((await endorsements.for(evidence.devices)).ocsp).toEqual(first.ocsp);
    expect(ASKED).toHaveLength(10);
    now += 2000;
    expect(await codeOfAsync(() => endorsements.for(evidence.devices))).toBe('endorsements_invalid');
    ocsp = { nextUpdate: new Date(now + 86_400_000) };
    expect((await endorsements.for(evidence.devices)).ocsp).not.toEqual(first.ocsp);
    await endorsements.close();
  });

  test('a revocation is stapled as it is: verifiers are told', async () => {
    ocsp = { status: 'revoked' };
    const endorsements = await opened();
    const found = await endorsements.for(evidence.devices);
    expect(failedCodes(await judge({ ...evidence, ...found }))).toEqual(['gpu_revoked']);
    await endorsements.close();
  });
});

describe('refused', () => {
  const text = (xml: Uint8Array): string => new TextDecoder().decode(xml);
  test.each([
    ['a manifest of another id', (id: string, xml: Uint8Array) => ({ ...whole(`${id}X`, xml) }), 'endorsements_invalid'],
    ['another SHA-256 than the document’s', (id: string, xml: Uint8Array) => ({ ...whole(id, xml), sha256: '00' }), 'endorsements_invalid'],
    ['a CoRIM', (id: string, xml: Uint8Array) => ({ ...whole(id, xml), rim_format: 'CORIM' }), 'endorsements_invalid'],
    ['no document', (id: string) => ({ id }), 'endorsements_invalid'],
    ['an edited document', (id: string, xml: Uint8Array) => whole(id, Buffer.from(replacing('active="True"', 'active="False"')(text(xml)))), 'endorsements_invalid'],
  ])('%s', async (_what, makes, code) => {
    rim = makes;
    const endorsements = await opened();
    expect(await codeOfAsync(() => endorsements.for(evidence.devices))).toBe(code);
    await endorsements.close();
  }); // prettier-ignore

  test('manifests of a root that is not trusted', async () => {
    const endorsements = await opened({ roots: undefined });
    expect(await codeOfAsync(() => endorsements.for(evidence.devices))).toBe('endorsements_invalid');
    await endorsements.close();
  });

  test('a device whose manifest the service does not have', async () => {
    const { nvidia } = await hierarchy();
    const device = await nvidia.device({ arch: 'BLACKWELL' });
    const report = await device.report(new Uint8Array(32));
    const endorsements = await opened();
    const devices = [{ arch: 'BLACKWELL', report, certificates: device.chain }];
    expect(await codeOfAsync(() => endorsements.for(devices))).toBe('endorsements_unavailable');
    await endorsements.close();
  });

  test('a service that is not there', async () => {
    const endorsements = await opened({ rimUrl: 'http://127.0.0.1:1' });
    expect(await codeOfAsync(() => endorsements.for(evidence.devices))).toBe('endorsements_unavailable');
    await endorsements.close();
  });
});

function whole(id: string, xml: Uint8Array): Readonly<Record<string, unknown>> {
  return {
    id,
    rim: Buffer.from(xml).toString('base64'),
    sha256: toHex(createHash('sha256').update(xml).digest()),
    rim_format: 'TCG',
  };
}

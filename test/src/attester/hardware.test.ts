// The whole server in hardware mode: a real process, real TLS, the root part's socket, and behind it a
// configfs-tsm by the kernel's rules whose reports a simulated AMD key signs. All is real but the key, so the
// verifier must say exactly that.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import type { Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Agent, fetch as plainFetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AppraisalPolicy, AttestationError, parseDocument, toHex } from '@assay/attestation';
import { attestedFetch } from '@assay/attestation/node';
import { createSimulatedAmd, type SimulatedAmd } from '@assay/attestation/simulated';
import { ensureDemoModels } from '../../../scripts/demo-model/main.ts';
import { serveAttestd } from '../../../src/attestd/serve.ts';
import { fakeTsm } from '../../fixtures/attestd/tsm.ts';

const cli = fileURLToPath(new URL('../../../dist/src/cli/main.js', import.meta.url));
const measurement = new Uint8Array(48).fill(0xab);
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
const demo = await ensureDemoModels(['demo-chat']);

let folder: string;
let amd: SimulatedAmd;
let attestd: Server;
let server: ChildProcess;
let url: string;
/** The errors of the next reads of outblob. */
const FAULTS: string[] = [];

function certificateTable(): Uint8Array {
  const entries = [['63da758de6644564adc5f4b93be8accd', amd.vek], ['4ab7b379bbac4fe4a02f05aef327c782', amd.ask], ['c0b406a4a803495297433fb6014cd0ae', amd.ark]] as const; // prettier-ignore
  const bytes = Buffer.alloc(96 + entries.reduce((sum, [, content]) => sum + content.length, 0));
  let at = 96;
  for (const [i, [guid, content]] of entries.entries()) {
    Buffer.from(guid, 'hex').copy(bytes, 24 * i);
    bytes.writeUInt32LE(at, 24 * i + 16);
    bytes.writeUInt32LE(content.length, 24 * i + 20);
    bytes.set(content, at);
    at += content.length;
  }
  return new Uint8Array(bytes);
}

function get(path: string): Promise<Awaited<ReturnType<typeof plainFetch>>> {
  return plainFetch(`${url}${path}`, { dispatcher });
}
function attest(): ReturnType<typeof get> {
  return get(`/v1/attestation?nonce=${'5a'.repeat(32)}`);
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-hardware-'));
  amd = await createSimulatedAmd({ rsaBits: 2048 });
  const kernel = fakeTsm({
    provider: 'sev_guest',
    makeReport: (reportData) => amd.signReport({ reportData, measurement }),
    auxblob: certificateTable(),
    fault: (operation, attribute) =>
      operation === 'read' && attribute === 'outblob' ? FAULTS.shift() : undefined,
  });
  const socket = join(folder, 'attestd.sock');
  attestd = await serveAttestd({ socket, gid: process.getgid!(), folder: kernel.folder, fs: kernel.fs });
  server = spawn(
    process.execPath,
    [
      cli,
      'serve',
      '--tee',
      'sev-snp',
      '--data',
      join(folder, 'data'),
      '--listen',
      '127.0.0.1:0',
      '--model',
      demo['demo-chat'].path,
    ],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: {
        PATH: process.env['PATH'],
        HOME: folder,
        ASSAY_TEE_ATTESTD_SOCKET: socket,
        ASSAY_TEE_TSM_FOLDER: kernel.folder,
        ASSAY_TEE_ENDORSEMENTS_FETCH: 'false',
      },
    },
  );
  let err = '';
  server.stderr!.setEncoding('utf8').on('data', (part: string) => (err += part));
  const ended = once(server, 'close').then(() => {
    throw new Error(err);
  });
  while (!err.includes('"listening"')) await Promise.race([once(server.stderr!, 'data'), ended]);
  ended.catch(() => undefined);
  url = /"url":"(https:[^"]+)"/.exec(err)![1]!;
});
afterAll(async () => {
  const closed = once(server, 'close');
  server.kill('SIGTERM');
  await closed;
  attestd.close();
  await dispatcher.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('evidence of the device', () => {
  test('is handed out as it is, with what the host gave to go with it', async () => {
    const document = parseDocument(await (await attest()).text());
    expect(document.teeType).toBe('sev-snp');
    expect(toHex(document.measurement)).toBe('ab'.repeat(48));
    expect(document.endorsements).toEqual({ vek: amd.vek, chain: [amd.ask, amd.ark] });
    expect(document.models.map((model) => [model.id, toHex(model.sha256)])).toEqual([
      ['demo-chat', demo['demo-chat'].sha256],
    ]);
    expect(await (await get('/health')).json()).toMatchObject({
      tee: { enabled: true, type: 'sev-snp', attestation_available: true },
    });
  });

  test('is refused by a verifier for its root and its root only: nothing else about it is wrong', async () => {
    const policy: AppraisalPolicy = {
      measurements: ['ab'.repeat(48)],
      models: { 'demo-chat': demo['demo-chat'].sha256 },
      products: ['Genoa'],
    };
    const fetch = attestedFetch({ policy });
    const refusal = await fetch(`${url}/health`).then(
      () => undefined,
      (error: unknown) => {
        for (let at = error; at instanceof Error; at = at.cause)
          if (at instanceof AttestationError) return at;
        throw error;
      },
    );
    await fetch.close();
    const failed = refusal?.transcript.filter((check) => check.status === 'fail').map((check) => check.id);
    expect(refusal?.kind).toBe('refused');
    expect(failed).toContain('S11');
    // The channel, the claims and the models hold; only what rests on AMD's signature does not.
    for (const id of ['C1', 'C2', 'C3', 'D1', 'D4', 'D5', 'D6', 'S27']) expect(failed).not.toContain(id);
  });
});

describe('a device that fails', () => {
  test('for a while is retried; the client never hears of it', async () => {
    FAULTS.push('EBUSY', 'EINTR');
    expect((await attest()).status).toBe(200);
    expect(FAULTS).toEqual([]);
  });

  test('once is 500 attestation_failed, and the server goes on', async () => {
    FAULTS.push('EIO');
    const failed = await attest();
    expect([failed.status, ((await failed.json()) as { error: { code: string } }).error.code]).toEqual([
      500,
      'attestation_failed',
    ]);
    expect((await attest()).status).toBe(200);
  });

  test('for good (ENOTTY: the driver wiped its key) is said in /health, and everything but attestation still works', async () => {
    FAULTS.push('ENOTTY');
    expect((await attest()).status).toBe(500);
    const failed = await attest();
    expect([failed.status, ((await failed.json()) as { error: { code: string } }).error.code]).toEqual([
      500,
      'attestation_failed',
    ]);
    expect(await (await get('/health')).json()).toMatchObject({
      tee: { enabled: true, attestation_available: false },
    });
    expect((await get('/v1/models')).status).toBe(200);
  });
});

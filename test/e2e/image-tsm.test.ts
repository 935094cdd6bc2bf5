// End to end with real interfaces: client, TLS, server, root part, the kernel's configfs-tsm and the report's
// format are all real, and the measurement is the one we predict for this launch. Only the key that signs is
// not AMD's: a test-only kernel module passes each request through a virtio port to a fake secure processor
// out here. Runs with ASSAY_IMAGE_TEST=1 (`make image-test`).

import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  allowSimulated,
  AttestationError,
  EXPORTER_LABEL,
  parseDocument,
  toHex,
  verify,
} from '@assay/attestation';
import { measureSnpLaunch, parseManifest } from '@assay/attestation/launch';
import { attestedFetch } from '@assay/attestation/node';
import { createSimulatedAmd, type SimulatedAmd } from '@assay/attestation/simulated';
import { buildImage, lockedSources } from '../../image/build.ts';
import { modelSerial } from '../../image/disks.ts';
import { type Emulator, openEmulator } from '../../image/emulator.ts';
import { readLock } from '../../image/lock.ts';
import { findMirrors, openInputs } from '../../image/mirror.ts';
import { buildTestModule } from '../../image/test-module.ts';
import { TOP } from '../../image/top.ts';
import { type Guest, haveInputs, inputsFolder, standardDisks, startGuest } from '../fixtures/image/guest.ts';

const WANTED = process.env['ASSAY_IMAGE_TEST'] === '1';
const gguf = join(TOP, '.cache/models/demo-chat.gguf');
const ready = WANTED && haveInputs('image', 'emulator', 'test-module') && existsSync(gguf);
if (WANTED && !ready)
  console.warn(
    '\n! the locked inputs or the demo model are not in the cache: the configfs-tsm test is skipped (make models image-inputs)\n',
  );

const TOML = `
[api]
address = "0.0.0.0:8443"
admin_enabled = false
[tee]
mode = "sev-snp"
attestd_socket = "/run/attestd/socket"
[store]
data_dir = "/run/data"
residency = "verity"
verity_folder = "/run/models"
[models]
pull_enabled = false
[api.models.demo-chat]
path = "/run/models/demo-chat/model.gguf"
[log]
level = "info"
`;

/** In the guest: the module's requests go out through the port, answers come back, whole. */
const ANSWER_BYTES = 16_384;
const RELAY = `(
  set +f
  set -- /dev/vport*
  exec 4<> "$1"
  while :; do
    $bb dd if=/dev/fake_tsm bs=64 count=1 2> /dev/null >&4
    $bb dd bs=${ANSWER_BYTES} count=1 iflag=fullblock <&4 2> /dev/null > /dev/fake_tsm
  done
) &`;

let folder = '';
let emulator: Emulator;
let amd: SimulatedAmd;
let predicted: Uint8Array;
let cmdline = '';
let processor: Server;
let guest: Guest | undefined;
const REQUESTS: Uint8Array[] = [];

/**
 * The table a host passes along with a report (AMD 56421): entries of GUID, offset, length, closed by zeros.
 */
function certificateTable(): Uint8Array {
  const parts = [
    ['63da758de6644564adc5f4b93be8accd', amd.vek],
    ['4ab7b379bbac4fe4a02f05aef327c782', amd.intermediate],
    ['c0b406a4a803495297433fb6014cd0ae', amd.ark],
    ['92f81bc358114d3d97ffd19f88dc67ea', amd.crl],
  ] as const;
  const head = Buffer.alloc(24 * (parts.length + 1));
  let offset = head.length;
  parts.forEach(([guid, bytes], index) => {
    head.write(guid, 24 * index, 'hex');
    head.writeUInt32LE(offset, 24 * index + 16);
    head.writeUInt32LE(bytes.length, 24 * index + 20);
    offset += bytes.length;
  });
  return Buffer.concat([head, ...parts.map(([, bytes]) => bytes)]);
}

async function answerTo(reportData: Uint8Array): Promise<Uint8Array> {
  REQUESTS.push(reportData);
  const report = await amd.signReport({ reportData, measurement: predicted });
  const table = certificateTable();
  const answer = Buffer.alloc(ANSWER_BYTES);
  answer.writeUInt32LE(report.length, 0);
  answer.writeUInt32LE(table.length, 4);
  answer.set(report, 8);
  answer.set(table, 8 + report.length);
  return answer;
}

beforeAll(async () => {
  if (!ready) return;
  folder = mkdtempSync(join(tmpdir(), 'assay-tsm-'));
  const lock = readLock(join(TOP, 'image/inputs.lock.json'));
  const inputs = openInputs(inputsFolder, () => findMirrors(process.env));
  emulator = await openEmulator(lock, inputs, join(TOP, '.cache/emulator'));
  const sources = await lockedSources(inputsFolder);
  const module = await buildTestModule(lock, inputs, join(TOP, '.cache/test-module'), sources.kernelRelease);
  await buildImage({
    out: folder,
    sources,
    toml: TOML,
    models: [gguf],
    hooks: { lockdown: '', 'test-start': RELAY },
    extraModules: new Map([['fake_tsm', module]]),
  });
  // The module is not signed by Debian, so this guest runs without the two parameters that would refuse
  // it. It measures otherwise.
  cmdline = readFileSync(join(folder, 'cmdline'), 'utf8').replace(
    ' lockdown=confidentiality module.sig_enforce=1',
    '',
  );
  const launch = { vmm: 'qemu', vcpuType: 'EPYC-v4', vcpus: 2, guestFeatures: 1n } as const;
  const kernel = {
    kernel: readFileSync(join(folder, 'vmlinuz')),
    initrd: readFileSync(join(folder, 'initrd.cpio')),
    cmdline,
  };
  predicted = measureSnpLaunch({
    ...launch,
    firmware: readFileSync(join(folder, 'OVMF.snp.fd')),
    kernel,
  }).measurement;
  amd = await createSimulatedAmd({ product: 'Genoa', rsaBits: 4096 });
  processor = createServer((socket) => {
    let held = Buffer.alloc(0);
    socket.on('error', () => undefined);
    socket.on('data', (chunk: Buffer) => {
      held = Buffer.concat([held, chunk]);
      if (held.length < 64) return;
      const reportData = new Uint8Array(held.subarray(0, 64));
      held = held.subarray(64);
      void answerTo(reportData).then((answer) => socket.write(answer));
    });
  });
  await new Promise<void>((resolve) => processor.listen(join(folder, 'psp'), resolve));
  const [model] = parseManifest(readFileSync(join(folder, 'manifest.json'), 'utf8')).models;
  guest = await startGuest({
    emulator,
    folder,
    cmdline,
    disks: [
      ...standardDisks(folder),
      { file: join(folder, 'model-demo-chat.img'), serial: modelSerial(model!.rootHash) },
    ],
    extra: [
      '-device',
      'virtio-serial-pci',
      '-chardev',
      `socket,id=psp,path=${join(folder, 'psp')}`,
      '-device',
      'virtserialport,chardev=psp,name=psp,nr=1',
    ],
  });
  await guest.line(/"msg":"listening"/);
}, 600_000);
afterAll(async () => {
  await guest?.stop();
  processor?.close();
  if (folder !== '') rmSync(folder, { recursive: true, force: true });
});

interface Answer {
  readonly document: Record<string, unknown>;
  readonly nonce: Uint8Array;
  readonly exporter: Uint8Array;
  readonly peerSpki: Uint8Array;
}

/** Asks for evidence on a TLS connection and keeps what binds the evidence to it. */
function attestation(port: number): Promise<Answer> {
  const nonce = new Uint8Array(randomBytes(32));
  return new Promise((resolve, reject) => {
    const socket = connect(
      {
        host: '127.0.0.1',
        port,
        rejectUnauthorized: false,
        minVersion: 'TLSv1.3',
        ALPNProtocols: ['http/1.1'],
      },
      () => {
        const exporter = new Uint8Array(socket.exportKeyingMaterial(32, EXPORTER_LABEL, Buffer.from(nonce)));
        const spki = socket.getPeerX509Certificate()!.publicKey.export({ type: 'spki', format: 'der' });
        const peerSpki = new Uint8Array(spki);
        let text = '';
        socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
        socket.on('end', () =>
          resolve({
            document: JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) as Record<string, unknown>,
            nonce,
            exporter,
            peerSpki,
          }),
        );
        socket.write(
          `GET /v1/attestation?nonce=${toHex(nonce)} HTTP/1.1\r\nhost: guest\r\nconnection: close\r\n\r\n`,
        );
      },
    );
    socket.on('error', reject);
  });
}

describe.skipIf(!ready)('configfs-tsm of a real kernel', () => {
  test(
    'the evidence of this very connection verifies, with the measurement predicted for the launch',
    { timeout: 400_000 },
    async () => {
      const { document, ...binding } = await attestation(guest!.port);
      expect(document['tee_type']).toBe('sev-snp');
      expect(document['measurement']).toBe(toHex(predicted));
      // The verifier takes other roots for evidence that calls itself simulated only; the label is
      // not part of what is signed.
      const relabelled = parseDocument(JSON.stringify({ ...document, tee_type: 'simulated' }));
      const root = createHash('sha256').update(amd.ark).digest('hex');
      const policy = {
        measurements: [{ name: 'predicted', measurement: toHex(predicted) }],
        models: {
          'demo-chat': parseManifest(readFileSync(join(folder, 'manifest.json'), 'utf8')).models[0]!.sha256,
        },
        [allowSimulated]: { root },
      };
      const options = { ...binding, now: Date.now(), policy, tls: { version: 'TLSv1.3', resumed: false } };
      const result = await verify(relabelled, options);
      expect(result.measurement).toBe(toHex(predicted));
      expect(result.transcript.filter((check) => check.status === 'fail')).toEqual([]);
      // Another machine's prediction, or another connection's exporter, is refused.
      const other = { ...policy, measurements: [{ name: 'other', measurement: '00'.repeat(48) }] };
      await expect(verify(relabelled, { ...options, policy: other })).rejects.toThrow(AttestationError);
      await expect(verify(relabelled, { ...options, exporter: new Uint8Array(32) })).rejects.toThrow(
        AttestationError,
      );
    },
  );

  test(
    'the real client refuses this guest, because its root is not the vendor’s',
    { timeout: 400_000 },
    async () => {
      const policy = {
        measurements: [{ name: 'predicted', measurement: toHex(predicted) }],
        models: { 'demo-chat': '00'.repeat(32) },
      };
      const client = attestedFetch({ policy, connectTimeoutMs: 60_000, attestTimeoutMs: 60_000 });
      const refusal = await client.verify(`https://127.0.0.1:${guest!.port}`).then(
        () => undefined,
        (error: unknown) => error,
      );
      expect(refusal).toBeInstanceOf(AttestationError);
      expect(
        (refusal as AttestationError).transcript
          .filter((check) => check.status === 'fail')
          .map((check) => check.code),
      ).toContain('snp_chain');
      await client.close();
    },
  );

  test('requests in parallel each get the report they asked for', { timeout: 400_000 }, async () => {
    const before = REQUESTS.length;
    const answers = await Promise.all(Array.from({ length: 6 }, () => attestation(guest!.port)));
    for (const { document } of answers)
      expect(REQUESTS.some((data) => toHex(data) === document['report_data'])).toBe(true);
    expect(REQUESTS.length).toBeGreaterThan(before);
  });
});

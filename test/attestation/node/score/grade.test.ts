// Every factor of `assay-verify score`, failing for what it is about against a server that misbehaves, and
// passing where that is right.

import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../../attestation/encoding/bytes.ts';
import { FACTORS, type FactorId } from '../../../../attestation/node/score/factors.ts';
import { attestedModel } from '../../../../attestation/protocol/model.ts';
import {
  MEASUREMENT,
  type Misbehaviour,
  MODEL_ID,
  MODEL_SHA256,
  send,
  simulatedAmd,
  startAttestedServer,
} from '../../../fixtures/attestation/attested-server.ts';
import { cli, type Circumstances } from '../../../fixtures/attestation/cli.ts';
import {
  EXEMPLARY,
  fullPolicy,
  type Score,
  scored,
  type Scored,
} from '../../../fixtures/attestation/scored.ts';

const OTHER = new Uint8Array(32).fill(9);
function releases(measurement: string): string {
  return JSON.stringify({
    version: 1,
    releases: {
      '0.1.0': {
        snp: [{ vcpuType: 'EPYC-v4', guestFeatures: '0x1', digests: [measurement] }],
        tdx: Object.fromEntries(
          ['mrTdSinglePass', 'mrTdTwoPass', 'rtmr1', 'rtmr2'].map((key) => [key, '5a'.repeat(48)]),
        ),
      },
    },
  });
}

interface Case {
  readonly how?: Misbehaviour;
  readonly with?: Circumstances & { readonly args?: readonly string[] };
  /** Where the failure was seen. */
  readonly at: string;
}

function withPolicy(more: object): Circumstances {
  return { files: { 'p.json': fullPolicy(more) } };
}

/** The fault that makes each factor fail over the wire. */
const FAILING: Readonly<Record<Exclude<FactorId, 'no-rollback' | 'plain-http-refused'>, Case>> = {
  'genuine-hardware': { at: 'P2' },
  'report-signed': { how: { report: { damage: (report) => flip(report, 0x2a0) } }, at: 'S1' },
  'vendor-root': { with: { args: ['--policy', 'p.json', `--allow-simulated=${'0'.repeat(64)}`] }, at: 'S11' },
  'endorsements-current': { with: { now: Date.parse('2040-01-01T00:00:00Z') }, at: 'S13' },
  'not-revoked': {
    how: { document: (document) => withCrl(document, (crl) => flip(crl, crl.length - 1)) },
    at: 'S19',
  },
  'tcb-consistent': { how: { report: { launchTcb: new Uint8Array(8).fill(0xff) } }, at: 'S24' },
  'tcb-current': { with: withPolicy({ minimumTcb: { Genoa: { snp: 200 } } }), at: 'S25' },
  'debug-off': { how: { report: { guestPolicy: 0xb0000n } }, at: 'S21' },
  'no-migration': { how: { report: { reportIdMa: OTHER } }, at: 'S30' },
  'platform-protected': { how: { report: { vmpl: 2 } }, at: 'S23' },
  'cpu-registry': { with: withPolicy({ chips: ['11'.repeat(64)] }), at: 'P7' },
  'gpu-chain': { how: { claims: (claims) => ({ ...claims, gpu: OTHER }) }, at: 'D14' },
  'claims-signed': { how: { reportData: (bytes) => flip(new Uint8Array(bytes), 0) }, at: 'D4' },
  'software-named': { how: { report: { measurement: new Uint8Array(48).fill(7) } }, at: 'P4' },
  'software-released': {
    with: {
      files: { 'p.json': fullPolicy(), 'r.json': releases('77'.repeat(48)) },
      args: ['--policy', 'p.json', '--reference-values', 'r.json', '--allow-simulated'],
    },
    at: 'P4',
  },
  'configuration-named': { with: withPolicy({ configs: ['ab'.repeat(32)] }), at: 'P8' },
  'no-egress': { how: { report: { measurement: new Uint8Array(48).fill(7) } }, at: 'P4' },
  'model-measured': {
    how: { claims: (claims) => ({ ...claims, model: { ...claims.model, sha256: OTHER } }) },
    at: 'D6',
  },
  'model-named': { with: withPolicy({ models: { [MODEL_ID]: 'ab'.repeat(32) } }), at: 'P6' },
  'weights-pinned': {
    how: {
      models: [
        attestedModel(MODEL_ID, [
          { role: 'weights', sha256: fromHex(MODEL_SHA256), size: 12 },
          { role: 'residency', sha256: OTHER, size: 4 },
        ]),
      ],
    },
    at: 'D6',
  },
  'evidence-fresh': { how: { claims: (claims) => ({ ...claims, nonce: OTHER }) }, at: 'C1' },
  'nonce-honoured': { how: replaying(), at: 'C1, second connection' },
  'tls-key-attested': { how: { claims: (claims) => ({ ...claims, tlsSpki: OTHER }) }, at: 'C2' },
  'connection-bound': { how: { claims: (claims) => ({ ...claims, exporter: OTHER }) }, at: 'C3' },
  'no-resumption': {
    how: { tls: {}, attestation: async ({ socket }, json) => send(socket, 200, await json()) },
    at: 'connections',
  },
  'tls-1-3-only': { how: { tls: { ...EXEMPLARY.tls, minVersion: 'TLSv1.2' } }, at: 'connections' },
  'one-service': { how: { claims: alternating('config') }, at: 'claims' },
  'receipt-key': {
    how: { claims: (claims) => ({ ...claims, receiptKey: new Uint8Array(32) }) },
    at: 'claims',
  },
  'receipts-offered': {
    how: { respond: (_, { socket }) => send(socket, 404, '{"error":{"code":"unknown_url"}}') },
    at: 'connections',
  },
  'sealed-key': { how: { claims: (claims) => ({ ...claims, hpkeKey: new Uint8Array(32) }) }, at: 'claims' },
  'sealed-offered': { how: { claims: (claims) => claims }, at: 'connections' },
  'sizes-padded': { with: withPolicy({ configs: ['ab'.repeat(32)] }), at: 'P8' },
};

function flip(bytes: Uint8Array, at: number): Uint8Array {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
}

function withCrl(
  document: { readonly [key: string]: unknown },
  change: (crl: Uint8Array) => Uint8Array,
): unknown {
  const endorsements = document['endorsements'] as { readonly crl: string };
  const crl = change(new Uint8Array(Buffer.from(endorsements.crl, 'base64')));
  return { ...document, endorsements: { ...endorsements, crl: Buffer.from(crl).toString('base64') } };
}

/** Every answer is the first one. */
function replaying(): Misbehaviour {
  let kept: Promise<string> | undefined;
  return { attestation: async ({ socket }, json) => send(socket, 200, await (kept ??= json())) };
}

/** Another value on every connection. */
function alternating(field: 'config' | 'receiptKey'): NonNullable<Misbehaviour['claims']> {
  const seen: unknown[] = [];
  return (claims, context) => {
    if (!seen.includes(context.connection)) seen.push(context.connection);
    const value = new Uint8Array(32).fill(seen.indexOf(context.connection) + 1);
    return { ...(EXEMPLARY.claims?.(claims, context) ?? claims), [field]: value };
  };
}

describe('a server with nothing against it but that it is simulated', () => {
  let exemplary: Scored;
  beforeAll(async () => {
    const { chipId } = await simulatedAmd();
    const cache = await mkdtemp(join(tmpdir(), 'assay-score-'));
    exemplary = await scored(
      {},
      {
        files: { 'p.json': fullPolicy({ chips: [toHex(chipId)] }), 'r.json': releases(MEASUREMENT) },
        args: ['--policy', 'p.json', '--reference-values', 'r.json', '--allow-simulated', '--cache', cache],
      },
    );
    await rm(cache, { recursive: true });
  });

  test('passes all that can be passed, and exits 10 for what it is not', () => {
    const { score, code, err } = exemplary;
    expect([code, err]).toEqual([10, '']);
    const of = (grade: string): string[] =>
      score.factors.filter((factor) => factor.grade === grade).map(({ id }) => id);
    expect(of('fail')).toEqual(['genuine-hardware']);
    expect(of('not applicable')).toEqual(['gpu-chain', 'no-egress', 'receipts-offered', 'sizes-padded']);
    expect(of('pass')).toHaveLength(FACTORS.length - 5);
    expect(score).toMatchObject({ graded: true, accepted: true, code: null, policy: true, simulated: true });
  });

  test('every pass that rests on the report is marked as simulated, and no other', () => {
    const unmarked = exemplary.score.factors.filter(({ grade, simulated }) => grade === 'pass' && !simulated);
    expect(unmarked.map(({ id }) => id)).toEqual(['no-resumption', 'tls-1-3-only', 'plain-http-refused']);
  });

  test('every grade says where it was seen', () => {
    for (const { id, evidence } of exemplary.score.factors) {
      expect(evidence.length, id).toBeGreaterThan(0);
      for (const { at, found } of evidence) expect([at, found], id).not.toContain('');
    }
  });

  test.each(Object.entries(FAILING))('%s fails', async (id, { how, with: circumstances, at }) => {
    const { of, code, score } = await scored(how, circumstances);
    const { grade, evidence } = of(id as FactorId);
    expect([grade, evidence.map((each) => each.at)], JSON.stringify(evidence)).toEqual([
      'fail',
      expect.arrayContaining([at]),
    ]);
    expect(code).toBe(10);
    expect(score.counts['fail']).toBeGreaterThan(0);
  });
});

test('no-rollback fails: the numbers seen before are higher', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'assay-score-'));
  const args = ['--policy', 'p.json', '--allow-simulated', '--cache', folder];
  expect((await scored({}, { args })).of('no-rollback').grade).toBe('pass');
  const seen = join(folder, 'seen.json');
  const numbers = JSON.parse(await readFile(seen, 'utf8')) as Record<string, string>;
  const higher = Object.fromEntries(Object.entries(numbers).map(([key, value]) => [key, `${value}0`]));
  await writeFile(seen, JSON.stringify(higher));
  expect((await scored({}, { args })).of('no-rollback')).toMatchObject({
    grade: 'fail',
    evidence: [{ at: 'S20' }],
  });
  await rm(folder, { recursive: true });
});

test('plain-http-refused fails: one port serves both', async () => {
  const secure = await startAttestedServer(EXEMPLARY);
  const both = createServer((socket: Socket) => {
    socket.on('error', () => {});
    socket.once('data', (first: Buffer) => {
      if (first[0] !== 0x16) {
        socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}');
        return;
      }
      const inner = connect(secure.port, '127.0.0.1', () => inner.write(first));
      inner.on('error', () => socket.destroy());
      socket.pipe(inner).pipe(socket);
    });
  });
  await new Promise<void>((resolve) => {
    both.listen(0, '127.0.0.1', resolve);
  });
  const { port } = both.address() as AddressInfo;
  const { out } = await cli(['score', `https://127.0.0.1:${port}`, '--json', '--allow-simulated']);
  const factor = (JSON.parse(out) as Score).factors.find(({ id }) => id === 'plain-http-refused');
  expect(factor).toMatchObject({
    grade: 'fail',
    evidence: [{ at: 'connections', found: 'plain http was answered with 200' }],
  });
  both.close();
  await secure.close();
});

test.each<[FactorId, Misbehaviour]>([
  ['receipt-key', { claims: alternating('receiptKey') }],
  // u = 1, of order 4 (RFC 7748 §6.1).
  ['sealed-key', { claims: (claims) => ({ ...claims, hpkeKey: Uint8Array.of(1, ...new Uint8Array(31)) }) }],
  ['sealed-offered', { claims: (claims, { query }) => (query.has('channel') ? { ...claims, exporter: undefined, nonce: OTHER } : claims) }], // prettier-ignore
  ['receipts-offered', { respond: (_, { socket }) => send(socket, 200, 'receipts? of course!') }],
  ['receipts-offered', { respond: (_, { socket }) => send(socket, 500, '{"error":{"code":"no"}}') }],
  ['receipts-offered', { respond: (_, { socket }) => send(socket, 404, '{"error":{"code":"not_found"}}') }],
  [
    'receipts-offered',
    { respond: (_, { socket }) => send(socket, 200, '{"error":{"code":"no_such_receipt"}}') },
  ],
  ['receipts-offered', { respond: (_, { socket }) => send(socket, 401, 'go away') }],
  ['receipts-offered', { respond: (_, { socket }) => void socket.destroy() }],
])('%s fails for this, too', async (id, how) => {
  expect((await scored(how)).of(id).grade).toBe('fail');
});

test('receipts-offered is open where only a caller with an API key is told', async () => {
  const respond: Misbehaviour['respond'] = (_, { socket }) =>
    send(socket, 401, '{"error":{"code":"missing_api_key"}}');
  const { grade, evidence } = (await scored({ respond })).of('receipts-offered');
  expect([grade, evidence[0]?.found]).toEqual(['not applicable', expect.stringContaining('API key')]);
});

test('a guest policy that is refused for another bit is no debug guest’s', async () => {
  const { of } = await scored({ report: { guestPolicy: 0x30000n | (1n << 18n) } });
  expect([of('debug-off').grade, of('platform-protected').grade]).toEqual(['pass', 'fail']);
});

test('a second connection without evidence fails what only two can show', async () => {
  let connections = 0;
  const { of } = await scored({
    attestation: async ({ socket }, json) => {
      if (++connections !== 3) send(socket, 200, await json());
      else send(socket, 503, '{"error":{"code":"attestation_failed"}}');
    },
  });
  const failed = ['nonce-honoured', 'tls-key-attested', 'connection-bound', 'one-service'] as const;
  for (const id of failed) expect([id, of(id).grade]).toEqual([id, 'fail']);
  expect(of('report-signed').grade).toBe('pass');
});

test('without a policy: what needs one says so, and the rest is graded', async () => {
  const { score, of } = await scored({}, { args: ['--allow-simulated'] });
  expect(score).toMatchObject({ accepted: false, policy: false });
  for (const id of ['software-named', 'model-named', 'no-egress'] as const)
    expect(of(id)).toMatchObject({ grade: 'not applicable', evidence: [{ at: 'policy' }] });
  expect(of('connection-bound').grade).toBe('pass');
  expect(of('sealed-offered').grade).toBe('not applicable');
});

test('canary: GET alone, no body, no credentials, nothing asked of who is not accepted', async () => {
  for (const args of [['--policy', 'p.json', '--allow-simulated'], ['--policy', 'p.json'], []]) {
    const { server } = await scored({}, { args });
    const requests = server.connections.flatMap((connection) => connection.requests);
    expect(requests.length).toBeGreaterThan(2);
    const paths = args.includes('--allow-simulated')
      ? /^\/v1\/(attestation\?|receipts\/)/
      : /^\/v1\/attestation\?/;
    for (const { method, path, body, headers } of requests) {
      expect([method, path, body]).toEqual(['GET', expect.stringMatching(paths), '']);
      expect([...headers.keys()].toSorted()).toEqual([
        'accept',
        'accept-encoding',
        'connection',
        'host',
        'user-agent',
      ]);
    }
  }
});

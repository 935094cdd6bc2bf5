// The core in a browser: bundled as it is published, free of Node, small, and with the same transcripts as Node on the real
// SEV-SNP and TDX evidence, in headless Chromium. Skipped, loudly, where Chromium or the recorded evidence is not installed.

import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build, type BuildOptions, type Metafile } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { toBase64 } from '../../attestation/encoding/bytes.ts';
import { runEvidence, type EvidenceResult } from '../../attestation/appraise/evidence-contract.ts';
import { createSimulatedIntel } from '../../attestation/simulated/intel.ts';
import type { TdxCollateral } from '../../attestation/tdx/collateral.ts';
import { parsePem } from '../../attestation/x509/pem.ts';
import { haveVectors, vectorPath } from '../fixtures/shared.ts';
import {
  collateral2025,
  collateral2026,
  readVector,
  readYamlCollateral,
  splitCollateral,
} from '../fixtures/attestation/tdx-vectors.ts';

const CHROMIUM = process.env['ASSAY_CHROMIUM'] ?? '/usr/bin/chromium';
/** What these tests use of playwright-core, which is installed where Chromium is (`make optional` with CI=true). */
interface Page {
  on(event: 'pageerror', listener: (error: Error) => void): void;
  goto(url: string): Promise<unknown>;
  evaluate<T, A>(run: (argument: A) => T | Promise<T>, argument?: A): Promise<T>;
}

interface BrowserContext {
  pages(): readonly Page[];
  newPage(): Promise<Page>;
  close(): Promise<void>;
}

interface Playwright {
  readonly chromium: {
    launchPersistentContext(
      folder: string,
      options: Readonly<Record<string, unknown>>,
    ): Promise<BrowserContext>;
  };
}

const driver = fileURLToPath(new URL('../browser/node_modules/playwright-core', import.meta.url));
const haveChromium = existsSync(CHROMIUM) && existsSync(driver);
if (!haveChromium)
  console.warn(
    `\n! ${existsSync(CHROMIUM) ? driver : CHROMIUM} is not here: the core is bundled and measured, but not run in a browser\n`,
  );

const entry = fileURLToPath(new URL('../../attestation/index.ts', import.meta.url));
/** Imported when asked for: the hints of a refusal. */
const ON_DEMAND = ['./hints.ts'];
/** A page that splits loads this much before it can verify. */
const GOAL_GZIP_BYTES = 60_000;
/** All of it in one file, for a page that does not split. */
const ONE_FILE_GZIP_BYTES = 62_000;

/** As an application would bundle it for browsers: Node's modules are an error, nothing is filled in. */
async function bundle(
  options: BuildOptions,
): Promise<{ readonly text: string; readonly bytes: Uint8Array; readonly meta: Metafile }> {
  const result = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    metafile: true,
    platform: 'browser',
    target: 'es2023',
    logLevel: 'silent',
    ...options,
  });
  const [file] = result.outputFiles ?? [];
  if (file === undefined || result.metafile === undefined) throw new Error('esbuild wrote nothing');
  return { text: file.text, bytes: file.contents, meta: result.metafile };
}

describe('the browser bundle', () => {
  test('pulls in nothing of Node, neither by import nor by global', async () => {
    const { text, meta } = await bundle({ format: 'esm', minify: true });
    expect(
      Object.keys(meta.inputs).filter(
        (input) =>
          /(^|\/)(node|simulated|src)\/|^node:|browser-external/.test(input) &&
          input.startsWith('attestation/'),
      ),
    ).toEqual([]);
    expect(
      Object.values(meta.inputs).flatMap(({ imports }) =>
        imports.filter(({ external, path }) => external === true || path.startsWith('node:')),
      ),
    ).toEqual([]);
    expect(text).not.toMatch(/["'`]node:/);
    // What is ours, alone: cbor-x looks whether there is a Buffer, and does without.
    const own = await bundle({ format: 'esm', external: ['cbor-x', 'cbor-x/*', '@noble/*'] });
    const uses = [
      ...own.text.matchAll(/(?<![.\w$"'])(?:Buffer|process|require|__dirname)\s*[.([][^\n]{0,40}/g),
    ].map(([use]) => use);
    expect(uses).toEqual([]);
    expect(meta.inputs).not.toHaveProperty(['node_modules/@peculiar/x509/build/x509.es.js']);
  });

  test('is within its size', async () => {
    const { bytes } = await bundle({ format: 'esm', minify: true });
    const zipped = gzipSync(bytes, { level: 9 }).length;
    const first = await bundle({ format: 'esm', minify: true, external: ON_DEMAND });
    const firstZipped = gzipSync(first.bytes, { level: 9 }).length;
    console.log(
      `browser bundle of the core: ${firstZipped} gzip before it verifies (goal ${GOAL_GZIP_BYTES}), ${bytes.length} bytes, ${zipped} gzip in one file`,
    );
    // What is left out is loaded by import() alone, and all of it is there to leave out.
    const left = Object.values(first.meta.outputs).flatMap(({ imports }) => imports);
    expect(left.map(({ path, kind }) => `${kind} ${path}`).toSorted()).toEqual(
      ON_DEMAND.map((path) => `dynamic-import ${path}`),
    );
    expect(firstZipped).toBeLessThanOrEqual(GOAL_GZIP_BYTES);
    expect(zipped).toBeLessThanOrEqual(ONE_FILE_GZIP_BYTES);
  });
});

/** Inputs of the hermetic contract, by name. */
function tdxInput(
  quote: Uint8Array,
  collateral: TdxCollateral,
  now: string,
  more: Readonly<Record<string, unknown>> = {},
): string {
  return JSON.stringify({
    tee: 'tdx',
    quote: toBase64(quote),
    collateral: {
      tcb_info: collateral.tcbInfo,
      tcb_info_issuer_chain: collateral.tcbInfoIssuerChain,
      qe_identity: collateral.qeIdentity,
      qe_identity_issuer_chain: collateral.qeIdentityIssuerChain,
      pck_crl: toBase64(collateral.pckCrl),
      root_ca_crl: toBase64(collateral.rootCaCrl),
      ...(collateral.pckCrlIssuerChain === undefined
        ? {}
        : { pck_crl_issuer_chain: collateral.pckCrlIssuerChain }),
    },
    now,
    ...more,
  });
}

function readSnp(path: string): Uint8Array {
  const bytes = new Uint8Array(readFileSync(vectorPath(path)));
  return path.endsWith('.pem') ? (parsePem(new TextDecoder().decode(bytes))[0] ?? bytes) : bytes;
}
function pem(der: Uint8Array): string {
  return `-----BEGIN CERTIFICATE-----\n${toBase64(der)}\n-----END CERTIFICATE-----\n`;
}

function snpInput(
  report: string,
  vek: string,
  product: string,
  intermediate: string,
  now: string,
  more: Readonly<Record<string, unknown>> = {},
): string {
  return JSON.stringify({
    tee: 'snp',
    report: toBase64(readSnp(`snp/${report}`)),
    vek: toBase64(readSnp(`snp/${vek}`)),
    chain: [
      pem(readSnp(`amd-roots/${product}_${intermediate}.der`)),
      pem(readSnp(`amd-roots/${product}_ark.der`)),
    ],
    now,
    ...more,
  });
}

/** What machines in the field run with. */
const FIELD = {
  policy: {
    requireCrl: false,
    guestPolicy: {
      allowSmt: true,
      requireSingleSocket: false,
      requireAes256Xts: false,
      requireRaplDisabled: false,
      requireCiphertextHiding: false,
      requirePageSwapDisabled: false,
    },
  },
};

const INPUTS: readonly (readonly [string, number, () => string])[] = [
  [
    'SNP Milan v2',
    0,
    () =>
      snpInput(
        'milan-v2/report_milan.bin',
        'milan-v2/vcek_milan.der',
        'milan',
        'ask',
        '2024-01-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Milan v2, strict',
    10,
    () =>
      snpInput(
        'milan-v2/report_milan.bin',
        'milan-v2/vcek_milan.der',
        'milan',
        'ask',
        '2024-01-01T00:00:00Z',
      ),
  ],
  [
    'SNP Milan v2 debug',
    10,
    () =>
      snpInput(
        'milan-v2-debug-policy/attestation.bin',
        'milan-v2-debug-policy/vcek.der',
        'milan',
        'ask',
        '2024-01-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Milan v3',
    0,
    () =>
      snpInput(
        'milan-v3/milan_attestation_report.bin',
        'milan-v3/milan_vcek.pem',
        'milan',
        'ask',
        '2026-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Milan v3 with VLEK',
    0,
    () =>
      snpInput(
        'milan-v3-vlek/test-vlek-report.bin',
        'milan-v3-vlek/test-vlek.der',
        'milan',
        'asvk',
        '2025-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Genoa v3',
    0,
    () =>
      snpInput(
        'genoa-v3/genoa_attestation_report.bin',
        'genoa-v3/genoa_vcek.pem',
        'genoa',
        'ask',
        '2026-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Genoa v5',
    0,
    () =>
      snpInput(
        'genoa-v5/live-report-v5-genoa.bin',
        'genoa-v5/live-vcek-genoa.der',
        'genoa',
        'ask',
        '2026-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Turin v5',
    0,
    () =>
      snpInput(
        'turin-v5/turin_attestation_report.bin',
        'turin-v5/turin_vcek.pem',
        'turin',
        'ask',
        '2026-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'SNP Turin v5, expired',
    10,
    () =>
      snpInput(
        'turin-v5/turin_attestation_report.bin',
        'turin-v5/turin_vcek.pem',
        'turin',
        'ask',
        '2034-06-01T00:00:00Z',
        FIELD,
      ),
  ],
  [
    'TDX v4',
    0,
    () =>
      tdxInput(
        readVector('v4-uptodate/tdx_quote'),
        splitCollateral('v4-uptodate/tdx_quote_collateral.json'),
        '2025-06-25T00:00:00Z',
      ),
  ],
  [
    'TDX v4, stale',
    10,
    () =>
      tdxInput(
        readVector('v4-uptodate/tdx_quote'),
        splitCollateral('v4-uptodate/tdx_quote_collateral.json'),
        '2025-07-25T00:00:00Z',
      ),
  ],
  [
    'TDX v4 of GCP',
    0,
    () =>
      tdxInput(
        readVector('v4-gcp-trailing-zeros/gcp-tdx-1782809233226668671'),
        readYamlCollateral('v4-gcp-trailing-zeros/gcp-tdx-collateral-1782809233226668671.yaml'),
        '2026-07-05T00:00:00Z',
      ),
  ],
  [
    'TDX v5, TD 1.5',
    0,
    () =>
      tdxInput(
        readVector('v5-td15/quote_v5_sample.dat'),
        collateral2026('90c06f000000'),
        '2026-03-25T00:00:00Z',
      ),
  ],
  [
    'TDX v5, no TCB level',
    10,
    () =>
      tdxInput(
        readVector('v5-no-tcb-level/tdx_quote_outdated'),
        splitCollateral('v5-no-tcb-level/tdx_quote_outdated_collateral.json'),
        '2026-02-25T00:00:00Z',
      ),
  ],
  [
    'TDX v4, platform out of date',
    10,
    () =>
      tdxInput(readVector('v4-platform-outofdate/quote_tdx.bin'), collateral2025(), '2025-07-15T00:00:00Z'),
  ],
  [
    'TDX v4 debug',
    10,
    () =>
      tdxInput(
        readVector('v4-debug-td/tdx_quote_4.dat'),
        collateral2026('50806f000000'),
        '2026-03-25T00:00:00Z',
      ),
  ],
  [
    'TDX v4 with event log',
    0,
    () =>
      tdxInput(readVector('ccel-cos/cos-113-tdx-quote.dat'), collateral2025(), '2025-07-15T00:00:00Z', {
        event_log: toBase64(readVector('ccel-cos/ccel_data.dat')),
      }),
  ],
  [
    'TDX v4 live',
    10,
    () =>
      tdxInput(
        readVector('ccel-live/tdx_quote_live.dat'),
        splitCollateral('v4-uptodate/tdx_quote_collateral.json'),
        '2026-04-01T00:00:00Z',
        { event_log: toBase64(readVector('ccel-live/tdx_ccel_live2.dat')) },
      ),
  ],
  ['unknown TEE', 20, () => JSON.stringify({ tee: 'sgx', now: '2026-01-01T00:00:00Z' })],
  ['rubbish', 30, () => 'rubbish'],
];

describe.skipIf(!haveChromium)('in headless Chromium', () => {
  let context: BrowserContext;
  let page: Page;
  let server: Server;
  let profile: string;
  const complaints: string[] = [];

  beforeAll(async () => {
    const { text } = await bundle({ format: 'iife', globalName: 'assay', minify: true });
    server = createServer((request, response) => {
      const script = request.url === '/core.js';
      response.writeHead(200, {
        'content-type': script ? 'text/javascript' : 'text/html',
        'content-security-policy': "default-src 'none'; script-src 'self'",
      });
      response.end(
        script ? text : '<!doctype html><link rel="icon" href="data:,"><script src="/core.js"></script>',
      );
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    profile = await mkdtemp(join(tmpdir(), 'assay-chromium-'));
    const { chromium } = createRequire(import.meta.url)(driver) as Playwright;
    context = await chromium.launchPersistentContext(profile, {
      executablePath: CHROMIUM,
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
      ],
    });
    page = context.pages()[0] ?? (await context.newPage());
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  });

  afterAll(async () => {
    await context.close();
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true });
  });

  const runThere = (input: string): Promise<EvidenceResult> =>
    page.evaluate(
      async (text) =>
        (globalThis as unknown as { assay: { runEvidence: typeof runEvidence } }).assay.runEvidence(text),
      input,
    );

  test('there is no Buffer and no process to lean on, and nothing complains', async () => {
    expect(
      await page.evaluate(() => ['Buffer', 'process', 'require'].filter((name) => name in globalThis)),
    ).toEqual([]);
    expect(complaints).toEqual([]);
  });

  test('simulated TDX evidence is verified', async () => {
    const now = new Date('2026-06-15T12:00:00Z');
    const intel = await createSimulatedIntel({ now });
    const { quote, collateral } = await intel.evidence({ version: 5 });
    const input = tdxInput(quote, collateral, '2026-06-15T12:00:00Z', { roots: [pem(intel.root)] });
    const there = await runThere(input);
    expect(there).toEqual(await runEvidence(input));
    expect(there.exitCode).toBe(0);
  });

  describe.skipIf(!haveVectors)('real evidence has the same transcript as in Node', () => {
    test.each(INPUTS)('%s (exit %i)', async (_name, exitCode, make) => {
      const input = make();
      const here = await runEvidence(input);
      expect(here.exitCode).toBe(exitCode);
      expect(await runThere(input)).toEqual(JSON.parse(JSON.stringify(here)));
    });
  });
});

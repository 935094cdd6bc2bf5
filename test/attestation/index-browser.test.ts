// The core in a browser: bundled as it is published, free of Node, small, and with the same transcripts as
// Node on the real SEV-SNP and TDX evidence, in headless Chromium. Skipped, loudly, where Chromium or the
// recorded evidence is not installed.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build, type BuildOptions, type Metafile } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runEvidence, type EvidenceResult } from '../../attestation/appraise/evidence-contract.ts';
import { createSimulatedIntel } from '../../attestation/simulated/intel.ts';
import { type Browser, haveBrowser, launchChromium, type Page } from '../fixtures/console/chromium.ts';
import { haveVectors } from '../fixtures/shared.ts';
import { tdxInput, pem, INPUTS } from '../fixtures/attestation/evidence-inputs.ts';

const entry = fileURLToPath(new URL('../../attestation/index.ts', import.meta.url));
/** Imported when asked for: the hints of a refusal. */
const ON_DEMAND = ['./hints.ts'];
/** A page that splits loads this much before it can verify. */
const GOAL_GZIP_BYTES = 62_000;
/** All of it in one file, for a page that does not split. */
const ONE_FILE_GZIP_BYTES = 65_000;

/** As an application would bundle it for browsers: Node's modules are an error and get no substitutes. */
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
    // Our modules alone: cbor-x looks whether there is a Buffer, and does without.
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
    // The modules left out are loaded by import() alone, and each of them exists.
    const left = Object.values(first.meta.outputs).flatMap(({ imports }) => imports);
    expect(left.map(({ path, kind }) => `${kind} ${path}`).toSorted()).toEqual(
      ON_DEMAND.map((path) => `dynamic-import ${path}`),
    );
    expect(firstZipped).toBeLessThanOrEqual(GOAL_GZIP_BYTES);
    expect(zipped).toBeLessThanOrEqual(ONE_FILE_GZIP_BYTES);
  });
});

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  let page: Page;
  let server: Server;
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
    browser = await launchChromium();
    page = await (await browser.newContext()).newPage();
    page.on('pageerror', (error) => complaints.push(error.message));
    await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  });

  afterAll(async () => {
    await browser.close();
    server.closeAllConnections();
    server.close();
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

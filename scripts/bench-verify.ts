// `make bench-verify`: what verifying one SNP and one TDX evidence costs, beside the bare signature checks it
// has to make. The floor is not estimated: the very crypto.subtle.verify calls of one verification are
// recorded and replayed, keys imported, at once (as the verifier makes them) and one after another. Cold is a
// new process, from import to verdict. Prints a table and has no assertions. Evidence comes from the
// simulated hierarchies (RSA-4096, as AMD's), certificates and CRLs included.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import {
  type AttestationDocument,
  createKeyCache,
  parsePolicy,
  runEvidence,
  toBase64,
  verifySnp,
  verifyTdx,
  type KeyCache,
  type SnpEvidence,
  type TdxEvidence,
} from '@assay/attestation';
import {
  createSimulatedAmd,
  createSimulatedIntel,
  createSimulatedTpm,
  encodeHclReport,
  encodePem,
  encodeRuntime,
  runtimeReportData,
  type SimulatedAmd,
  type SimulatedAmdKeys,
} from '@assay/attestation/simulated';
import { createVtpm, encodePlatform } from '@assay/attestation/vtpm';

function at(path: string): string {
  return fileURLToPath(new URL(`../${path}`, import.meta.url));
}
const NOW = new Date('2026-06-01T12:00:00Z');
const WARM_ROUNDS = 400;
const COLD_PROCESSES = 9;

interface Subject {
  readonly name: string;
  readonly run: (keys: KeyCache) => Promise<{ readonly accepted: boolean }>;
  /** The same evidence for `runEvidence` in a new process; absent: judged warm alone. */
  readonly json?: string | undefined;
}

/** A document of an Azure VM: SNP report, runtime JSON, quote, PCRs and the certificate of its key. */
async function azure(amd: SimulatedAmd): Promise<Subject> {
  const tpm = await createSimulatedTpm({ now: NOW });
  const json = encodeRuntime({ modulus: tpm.modulus });
  const report = await amd.signReport({ reportData: runtimeReportData(json) });
  const reportData = new Uint8Array(64).fill(7);
  const pcrs = Array.from({ length: 24 }, () => new Uint8Array(32));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', reportData));
  const quoted = await tpm.quote({ extraData: digest, pcrs });
  const hclReport = encodeHclReport({ kind: 'snp', hwReport: report, json });
  const ak = { akCertificate: tpm.certificate, akChain: tpm.chain };
  const endorsements = { vek: amd.vek, chain: [amd.ask, amd.ark], crl: amd.crl };
  const document: AttestationDocument = {
    version: '1',
    teeType: 'azure-sev-snp',
    report,
    reportData,
    measurement: new Uint8Array(48),
    timestamp: '2026-06-01T12:00:00Z',
    claims: new Uint8Array(),
    inclusion: { index: 0, size: 1, path: [] },
    models: [],
    platform: encodePlatform({ hclReport, ...quoted, pcrs, ...ak }),
  };
  const policy = parsePolicy({ measurements: ['00'.repeat(48)], models: { none: '00'.repeat(32) } });
  const verifier = createVtpm({ roots: [amd.ark, tpm.root] });
  return {
    name: 'Azure SNP document',
    run: (keys) => verifier.verify(document, endorsements, policy, { now: NOW, keys }),
  };
}

async function subjects(): Promise<readonly Subject[]> {
  const cache = at('.cache/simulated/amd-4096.json');
  const saved = existsSync(cache) ? (JSON.parse(readFileSync(cache, 'utf8')) as SimulatedAmdKeys) : undefined;
  const amd = await createSimulatedAmd({
    product: 'Genoa',
    now: NOW,
    keys: saved,
  });
  if (saved === undefined) {
    mkdirSync(at('.cache/simulated'), { recursive: true });
    writeFileSync(cache, JSON.stringify(await amd.exportKeys()));
  }
  const snp: SnpEvidence = {
    report: await amd.signReport(),
    vek: amd.vek,
    chain: [amd.ask, amd.ark],
    crl: amd.crl,
  };
  const intel = await createSimulatedIntel({ now: NOW });
  const tdx: TdxEvidence = await intel.evidence();
  const { collateral } = tdx;
  return [
    {
      name: 'SNP',
      run: (keys) => verifySnp(snp, {}, { now: NOW, roots: [amd.ark], keys }),
      json: JSON.stringify({
        tee: 'snp',
        report: toBase64(snp.report),
        vek: toBase64(snp.vek),
        chain: snp.chain.map((der) => encodePem(der)),
        crl: toBase64(amd.crl),
        roots: [encodePem(amd.ark)],
        now: NOW.toISOString(),
        policy: {},
      }),
    },
    {
      name: 'TDX',
      run: (keys) => verifyTdx(tdx, {}, { now: NOW, roots: [intel.root], keys }),
      json: JSON.stringify({
        tee: 'tdx',
        quote: toBase64(tdx.quote),
        collateral: {
          tcb_info: collateral.tcbInfo,
          tcb_info_issuer_chain: collateral.tcbInfoIssuerChain,
          qe_identity: collateral.qeIdentity,
          qe_identity_issuer_chain: collateral.qeIdentityIssuerChain,
          pck_crl: toBase64(collateral.pckCrl),
          root_ca_crl: toBase64(collateral.rootCaCrl),
        },
        roots: [encodePem(intel.root)],
        now: NOW.toISOString(),
        policy: {},
      }),
    },
    await azure(amd),
  ];
}

type Replay = () => Promise<boolean>;

/** The verify calls of one verification, ready to be made again. */
async function recordCalls(run: () => Promise<unknown>): Promise<readonly Replay[]> {
  const { subtle } = globalThis.crypto;
  const original = subtle.verify.bind(subtle);
  const calls: Replay[] = [];
  subtle.verify = (algorithm, key, signature, data) => {
    const call: Replay = () => original(algorithm, key, signature, data);
    calls.push(call);
    return call();
  };
  try {
    await run();
  } finally {
    subtle.verify = original;
  }
  return calls;
}

/**
 * Median milliseconds; rounds of all candidates alternate, so that a busy machine is busy for each of them.
 */
async function medians(
  candidates: readonly (() => Promise<unknown>)[],
  rounds: number,
): Promise<readonly number[]> {
  const times: number[][] = candidates.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, run] of candidates.entries()) {
      const start = performance.now();
      await run();
      times[i]?.push(performance.now() - start);
    }
  }
  return times.map(median);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/** The evidence contract as one file, as a package that bundles it would ship it. */
async function bundleEvidence(): Promise<string> {
  const outfile = at('.cache/bench-verify/evidence.js');
  await build({
    entryPoints: [at('attestation/appraise/evidence-contract.ts')],
    bundle: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2023',
    outfile,
    logLevel: 'silent',
  });
  return outfile;
}

/** From the import of a verifier to its verdict, in a new process; without the start of Node itself. */
function coldMs(json: string, verifier: string, call: string): number {
  const folder = at('.cache/bench-verify');
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${folder}/evidence.json`, json);
  const script = `
    import { readFileSync } from 'node:fs';
    const text = readFileSync(${JSON.stringify(`${folder}/evidence.json`)}, 'utf8');
    const start = performance.now();
    const verifier = await import(${JSON.stringify(verifier)});
    const exitCode = ${call};
    console.log(exitCode === 0 ? performance.now() - start : 'refused');`;
  const times = Array.from({ length: COLD_PROCESSES }, () =>
    Number(spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout),
  );
  return median(times);
}

/** The whole published core as a browser gets it: bundled, minified, gzipped. */
async function bundleBytes(): Promise<number> {
  const { outputFiles } = await build({
    entryPoints: [at('attestation/index.ts')],
    bundle: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2023',
    write: false,
    logLevel: 'silent',
  });
  return gzipSync(outputFiles[0]?.contents ?? new Uint8Array(), { level: 9 }).length;
}

const COMMAND = at('attestation/dist/node/cli/evidence.js');
if (!statSync(COMMAND, { throwIfNoEntry: false })) throw new Error('build first: npx tsc -b');
const COLD_COMMAND = 'await verifier.commandEvidence({ stdin: async () => Buffer.from(text), stdout() {} })';
function ms(value: number): string {
  return `${value.toFixed(2)} ms`;
}
const ROWS: string[][] = [
  [
    '',
    'checks',
    'warm',
    'floor (at once)',
    'ratio',
    'floor (in turn)',
    'ratio',
    'cold, dist',
    'cold, one file',
  ],
];
const bundle = await bundleEvidence();
for (const { name, run, json } of await subjects()) {
  const keys = createKeyCache();
  if (!(await run(keys)).accepted) throw new Error(`${name} evidence is not accepted`);
  if (json !== undefined) {
    const { exitCode, output } = await runEvidence(json);
    if (exitCode !== 0) throw new Error(`${name} evidence is refused: ${output.code}`);
  }
  const calls = await recordCalls(() => run(keys));
  const atOnce = (): Promise<unknown> => Promise.all(calls.map((call) => call()));
  const inTurn = async (): Promise<void> => {
    for (const call of calls) await call();
  };
  await medians([() => run(keys), atOnce, inTurn], 100);
  const [warm = 0, once = 0, turn = 0] = await medians([() => run(keys), atOnce, inTurn], WARM_ROUNDS);
  ROWS.push([
    name,
    String(calls.length),
    ms(warm),
    ms(once),
    (warm / once).toFixed(2),
    ms(turn),
    (warm / turn).toFixed(2),
    json === undefined ? '' : ms(coldMs(json, COMMAND, COLD_COMMAND)),
    json === undefined ? '' : ms(coldMs(json, bundle, '(await verifier.runEvidence(text)).exitCode')),
  ]);
}
rmSync(at('.cache/bench-verify'), { recursive: true });
const widths = ROWS[0]?.map((_, column) => Math.max(...ROWS.map((row) => row[column]?.length ?? 0))) ?? [];
for (const row of ROWS) console.log(row.map((cell, column) => cell.padStart(widths[column] ?? 0)).join('  '));
console.log(
  `\nbrowser bundle of the core, minified and gzipped: ${((await bundleBytes()) / 1024).toFixed(1)} KiB`,
);

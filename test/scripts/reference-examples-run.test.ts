// The examples of docs/reference run, beside being type-checked: on values of the simulated vendors, and
// where an example says in a comment what it gives, it gives that. Those of NOT_RUN need what a test does not
// have, each for its reason; the list only shrinks.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { transform } from 'esbuild';
import OpenAI from 'openai';
import { beforeAll, describe, expect, test } from 'vitest';
import * as core from '@assay/attestation';
import * as issue from '@assay/attestation/issue';
import * as launch from '@assay/attestation/launch';
import * as node from '@assay/attestation/node';
import * as simulated from '@assay/attestation/simulated';
import { partitionTable } from '../../image/disk/gpt.ts';
import { TOP } from '../../scripts/closures.ts';
import { MEASUREMENT, MODEL_ID, MODEL_SHA256 } from '../fixtures/attestation/attested-server.ts';
import { CHANNEL, simulatedIntel, snpDocument } from '../fixtures/attestation/documents.ts';
import { evidenceOf, NOW, simulatedAmd } from '../fixtures/attestation/snp-simulated.ts';

const PAGES = [
  'attestation',
  'attestation-issue',
  'attestation-node',
  'attestation-launch',
  'attestation-simulated',
];

const FIRMWARE = 'needs the firmware of a distribution; the same calls are in test/attestation/launch';
const STUB = 'needs the EFI stub of a distribution; the same calls are in test/attestation/launch/uki';
const DEVICE = 'needs a simulated device whole; the same calls are in test/attestation/gpu';
const NETWORK = 'needs a server at the address it names; the same calls are in test/attestation/node';
const DISK = 'works on a folder of the reader; the same calls are in test/attestation/node/endorsements';
const NOT_RUN: Readonly<Record<string, string>> = {
  acceptFirmware: FIRMWARE,
  bootEvents: STUB,
  measureDisk: STUB,
  readPe: STUB,
  readUki: STUB,
  blockCount: DEVICE,
  issueOcsp: DEVICE,
  regularOpaque: DEVICE,
  signManifest: DEVICE,
  signNvidiaReport: DEVICE,
  measureImage: FIRMWARE,
  measureManifest: FIRMWARE,
  measureMrTd: FIRMWARE,
  measureSnpLaunch: FIRMWARE,
  measureSnpMatrix: FIRMWARE,
  parseManifest: FIRMWARE,
  replay: FIRMWARE,
  rtmr0Events: FIRMWARE,
  rtmr1Events: FIRMWARE,
  snpMeasurementsOf: FIRMWARE,
  connectAttested: NETWORK,
  startProxy: NETWORK,
  bundleStore: DISK,
  createEndorsements: DISK,
  exportBundle: DISK,
  importBundle: DISK,
};

const EXAMPLES = PAGES.flatMap((page) =>
  readFileSync(join(TOP, 'docs/reference', `${page}.md`), 'utf8')
    .split(/\n## /)
    .slice(1)
    .filter((section) => section.includes('\n*function*\n'))
    .map(
      (section) =>
        [
          section.split('\n')[0] ?? '',
          /\*\*Example\*\*\n\n```ts\n([\s\S]*?)\n```/.exec(section)?.[1] ?? '',
        ] as const,
    ),
);

type Scope = Readonly<Record<string, unknown>>;

let given: Scope;
/** The same name stands for different texts and bytes, by example. */
let own: Readonly<Record<string, Scope>>;

beforeAll(async () => {
  const [amd, intel, document, key] = await Promise.all([
    simulatedAmd(),
    simulatedIntel(),
    snpDocument(),
    simulated.generateEcKey('P-256'),
  ]);
  const dangers = { [core.allowSimulated]: { root: await rootOf(document) } } as const;
  const policyText = JSON.stringify({ measurements: [MEASUREMENT], models: { [MODEL_ID]: MODEL_SHA256 } });
  const policy = core.parsePolicy(policyText, dangers);
  const report = await amd.signReport();
  const evidence = await evidenceOf(amd, { report });
  const claims = core.decodeClaims(document.claims);
  const leaves = [core.leafHash(document.claims), core.leafHash(Uint8Array.of(1))];
  const components = Array.from({ length: 16 }, () => 1);
  const ids = { fmspc: new Uint8Array(6), pceId: new Uint8Array(2) };
  const bytes = Uint8Array.of(1, 2, 3);
  given = {
    apiKey: 'unused',
    document,
    claims,
    policy,
    evidence,
    leaves,
    key,
    amd,
    bytes,
    model: core.attestedModel(MODEL_ID, [{ role: 'weights', sha256: new Uint8Array(32), size: 1 }]),
    snpPolicy: {},
    options: { ...CHANNEL, policy },
    saved: [],
    quote: await intel.signQuote(),
    collateral: await intel.collateral(),
    digest: new Uint8Array(32),
    expected: document.measurement,
    first: Uint8Array.of(1),
    second: Uint8Array.of(2),
    image: new Uint8Array(8192),
    initrd: Uint8Array.of(1),
    cmdline: 'quiet',
    events: 'kernel-as-given, initrd first',
    leaf: leaves[0],
    index: 0,
    size: 2,
    path: issue.inclusionPath(leaves, 0),
    root: issue.merkleRoot(leaves),
    nonce: CHANNEL.nonce,
    exporter: CHANNEL.exporter,
    peerSpki: CHANNEL.peerSpki,
    der: amd.ark,
    name: simulated.encodeName([['CN', 'reader']]),
    values: {
      ppid: new Uint8Array(16),
      components,
      pceSvn: 1,
      ...ids,
      sgxType: 1,
      platformInstanceId: undefined,
    },
    platform: { ...ids, components, pceSvn: 1, teeTcbSvn: new Uint8Array(16) },
    defaults: {
      teeTcbSvn: new Uint8Array(16),
      qe: {},
      chainPem: simulated.encodePem(amd.ark, 'CERTIFICATE'),
    },
    notBefore: NOW,
    notAfter: new Date(NOW.getTime() + 1e9),
    thisUpdate: NOW,
    issueDate: NOW,
    nextUpdate: new Date(NOW.getTime() + 1e9),
    sha256: (data: Uint8Array) => data.subarray(0, 32),
    response: new Response(issue.encodeDocument(document)),
    text: policyText,
  };
  const kept = JSON.stringify({
    tee: 'snp',
    report: core.toBase64(report),
    vek: core.toBase64(evidence.vek),
    chain: evidence.chain.map((each) => core.toBase64(each)),
    policy: { requireCrl: false },
  });
  own = {
    ...ofTheClouds(report),
    decodeCbor: { bytes: core.encodeCbor('claims') },
    decodeDocumentCbor: { bytes: issue.encodeDocumentCbor(document) },
    encodeDocument: { bytes: issue.encodeDocumentCbor(document) },
    signSimulatedQuote: { bytes: new Uint8Array(64) },
    parsePem: { text: simulated.encodePem(amd.ark, 'CERTIFICATE') },
    parseReport: { bytes: report },
    parseReferenceValues: { releases: readFileSync(join(TOP, 'image/reference-values.json'), 'utf8') },
    verify: { text: issue.encodeDocument(document), Date: { now: () => CHANNEL.now } },
    isAttestationResult: { value: await core.verify(document, { ...CHANNEL, policy }) },
    isSealedResult: { value: await sealedResult(policyText, dangers) },
    importKey: { saved: await simulated.exportKey(key) },
    runEvidence: { readFile: () => Promise.resolve(Buffer.from(kept)) },
  };
}, 60_000);

/** Values of the examples of the clouds and of their disk. */
function ofTheClouds(report: Uint8Array): Readonly<Record<string, Scope>> {
  const tpm = { modulus: new Uint8Array(256).fill(0xd7) };
  const json = simulated.encodeRuntime(tpm);
  return {
    encodeHclReport: { report, json },
    encodeRuntime: { tpm },
    encodeTdReport: {
      bytes: new Uint8Array(64),
      tdAttributes: new Uint8Array(8),
      mrTd: new Uint8Array(48),
      rtmrs: new Uint8Array(192),
    },
    runtimeReportData: { json },
    readGpt: {
      disk: partitionTable([], { guid: 'a55a7000-c0de-4a55-81a9-000000000010', sectors: 100 }).head,
    },
  };
}

async function sealedResult(
  policyText: string,
  dangers: core.AppraisalPolicy | object,
): Promise<core.SealedResult> {
  const { nonce, now } = CHANNEL;
  const hpkeKey = new Uint8Array(32).fill(9);
  const document = await snpDocument({ claims: (claims) => ({ ...claims, exporter: undefined, hpkeKey }) });
  const policy = core.parsePolicy(policyText.replace('{', '{"channel":"sealed",'), dangers);
  return core.verify(document, { channel: 'sealed', nonce, now, policy });
}

/** Of the chain a document carries: what `--allow-simulated=SHA256` would name. */
async function rootOf(document: core.AttestationDocument): Promise<string> {
  const { chain } = document.endorsements as core.SnpEndorsements;
  const hash = await crypto.subtle.digest('SHA-256', new Uint8Array(chain.at(-1) ?? new Uint8Array()));
  return core.toHex(new Uint8Array(hash));
}

/**
 * Runs an example. Resolves with the constants whose value a comment tells: what each is,
 * and what the comment says.
 */
async function run(name: string, example: string): Promise<unknown> {
  const body = example.replaceAll(
    /^const (\w+) = (.+); \/\/ (["'][^"']*["'])$/gm,
    'const $1 = $2; told.push([$1, $3]);',
  );
  const { code } = await transform(`async () => {\n${body}\n}`, { loader: 'ts', target: 'node20' });
  const told: unknown[] = [];
  const scope: Scope = {
    ...core,
    ...issue,
    ...launch,
    ...node,
    ...simulated,
    OpenAI,
    ...given,
    ...own[name],
    told,
  };
  // oxlint-disable-next-line typescript/no-implied-eval -- the examples are code of this repository
  const make = new Function(...Object.keys(scope), `return (${code.replace(/;\s*$/, '')})();`);
  await (make(...Object.values(scope)) as Promise<void>);
  return told;
}

describe('examples of docs/reference', () => {
  test.each(EXAMPLES.filter(([name]) => !Object.hasOwn(NOT_RUN, name)))('%s', async (name, example) => {
    for (const [is, said] of (await run(name, example)) as [unknown, unknown][]) expect(is).toBe(said);
  });

  test('the list of those that are not run holds nothing else, and most are run', () => {
    const names = new Set(EXAMPLES.map(([name]) => name));
    expect(Object.keys(NOT_RUN).filter((name) => !names.has(name))).toEqual([]);
    expect(Object.keys(NOT_RUN).length).toBeLessThanOrEqual(26);
    expect(EXAMPLES.length).toBeGreaterThan(90);
  });
});

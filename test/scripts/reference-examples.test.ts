// Every function of every entry of @assay/attestation has an @example, and each example type-checks
// against the emitted declarations. The values an example takes for granted (a policy, bytes, a
// key) are declared in GIVEN.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ENTRIES, TOP } from '../../scripts/closures.ts';

const ENTRIES = Object.keys(PACKAGE_ENTRIES).map((entry) => ({
  entry,
  page: entry.replace('@assay/', '').replace('/', '-'),
}));

/** Bytes, texts and objects of the caller, by name. */
const GIVEN = `
import type * as core from '@assay/attestation';
import type * as records from '@assay/attestation/job-record';
import type * as verdict from '@assay/attestation/job-verdict';
import type * as launch from '@assay/attestation/launch';
import type * as receipts from '@assay/attestation/receipt';
import type * as simulated from '@assay/attestation/simulated';
import type * as gpu from '@assay/attestation/gpu';
import type * as vtpm from '@assay/attestation/vtpm';
import type * as envelope from '@assay/attestation/sealed-envelope';
declare const apiKey: string, text: string, releases: string, cmdline: string;
declare const bytes: Uint8Array, der: Uint8Array, digest: Uint8Array, expected: Uint8Array, exporter: Uint8Array, firmware: Uint8Array;
declare const first: Uint8Array, second: Uint8Array, image: Uint8Array, initrd: Uint8Array, kernel: Uint8Array, leaf: Uint8Array;
declare const manifest: Uint8Array, name: Uint8Array, nonce: Uint8Array, peerSpki: Uint8Array, quote: Uint8Array, root: Uint8Array;
declare const snpFirmware: Uint8Array, tdxFirmware: Uint8Array;
declare const leaves: readonly Uint8Array[], path: readonly Uint8Array[];
declare const index: number, size: number, value: unknown, response: Response, nextUpdate: Date, issueDate: Date;
declare const notBefore: Date, notAfter: Date, thisUpdate: Date;
declare const policy: core.Policy, snpPolicy: core.SnpPolicy, options: core.VerifyOptions, saved: Iterable<readonly [string, bigint]> & simulated.ExportedKey;
declare const document: core.AttestationDocument, claims: core.Claims, model: core.AttestedModel, result: core.AttestationResult;
declare const evidence: Parameters<typeof core.verifySnp>[0], collateral: core.TdxCollateral;
declare const shape: launch.Rtmr0Shape, events: Parameters<typeof launch.rtmr2Events>[1];
declare const key: simulated.IssuerKey, amd: simulated.SimulatedAmd, values: simulated.SgxExtensionValues, platform: simulated.TcbInfoValues;
declare const defaults: simulated.QuoteDefaults;
declare const job: records.JobRecord, archive: NonNullable<verdict.JobTrust['evidence']>['archive'];
declare const receipt: receipts.Receipt, answered: receipts.ExpectedAnswer, salt: Uint8Array, opening: Uint8Array;
declare const body: AsyncIterable<Uint8Array>, controller: { enqueue(part: Uint8Array): void };
declare const publicKey: Uint8Array, xWingKey: Uint8Array, uki: Uint8Array, head: Parameters<typeof envelope.sealToAny>[1] & Uint8Array, disk: Uint8Array;
declare const report: Uint8Array, json: Uint8Array, tdAttributes: Uint8Array, mrTd: Uint8Array, rtmrs: Uint8Array;
declare const annotation: string, tpm: simulated.SimulatedTpm, final: receipts.FinalReceipt;
declare const devices: Parameters<typeof gpu.gpuEvidenceDigest>[0], gpuEvidence: Parameters<typeof gpu.writeGpuEvidence>[0];
declare const appraiseParts: Parameters<typeof gpu.appraiseGpu>, platformParts: Parameters<typeof vtpm.encodePlatform>;
declare const gceFirmware: Parameters<typeof vtpm.predictGceRegisters>[1], gceImage: Parameters<typeof vtpm.predictGceRegisters>[2];
declare const manifestParts: Parameters<typeof simulated.signManifest>, blockParts: Parameters<typeof simulated.blockCount>;
declare const opaqueParts: Parameters<typeof simulated.regularOpaque>, reportParts: Parameters<typeof simulated.signNvidiaReport>;
declare const ocspParts: Parameters<typeof simulated.issueOcsp>;
declare function sign(data: Uint8Array): Uint8Array;
declare function sha256(data: Uint8Array): Uint8Array;
declare function randomBytes(length: number): Uint8Array;
declare function readFile(path: string): Promise<Uint8Array>;
`;

/** [the function, its example] of one page of docs/reference. */
function examplesOf(page: string): readonly (readonly [string, string | undefined])[] {
  const sections = readFileSync(join(TOP, 'docs/reference', `${page}.md`), 'utf8')
    .split(/\n## /)
    .slice(1);
  return sections
    .filter((section) => section.includes('\n*function*\n'))
    .map((section) => [
      section.split('\n')[0] ?? '',
      /\*\*Example\*\*\n\n```ts\n([\s\S]*?)\n```/.exec(section)?.[1],
    ]);
}

test.each(ENTRIES)('every function of $entry has an example', ({ page, entry }) => {
  const examples = examplesOf(page);
  // The entry of codes is tables alone.
  expect(examples.length > 0).toBe(entry !== '@assay/attestation/codes');
  expect(examples.filter(([, example]) => example === undefined)).toEqual([]);
});

test('every example type-checks', () => {
  mkdirSync(join(TOP, 'dist'), { recursive: true });
  const folder = mkdtempSync(join(TOP, 'dist/examples-'));
  try {
    const names = ENTRIES.flatMap(({ page, entry }) =>
      examplesOf(page).map(([name, example = '']) => {
        // A name that two entries have comes from the page's own.
        const taken = new Set<string>();
        const imports = [entry, ...ENTRIES.map((other) => other.entry)].flatMap((each) => {
          const used = exportsUsed(each, example, name, entry).filter((found) => !taken.has(found));
          for (const one of used) taken.add(one);
          return used.length === 0 ? [] : [`import { ${used.join(', ')} } from '${each}';`];
        });
        const file = `${page}-${name}.ts`;
        const external = example.includes('OpenAI') ? "import OpenAI from 'openai';\n" : '';
        writeFileSync(
          join(folder, file),
          `${external}${imports.join('\n')}${GIVEN}export async function example(): Promise<void> {\n${example}\n}\n`,
        );
        return file;
      }),
    );
    writeFileSync(
      join(folder, 'tsconfig.json'),
      JSON.stringify({
        extends: '../../tsconfig.base.json',
        compilerOptions: {
          noEmit: true,
          composite: false,
          lib: ['es2023', 'dom'],
          declaration: false,
          sourceMap: false,
        },
        files: names,
      }),
    );
    const tsc = join(TOP, 'node_modules/typescript/bin/tsc');
    let said = '';
    try {
      execFileSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8', stdio: 'pipe' });
    } catch (error) {
      said = String((error as { stdout?: unknown }).stdout);
    }
    expect(said).toBe('');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

/** Names an example uses of an entry; of one that several entries have, the example's own. */
function exportsUsed(entry: string, example: string, name: string, own: string): readonly string[] {
  const page = ENTRIES.find((each) => each.entry === entry)?.page ?? '';
  const sections = readFileSync(join(TOP, 'docs/reference', `${page}.md`), 'utf8')
    .split(/\n## /)
    .slice(1);
  return sections
    .map((section) => section.split('\n')[0] ?? '')
    .filter(
      (each) => new RegExp(`(?<![.\\w])\\b${each}[(\\]]`).test(example) && (each !== name || entry === own),
    );
}

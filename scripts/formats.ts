// Writes docs/formats.md (byte tables of every wire structure) and docs/codes.md (the closed list of codes)
// from the declarations the verifier itself decodes by. `--check` compares instead of writing.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseSync } from 'oxc-parser';
import { walk } from './dialect.ts';
import { CLOUD_FORMATS } from './formats-clouds.ts';
import { EVIDENCE_CONTRACT } from './formats-evidence.ts';
import { ATTESTATION_CODES } from '../attestation/transcript/codes.ts';
import type { Layout } from '../attestation/encoding/layout.ts';
import { REPORT_BYTES, REPORT_LAYOUTS } from '../attestation/snp/report.ts';
import {
  QE_REPORT,
  QE_REPORT_BYTES,
  QUOTE_HEADER,
  QUOTE_HEADER_BYTES,
  TD_BODY_15,
  TD_BODY_15_BYTES,
} from '../attestation/tdx/quote.ts';
import { HCL_HEADER_BYTES, HCL_REPORT, TD_REPORT, TD_REPORT_BYTES } from '../attestation/vtpm/hcl.ts';

const top = fileURLToPath(new URL('..', import.meta.url)).replace(/dist\/$/, '');

interface Table {
  readonly title: string;
  readonly source: string;
  readonly size: number;
  readonly layout: Layout;
  /** The module and the constants that declare the fields. */
  readonly declared: readonly [file: string, ...constants: string[]];
}

/** Field → the comment that ends its line in the declaration. */
function meaningsOf([file, ...constants]: Table['declared']): ReadonlyMap<string, string> {
  const text = readFileSync(join(top, file), 'utf8');
  const { program, comments } = parseSync(file, text);
  const meanings = new Map<string, string>();
  for (const statement of program.body) {
    const node = statement.type === 'ExportNamedDeclaration' ? statement.declaration : statement;
    const [declarator] = node?.type === 'VariableDeclaration' ? node.declarations : [];
    if (declarator?.id.type !== 'Identifier' || !constants.includes(declarator.id.name)) continue;
    walk(declarator.init, ({ type, start, end, key }) => {
      if (type !== 'Property') return;
      const comment = comments.find((each) => each.start > start && text.slice(end, each.start) === ', ');
      const name = (key as { readonly name?: string }).name;
      if (comment !== undefined && name !== undefined) meanings.set(name, comment.value.trim());
    });
  }
  return meanings;
}

function table({ title, source, size, layout, declared }: Table): string {
  const meanings = meaningsOf(declared);
  const meaningOf = (name: string): string => {
    const meaning = meanings.get(name);
    if (meaning === undefined) throw new Error(`${declared[0]}: the line of ${name} ends without a comment`);
    return meaning;
  };
  const rows = Object.entries(layout)
    .toSorted(([, a], [, b]) => a.at - b.at)
    .map(
      ([name, field]) =>
        `| 0x${field.at.toString(16).padStart(3, '0')} | ${field.size} | ${name} | ${meaningOf(name)} |`,
    );
  return `## ${title}\n\n${source} ${size} bytes; integers little-endian; bytes in no row are reserved and must be zero unless said otherwise.\n\n| offset | size | field | meaning |\n|---|--:|---|---|\n${rows.join('\n')}\n`;
}

/**
 * The claims of `verifyTdx` and `assay-verify evidence` about the TCB, beside the fields of the tables
 * above under their names.
 */
const TDX_TCB_CLAIMS = `## TCB claims of TDX evidence

Claims are there only when the quote is authentic: made by Intel's quoting enclave for a TD on Intel's module, signed up to the trusted
root, nothing revoked. Of those below, each is there only where it could be judged.

| claim | meaning |
|---|---|
| tcbStatus | the status policies judge: the worse of the two below, or \`TDRelaunchAdvised\` when only what the TD was launched on is out of date |
| tcbStatusAtLaunch | TD 1.5: platform, module and QE by TEE_TCB_SVN |
| tcbStatusNow | TD 1.5: platform, module and QE by TEE_TCB_SVN_2, of what runs now |
| moduleStatusAtLaunch, moduleStatusNow | TD 1.5: the TDX module alone, by each of the two |
| tcbDate | the oldest date of all levels matched |
| advisoryIds | the advisories open at any of them |
| tcbEvaluationDataNumber | of the TCB info |
`;

const REPORT_FILE = 'attestation/snp/report.ts';
const HCL_FILE = 'attestation/vtpm/hcl.ts';
const QUOTE_FILE = 'attestation/tdx/quote.ts';
const TABLES: readonly Table[] = [
  {
    title: 'SEV-SNP attestation report, version 5',
    source: 'AMD 56860 §7.3. Versions 3 and 4 end their fields at 0x1f8; version 2 has no CPUID fields.',
    size: REPORT_BYTES,
    layout: REPORT_LAYOUTS[5],
    declared: [REPORT_FILE, 'COMMON', 'CPUID', 'MITIGATION'],
  },
  {
    title: 'TDX quote header',
    source: 'Intel TDX DCAP Quoting Library API, Appendix A.',
    size: QUOTE_HEADER_BYTES,
    layout: QUOTE_HEADER,
    declared: [QUOTE_FILE, 'QUOTE_HEADER'],
  },
  {
    title: 'TD quote body, TD 1.5',
    source: 'The TD 1.0 body is its first 584 bytes.',
    size: TD_BODY_15_BYTES,
    layout: TD_BODY_15,
    declared: [QUOTE_FILE, 'TD_10', 'TD_BODY_15'],
  },
  {
    title: 'QE report',
    source: 'Signed by the PCK.',
    size: QE_REPORT_BYTES,
    layout: QE_REPORT,
    declared: [QUOTE_FILE, 'QE_REPORT'],
  },
  {
    title: 'Azure HCL report',
    source: 'NV index 0x01400001, 2600 bytes in all: these, then the runtime JSON, then zeros. Its first',
    size: HCL_HEADER_BYTES,
    layout: HCL_REPORT,
    declared: [HCL_FILE, 'HCL_REPORT'],
  },
  {
    title: 'TDREPORT inside it',
    source:
      'Only what the TD quote repeats; it is MAC-ed for its own machine and proves nothing without the quote.',
    size: TD_REPORT_BYTES,
    layout: TD_REPORT,
    declared: [HCL_FILE, 'TD_REPORT'],
  },
];

const FORMATS = `# Wire formats

Byte tables of what is verified, and the input and output of \`assay-verify evidence\`. Generated by \`scripts/formats.ts\` from the tables
the verifier decodes by; \`make drift\` fails when it is stale.

${TABLES.map(table).join('\n')}
${TDX_TCB_CLAIMS}
${EVIDENCE_CONTRACT}
${CLOUD_FORMATS}`;

const CODES = `# Codes

Generated by \`scripts/formats.ts\` from \`attestation/transcript/codes.ts\`. The list is closed: every refusal carries exactly one of these.

| code | meaning |
|---|---|
${Object.entries(ATTESTATION_CODES)
  .map(([code, meaning]) => `| \`${code}\` | ${meaning} |`)
  .join('\n')}
`;

for (const [path, text] of [
  ['docs/formats.md', FORMATS],
  ['docs/codes.md', CODES],
] as const) {
  const full = join(top, path);
  if (!process.argv.includes('--check')) writeFileSync(full, text);
  else if (!existsSync(full) || readFileSync(full, 'utf8') !== text) {
    console.error(`${path} is stale: run \`npx tsx scripts/formats.ts\``);
    process.exitCode = 1;
  }
}

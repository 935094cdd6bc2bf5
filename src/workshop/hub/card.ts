// The README.md of a repository that has none: the hub's front matter (licence, tags, base model) and each
// file with its size and SHA-256, so that a reader can check what was fetched. Holds facts only, no data.
// Deterministic.

import type { MeasuredFile } from './files.ts';
import type { RepoKind } from './protocol.ts';

export interface CardFacts {
  readonly title: string;
  /** SPDX, or the hub's own word; absent: none is claimed. */
  readonly license?: string | undefined;
  /** A repository on the hub, `owner/name`. */
  readonly baseModel?: string | undefined;
  readonly tags?: readonly string[] | undefined;
  /** Of the signed record of the job that made the files. */
  readonly recordSha256?: string | undefined;
}

export const CARD = 'README.md';
/** The record of the job that made the files, and the evidence that binds its key, as they lie beside them. */
export const RECORD_FILE = 'assay-job.cose';
export const EVIDENCE_FILE = 'assay-job-evidence.json';
const MAX_ROWS = 1000;

export function modelCard(kind: RepoKind, facts: CardFacts, files: readonly MeasuredFile[]): string {
  const isGguf = files.some(({ path }) => path.toLowerCase().endsWith('.gguf'));
  const isAdapter = files.some(({ path }) => path.endsWith('adapter_config.json'));
  const tags = [...new Set([...(facts.tags ?? []), ...(isGguf ? ['gguf'] : []), 'assay'])];
  const front = [
    ...(facts.license === undefined ? [] : [`license: ${quoted(facts.license)}`]),
    ...(kind === 'model' && facts.baseModel !== undefined ? [`base_model: ${quoted(facts.baseModel)}`] : []),
    ...(kind === 'model' && isAdapter ? ['library_name: peft'] : []),
    'tags:',
    ...tags.map((tag) => `- ${quoted(tag)}`),
  ];
  const shown = files.slice(0, MAX_ROWS);
  const rows = shown.map(({ path, size, sha256 }) => `| ${cell(path)} | ${size} | \`${sha256}\` |`);
  const rest = files.length > MAX_ROWS ? [`| and ${files.length - MAX_ROWS} more | | |`] : [];
  const record =
    facts.recordSha256 === undefined
      ? []
      : [
          '',
          `The signed record of the job that made them is \`${RECORD_FILE}\`, of the SHA-256 \`${facts.recordSha256}\`;`,
          `\`assay-verify job ${RECORD_FILE}\` judges it.`,
        ];
  return [
    '---',
    ...front,
    '---',
    '',
    `# ${cell(facts.title)}`,
    '',
    `Published by the workshop of Assay. ${kind === 'model' ? 'The model' : 'The data set'} has these files:`,
    '',
    '| File | Bytes | SHA-256 |',
    '|---|--:|---|',
    ...rows,
    ...rest,
    ...record,
    '',
  ].join('\n');
}

/** A JSON string is a YAML one. */
function quoted(text: string): string {
  return JSON.stringify(text);
}

/** A name written so can neither be markup nor end a row. */
function cell(text: string): string {
  return text.replaceAll(/\p{Cc}/gu, ' ').replaceAll(/[\\|`*_<>[\]#]/g, String.raw`\$&`);
}

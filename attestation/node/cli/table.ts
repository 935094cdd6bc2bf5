// A verdict on a terminal: what was checked, what was found, what it means. Plain text in columns; long hex
// is shortened here and whole in --json.

import { detailOf, meaningOf, type Outcome, STANDING_WORDS } from '../../appraise/explain.ts';
import type { Check } from '../../transcript/checks.ts';
import { printable } from './printable.ts';

/** The whole report, as lines. `origin` is what the user asked for. */
export function renderVerdict(origin: string, outcome: Outcome): readonly string[] {
  const transcript = 'result' in outcome ? outcome.result.transcript : outcome.error.transcript;
  return [
    ...(transcript.length === 0 ? [] : [...renderChecks(transcript), '']),
    ...('result' in outcome || transcript.length > 0 ? [...renderMeaning(outcome), ''] : []),
    ...headline(origin, outcome),
  ].map(printable);
}

export function headline(origin: string, outcome: Outcome): string[] {
  if ('result' in outcome) {
    const { result } = outcome;
    const warnings = [
      ...(result.simulated ? ['SIMULATED: nothing about hardware is proven'] : []),
      ...(result.certificateAlone ? ['certificate evidence: freshness and connection are not proven'] : []),
    ];
    return [`ACCEPTED  ${origin}`, ...warnings.map((warning) => `          ${warning}`)];
  }
  const { error } = outcome;
  const verdict = VERDICTS[error.kind];
  const indent = ' '.repeat(verdict.length + 2);
  return [
    `${verdict}  ${origin}`,
    `${indent}${error.code}${error.check === undefined ? '' : ` (${error.check})`}: ${error.message}`,
    ...(error.expected === undefined ? [] : [`${indent}expected: ${error.expected}`]),
    ...(error.actual === undefined ? [] : [`${indent}found:    ${error.actual}`]),
    ...(error.hint === undefined ? [] : [`${indent}hint:     ${error.hint}`]),
  ];
}

const VERDICTS = {
  refused: 'REFUSED',
  unsupported: 'UNSUPPORTED',
  malformed: 'MALFORMED',
  internal: 'FAILED',
} as const;

const MARK = { pass: 'ok', fail: 'FAIL', skip: '-' } as const;

export function renderChecks(checks: readonly Check[]): string[] {
  const rows = checks.map(
    (check) => [check.id, MARK[check.status], check.title, shorten(detailOf(check))] as const,
  );
  return columns([['rule', '', 'checked', 'found'], ...rows]);
}

function renderMeaning(outcome: Outcome): string[] {
  return columns([
    ['means', '', ''],
    ...meaningOf(outcome).map(({ title, standing, words }) => [title, STANDING_WORDS[standing], words]),
  ]);
}

/** Left-aligned; the last column is as long as it is. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) => row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  ').trimEnd()); // prettier-ignore
}

/** Hex over 20 digits keeps its ends: enough to recognise, not to compare. */
export function shorten(text: string): string {
  return text.replace(/\b[0-9a-f]{21,}\b/g, (hex) => `${hex.slice(0, 8)}…${hex.slice(-4)}`);
}

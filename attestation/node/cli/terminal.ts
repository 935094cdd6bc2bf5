// A verdict for a person at a terminal: the verdict first, what it means, what failed, a summary; every
// check on request. Cells are cut and sentences wrapped to the width of the terminal. Elsewhere
// table.ts prints the whole.

import { meaningOf, type Outcome, STANDING_WORDS, type Standing } from '../../appraise/explain.ts';
import type { Check } from '../../transcript/checks.ts';
import { printable } from './printable.ts';
import { headline, renderChecks } from './table.ts';
import type { Terminal } from './world.ts';

const COLOURS = { green: 32, red: 31, yellow: 33, dim: 2, bold: 1 } as const;
type Colour = keyof typeof COLOURS;

const STANDING_COLOURS: Readonly<Record<Standing, Colour>> = {
  proven: 'green',
  simulated: 'yellow',
  refused: 'red',
  'not proven': 'yellow',
};

/** Lines of at most `columns` characters, colours aside. */
export function renderOnTerminal(
  origin: string,
  outcome: Outcome,
  terminal: Terminal,
  table: boolean,
): readonly string[] {
  const { columns } = terminal;
  const paint = (text: string, colour: Colour): string =>
    terminal.colour ? `\u001b[${COLOURS[colour]}m${text}\u001b[0m` : text;
  const accepted = 'result' in outcome;
  const transcript = accepted ? outcome.result.transcript : outcome.error.transcript;
  const [first = '', ...more] = headline(origin, outcome).map(printable);
  const lines = [
    ...wrap(first, columns).map((line) => paint(line, accepted ? 'green' : 'red')),
    ...more.flatMap((line) => wrap(line, columns)),
    '',
  ];
  if (accepted || transcript.length > 0)
    for (const { title, standing, words } of meaningOf(outcome)) {
      const [line = '', ...rest] = wrap(
        printable(`${title.padEnd(20)}  ${STANDING_WORDS[standing].padEnd(10)}  ${words}`),
        columns,
        34,
      );
      lines.push(paint(line, STANDING_COLOURS[standing]), ...rest);
    }
  const failures = transcript.filter(({ status }) => status === 'fail');
  if (failures.length > 0) lines.push('');
  for (const { id, title, detail } of failures) {
    const [line = '', ...rest] = wrap(printable(`FAIL ${id} ${title}`), columns, 5);
    lines.push(paint(line, 'red'), ...rest);
    lines.push(...wrap(printable(`     ${detail}`), columns, 5));
  }
  if (table) lines.push('', ...renderChecks(transcript).map((line) => cut(printable(line), columns)));
  else if (transcript.length > 0) lines.push('', ...wrap(summary(transcript), columns));
  return lines;
}

function summary(transcript: readonly Check[]): string {
  const count = (status: Check['status']): number =>
    transcript.filter((check) => check.status === status).length;
  return `${transcript.length} checks: ${count('pass')} passed, ${count('fail')} failed, ${count('skip')} not asked or not applicable; --table shows them`;
}

/** One line, its end replaced by an ellipsis where it is too long. */
export function cut(line: string, columns: number): string {
  return line.length <= columns ? line : `${line.slice(0, columns - 1)}…`;
}

/**
 * Broken at spaces; lines after the first are indented like the first, or by `indent`. A word that is
 * too long is cut in pieces.
 */
export function wrap(
  line: string,
  columns: number,
  indent = line.length - line.trimStart().length,
): string[] {
  const margin = ' '.repeat(Math.min(indent, Math.floor(columns / 2)));
  const lines: string[] = [];
  let rest = line;
  while (rest.length > columns) {
    const lead = rest.length - rest.trimStart().length;
    const space = rest.lastIndexOf(' ', columns);
    const at = space > lead ? space : columns;
    lines.push(rest.slice(0, at).trimEnd());
    rest = `${margin}${rest.slice(at).trimStart()}`;
  }
  return [...lines, rest];
}

// `assay-verify score https://HOST`: the factors by which attested providers are graded in public
// (docs/score.md), as a table or JSON. Sends no content.

import { AttestationError } from '../../transcript/errors.ts';
import type { Outcome } from '../../appraise/explain.ts';
import type { Graded } from '../score/grade.ts';
import { isObserving } from '../score/judges.ts';
import type { Observations } from '../score/observe.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { readJudgingOptions } from './judging-options.ts';
import { printable, printableJson } from './printable.ts';
import { columns, headline, shorten } from './table.ts';
import { cut } from './terminal.ts';
import { type CliWorld, EXIT, type ExitCode, readReleases } from './world.ts';

type Score = Extract<Command, { kind: 'score' }>;

export async function commandScore(command: Score, world: CliWorld): Promise<ExitCode> {
  const { close, ...judging } = await readJudgingOptions(command, world);
  const { observe } = await import('../score/observe.ts');
  const { gradeAll } = await import('../score/grade.ts');
  try {
    const seen = await observe(command.origin, {
      ...judging,
      releases: await readReleases(command.accept.referenceFile, world),
      now: world.now,
      randomBytes: world.randomBytes,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
    });
    const graded = gradeAll(seen);
    const exit = exitOf(seen, graded);
    world.stdout(command.json ? `${printableJson(asJson(command, seen, graded), 2)}\n` : asText(command, seen, graded, world)); // prettier-ignore
    return exit;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    return notGraded(command, errorInFlags(error), world);
  } finally {
    await close();
  }
}

/** 10: a factor failed, or the policy refuses a connection; 11: none did, and there is no policy. */
export function exitOf(seen: Observations, graded: readonly Graded[]): ExitCode {
  if (graded.some(({ grade }) => grade === 'fail')) return 10;
  if (isObserving(seen)) return 11;
  return isAccepted(seen) ? 0 : 10;
}

/** By the policy, on both connections. */
function isAccepted({ first, second }: Observations): boolean {
  return 'result' in first.outcome && 'result' in second.outcome;
}

/** Without evidence there is no grade: 20, also where verifying would say 10. */
function notGraded({ origin, json }: Score, error: AttestationError, world: CliWorld): ExitCode {
  const { kind, code, message, hint } = error;
  if (json)
    world.stdout(
      `${printableJson({ format: FORMAT, origin: origin.origin, graded: false, code, error: { kind, message, hint } }, 2)}\n`,
    );
  else world.stdout(`${['NOT GRADED', ...headline(origin.origin, { error })].map(printable).join('\n')}\n`);
  return kind === 'refused' ? EXIT.unsupported : EXIT[kind];
}

const FORMAT = 'assay/score/v1';

/** docs/score.md, "As JSON". */
function asJson({ origin }: Score, seen: Observations, graded: readonly Graded[]): unknown {
  return {
    format: FORMAT,
    origin: origin.origin,
    graded: true,
    accepted: isAccepted(seen),
    code: codeOf(seen),
    policy: !isObserving(seen),
    simulated: isSimulated(seen),
    counts: countsOf(graded),
    factors: graded,
  };
}

/** Why the policy refuses, where it does. */
function codeOf({ first, second }: Observations): string | null {
  const refused = [first, second].map(({ outcome }) => outcome).find((outcome) => 'error' in outcome);
  return refused === undefined ? null : refused.error.code;
}

function isSimulated({ first }: Observations): boolean {
  return first.received?.document.teeType === 'simulated';
}

function countsOf(graded: readonly Graded[]): Readonly<Record<string, number>> {
  const count = (grade: Graded['grade']): number => graded.filter((each) => each.grade === grade).length;
  return { pass: count('pass'), fail: count('fail'), not_applicable: count('not applicable') };
}

const MARKS = { pass: 'pass', fail: 'FAIL', 'not applicable': '-' } as const;

function asText({ origin }: Score, seen: Observations, graded: readonly Graded[], world: CliWorld): string {
  const rows = graded.map(({ id, grade, simulated, title, evidence }) => [
    id,
    simulated ? 'simulated' : MARKS[grade],
    title,
    evidenceText(evidence),
  ]);
  const { pass, fail, not_applicable: open } = countsOf(graded);
  const lines = [
    ...columns([['factor', '', 'graded', 'seen'], ...rows]),
    '',
    `${origin.origin}: ${pass} passed, ${fail} failed, ${open} not applicable (docs/score.md)`,
    ...remarks(seen),
  ].map(printable);
  const width = world.terminal?.stdout?.columns;
  return lines.map((line) => `${width === undefined ? line : cut(line, width)}\n`).join('');
}

/** The first piece, and how many more: --json has them all. */
function evidenceText([first, ...more]: Graded['evidence']): string {
  if (first === undefined) return '';
  const rest = more.length === 0 ? '' : ` (and ${[...new Set(more.map(({ at }) => at))].join(', ')})`;
  return `${first.at}: ${shorten(first.found)}${shorten(rest)}`;
}

function remarks(seen: Observations): string[] {
  const outcome: Outcome = 'error' in seen.first.outcome ? seen.first.outcome : seen.second.outcome;
  return [
    ...(isSimulated(seen)
      ? ['SIMULATED: nothing about hardware is proven; what is marked so rests on evidence anyone can make']
      : []),
    ...(isObserving(seen) ? ['no policy was given: software, models and machine were not compared with any. See --policy'] : []), // prettier-ignore
    ...(isObserving(seen) || !('error' in outcome) ? [] : [`the policy refuses it: ${outcome.error.code}: ${errorInFlags(outcome.error).message}`]), // prettier-ignore
  ];
}

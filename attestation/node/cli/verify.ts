// `assay-verify https://HOST`: connects, judges, prints the verdict in the form that was asked for,
// keeps the evidence when told.

import { AttestationError } from '../../transcript/errors.ts';
import { explain, meaningOf, type Outcome } from '../../appraise/explain.ts';
import type { Witnessed } from '../../appraise/archive-writer.ts';
import type { EndorsementSource } from '../../appraise/hardware.ts';
import type { ReceivedEvidence } from '../connect.ts';
import type { Command } from './arguments.ts';
import { errorInFlags } from './flags.ts';
import { type JudgingOptions, readJudgingOptions, wrongUsage } from './judging-options.ts';
import { printable, printableJson } from './printable.ts';
import { renderVerdict } from './table.ts';
import { renderOnTerminal } from './terminal.ts';
import { type CliWorld, EXIT, type ExitCode } from './world.ts';

type Verify = Extract<Command, { kind: 'verify' }>;

const NO_POLICY =
  'no policy was given: this is what the server says, and none of it is accepted. See --policy, --measurement, --model';

export async function commandVerify(command: Verify, world: CliWorld): Promise<ExitCode> {
  const judging = await readJudgingOptions(command, world);
  const judged = await judge(command, judging, world);
  await judging.close();
  const { outcome } = judged;
  print(command, outcome, world);
  if (judging.policy.measurements.length === 0 && !command.json && !command.explain)
    world.stdout(`\n${NO_POLICY}\n`);
  if (command.saveFile !== undefined) await save(command, judging, judged, world);
  return 'result' in outcome ? 0 : EXIT[outcome.error.kind];
}

interface Judged {
  readonly outcome: Outcome;
  /** The evidence that was judged; undefined when none came. */
  readonly received: ReceivedEvidence | undefined;
  readonly fetched: Witnessed['endorsements'];
}

async function judge(
  command: Verify,
  { close: _close, ...judging }: JudgingOptions,
  world: CliWorld,
): Promise<Judged> {
  const { connectAttested } = await import('../connect.ts');
  let received: ReceivedEvidence | undefined;
  let fetched: Witnessed['endorsements'];
  const { endorsements } = judging;
  const keeping: EndorsementSource | undefined =
    endorsements && (async (request) => (fetched = await endorsements(request)));
  try {
    const { socket, result } = await connectAttested(command.origin, {
      ...judging,
      endorsements: keeping,
      now: world.now,
      randomBytes: world.randomBytes,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      model: command.attest,
      onEvidence: (evidence) => (received = evidence),
    });
    socket.destroySoon();
    return { outcome: { result }, received, fetched };
  } catch (error) {
    if (error instanceof AttestationError)
      return { outcome: { error: errorInFlags(error) }, received, fetched };
    throw error;
  }
}

function print(command: Verify, outcome: Outcome, world: CliWorld): void {
  const { origin } = command.origin;
  const terminal = world.terminal?.stdout;
  if (command.json) world.stdout(`${printableJson(outcomeToJson(origin, outcome), 2)}\n`);
  else if (command.explain) world.stdout(`${explain(outcome).map(printable).join('\n')}\n`);
  else if (terminal === undefined) world.stdout(`${renderVerdict(origin, outcome).join('\n')}\n`);
  else world.stdout(`${renderOnTerminal(origin, outcome, terminal, command.table).join('\n')}\n`);
}

async function save(
  command: Verify,
  { policy }: JudgingOptions,
  judged: Judged,
  world: CliWorld,
): Promise<void> {
  const { saveFile = '' } = command;
  const { outcome, received, fetched } = judged;
  if (received === undefined) {
    world.stderr('nothing was saved: the server gave no evidence that can be read\n');
    return;
  }
  if (world.writeText === undefined) throw wrongUsage('files cannot be written here');
  const { archiveToJson } = await import('../../appraise/archive-writer.ts');
  const at = world.now();
  const code = 'error' in outcome ? outcome.error.code : undefined;
  const seen = { ...received, endorsements: fetched, origin: command.origin.origin, policy, at, code };
  try {
    await world.writeText(saveFile, `${printableJson(archiveToJson([seen]), 2)}\n`);
  } catch (error) {
    throw wrongUsage(`archive cannot be written: ${error instanceof Error ? error.message : String(error)}`);
  }
  world.stderr(`saved to ${printable(saveFile)}: assay-verify evidence < FILE judges it again\n`);
}

function outcomeToJson(origin: string, outcome: Outcome): unknown {
  const means = Object.fromEntries(meaningOf(outcome).map(({ id, standing }) => [id, standing]));
  if ('result' in outcome) {
    const { transcript, models, ...result } = outcome.result;
    return {
      accepted: true,
      code: null,
      origin,
      means,
      result: { ...result, models: Object.fromEntries(models) },
      checks: transcript,
    };
  }
  const { kind, code, message, check, expected, actual, hint, transcript } = outcome.error;
  return {
    accepted: false,
    code,
    origin,
    means,
    error: { kind, message, check, expected, actual, hint },
    checks: transcript,
  };
}

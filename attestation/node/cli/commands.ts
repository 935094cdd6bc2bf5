// assay-verify: one command line to its end and its exit code. Here the commands that connect, verify and proxy; those that
// open no connection are in cli-offline.ts. Each loads what it needs and no
// more: most of a short run is loading. Writes to the streams it is given, never elsewhere.

import { join } from 'node:path';
import { type AttestationErrorKind, AttestationError } from '../../transcript/errors.ts';
import { explain, meaningOf, type Outcome } from '../../appraise/explain.ts';
import type { Policy } from '../../appraise/policy.ts';
import { bundleStore } from '../endorsements/bundle.ts';
import { type Command, HELP, parseCommand, policyOf } from './arguments.ts';
import { commandEvidence } from './evidence.ts';
import { commandBundle, commandMeasure, commandPolicy } from './offline.ts';
import { type CliWorld, type ExitCode, readReleases, readText } from './world.ts';
import type { ConnectOptions } from '../connect.ts';
import { fileRollbackMemory } from '../memory-file.ts';
import { printable, printableJson } from './printable.ts';
import { renderVerdict } from './table.ts';

const EXIT: Readonly<Record<AttestationErrorKind, ExitCode>> = {
  refused: 10,
  unsupported: 20,
  malformed: 30,
  internal: 1,
};

/** Runs one command line to its end. Never throws: what fails is on stderr and in the exit code. */
export async function runCli(argv: readonly string[], world: CliWorld): Promise<ExitCode> {
  try {
    return await run(parseCommand(argv), world);
  } catch (error) {
    const known =
      error instanceof AttestationError
        ? error
        : new AttestationError(
            'internal',
            'internal',
            error instanceof Error ? error.message : String(error),
          );
    const lines = [
      `assay-verify: ${known.code}: ${known.message}`,
      ...(known.hint === undefined ? [] : [`  ${known.hint}`]),
    ];
    world.stderr(lines.map((line) => `${printable(line)}\n`).join(''));
    return EXIT[known.kind];
  }
}

async function run(command: Command, world: CliWorld): Promise<ExitCode> {
  switch (command.name) {
    case 'help':
      world.stdout(HELP);
      return 0;
    case 'verify':
      return runVerify(command, world);
    case 'proxy':
      return runProxy(command, world);
    case 'evidence':
      return commandEvidence(world);
    case 'policy':
      return commandPolicy(command, world);
    case 'measure':
      return commandMeasure(command, world);
    case 'bundle':
      return commandBundle(command, world);
  }
}

type Connecting = Extract<Command, { name: 'verify' | 'proxy' }>;

/** The policy, and what it needs to be judged by: a source of endorsements, a memory of what was seen. */
interface Means extends Pick<ConnectOptions, 'endorsements' | 'memory'> {
  readonly policy: Policy;
  readonly close: () => Promise<void>;
}

async function prepare(command: Connecting, world: CliWorld): Promise<Means> {
  const { accept, cacheFolder, bundleFile } = command;
  const file =
    accept.policyFile === undefined ? undefined : await readText(accept.policyFile, 'policy file', world);
  const policy = policyOf(accept, file, await readReleases(accept.referenceFile, world));
  const mode = policy.endorsements;
  if (bundleFile !== undefined && mode !== 'offline')
    throw wrongUsage('--bundle goes with a policy whose endorsements are "offline"');
  if (mode === 'offline' && bundleFile === undefined && cacheFolder === undefined) throw wrongUsage('the policy wants offline endorsements: give --bundle FILE or --cache DIR'); // prettier-ignore
  const memory =
    cacheFolder === undefined ? {} : { memory: await fileRollbackMemory(join(cacheFolder, 'seen.json')) };
  if (mode === 'stapled') return { policy, ...memory, close: () => Promise.resolve() };
  const { createEndorsements } = await import('../endorsements/endorsements.ts');
  const endorsements = createEndorsements({
    offline: mode === 'offline',
    now: world.now,
    ...(bundleFile === undefined ? {} : { store: bundleStore(await readText(bundleFile, 'bundle', world)) }),
    ...(bundleFile !== undefined || cacheFolder === undefined
      ? {}
      : { cacheFolder: join(cacheFolder, 'endorsements') }),
    ...(world.proxy === undefined ? {} : { proxy: world.proxy }),
  });
  return { policy, ...memory, endorsements: endorsements.source, close: () => endorsements.close() };
}

function wrongUsage(message: string): AttestationError {
  return new AttestationError('malformed', 'wrong_usage', message, { hint: 'see assay-verify --help' });
}

async function runVerify(command: Extract<Command, { name: 'verify' }>, world: CliWorld): Promise<ExitCode> {
  const means = await prepare(command, world);
  const { policy } = means;
  const outcome = await judge(command, means, world);
  await means.close();
  const { origin } = command.origin;
  if (command.json) world.stdout(`${printableJson(outcomeToJson(origin, outcome), 2)}\n`);
  else if (command.explain) world.stdout(`${explain(outcome).map(printable).join('\n')}\n`);
  else {
    world.stdout(`${renderVerdict(origin, outcome).join('\n')}\n`);
    if (policy.measurements.length === 0)
      world.stdout(
        '\nno policy was given: this is what the server says, and none of it is accepted. See --policy, --measurement, --model\n',
      );
  }
  return 'result' in outcome ? 0 : EXIT[outcome.error.kind];
}

async function judge(
  command: Extract<Command, { name: 'verify' }>,
  { close: _close, ...means }: Means,
  world: CliWorld,
): Promise<Outcome> {
  const { connectAttested } = await import('../connect.ts');
  try {
    const { socket, result } = await connectAttested(command.origin, {
      ...means,
      now: world.now,
      randomBytes: world.randomBytes,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      ...(command.attest === undefined ? {} : { model: command.attest }),
    });
    socket.destroySoon();
    return { result };
  } catch (error) {
    if (error instanceof AttestationError) return { error };
    throw error;
  }
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

async function runProxy(command: Extract<Command, { name: 'proxy' }>, world: CliWorld): Promise<ExitCode> {
  const { close, ...means } = await prepare(command, world);
  const { origin } = command.origin;
  const { startProxy } = await import('../proxy.ts');
  const stop = world.stop();
  let proxy;
  try {
    proxy = await startProxy({
      upstream: command.origin,
      ...means,
      host: command.host,
      port: command.port,
      allowNonLoopback: command.allowNonLoopback,
      connections: command.connections,
      sameMachine: command.sameMachine,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      now: world.now,
    });
  } catch (error) {
    await close();
    if (!(error instanceof AttestationError) || error.transcript.length === 0) throw error;
    world.stderr(`${renderVerdict(origin, { error }).join('\n')}\n`);
    return EXIT[error.kind];
  }
  world.stderr(`${renderVerdict(origin, { result: proxy.result() }).join('\n')}\n\n`);
  world.stdout(`listening on ${proxy.url}\n`);
  await stopped(stop);
  await proxy.close();
  await close();
  return 0;
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

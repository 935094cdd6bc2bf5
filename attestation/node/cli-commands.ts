// What each command of assay-verify does. Everything outside — streams, files, clock, randomness, the signal to stop — comes
// in as a parameter, so that tests run the real thing. Returns the exit code; writes to the streams it is given, never elsewhere.

import { type AttestationErrorKind, AttestationError } from '../errors.ts';
import { runEvidence } from '../evidence.ts';
import { explain, meaningOf, type Outcome } from '../explain.ts';
import { lintPolicy, type Policy, policyToJson, parsePolicy } from '../policy.ts';
import { type Command, HELP, parseCommand, policyOf } from './cli-arguments.ts';
import { connectAttested } from './connect.ts';
import { startProxy } from './proxy.ts';
import { renderVerdict } from './transcript.ts';

export interface CliWorld {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** All of standard input, at most `maxBytes`; throws when it is more. */
  readonly stdin: (maxBytes: number) => Promise<Uint8Array>;
  readonly readFile: (path: string) => Promise<string>;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  readonly randomBytes: (length: number) => Uint8Array;
  /** From when it is called, a request to stop aborts the signal instead of ending the process. */
  readonly stop: () => AbortSignal;
}

export type ExitCode = 0 | 1 | 10 | 20 | 30;

const EXIT: Readonly<Record<AttestationErrorKind, ExitCode>> = { refused: 10, unsupported: 20, malformed: 30, internal: 1 };

/** Runs one command line to its end. Never throws: what fails is on stderr and in the exit code. */
export async function runCli(argv: readonly string[], world: CliWorld): Promise<ExitCode> {
  try {
    return await run(parseCommand(argv), world);
  } catch (error) {
    const known =
      error instanceof AttestationError
        ? error
        : new AttestationError('internal', 'internal', error instanceof Error ? error.message : String(error));
    world.stderr(`assay-verify: ${known.code}: ${known.message}\n${known.hint === undefined ? '' : `  ${known.hint}\n`}`);
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
    case 'evidence': {
      const { exitCode, output } = await runEvidence(await world.stdin(8 << 20));
      world.stdout(`${JSON.stringify(output)}\n`);
      return exitCode;
    }
    case 'policy':
      return runPolicy(command, world);
  }
}

async function loadPolicy({ accept }: Extract<Command, { name: 'verify' | 'proxy' }>, world: CliWorld): Promise<Policy> {
  return policyOf(accept, accept.policyFile === undefined ? undefined : await readPolicy(accept.policyFile, world));
}

async function readPolicy(path: string, world: CliWorld): Promise<string> {
  try {
    return await world.readFile(path);
  } catch (error) {
    throw new AttestationError(
      'malformed',
      'wrong_usage',
      `policy file cannot be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

async function runVerify(command: Extract<Command, { name: 'verify' }>, world: CliWorld): Promise<ExitCode> {
  const policy = await loadPolicy(command, world);
  const outcome = await judge(command, policy, world);
  const { origin } = command.origin;
  if (command.json) world.stdout(`${JSON.stringify(outcomeToJson(origin, outcome), undefined, 2)}\n`);
  else if (command.explain) world.stdout(`${explain(outcome).join('\n')}\n`);
  else {
    world.stdout(`${renderVerdict(origin, outcome).join('\n')}\n`);
    if (policy.measurements.length === 0)
      world.stdout(
        '\nno policy was given: this is what the server says, and none of it is accepted. See --policy, --measurement, --model\n',
      );
  }
  return 'result' in outcome ? 0 : EXIT[outcome.error.kind];
}

async function judge(command: Extract<Command, { name: 'verify' }>, policy: Policy, world: CliWorld): Promise<Outcome> {
  try {
    const { socket, result } = await connectAttested(command.origin, {
      policy,
      now: world.now,
      randomBytes: world.randomBytes,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      ...(command.attest === undefined ? {} : { model: command.attest }),
    });
    socket.on('error', () => {});
    socket.destroy();
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
    return { accepted: true, code: null, origin, means, result: { ...result, models: Object.fromEntries(models) }, checks: transcript };
  }
  const { kind, code, message, check, expected, actual, hint, transcript } = outcome.error;
  return { accepted: false, code, origin, means, error: { kind, message, check, expected, actual, hint }, checks: transcript };
}

async function runProxy(command: Extract<Command, { name: 'proxy' }>, world: CliWorld): Promise<ExitCode> {
  const policy = await loadPolicy(command, world);
  const { origin } = command.origin;
  const stop = world.stop();
  let proxy;
  try {
    proxy = await startProxy({
      upstream: command.origin,
      policy,
      host: command.host,
      port: command.port,
      allowNonLoopback: command.allowNonLoopback,
      connections: command.connections,
      connectTimeoutMs: command.timeoutMs,
      attestTimeoutMs: command.timeoutMs,
      now: world.now,
    });
  } catch (error) {
    if (!(error instanceof AttestationError) || error.transcript.length === 0) throw error;
    world.stderr(`${renderVerdict(origin, { error }).join('\n')}\n`);
    return EXIT[error.kind];
  }
  world.stderr(`${renderVerdict(origin, { result: proxy.result() }).join('\n')}\n\n`);
  world.stdout(`listening on ${proxy.url}\n`);
  await stopped(stop);
  await proxy.close();
  return 0;
}

function stopped(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

async function runPolicy(command: Extract<Command, { name: 'policy' }>, world: CliWorld): Promise<ExitCode> {
  const policy = parsePolicy(await readPolicy(command.file, world));
  if (command.action === 'print') {
    world.stdout(`${JSON.stringify(policyToJson(policy), undefined, 2)}\n`);
    return 0;
  }
  const remarks = lintPolicy(policy);
  world.stdout(remarks.length === 0 ? 'nothing to remark\n' : `${remarks.join('\n')}\n`);
  return 0;
}

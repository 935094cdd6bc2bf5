// assay-verify: one command line to its end and its exit code. Each command loads what it needs and no more:
// most of a short run is loading. Writes to the streams it is given, never elsewhere.

import { AttestationError } from '../../transcript/errors.ts';
import { type Command, parseCommand } from './arguments.ts';
import { commandEvidence } from './evidence.ts';
import { errorInFlags } from './flags.ts';
import { commandBundle, commandMeasure, commandPolicy } from './offline.ts';
import { printable } from './printable.ts';
import { type CliWorld, EXIT, type ExitCode } from './world.ts';

/** Runs one command line to its end. Never throws: what fails is on stderr and in the exit code. */
export async function runCli(argv: readonly string[], world: CliWorld): Promise<ExitCode> {
  try {
    return await run(parseCommand(argv), world);
  } catch (error) {
    const known =
      error instanceof AttestationError
        ? errorInFlags(error)
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
  switch (command.kind) {
    case 'help':
      world.stdout(command.text);
      return 0;
    case 'version': {
      const { packageVersion } = await import('./version.ts');
      world.stdout(`assay-verify ${packageVersion()}\n`);
      return 0;
    }
    case 'verify': {
      const { commandVerify } = await import('./verify.ts');
      return commandVerify(command, world);
    }
    case 'proxy': {
      const { commandProxy } = await import('./proxy.ts');
      return commandProxy(command, world);
    }
    case 'seal': {
      const { commandSeal } = await import('./seal.ts');
      return commandSeal(command, world);
    }
    case 'console': {
      const { commandConsole } = await import('./console.ts');
      return commandConsole(command, world);
    }
    case 'console-check': {
      const { commandConsoleCheck } = await import('./console.ts');
      return commandConsoleCheck(command, world);
    }
    case 'score': {
      const { commandScore } = await import('./score.ts');
      return commandScore(command, world);
    }
    case 'evidence':
      return commandEvidence(world);
    case 'job': {
      const { commandJob } = await import('./job.ts');
      return commandJob(command, world);
    }
    case 'receipt': {
      const { commandReceipt } = await import('./receipt.ts');
      return commandReceipt(command, world);
    }
    case 'policy':
      return commandPolicy(command, world);
    case 'measure':
      return commandMeasure(command, world);
    case 'bundle':
      return commandBundle(command, world);
  }
}

#!/usr/bin/env node
// `assay`: the server's command line. Exit codes: 0 done, 1 failed, 2 wrong configuration or usage.
// Keys are never taken from the command line, where other users of the machine could read them.

import { CommandError, UsageError, version } from './arguments.ts';
import { ApiError, ConfigError } from '../base/errors.ts';

const HELP = `assay: OpenAI-compatible inference that proves its software, its model and its TLS connection

  assay serve [--config FILE] [--operator-config FILE] [--tee MODE] [--data DIR]
              [--model [ID=]FILE]... [--listen HOST:PORT] [--log-level LEVEL] [--demo]
  assay models list|ps|show|add|pull|rm|load|unload    see: assay models --help
  assay config check|show [--config FILE] [--operator-config FILE]
  assay image model FILE [--out DISK]                  pack a GGUF as a model disk of the appliance
  assay audit verify [FOLDER] [--receipt-key HEX]...
  assay --version

MODE is auto, sev-snp, tdx, simulated, simulated-if-no-hardware or none. Settings: docs/configuration.md.
`;

/** Each command is loaded when it is asked for: the small ones need not wait for the server's code. */
async function run(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case 'serve':
      return (await import('./serve.ts')).serveCommand(rest);
    case 'models':
      return (await import('./models.ts')).modelsCommand(rest);
    case 'config':
      return (await import('./config.ts')).configCommand(rest);
    case 'image':
      return (await import('./image.ts')).imageCommand(rest);
    case 'audit':
      return (await import('./audit.ts')).auditCommand(rest);
    case '--version':
    case 'version':
      process.stdout.write(`${version()}\n`);
      return 0;
    case '--help':
    case '-h':
    case 'help':
      process.stdout.write(HELP);
      return 0;
    case undefined:
      process.stderr.write(HELP);
      return 2;
    default:
      throw new UsageError(
        `unknown command ${JSON.stringify(command.slice(0, 40))}; assay --help lists them`,
      );
  }
}

// `assay models list | head` closes the pipe before we are done; that is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  process.exitCode = error instanceof ConfigError || error instanceof UsageError ? 2 : 1;
  process.stderr.write(`assay: ${describe(error)}\n`);
}

/** One line for what people can act on; a stack for what only we can. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return 'failed';
  if (error instanceof ConfigError || error instanceof UsageError || error instanceof CommandError)
    return error.message;
  if (error instanceof ApiError) return `${error.message} (${error.code})`;
  const { code, syscall, path, address, port } = error as NodeJS.ErrnoException & {
    readonly address?: string | undefined;
    readonly port?: number | undefined;
  };
  if (code === undefined || syscall === undefined) return error.stack ?? error.message;
  const what = path ?? (address === undefined ? '' : `${address}:${port}`);
  return `${syscall} ${what} failed (${code})`;
}

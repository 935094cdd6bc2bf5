#!/usr/bin/env node
// `assay`: the server's command line. Exit codes: 0 done, 1 failed, 2 wrong configuration or usage.
// Keys are never taken from the command line, where other users of the machine could read them.

import { auditCommand } from './cli-audit.ts';
import { configCommand } from './cli-config.ts';
import { modelsCommand } from './cli-models.ts';
import { serveCommand } from './cli-serve.ts';
import { UsageError, version } from './cli-common.ts';
import { ApiError, ConfigError } from './errors.ts';

const HELP = `assay: OpenAI-compatible inference that proves its software, its model and its TLS connection

  assay serve [--config FILE] [--operator-config FILE] [--tee MODE] [--data DIR]
              [--model [ID=]FILE]... [--listen HOST:PORT] [--log-level LEVEL] [--demo]
  assay models list|ps|show|add|pull|rm|load|unload    see: assay models --help
  assay config check|show [--config FILE] [--operator-config FILE]
  assay audit verify [FOLDER] [--receipt-key HEX]
  assay --version

MODE is auto, sev-snp, tdx, simulated, simulated-if-no-hardware or none. Settings: docs/configuration.md.
`;

async function run(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case 'serve':
      return serveCommand(rest);
    case 'models':
      return modelsCommand(rest);
    case 'config':
      return configCommand(rest);
    case 'audit':
      return auditCommand(rest);
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
      throw new UsageError(`unknown command ${JSON.stringify(command.slice(0, 40))}; assay --help lists them`);
  }
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  if (error instanceof ConfigError || error instanceof UsageError) {
    process.stderr.write(`assay: ${error.message}\n`);
    process.exitCode = 2;
  } else if (error instanceof ApiError) {
    process.stderr.write(`assay: ${error.message} (${error.code})\n`);
    process.exitCode = 1;
  } else {
    process.stderr.write(`assay: ${error instanceof Error ? (error.stack ?? error.message) : 'failed'}\n`);
    process.exitCode = 1;
  }
}

// From the arguments to a command. Keys are never taken from the command line, where other users of the
// machine could read them.

import { UsageError, version } from './arguments.ts';
import { commandNames, helpOf } from './help.ts';
import { nearestOf } from '../config/keys.ts';

type Run = (args: readonly string[]) => Promise<number>;

/** Each command is loaded when it is asked for: the small ones need not wait for the server's code. */
const LOAD: Readonly<Record<string, () => Promise<Run>>> = {
  serve: async () => (await import('./serve.ts')).serveCommand,
  chat: async () => (await import('./chat.ts')).chatCommand,
  models: async () => (await import('./models.ts')).modelsCommand,
  config: async () => (await import('./config.ts')).configCommand,
  'api-key': async () => (await import('./api-key.ts')).apiKeyCommand,
  image: async () => (await import('./image.ts')).imageCommand,
  replay: async () => (await import('./replay.ts')).replayCommand,
  audit: async () => (await import('./audit.ts')).auditCommand,
  workshop: async () => (await import('./workshop.ts')).workshopCommand,
};

/** Resolves with the exit code. */
export async function run(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  if (command === undefined) {
    process.stderr.write(helpOf([]) ?? '');
    return 2;
  }
  // After `--` everything is an operand.
  const options = args.includes('--') ? args.slice(0, args.indexOf('--')) : args;
  if (command === 'help' || options.some((option) => option === '--help' || option === '-h')) {
    const about = command === 'help' ? rest : options;
    const text = helpOf(about);
    if (text === undefined) throw unknown(about.find((arg) => !arg.startsWith('-')) ?? '');
    process.stdout.write(text);
    return 0;
  }
  if (command === 'version' || options.some((option) => option === '--version' || option === '-v')) {
    process.stdout.write(`${version()}\n`);
    return 0;
  }
  const load = Object.hasOwn(LOAD, command) ? LOAD[command] : undefined;
  if (load === undefined) throw unknown(command);
  return (await load())(rest);
}

function unknown(command: string): UsageError {
  const nearest = nearestOf(command, commandNames());
  return new UsageError(
    `unknown command ${JSON.stringify(command.slice(0, 40))}${nearest === undefined ? '' : `, did you mean ${nearest}?`}; assay --help lists them`,
  );
}

// `assay workshop`: a program of its own, which this process becomes. It is found beside the command line
// at run time and never imported by it: the server's code and its image do not grow by it.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type * as program from '../workshop/main.ts';
import {
  CommandError,
  CONFIG_OPTIONS,
  currentFolder,
  optionText,
  parseArguments,
  version,
} from './arguments.ts';
import { withoutDebugger } from './memory-access.ts';
import { takeSignals } from './signals.ts';
import { logStream } from './terminal.ts';
import { WORKSHOP_ACTIONS, workshopJobCommand } from './workshop-jobs.ts';

const OPTIONS = {
  ...CONFIG_OPTIONS,
  tee: { type: 'string' },
  data: { type: 'string' },
  listen: { type: 'string' },
  'log-level': { type: 'string' },
  'log-format': { type: 'string' },
} as const;

export async function workshopCommand(args: readonly string[]): Promise<number> {
  const [action = ''] = args;
  if (WORKSHOP_ACTIONS.has(action)) return workshopJobCommand(args);
  const isSetup = action === 'setup';
  const { values } = parseArguments(isSetup ? args.slice(1) : args, OPTIONS);
  const entry = new URL('../workshop/main.js', import.meta.url);
  if (!existsSync(fileURLToPath(entry))) throw new CommandError('this build has no workshop');
  withoutDebugger();
  // The type is that of the file beside, which the name of a variable hides from bundlers.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const { setupMain, workshopMain } = (await import(entry.href)) as typeof program;
  const main = isSetup ? setupMain : workshopMain;
  return main({
    values: Object.fromEntries(Object.keys(OPTIONS).map((name) => [name, optionText(values[name])])),
    cwd: currentFolder(),
    version: version(),
    logStream: logStream(optionText(values['log-format'])),
    stop: takeSignals(),
  });
}

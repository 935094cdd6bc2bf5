// Options of Node that hand the memory of this process to others: a debugger, heap snapshots, reports
// with the environment. The environment can set them too (NODE_OPTIONS), so a server that holds prompts
// refuses to run with them.

import * as inspector from 'node:inspector';
import { environment } from '../config/read.ts';
import { ConfigError } from '../base/errors.ts';

const TELLING =
  /^--(inspect(-brk|-wait)?|heapsnapshot-.*|heap-prof|report-.*|abort-on-uncaught-exception|trace-(uncaught|sigint))(=|$)/;

/**
 * Throws ConfigError for such an option; closes a debugger that was opened by a signal
 * since the process began.
 */
export function withoutDebugger(
  execArgv: readonly string[] = process.execArgv,
  nodeOptions: string = environment()['NODE_OPTIONS'] ?? '',
): void {
  const sources = { 'the command line of node': execArgv, NODE_OPTIONS: nodeOptions.split(/[\s"]+/) };
  for (const [source, options] of Object.entries(sources)) {
    const option = options.find((text) => TELLING.test(text.replaceAll('_', '-')));
    if (option !== undefined)
      throw new ConfigError(
        `${source} has ${option.slice(0, 60)}, which opens the memory of this process, prompts and keys with it; remove it`,
      );
  }
  if (inspector.url() !== undefined) inspector.close();
}

// `assay serve`: starts the server, prints how to use it, drains on the first signal that asks for
// the end, stops on the second. Standard error carries the log, as JSON lines unless it is a
// terminal; one of them is {"msg":"listening","url":"https://…"} once requests are answered. Standard
// output carries the text for people.

import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ConfigError } from '../base/errors.ts';
import { createLog, type Log } from '../base/log.ts';
import { reachableSwap, withoutCoreDumps } from '../base/process-memory.ts';
import type { Config } from '../config/read.ts';
import { checkTemplate, findDevices, openEngine } from '../engine/open.ts';
import { leastFiles, maxConnections, openFileLimit } from '../start/http.ts';
import { start, type RunningServer } from '../start/start.ts';
import {
  CONFIG_OPTIONS,
  currentFolder,
  loadConfig,
  modelArgument,
  parseArguments,
  optionText,
  UsageError,
  version,
  type Parsed,
} from './arguments.ts';
import { converters } from './converters.ts';
import { engineOptions } from './engine-options.ts';
import { greeting, openToAll, whyOpen } from './greeting.ts';
import { checkHeap } from './heap-limit.ts';
import { withoutDebugger } from './memory-access.ts';
import { takeSignals, type Stop } from './signals.ts';
import { logStream, painter } from './terminal.ts';

export async function serveCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArguments(args, {
    ...CONFIG_OPTIONS,
    tee: { type: 'string' },
    data: { type: 'string' },
    model: { type: 'string', multiple: true },
    listen: { type: 'string' },
    'files-dir': { type: 'string' },
    'api-key': { type: 'string' },
    'log-level': { type: 'string' },
    'log-format': { type: 'string' },
    demo: { type: 'boolean' },
  });
  if (values['api-key'] !== undefined) throw new UsageError(KEY_ON_COMMAND_LINE);
  const stream = logStream(optionText(values['log-format']));
  const config = servedConfig(values);
  withoutDebugger();
  if (!config.api.enabled) {
    process.stderr.write('assay: api.enabled is false, nothing to serve\n');
    return 0;
  }
  const log = createLog({ level: config.log.level, stream });
  lastWords(log);
  keepMemoryIn(log);
  countFiles(config, log);
  checkHeap(config, log);
  if (openToAll(config))
    log.warn({
      msg: `everybody who reaches this address may use it: ${whyOpen(config)}`,
      address: config.api.address,
    });
  const stop = takeSignals();
  const server = await started(config, log, stop);
  // Making the simulated keys would keep the process for seconds, and they are no longer needed.
  if (server === undefined) process.exit(stop.failed() ? 1 : 0);
  const text = await greeting(server, config, painter(process.stdout));
  // Logged at every level: this line says that the server is ready.
  log.child({}, { level: 'info' }).info({
    msg: 'listening',
    url: server.url,
    tee: server.tee?.source.teeType ?? null,
    models: server.models.list().length,
  });
  process.stdout.write(text);
  return untilStopped(server, log, stop);
}

/** Every user of the machine can read the arguments of a process. */
const KEY_ON_COMMAND_LINE =
  '--api-key is not taken: a command line can be read by every user of the machine; "assay api-key add NAME" makes a key, whose digest goes into the configuration, or set api.api_key there or ASSAY_API_API_KEY';

/** Keys with an option of their own. */
const FLAGS = {
  'tee.mode': 'tee',
  'store.data_dir': 'data',
  'api.address': 'listen',
  'files.folder': 'files-dir',
  'log.level': 'log-level',
} as const;

/** The configuration with what the options of a command say. */
export function servedConfig(values: Parsed['values']): Config {
  const models = ((values['model'] ?? []) as readonly string[]).map(modelArgument);
  const demo = values['demo'] === true;
  const given: Record<string, readonly [string, unknown]> = {};
  for (const [key, option] of Object.entries(FLAGS)) {
    const value = optionText(values[option]);
    if (value !== undefined) given[key] = [`--${option}`, value];
  }
  return loadConfig(values, {
    defaults: demo
      ? {
          'tee.mode': ['--demo', 'simulated-if-no-hardware'],
          'store.data_dir': ['--demo', resolve(currentFolder(), '.assay')],
          // Demo keys are made once per checkout, not per data folder: it takes seconds.
          'tee.simulated_folder': ['--demo', join(cacheFolder(), 'simulated')],
        }
      : {},
    flags: given,
    models: demo ? [...demoModels(), ...models] : models,
  });
}

/** `make models` writes them; `serve --demo` only serves what is there. */
function demoModels(): readonly { readonly id: string; readonly path: string }[] {
  const folder = join(cacheFolder(), 'models');
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => /^demo-[a-z]+\.gguf$/.test(name))
    : [];
  if (names.length > 0) return names.sort().map((name) => modelArgument(join(folder, name)));
  throw new UsageError(
    existsSync(join(cacheFolder(), '..', 'Makefile'))
      ? `there are no demo models in ${folder}; run "make models"`
      : '--demo needs the demo models, which only a checkout of the sources makes ("make models"); serve a model of your own with --model FILE',
  );
}

/** `.cache` of the repository this runs from. */
function cacheFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return join(folder, '.cache');
}

/** Undefined when the end was asked for before there was a server. */
async function started(config: Config, log: Log, stop: Stop): Promise<RunningServer | undefined> {
  const engines = engineOptions(config);
  try {
    return await start({
      config,
      log,
      version: version(),
      openEngine: openEngine(engines),
      checkTemplate: (source) => checkTemplate(engines, source),
      findDevices: () => findDevices(engines),
      converters: converters(),
      signal: stop.asked,
      onFatal: stop.fail,
    });
  } catch (error) {
    if (!stop.asked.aborted || error !== stop.asked.reason) throw error;
    log.info({ msg: 'stopped before it listened', signal: String(stop.asked.reason) });
    return undefined;
  }
}

/** Resolves with the exit code: 0 drained, 1 stopped hard or because something failed. */
async function untilStopped(server: RunningServer, log: Log, stop: Stop): Promise<number> {
  if (!stop.asked.aborted)
    await new Promise((resolve) => stop.asked.addEventListener('abort', resolve, { once: true }));
  log.info({ msg: 'draining', signal: String(stop.asked.reason) });
  let hard = false;
  stop.onInsisted((signal) => {
    hard = true;
    log.warn({ msg: 'stopping now', signal });
    server.close(true).catch((error: unknown) => log.error({ msg: 'stop failed', err: error }));
  });
  await server.close();
  log.info({ msg: 'stopped' });
  return hard || stop.failed() ? 1 : 0;
}

/** An unhandled fault: log its kind, without content, and end. Engine children die with this process. */
function lastWords(log: Log): void {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      log.error({ msg: 'fatal', event, err: error });
      process.exit(1);
    });
  }
}

/**
 * Memory that holds prompts and keys must not reach a disk; logs a warning where the
 * system cannot ensure that.
 */
function keepMemoryIn(log: Log): void {
  try {
    withoutCoreDumps();
  } catch (error) {
    log.warn({
      msg: 'a core dump of this process may hold prompts and keys: start it under "ulimit -c 0"',
      err: error,
    });
  }
  const swap = reachableSwap();
  if (swap.length > 0)
    log.warn({ msg: 'memory of this process may be swapped to disk, prompts and keys with it', swap });
}

/**
 * Node has raised the limit as far as it may; only the operator can raise it further. A default value is not
 * worth a warning while the connections are enough for the requests that may run.
 */
function countFiles(config: Config, log: Log): void {
  const openFiles = openFileLimit();
  const least = leastFiles(config);
  if (openFiles < least)
    throw new ConfigError(
      `the limit of open files is ${openFiles}, this configuration needs at least ${least}: raise it ("ulimit -n")`,
    );
  const connections = maxConnections(config, openFiles);
  const { maxConnections: most, maxConcurrentRequests } = config.limits;
  const asked = config.origins.has('limits.max_connections');
  if (connections < most && (asked || connections < maxConcurrentRequests)) {
    log.warn({
      msg: 'fewer connections than limits.max_connections: raise the limit of open files ("ulimit -n")',
      openFiles,
      connections,
    });
  }
}

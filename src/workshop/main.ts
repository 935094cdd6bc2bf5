// `assay workshop`: starts the workshop, a program of its own beside the server (docs/workshop.md). The
// command line loads it when it is asked for; no production image holds it. The line
// {"msg":"listening","url":…} on standard error says that requests are answered.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { createLog } from '../base/log.ts';
import { type ConfigFile, environment } from '../config/read.ts';
import { readWorkshopConfig, type WorkshopConfig } from '../config/workshop-section.ts';
import { isLoopback } from '../http/address.ts';
import { addressOf, serverConfig } from '../start/http.ts';
import { PythonEnvironment } from './python/environment.ts';
import { startWorkshop } from './start.ts';

/** Given by the command line, which is above this room. */
export interface Surroundings {
  /** Of the options below, as they were given. */
  readonly values: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly version: string;
  readonly logStream: Parameters<typeof createLog>[0]['stream'];
  /** Aborted by the first signal that asks for the end. */
  readonly stop: { readonly asked: AbortSignal; readonly fail: () => void; readonly failed: () => boolean };
}

/** Keys with an option of their own. */
const FLAGS = {
  'api.address': 'listen',
  'tee.mode': 'tee',
  'store.data_dir': 'data',
  'log.level': 'log-level',
} as const;

/** Beside the server's. */
const DEFAULT_ADDRESS = '127.0.0.1:8444';

/** Resolves with the exit code. */
export async function workshopMain(surroundings: Surroundings): Promise<number> {
  const { stop, version } = surroundings;
  const workshop = configOf(surroundings);
  const { config } = workshop;
  const log = createLog({ level: config.log.level, stream: surroundings.logStream });
  for (const event of ['uncaughtException', 'unhandledRejection'] as const)
    process.on(event, (error: unknown) => {
      log.error({ msg: 'fatal', event, err: error });
      process.exit(1);
    });
  const { auth } = serverConfig(config);
  if (!isLoopback(addressOf(config.api.address).host) && !auth.required)
    throw new ConfigError('a workshop that other machines reach needs API keys (api.keys)', 'api.address');
  const running = await startWorkshop({
    workshop,
    log,
    version,
    signal: stop.asked,
    onFatal: (error) => {
      log.error({ msg: 'a part the workshop needs has failed', err: error });
      stop.fail();
    },
  }).catch((error: unknown) => {
    if (!stop.asked.aborted) throw error;
    return undefined;
  });
  if (running === undefined) {
    log.info({ msg: 'stopped', signal: String(stop.asked.reason) });
    return stop.failed() ? 1 : 0;
  }
  log.child({}, { level: 'info' }).info({
    msg: 'listening',
    url: running.url,
    tee: running.tee?.source.teeType ?? null,
    jail: running.jail.mode,
    receiptKey: Buffer.from(running.identity.receipt.publicKey).toString('hex'),
  });
  if (!stop.asked.aborted)
    await new Promise((done) => stop.asked.addEventListener('abort', done, { once: true }));
  log.info({ msg: 'draining', signal: String(stop.asked.reason) });
  await running.close();
  log.info({ msg: 'stopped' });
  return stop.failed() ? 1 : 0;
}

/** `assay workshop setup`: makes the Python environment of the configuration, or makes it whole. */
export async function setupMain(surroundings: Surroundings): Promise<number> {
  const environmentOf = new PythonEnvironment({ folder: configOf(surroundings).workshop.python });
  const before = await environmentOf.status();
  if (before.state === 'ready') {
    process.stdout.write(`${before.folder} is as its lock says\n`);
    return 0;
  }
  const bar = setupBar(process.stderr.isTTY);
  await environmentOf.create({ signal: surroundings.stop.asked, onProgress: bar });
  const { state, reason, folder } = await environmentOf.status();
  if (state !== 'ready')
    throw new ConfigError(`${folder} is not whole: ${reason ?? state}`, 'workshop.python');
  process.stdout.write(`${folder} is ready\n`);
  return 0;
}

const BAR_WIDTH = 20;

/** One line that is rewritten; a line for each stage where standard error is no terminal. */
function setupBar(terminal: boolean): (progress: { stage: string; done: number; total: number }) => void {
  let last = '';
  return ({ stage, done, total }) => {
    if (!terminal) {
      if (stage !== last) process.stderr.write(`${stage}\n`);
      last = stage;
      return;
    }
    const filled = total === 0 ? 0 : Math.floor((done / total) * BAR_WIDTH);
    const bar = `[${'#'.repeat(filled)}${'-'.repeat(BAR_WIDTH - filled)}]`;
    process.stderr.write(`\r\u001b[K${bar} ${stage} ${done} of ${total}${stage === 'done' ? '\n' : ''}`);
  };
}

function configOf({ values, cwd }: Surroundings): WorkshopConfig {
  const env = environment();
  const file = values['config'] ?? env['ASSAY_CONFIG'];
  const operator = values['operator-config'] ?? env['ASSAY_OPERATOR_CONFIG'];
  const given = Object.entries(FLAGS).filter(([, option]) => values[option] !== undefined);
  return readWorkshopConfig({
    file: file === undefined ? undefined : configFile(resolve(cwd, file)),
    operator: operator === undefined ? undefined : configFile(resolve(cwd, operator)),
    environment: env,
    defaults: { 'api.address': DEFAULT_ADDRESS },
    flags: Object.fromEntries(given.map(([key, option]) => [key, values[option]])),
    options: Object.fromEntries(given.map(([key, option]) => [key, `--${option}`])),
    cwd,
  });
}

function configFile(path: string): ConfigFile {
  try {
    return { path, text: readFileSync(path, 'utf8') };
  } catch (error) {
    throw new ConfigError(
      `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'error'})`,
      undefined,
      error,
    );
  }
}

// `assay serve`: starts the server, says how to talk to it, drains on the first SIGTERM or SIGINT, stops on the second.
// Standard error carries the log as JSON lines; one of them is {"msg":"listening","url":"https://…"} once requests are
// answered. Standard output carries the text for people.

import { createHash } from 'node:crypto';
import { EventEmitter, once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SimulatedSource } from '../attester/simulated.ts';
import {
  CONFIG_OPTIONS,
  loadConfig,
  modelArgument,
  parseArguments,
  textOf,
  UsageError,
  version,
  type Parsed,
} from './arguments.ts';
import { configDigest, type Config } from '../config/read.ts';
import { isFull } from '../base/durable-files.ts';
import { createLog, type Log } from '../base/log.ts';
import { start, type RunningServer } from '../start/start.ts';
import { maxConnections, openFileLimit } from '../start/http.ts';
import { dataDir } from '../start/tee.ts';
import { withoutCoreDumps, reachableSwap } from '../base/process-memory.ts';
import { openEngine } from '../engine/open.ts';

export async function serveCommand(args: readonly string[]): Promise<number> {
  const { values } = parseArguments(args, {
    ...CONFIG_OPTIONS,
    tee: { type: 'string' },
    data: { type: 'string' },
    model: { type: 'string', multiple: true },
    listen: { type: 'string' },
    'log-level': { type: 'string' },
    demo: { type: 'boolean' },
  });
  const config = configOf(values);
  if (!config.api.enabled) {
    process.stderr.write('assay: api.enabled is false, nothing to serve\n');
    return 0;
  }
  const log = createLog({ level: config.log.level });
  lastWords(log);
  keepMemoryIn(log);
  countFiles(config, log);
  const failure = createFailure();
  const server = await start({
    config,
    log,
    version: version(),
    openEngine: openEngine({
      workerEntry: new URL('../engine/child/worker.js', import.meta.url),
      loadTimeoutMs: config.models.loadTimeoutMs,
      maxQueued: config.limits.maxQueuePerModel,
    }),
    onFatal: failure.report,
  });
  const text = await greeting(server, config, log);
  // Whoever waits for this line must get it whatever the level is.
  log.child({}, { level: 'info' }).info({
    msg: 'listening',
    url: server.url,
    tee: server.tee?.source.teeType ?? null,
    models: server.models.list().length,
  });
  process.stdout.write(text);
  return untilStopped(server, log, failure.reported);
}

function configOf(values: Parsed['values']): Config {
  const models = ((values['model'] ?? []) as readonly string[]).map(modelArgument);
  const demo = values['demo'] === true;
  return loadConfig(values, {
    flags: {
      'tee.mode': textOf(values['tee']) ?? (demo ? 'simulated-if-no-hardware' : undefined),
      'store.data_dir': textOf(values['data']) ?? (demo ? '.assay' : undefined),
      // Demo keys are made once per checkout, not per data folder: it takes seconds.
      'tee.simulated_folder': demo ? join(cacheFolder(), 'simulated') : undefined,
      'api.address': textOf(values['listen']),
      'log.level': textOf(values['log-level']),
    },
    models: demo ? [...demoModels(), ...models] : models,
  });
}

/** `make models` writes them; `serve --demo` only serves what is there. */
function demoModels(): readonly { readonly id: string; readonly path: string }[] {
  const folder = join(cacheFolder(), 'models');
  const names = existsSync(folder)
    ? readdirSync(folder).filter((name) => /^demo-[a-z]+\.gguf$/.test(name))
    : [];
  if (names.length === 0) throw new UsageError(`there are no demo models in ${folder}; run "make models"`);
  return names.sort().map((name) => modelArgument(join(folder, name)));
}

/** `.cache` of the repository this runs from. */
function cacheFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && dirname(folder) !== folder) folder = dirname(folder);
  return join(folder, '.cache');
}

/** Something without which the server must not go on: it may fail before anybody waits for it, or while it is draining. */
interface Failure {
  readonly report: () => void;
  readonly reported: AbortSignal;
}

function createFailure(): Failure {
  const controller = new AbortController();
  return { report: () => controller.abort(), reported: controller.signal };
}

/** Resolves with the exit code: 0 drained, 1 stopped hard or because something failed. */
async function untilStopped(server: RunningServer, log: Log, failure: AbortSignal): Promise<number> {
  const signals = new EventEmitter();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => signals.emit('stop', signal));
  const first = await once(signals, 'stop', { signal: failure }).then(
    ([signal]) => signal as string,
    () => 'failure',
  );
  log.info({ msg: 'draining', signal: first });
  let hard = false;
  signals.on('stop', (signal: string) => {
    hard = true;
    log.warn({ msg: 'stopping now', signal });
    server.close(true).catch((error: unknown) => log.error({ msg: 'stop failed', err: error }));
  });
  await server.close();
  log.info({ msg: 'stopped' });
  return hard || failure.aborted ? 1 : 0;
}

/** A fault nobody handled: say which, without content, and end. Engine children die with this process. */
function lastWords(log: Log): void {
  for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
    process.on(event, (error: unknown) => {
      log.error({ msg: 'fatal', event, err: error });
      process.exit(1);
    });
  }
}

/** What holds prompts and keys must not reach a disk; where that cannot be had, it is said. */
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

/** Node has raised the limit as far as it may; what is missing, the operator must give. */
function countFiles(config: Config, log: Log): void {
  const openFiles = openFileLimit();
  const connections = maxConnections(config, openFiles);
  if (connections < config.limits.maxConnections) {
    log.warn({
      msg: 'fewer connections than limits.max_connections: raise the limit of open files ("ulimit -n")',
      openFiles,
      connections,
    });
  }
}

/** Ready to paste: verify, curl through the local proxy, and the one line for the OpenAI SDK. */
async function greeting(server: RunningServer, config: Config, log: Log): Promise<string> {
  const models = server.models.list();
  const name = models.find((model) => model.type === 'chat')?.id ?? models[0]?.id ?? 'MODEL';
  const simulated = server.tee?.simulated;
  const lines = ['', `Assay ${version()} serves ${models.length} models on ${server.url}`];
  for (const model of models)
    lines.push(`  ${model.id}  ${model.type}  sha256 ${model.sha256}  ${model.residency}`);
  lines.push('');
  if (server.tee === null) {
    lines.push(
      'NO TEE: /v1/attestation answers 503. Use --tee simulated to try everything without hardware.',
      '',
    );
    return lines.join('\n');
  }
  let policy = 'policy.json';
  let flag = '';
  if (simulated !== undefined) {
    policy = join(dataDir(config), 'policy.json');
    await writePolicy(server, config, simulated).catch((error: unknown) => {
      // A full disk does not keep the server from serving.
      if (!isFull(error)) throw error;
      log.warn({ msg: 'the policy of this simulated server cannot be written', path: policy, err: error });
    });
    flag = ' --allow-simulated';
    lines.push(
      '*** SIMULATED TEE: this proves nothing about the machine. For development and tests only. ***',
      '',
    );
  }
  const read = `JSON.parse(readFileSync(${JSON.stringify(policy)}, 'utf8'))`;
  lines.push(
    'Verify:',
    `  npx assay-verify ${server.url} --policy ${policy}${flag}`,
    'Any client, through the verifying local proxy:',
    `  npx assay-verify proxy ${server.url} --policy ${policy}${flag} --listen 127.0.0.1:8080`,
    `  curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \\`,
    `    -d '{"model":"${name}","messages":[{"role":"user","content":"What is attestation?"}]}'`,
    'OpenAI SDK, the fetch is what changes:',
    `  import { readFileSync } from 'node:fs';`,
    `  import OpenAI from 'openai';`,
    ...(simulated === undefined ? [] : [`  import { allowSimulated } from '@assay/attestation';`]),
    `  import { attestedFetch } from '@assay/attestation/node';`,
    `  const policy = ${simulated === undefined ? read : `{ ...${read}, [allowSimulated]: true }`};`,
    `  const client = new OpenAI({ baseURL: '${server.url}/v1', apiKey: 'unused', fetch: attestedFetch({ policy }) });`,
    '',
    '',
  );
  return lines.join('\n');
}

/** The reference policy of a simulated server: its measurement, its models, its configuration; the root is for the flag. */
async function writePolicy(server: RunningServer, config: Config, simulated: SimulatedSource): Promise<void> {
  const folder = dataDir(config);
  const policy = {
    measurements: [await simulated.reference(`assay ${version()}, simulated`)],
    models: Object.fromEntries(server.models.list().map((model) => [model.id, model.sha256])),
    configs: [hex(configDigest(config))],
  };
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'policy.json'), `${JSON.stringify(policy, null, 2)}\n`);
  await writeFile(
    join(folder, 'simulated-root.sha256'),
    `${createHash('sha256').update(simulated.root).digest('hex')}\n`,
  );
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

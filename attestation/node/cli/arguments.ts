// The command line of assay-verify, read strictly: unknown options, missing values and stray words
// are refused with the usage.

import type { ParseArgsConfig } from 'node:util';
import { canonicalOrigin } from '../proxy/guard.ts';
import type { ProxyReceiptOptions } from '../proxy/receipts.ts';
import { helpFor } from './help.ts';
import { type Accept, acceptOf, type Target, targetOf } from './accept.ts';
import { boundedCount, keptReceipts, parse, wrong } from './options.ts';

const ACCEPT = {
  policy: { type: 'string' },
  'reference-values': { type: 'string' },
  measurement: { type: 'string', multiple: true },
  model: { type: 'string', multiple: true },
  'any-model': { type: 'boolean' },
  'allow-simulated': { type: 'string' },
  timeout: { type: 'string' },
  cache: { type: 'string' },
  bundle: { type: 'string' },
} as const satisfies ParseArgsConfig['options'];

const VERIFY = {
  ...ACCEPT,
  attest: { type: 'string' },
  explain: { type: 'boolean' },
  json: { type: 'boolean' },
  table: { type: 'boolean' },
  save: { type: 'string' },
} as const;
const SCORE = { ...ACCEPT, json: { type: 'boolean' } } as const;
const PROXY = {
  ...ACCEPT,
  listen: { type: 'string' },
  'allow-non-loopback': { type: 'boolean' },
  connections: { type: 'string' },
  'same-machine': { type: 'boolean' },
  channel: { type: 'string' },
  'allow-origin': { type: 'string', multiple: true },
  log: { type: 'boolean' },
  'no-log': { type: 'boolean' },
  receipts: { type: 'string' },
  'with-content': { type: 'boolean' },
  'with-tokens': { type: 'boolean' },
  alone: { type: 'boolean' },
} as const;

const { timeout: _timeout, cache: _cache, bundle: _bundle, ...JUDGED } = ACCEPT;
const {
  'allow-non-loopback': _nonLoopback,
  channel: _channel,
  'allow-origin': _origins,
  ...CONSOLE_PROXY
} = PROXY;
const CONSOLE = { ...CONSOLE_PROXY, check: { type: 'string' } } as const;
const SEAL = { ...ACCEPT, json: { type: 'boolean' } } as const;

const JOB = {
  ...JUDGED,
  evidence: { type: 'string' },
  key: { type: 'string', multiple: true },
  json: { type: 'boolean' },
} as const satisfies ParseArgsConfig['options'];

const RECEIPT = {
  ...JUDGED,
  evidence: { type: 'string' },
  request: { type: 'string' },
  response: { type: 'string' },
  at: { type: 'string' },
  json: { type: 'boolean' },
  explain: { type: 'boolean' },
} as const satisfies ParseArgsConfig['options'];

export interface ProxyCommand extends Target {
  readonly kind: 'proxy';
  readonly host: string;
  readonly port: number;
  readonly allowNonLoopback: boolean;
  readonly connections: number;
  readonly sameMachine: boolean;
  readonly channel: 'exporter' | 'sealed';
  readonly allowOrigins: readonly string[];
  /** Undefined: when stderr is a terminal. */
  readonly log: boolean | undefined;
  /** Receipts are asked for, checked and kept there. */
  readonly receipts: ProxyReceiptOptions | undefined;
}

export type Command =
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version' }
  | (Target & {
      readonly kind: 'verify';
      readonly attest: string | undefined;
      readonly explain: boolean;
      readonly json: boolean;
      readonly table: boolean;
      readonly saveFile: string | undefined;
    })
  | ProxyCommand
  | { readonly kind: 'console'; readonly proxy: ProxyCommand }
  | { readonly kind: 'console-check'; readonly origin: URL; readonly timeoutMs: number }
  | (Target & { readonly kind: 'seal'; readonly json: boolean })
  | (Target & { readonly kind: 'score'; readonly json: boolean })
  | { readonly kind: 'evidence' }
  | {
      readonly kind: 'job';
      readonly record: string;
      readonly evidenceFile: string | undefined;
      /** In hex. */
      readonly keys: readonly string[];
      readonly accept: Accept;
      readonly json: boolean;
    }
  | {
      readonly kind: 'receipt';
      readonly file: string;
      readonly evidenceFile: string | undefined;
      readonly requestFile: string | undefined;
      readonly responseFile: string | undefined;
      /** Milliseconds since 1970. */
      readonly at: number | undefined;
      readonly accept: Accept;
      readonly json: boolean;
      readonly explain: boolean;
    }
  | { readonly kind: 'measure'; readonly manifest: string; readonly output: 'table' | 'json' | 'policy' }
  | { readonly kind: 'bundle'; readonly cacheFolder: string }
  | {
      readonly kind: 'policy';
      readonly action: 'lint' | 'print';
      readonly file: string;
      readonly referenceFile: string | undefined;
    };

/** Words after the program's name → command. Throws `wrong_usage`. */
export function parseCommand(argv: readonly string[]): Command {
  const [first, ...rest] = argv;
  // After `--` everything is an operand.
  const options = argv.includes('--') ? argv.slice(0, argv.indexOf('--')) : argv;
  if (first === undefined || options.includes('--help') || options.includes('-h'))
    return { kind: 'help', text: helpFor(argv) };
  if (options.includes('--version') || options.includes('-v')) return { kind: 'version' };
  switch (first) {
    case 'help':
      return { kind: 'help', text: helpFor(rest) };
    case 'proxy':
      return proxyCommand(rest);
    case 'console':
      return consoleCommand(rest);
    case 'seal':
      return sealCommand(rest);
    case 'score':
      return scoreCommand(rest);
    case 'evidence':
      if (rest.length > 0) throw wrong(`evidence takes no arguments, found ${rest[0]}`);
      return { kind: 'evidence' };
    case 'job':
      return jobCommand(rest);
    case 'receipt':
      return receiptCommand(rest);
    case 'policy':
      return policyCommand(rest);
    case 'measure':
      return measureCommand(rest);
    case 'bundle':
      return bundleCommand(rest);
    default:
      return verifyCommand(argv);
  }
}

function verifyCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, VERIFY);
  return {
    kind: 'verify',
    ...targetOf(values, positionals, 'verify'),
    attest: values.attest,
    explain: values.explain ?? false,
    json: values.json ?? false,
    table: values.table ?? false,
    saveFile: values.save,
  };
}

function proxyCommand(argv: readonly string[]): ProxyCommand {
  const { values, positionals } = parse(argv, PROXY);
  const listen = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+):(\d{1,5})$/.exec(values.listen ?? '127.0.0.1:8080');
  const port = Number(listen?.[2]);
  if (listen?.[1] === undefined || port > 65_535) throw wrong('--listen is HOST:PORT');
  const channel = values.channel ?? 'exporter';
  if (channel !== 'exporter' && channel !== 'sealed') throw wrong('--channel is exporter or sealed');
  if (channel === 'sealed' && values['same-machine'] === true)
    throw wrong('--same-machine speaks of connections, and does not go with --channel sealed');
  const { accept, ...aim } = targetOf(values, positionals, 'proxy');
  return {
    kind: 'proxy',
    ...aim,
    accept: channel === 'sealed' ? { ...accept, channel } : accept,
    channel,
    host: listen[1].replace(/^\[(.*)\]$/, '$1'),
    port,
    allowNonLoopback: values['allow-non-loopback'] ?? false,
    connections: boundedCount(values.connections ?? '64', '--connections', 1024),
    sameMachine: values['same-machine'] ?? false,
    allowOrigins: (values['allow-origin'] ?? []).map(canonicalOrigin),
    log: logging(values.log, values['no-log']),
    receipts: keptReceipts(values),
  };
}

/** A new port each time unless told one: what had it before may have left storage for its origin. */
function consoleCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, CONSOLE);
  if (values.check !== undefined) {
    if (positionals.length > 0 || Object.keys(values).some((name) => name !== 'check' && name !== 'timeout'))
      throw wrong('--check URL compares pages, and goes with --timeout alone');
    const { origin, timeoutMs } = targetOf({ timeout: values.timeout }, [values.check], 'console --check');
    return { kind: 'console-check', origin, timeoutMs };
  }
  const proxy = proxyCommand(argv.some(isListen) ? argv : [...argv, '--listen', '127.0.0.1:0']);
  return { kind: 'console', proxy: { ...proxy, accept: { ...proxy.accept, channel: 'sealed' } } };
}

function isListen(word: string): boolean {
  return word === '--listen' || word.startsWith('--listen=');
}

function sealCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, SEAL);
  const { accept, ...aim } = targetOf(values, positionals, 'seal');
  return { kind: 'seal', ...aim, accept: { ...accept, channel: 'sealed' }, json: values.json ?? false };
}

function scoreCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, SCORE);
  return { kind: 'score', ...targetOf(values, positionals, 'score'), json: values.json ?? false };
}

function logging(on: boolean | undefined, off: boolean | undefined): boolean | undefined {
  if (on === true && off === true) throw wrong('--log and --no-log do not go together');
  return off === true ? false : on;
}

function policyCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, { 'reference-values': { type: 'string' } });
  const [action, file, ...more] = positionals;
  if ((action !== 'lint' && action !== 'print') || file === undefined || more.length > 0)
    throw wrong('policy takes `lint FILE` or `print FILE`');
  return { kind: 'policy', action, file, referenceFile: values['reference-values'] };
}

function measureCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, { json: { type: 'boolean' }, policy: { type: 'boolean' } });
  const [manifest, ...more] = positionals;
  if (manifest === undefined || more.length > 0) throw wrong('measure takes one manifest');
  if (values.json === true && values.policy === true)
    throw wrong('measure prints --json or --policy, not both');
  const printed = values.policy === true ? 'policy' : 'table';
  return { kind: 'measure', manifest, output: values.json === true ? 'json' : printed };
}

function jobCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, JOB);
  const [record, ...more] = positionals;
  if (record === undefined || more.length > 0) throw wrong('job takes one record');
  const { evidence: evidenceFile, key: keys = [], json = false } = values;
  const accept = acceptOf(values);
  const judges = accept.saysWhat || accept.policyFile !== undefined;
  if (evidenceFile === undefined && judges)
    throw wrong('what to accept is judged on evidence: give --evidence FILE as well');
  if (evidenceFile !== undefined && keys.length > 0)
    throw wrong('--key trusts a key without evidence, and does not go with --evidence');
  const bad = keys.find((key) => !/^[0-9a-fA-F]{64}$/.test(key));
  if (bad !== undefined) throw wrong(`--key ${bad} is not 64 hex digits`);
  return { kind: 'job', record, evidenceFile, keys, accept, json };
}

function receiptCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, RECEIPT);
  const [file, ...more] = positionals;
  if (file === undefined || more.length > 0) throw wrong('receipt takes one file');
  if (values.json === true && values.explain === true) throw wrong('--json and --explain do not go together');
  const at = values.at === undefined ? undefined : new Date(values.at).getTime();
  if (Number.isNaN(at)) throw wrong('--at is a time as 2026-01-31T12:00:00Z');
  return {
    kind: 'receipt',
    file,
    evidenceFile: values.evidence,
    requestFile: values.request,
    responseFile: values.response,
    at,
    accept: acceptOf(values),
    json: values.json ?? false,
    explain: values.explain ?? false,
  };
}

function bundleCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, { cache: { type: 'string' } });
  if (values.cache === undefined || positionals.length > 0)
    throw wrong('bundle needs --cache DIR, and nothing else');
  return { kind: 'bundle', cacheFolder: values.cache };
}

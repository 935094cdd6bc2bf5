// The command line of assay-verify, read strictly: unknown options, missing values and stray words
// are refused with the usage. Turns flags into a policy; flags that weaken it exist here and
// nowhere in a policy file.

import type { ParseArgsConfig } from 'node:util';
import { canonicalOrigin } from '../proxy/guard.ts';
import type { ProxyReceiptOptions } from '../proxy/receipts.ts';
import { helpFor } from './help.ts';
import { ANY, boundedCount, keptReceipts, parse, wrong } from './options.ts';
import {
  allowAnyModel,
  allowSimulated,
  type AppraisalPolicy,
  type Dangers,
  observingPolicy,
  parsePolicy,
  type Policy,
} from '../../appraise/policy.ts';
import type { Releases } from '../../appraise/policy-references.ts';

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

/**
 * The address to connect to, and what to accept there; the caller, which has the file
 * system, reads the policy.
 */
interface Target {
  readonly origin: URL;
  readonly accept: Accept;
  readonly timeoutMs: number;
  readonly cacheFolder: string | undefined;
  readonly bundleFile: string | undefined;
}

export interface Accept {
  readonly policyFile: string | undefined;
  readonly referenceFile: string | undefined;
  readonly measurements: readonly string[];
  readonly models: Readonly<Record<string, string>>;
  readonly dangers: Dangers;
  /** For policies that flags say; a file says its own. */
  readonly channel?: 'sealed' | undefined;
  /** A flag says what to accept, the simulated TEE aside. */
  readonly saysWhat: boolean;
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
  | (Target & {
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
    })
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

/** The policy the flags and the file (its text, when one was named) amount to. */
export function policyOf(accept: Accept, fileText: string | undefined, releases?: Releases): Policy {
  const flags = accept.measurements.length > 0 || Object.keys(accept.models).length > 0;
  if (fileText !== undefined) {
    if (flags) throw wrong('--measurement and --model do not go with --policy: the file lists them');
    return parsePolicy(fileText, accept.dangers, releases);
  }
  if (accept.referenceFile !== undefined)
    throw wrong('--reference-values goes with --policy: only a policy file names releases');
  if (!flags && accept.dangers[allowAnyModel] === undefined) return observingPolicy(accept.dangers);
  const policy: AppraisalPolicy = {
    measurements: accept.measurements,
    models: Object.keys(accept.models).length === 0 ? undefined : accept.models,
    channel: accept.channel,
  };
  return parsePolicy(policy, accept.dangers);
}

function verifyCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, VERIFY);
  return {
    kind: 'verify',
    ...target(values, positionals, 'verify'),
    attest: values.attest,
    explain: values.explain ?? false,
    json: values.json ?? false,
    table: values.table ?? false,
    saveFile: values.save,
  };
}

function proxyCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, PROXY);
  const listen = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+):(\d{1,5})$/.exec(values.listen ?? '127.0.0.1:8080');
  const port = Number(listen?.[2]);
  if (listen?.[1] === undefined || port > 65_535) throw wrong('--listen is HOST:PORT');
  const channel = values.channel ?? 'exporter';
  if (channel !== 'exporter' && channel !== 'sealed') throw wrong('--channel is exporter or sealed');
  if (channel === 'sealed' && values['same-machine'] === true)
    throw wrong('--same-machine speaks of connections, and does not go with --channel sealed');
  const { accept, ...aim } = target(values, positionals, 'proxy');
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

function sealCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, SEAL);
  const { accept, ...aim } = target(values, positionals, 'seal');
  return { kind: 'seal', ...aim, accept: { ...accept, channel: 'sealed' }, json: values.json ?? false };
}

function scoreCommand(argv: readonly string[]): Command {
  const { values, positionals } = parse(argv, SCORE);
  return { kind: 'score', ...target(values, positionals, 'score'), json: values.json ?? false };
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

interface AcceptValues {
  readonly policy?: string | undefined;
  readonly 'reference-values'?: string | undefined;
  readonly measurement?: string[] | undefined;
  readonly model?: string[] | undefined;
  readonly 'any-model'?: boolean | undefined;
  readonly 'allow-simulated'?: string | undefined;
  readonly timeout?: string | undefined;
  readonly cache?: string | undefined;
  readonly bundle?: string | undefined;
}

function target(values: AcceptValues, positionals: readonly string[], name: string): Target {
  const [address, ...more] = positionals;
  if (address === undefined) throw wrong(`${name} needs an https address`);
  if (more.length > 0) throw wrong(`${name} takes one address, found also ${more[0]}`);
  if (!URL.canParse(address))
    throw wrong(`${JSON.stringify(address)} is not an address, expected https://HOST[:PORT]`);
  const origin = new URL(address);
  if (
    !['', '/'].includes(origin.pathname) ||
    origin.search !== '' ||
    origin.hash !== '' ||
    origin.username !== '' ||
    origin.password !== ''
  ) {
    throw wrong(`${JSON.stringify(address)} is more than an origin, expected https://HOST[:PORT]`);
  }
  return {
    origin,
    accept: acceptOf(values),
    timeoutMs: boundedCount(values.timeout ?? '30', '--timeout', 3600) * 1000,
    cacheFolder: values.cache,
    bundleFile: values.bundle,
  };
}

function acceptOf(values: AcceptValues): Accept {
  const simulated = values['allow-simulated'];
  return {
    policyFile: values.policy,
    referenceFile: values['reference-values'],
    measurements: values.measurement ?? [],
    models: Object.fromEntries((values.model ?? []).map(modelPair)),
    saysWhat: values.measurement !== undefined || values.model !== undefined || values['any-model'] === true,
    dangers: {
      [allowAnyModel]: values['any-model'] === true ? true : undefined,
      [allowSimulated]: simulated === undefined ? undefined : simulatedDanger(simulated),
    },
  };
}

function modelPair(text: string): [string, string] {
  const at = text.lastIndexOf('=');
  if (at < 1) throw wrong(`--model ${text} is not ID=SHA256`);
  return [text.slice(0, at), text.slice(at + 1)];
}

function simulatedDanger(root: string): Dangers[typeof allowSimulated] {
  return root === ANY ? true : { root };
}

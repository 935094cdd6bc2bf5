// Reads the configuration: TOML 1.0 files, environment overrides and command-line flags, over the schema in config/schema.
// The only server file that reads process.env (through `environment`). Everything unknown, mistyped or from a source a key
// may not come from is a ConfigError that names the key, the nearest known one and the line.

import { createHash } from 'node:crypto';
import { dirname, isAbsolute, resolve } from 'node:path';
import { homedir } from 'node:os';
import { parse, TomlError } from 'smol-toml';
import { encodeCbor, type Cbor } from '@assay/attestation';
import { ENTRIES, KEY_DIGEST, REQUIRED, SECTIONS, type Config, type Field, type Section } from './schema.ts';
import { isTable, lineOf, quoted, unknownKey } from './text.ts';
import { ConfigError } from '../base/errors.ts';

export type { Config } from './schema.ts';

export interface ConfigFile {
  /** As the person named it; for messages, and its folder resolves relative paths. */
  readonly path: string;
  readonly text: string;
}

export interface ConfigSources {
  readonly file?: ConfigFile | undefined;
  /** Unmeasured: may only hold keys whose `from` is `operator`, and never overrides a measured value. */
  readonly operator?: ConfigFile | undefined;
  readonly environment?: Readonly<Record<string, string | undefined>> | undefined;
  /** Dotted keys from the command line; they win over everything. */
  readonly flags?: Readonly<Record<string, unknown>> | undefined;
  /** `--model id=path`; they win over the file's entries of that id. */
  readonly models?: readonly { readonly id: string; readonly path: string }[] | undefined;
  readonly cwd: string;
}

/** The process's environment: what `serve` and `config` pass to readConfig. */
export function environment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}

const MAX_FILE_BYTES = 1024 * 1024;
/** Variables with our prefix that are not settings. */
const OTHER_VARIABLES =
  /^ASSAY_(CONFIG|OPERATOR_CONFIG|FUZZ|VECTORS|LIBRARY|CACHE|TEST_.*|ENGINE_.*|IMAGE_.*|BENCH_.*)$/;

type Flat = Map<string, { readonly value: unknown; readonly where: string; readonly base: string }>;

/** Throws ConfigError; never returns a configuration with an unknown or ill-typed key in it. */
export function readConfig(sources: ConfigSources): Config {
  const values: Flat = new Map();
  const measured = sources.file === undefined ? new Map() : flatten(sources.file, 'file');
  const operator = sources.operator === undefined ? new Map() : flatten(sources.operator, 'operator');
  for (const [key, entry] of operator) values.set(key, entry);
  for (const [key, entry] of measured) values.set(key, entry);
  for (const [key, entry] of fromEnvironment(sources.environment ?? {}, sources.cwd)) values.set(key, entry);
  for (const [key, value] of Object.entries(sources.flags ?? {})) {
    if (value !== undefined) values.set(key, { value, where: `flag for ${key}`, base: sources.cwd });
  }
  for (const { id, path } of sources.models ?? []) {
    values.set(entryKey('api.models', id, 'path'), {
      value: path,
      where: `--model ${id}`,
      base: sources.cwd,
    });
  }
  return build(values, sources.environment ?? {});
}

/** SHA-256 over the canonical CBOR of the effective configuration; claim 5. Secrets enter as their SHA-256. */
export function configDigest(config: Config): Uint8Array {
  return new Uint8Array(
    createHash('sha256')
      .update(encodeCbor(toCbor(effectiveConfig(config))))
      .digest(),
  );
}

/** Nested plain values in the spelling of the file, secrets replaced by `sha256:<hex>`; what `config show` prints. */
export function effectiveConfig(config: Config): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [name, section] of Object.entries(SECTIONS)) {
    shown[name] = showSection(section, config[name as keyof typeof SECTIONS]);
  }
  const api = shown['api'] as Record<string, unknown>;
  api['models'] = showEntries(ENTRIES['api.models'], config.modelEntries);
  api['keys'] = showEntries(ENTRIES['api.keys'], config.keyEntries);
  return shown;
}

export interface ApiKey {
  /** What logs and the audit say instead of the key. */
  readonly name: string;
  /** SHA-256 of the key, lower-case hex. */
  readonly sha256: string;
  readonly admin: boolean;
  /** Model ids it may use; null: all. */
  readonly models: readonly string[] | null;
  readonly limits: {
    readonly requestsPerMinute: number;
    readonly tokensPerMinute: number;
    readonly concurrent: number;
  };
}

/** Limits of a caller whose key sets none. 0 is no limit. */
export function defaultLimits(config: Config): ApiKey['limits'] {
  return {
    requestsPerMinute: config.api.maxRequestsPerMinute,
    tokensPerMinute: config.api.maxTokensPerMinute,
    concurrent: config.limits.maxConcurrentPerKey,
  };
}

/** All keys of the configuration, by digest; two names for one key are a ConfigError. */
export function apiKeys(config: Config): readonly ApiKey[] {
  const limits = defaultLimits(config);
  const keys: ApiKey[] = [];
  const plain = [...(config.api.apiKey === undefined ? [] : [config.api.apiKey]), ...config.api.apiKeys];
  for (const [i, key] of plain.entries())
    keys.push({ name: `key-${i + 1}`, sha256: keyDigest(key), admin: false, models: null, limits });
  if (config.api.adminKey !== undefined)
    keys.push({ name: 'admin', sha256: keyDigest(config.api.adminKey), admin: true, models: null, limits });
  for (const [name, entry] of config.keyEntries) {
    keys.push({
      name,
      sha256: entry.sha256,
      admin: entry.admin,
      models: entry.models.length > 0 ? entry.models : null,
      limits: {
        requestsPerMinute: entry.maxRequestsPerMinute ?? limits.requestsPerMinute,
        tokensPerMinute: entry.maxTokensPerMinute ?? limits.tokensPerMinute,
        concurrent: entry.maxConcurrent ?? limits.concurrent,
      },
    });
  }
  const seen = new Map<string, string>();
  for (const key of keys) {
    const other = seen.get(key.sha256);
    if (other !== undefined)
      throw new ConfigError(`api keys "${other}" and "${key.name}" are the same key`, 'api.keys');
    seen.set(key.sha256, key.name);
  }
  return keys;
}

function keyDigest(key: string): string {
  return KEY_DIGEST.test(key) ? key.slice('sha256:'.length) : createHash('sha256').update(key).digest('hex');
}

// ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

function flatten(file: ConfigFile, kind: 'file' | 'operator'): Flat {
  if (file.text.length > MAX_FILE_BYTES)
    throw new ConfigError(`${file.path} is over ${MAX_FILE_BYTES} characters`);
  let table: Record<string, unknown>;
  try {
    table = parse(file.text, { unsafeKeyBehaviour: 'throw', maxDepth: 16 });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The library's message quotes the line, which may hold a key; only its first line is passed on.
    throw new ConfigError(
      `${file.path}:${error.line}: ${(error.message.split('\n')[0] ?? '').replace(/^Invalid TOML document: /, '')}`,
    );
  }
  const base = dirname(resolve(file.path));
  const flat: Flat = new Map();
  const at = (path: readonly string[]): string => {
    const line = lineOf(file.text, path);
    return line === undefined ? file.path : `${file.path}:${line}`;
  };
  for (const [name, content] of Object.entries(table)) {
    const section = (SECTIONS as Readonly<Record<string, Section>>)[name];
    if (section === undefined) throw unknownKey(name, Object.keys(SECTIONS), at([name]));
    if (!isTable(content)) throw new ConfigError(`${at([name])}: ${name} must be a table`, name);
    for (const [key, value] of Object.entries(content)) {
      const entries = (ENTRIES as Readonly<Record<string, Section>>)[`${name}.${key}`];
      if (entries !== undefined) {
        readEntries(flat, `${name}.${key}`, entries, value, kind, base, at);
        continue;
      }
      const known = [
        ...Object.keys(section),
        ...Object.keys(ENTRIES)
          .filter((e) => e.startsWith(`${name}.`))
          .map((e) => e.slice(name.length + 1)),
      ];
      const field = section[key];
      if (field === undefined)
        throw unknownKey(
          `${name}.${key}`,
          known.map((k) => `${name}.${k}`),
          at([name, key]),
        );
      admit(field, kind, `${name}.${key}`, at([name, key]));
      flat.set(`${name}.${key}`, { value, where: at([name, key]), base });
    }
  }
  return flat;
}

function readEntries(
  flat: Flat,
  table: string,
  section: Section,
  value: unknown,
  kind: 'file' | 'operator',
  base: string,
  at: (path: readonly string[]) => string,
): void {
  const path = table.split('.');
  if (!isTable(value)) throw new ConfigError(`${at(path)}: ${table} must be a table of tables`, table);
  for (const [id, content] of Object.entries(value)) {
    if (!isTable(content))
      throw new ConfigError(`${at([...path, id])}: ${table}.${id} must be a table`, `${table}.${id}`);
    for (const key of REQUIRED[table as keyof typeof ENTRIES]) {
      if (!Object.hasOwn(content, key))
        throw new ConfigError(
          `${at([...path, id])}: ${table}.${quoted(id)} has no ${key}`,
          `${table}.${id}.${key}`,
        );
    }
    for (const [key, item] of Object.entries(content)) {
      const field = section[key];
      const where = at([...path, id, key]);
      if (field === undefined)
        throw unknownKey(
          `${table}.${quoted(id)}.${key}`,
          Object.keys(section).map((k) => `${table}.${quoted(id)}.${k}`),
          where,
        );
      admit(field, kind, `${table}.${quoted(id)}.${key}`, where);
      flat.set(entryKey(table, id, key), { value: item, where, base });
    }
  }
}

function entryKey(table: string, id: string, key: string): string {
  return `${table}\0${id}\0${key}`;
}

function admit(field: Field, kind: 'file' | 'operator', key: string, where: string): void {
  if (kind === 'operator' && field.from !== 'operator') {
    throw new ConfigError(
      `${where}: ${key} may only be set in the measured configuration, not by the operator`,
      key,
    );
  }
}

function fromEnvironment(environment: Readonly<Record<string, string | undefined>>, cwd: string): Flat {
  const flat: Flat = new Map();
  const known = new Map<string, readonly [string, Field]>();
  for (const [name, section] of Object.entries(SECTIONS)) {
    for (const [key, field] of Object.entries(section))
      known.set(variableOf(`${name}.${key}`), [`${name}.${key}`, field as Field]);
  }
  for (const [variable, text] of Object.entries(environment)) {
    if (!variable.startsWith('ASSAY_') || text === undefined || OTHER_VARIABLES.test(variable)) continue;
    const entry = known.get(variable);
    if (entry === undefined) throw unknownKey(variable, [...known.keys()], 'environment', 'variable');
    const [key, field] = entry;
    flat.set(key, { value: fromText(field, text), where: `environment variable ${variable}`, base: cwd });
  }
  return flat;
}

/** `api.max_requests_per_minute` → `ASSAY_API_MAX_REQUESTS_PER_MINUTE`. */
export function variableOf(key: string): string {
  return `ASSAY_${key.replaceAll('.', '_').toUpperCase()}`;
}

function fromText(field: Field, text: string): unknown {
  if (field.type === 'boolean') return text === 'true' ? true : text === 'false' ? false : text;
  if (field.type === 'integer' || field.type === 'number')
    return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
  if (field.type === 'texts') return text === '' ? [] : text.split(',').map((part) => part.trim());
  return text;
}

// ── building ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

function build(values: Flat, environment: Readonly<Record<string, string | undefined>>): Config {
  const config: Record<string, unknown> = {};
  for (const [name, section] of Object.entries(SECTIONS) as [string, Section][]) {
    const built: Record<string, unknown> = {};
    for (const [key, field] of Object.entries(section))
      built[camel(key)] = valueOf(field, `${name}.${key}`, values.get(`${name}.${key}`));
    config[name] = built;
  }
  config['modelEntries'] = buildEntries('api.models', values);
  config['keyEntries'] = buildEntries('api.keys', values);
  for (const key of values.keys()) {
    if (!key.includes('\0') && !isKnown(key)) throw unknownKey(key, knownKeys(), 'command line');
  }
  const typed = config as unknown as Config;
  return finish(typed, environment);
}

function isKnown(key: string): boolean {
  return knownKeys().includes(key);
}

function knownKeys(): string[] {
  return Object.entries(SECTIONS).flatMap(([name, section]) =>
    Object.keys(section).map((key) => `${name}.${key}`),
  );
}

function buildEntries(
  table: keyof typeof ENTRIES,
  values: Flat,
): ReadonlyMap<string, Record<string, unknown>> {
  const entries = new Map<string, Record<string, unknown>>();
  const section = ENTRIES[table] as Section;
  for (const key of values.keys()) {
    const [of, id] = key.split('\0');
    if (of !== table || id === undefined || entries.has(id)) continue;
    const built: Record<string, unknown> = {};
    for (const [name, field] of Object.entries(section))
      built[camel(name)] = valueOf(
        field,
        `${table}.${quoted(id)}.${name}`,
        values.get(entryKey(table, id, name)),
      );
    entries.set(id, built);
  }
  return entries;
}

function valueOf(
  field: Field,
  key: string,
  entry: { readonly value: unknown; readonly where: string; readonly base: string } | undefined,
): unknown {
  if (entry === undefined) return field.default ?? (field.type === 'texts' ? [] : undefined);
  const { value, where } = entry;
  const wrong = (expected: string): ConfigError =>
    new ConfigError(`${where}: ${key} must be ${expected}`, key);
  switch (field.type) {
    case 'boolean':
      if (typeof value !== 'boolean') throw wrong('true or false');
      return value;
    case 'integer':
      if (
        typeof value !== 'number' ||
        !Number.isSafeInteger(value) ||
        value < field.min ||
        value > field.max
      ) {
        throw wrong(`an integer from ${field.min} to ${field.max}`);
      }
      return value;
    case 'number':
      if (typeof value !== 'number' || !(value >= field.min && value <= field.max))
        throw wrong(`a number from ${field.min} to ${field.max}`);
      return value;
    case 'choice':
      if (typeof value !== 'string' || !field.choices.includes(value))
        throw wrong(`one of ${field.choices.map((c) => `"${c}"`).join(', ')}`);
      return value;
    case 'text':
      if (typeof value !== 'string' || value === '' || value.includes('\0'))
        throw wrong('a text that is not empty');
      if (field.pattern?.test(value) === false) throw wrong(field.form ?? 'of the documented form');
      return pathed(field, value, entry.base);
    case 'texts':
      if (!Array.isArray(value) || value.length > field.max)
        throw wrong(`a list of at most ${field.max} texts`);
      return value.map((item: unknown) => {
        if (typeof item !== 'string' || item === '' || item.includes('\0'))
          throw wrong('a list of texts that are not empty');
        if (field.pattern?.test(item) === false)
          throw wrong(`a list, each ${field.form ?? 'of the documented form'}`);
        return pathed(field, item, entry.base);
      });
  }
}

function pathed(field: Field, value: string, base: string): string {
  return field.path === true && !isAbsolute(value) ? resolve(base, value) : value;
}

/** Defaults that depend on the machine, and rules between keys. */
function finish(config: Config, environment: Readonly<Record<string, string | undefined>>): Config {
  const dataHome = environment['XDG_DATA_HOME'] ?? resolve(environment['HOME'] ?? homedir(), '.local/share');
  const dataDir = config.store.dataDir ?? resolve(dataHome, 'assay');
  const models = {
    hub: config.models.hub ?? environment['HF_ENDPOINT'],
    hubToken: config.models.hubToken ?? environment['HF_TOKEN'],
  };
  // Lower case wins, as it does for curl.
  const network = {
    httpProxy: config.network.httpProxy ?? environment['http_proxy'] ?? environment['HTTP_PROXY'],
    httpsProxy: config.network.httpsProxy ?? environment['https_proxy'] ?? environment['HTTPS_PROXY'],
    noProxy: config.network.noProxy ?? environment['no_proxy'] ?? environment['NO_PROXY'],
  };
  if (
    config.api.requireAuth === true &&
    config.api.apiKey === undefined &&
    config.api.apiKeys.length === 0 &&
    config.keyEntries.size === 0
  ) {
    throw new ConfigError(
      'api.require_auth is true but no key is configured: set api.api_key, api.api_keys or [api.keys.<name>]',
      'api.require_auth',
    );
  }
  if (config.store.residency === 'verity' && config.store.verityFolder === undefined) {
    throw new ConfigError(
      'store.residency is "verity" but store.verity_folder is not set',
      'store.verity_folder',
    );
  }
  if (config.api.corsEnabled && config.api.corsOrigins.length === 0) {
    throw new ConfigError('api.cors_enabled is true but api.cors_origins is empty', 'api.cors_origins');
  }
  return {
    ...config,
    store: { ...config.store, dataDir },
    models: { ...config.models, ...models },
    network,
    audit: { ...config.audit, folder: config.audit.folder ?? resolve(dataDir, 'audit') },
  };
}

// ── showing ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

function showSection(section: Section, values: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [key, field] of Object.entries(section)) {
    const value = values[camel(key)];
    if (value === undefined) continue;
    shown[key] = field.secret === true ? hidden(value) : value;
  }
  return shown;
}

function showEntries(section: Section, entries: ReadonlyMap<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    [...entries].map(([id, values]) => [id, showSection(section, values as Record<string, unknown>)]),
  );
}

function hidden(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(hidden);
  return `sha256:${keyDigest(String(value))}`;
}

/** Fractions as text: the canonical encoding has no floats. */
function toCbor(value: unknown): Cbor {
  if (Array.isArray(value)) return value.map(toCbor);
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : String(value);
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  return new Map(Object.entries(value as Record<string, unknown>).map(([key, item]) => [key, toCbor(item)]));
}

function camel(key: string): string {
  return key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

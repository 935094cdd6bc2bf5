// Reads the configuration: TOML 1.0 files, environment overrides and command-line options, over the
// schema in config/schema. The only server file that reads process.env (through `environment`). An
// unknown or mistyped key, or one from a source that may not set it, is a ConfigError that names the key,
// the nearest known one and the line.

import { createHash } from 'node:crypto';
import { encodeCbor, type Cbor } from '@assay/attestation';
import { ConfigError } from '../base/errors.ts';
import { modelNameProblem } from '../base/model-name.ts';
import { finish } from './finish.ts';
import { KEY_DIGEST } from './forms.ts';
import { ENTRIES, SECTIONS, type Config, type SchemaField, type Section } from './schema.ts';
import { flatten, type ConfigFile, type Environment, type Flat } from './sources.ts';
import { camel, quoted, unknownKey, valueKey } from './keys.ts';
import { valueOf } from './value.ts';

export type { Config } from './schema.ts';
export type { ConfigFile } from './sources.ts';

export interface ConfigSources {
  readonly file?: ConfigFile | undefined;
  /** Unmeasured: may only hold keys whose `from` is `operator`, and never overrides a measured value. */
  readonly operator?: ConfigFile | undefined;
  readonly environment?: Environment | undefined;
  /** Dotted keys that stand for defaults: everything else wins over them. */
  readonly defaults?: Readonly<Record<string, unknown>> | undefined;
  /** Dotted keys from the command line; they win over everything. */
  readonly flags?: Readonly<Record<string, unknown>> | undefined;
  /** The option each flag was given with, for messages. */
  readonly options?: Readonly<Record<string, string>> | undefined;
  /** `--model id=path`; they win over the file's entries of that id. */
  readonly models?: readonly { readonly id: string; readonly path: string }[] | undefined;
  readonly cwd: string;
  /** Tables of another program, which reads them itself (config/workshop-section). */
  readonly beside?: Readonly<Record<string, Section>> | undefined;
}

/** Variables with our prefix that are not settings. */
const OTHER_VARIABLES =
  /^ASSAY_(CONFIG|OPERATOR_CONFIG|FUZZ|VECTORS|LIBRARY|CACHE|TEST_.*|ENGINE_.*|IMAGE_.*|BENCH_.*)$/;

/** The process's environment: what `serve` and `config` pass to readConfig. */
export function environment(): Environment {
  return process.env;
}

/** Throws ConfigError; never returns a configuration with an unknown or ill-typed key in it. */
export function readConfig(sources: ConfigSources): Config {
  const { cwd } = sources;
  const surroundings = sources.environment ?? {};
  const values: Flat = new Map([
    ...fromOptions(sources.defaults, sources),
    ...(sources.operator === undefined ? [] : flatten(sources.operator, 'operator', sources.beside)),
    ...(sources.file === undefined ? [] : flatten(sources.file, 'file', sources.beside)),
    ...fromEnvironment(surroundings, cwd),
    ...fromOptions(sources.flags, sources),
  ]);
  for (const { id, path } of sources.models ?? []) {
    const where = `--model ${quoted(id)}`;
    const problem = modelNameProblem(id);
    if (problem !== undefined)
      throw new ConfigError(`${where}: the model id ${problem} (invalid_model_name)`, 'api.models');
    values.set(valueKey('api.models', id, 'path'), { value: path, where, base: cwd });
  }
  return withoutTwins(finish(build(values), surroundings));
}

function fromOptions(given: ConfigSources['flags'], { options, cwd }: ConfigSources): Flat {
  const flat: Flat = new Map();
  for (const [key, value] of Object.entries(given ?? {})) {
    if (!isKnown(key)) throw unknownKey(key, knownKeys(), 'command line');
    const where = options?.[key] ?? `flag for ${key}`;
    if (value !== undefined) flat.set(key, { value, where, base: cwd });
  }
  return flat;
}

function isKnown(key: string): boolean {
  return knownKeys().includes(key);
}

function knownKeys(): string[] {
  return Object.entries(SECTIONS).flatMap(([name, section]) =>
    Object.keys(section).map((key) => `${name}.${key}`),
  );
}

function build(values: Flat): Config {
  const config: Record<string, unknown> = {};
  for (const [name, section] of Object.entries(SECTIONS) as [string, Section][]) {
    const built: Record<string, unknown> = {};
    for (const [key, field] of Object.entries(section))
      built[camel(key)] = valueOf(field, `${name}.${key}`, values.get(`${name}.${key}`));
    config[name] = built;
  }
  config['modelEntries'] = buildEntries('api.models', values);
  config['keyEntries'] = buildEntries('api.keys', values);
  config['origins'] = new Map([...values].map(([key, { where }]) => [key, where]));
  return config as unknown as Config;
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
    for (const [name, field] of Object.entries(section)) {
      const entry = values.get(valueKey(table, id, name));
      built[camel(name)] = valueOf(field, `${table}.${quoted(id)}.${name}`, entry);
    }
    entries.set(id, built);
  }
  return entries;
}

function fromEnvironment(environment: Environment, cwd: string): Flat {
  const flat: Flat = new Map();
  const known = new Map<string, readonly [string, SchemaField]>();
  for (const [name, section] of Object.entries(SECTIONS)) {
    for (const [key, field] of Object.entries(section))
      known.set(variableOf(`${name}.${key}`), [`${name}.${key}`, field as SchemaField]);
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

/** The value as the file would hold it; a text that is not of the type stays a text, and is refused later. */
function fromText(field: SchemaField, text: string): unknown {
  switch (field.kind) {
    case 'boolean':
      return ['true', 'false'].includes(text) ? text === 'true' : text;
    case 'integer':
    case 'number':
      return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
    case 'texts':
      return text === '' ? [] : text.split(',').map((part) => part.trim());
    default:
      return text;
  }
}

export interface ConfiguredKey {
  /** Names the key in logs and in the audit. */
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
export function defaultLimits(config: Config): ConfiguredKey['limits'] {
  return {
    requestsPerMinute: config.api.maxRequestsPerMinute,
    tokensPerMinute: config.api.maxTokensPerMinute,
    concurrent: config.limits.maxConcurrentPerKey,
  };
}

/** All keys of the configuration, by digest. */
export function apiKeys(config: Config): readonly ConfiguredKey[] {
  const limits = defaultLimits(config);
  const keys: ConfiguredKey[] = [];
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
  return keys;
}

/** Two names for one key are a mistake: which of them may do what would depend on their order. */
function withoutTwins(config: Config): Config {
  const seen = new Map<string, string>();
  for (const { name, sha256 } of apiKeys(config)) {
    const other = seen.get(sha256);
    if (other !== undefined) {
      const key = writtenIn(config, name);
      const where = config.origins.get(key);
      throw new ConfigError(
        `${where === undefined ? '' : `${where}: `}${shownKey(key)}: api keys "${other}" and "${name}" are the same key`,
        'api.keys',
      );
    }
    seen.set(sha256, name);
  }
  return config;
}

/** The key of the configuration that holds the API key of that name. */
function writtenIn({ api, keyEntries }: Config, name: string): string {
  if (keyEntries.has(name)) return valueKey('api.keys', name, 'sha256');
  if (name === 'admin') return 'api.admin_key';
  return name === 'key-1' && api.apiKey !== undefined ? 'api.api_key' : 'api.api_keys';
}

function shownKey(key: string): string {
  const [table = '', id, name] = key.split('\0');
  return id === undefined ? table : `${table}.${quoted(id)}.${name}`;
}

/** Of a plain key or of `sha256:<hex>`. */
function keyDigest(key: string): string {
  return KEY_DIGEST.test(key) ? key.slice('sha256:'.length) : createHash('sha256').update(key).digest('hex');
}

/**
 * SHA-256 over the canonical CBOR of the effective configuration; claim 5. Secrets enter as their SHA-256.
 */
export function configDigest(config: Config): Uint8Array {
  const encoded = encodeCbor(toCbor(effectiveConfig(config)));
  return new Uint8Array(createHash('sha256').update(encoded).digest());
}

/**
 * Nested plain values in the spelling of the file, secrets replaced by
 * `sha256:<hex>`; what `config show` prints.
 */
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

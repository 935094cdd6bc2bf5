// What the commands share: arguments, configuration files, the version.

import { readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { environment, readConfig, type Config, type ConfigFile } from '../config/read.ts';
import { ConfigError } from '../base/errors.ts';

/** Wrong arguments; exit 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What was asked for did not work; exit 1, one line. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
}

type Options = NonNullable<ParseArgsConfig['options']>;

export interface Parsed {
  readonly values: Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;
  readonly positionals: readonly string[];
}

export function parseArguments(args: readonly string[], options: Options, positionals = false): Parsed {
  try {
    const parsed = parseArgs({ args: [...args], options, allowPositionals: positionals, strict: true });
    return { values: parsed.values, positionals: parsed.positionals };
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : 'wrong arguments');
  }
}

export const CONFIG_OPTIONS = {
  config: { type: 'string' },
  'operator-config': { type: 'string' },
} as const satisfies Options;

export interface Overrides {
  readonly flags?: Readonly<Record<string, unknown>> | undefined;
  readonly models?: readonly { readonly id: string; readonly path: string }[] | undefined;
}

/** Configuration from `--config` (or ASSAY_CONFIG), `--operator-config`, the environment and flags. */
export function loadConfig(values: Parsed['values'], overrides: Overrides = {}): Config {
  const env = environment();
  const file = textOf(values['config']) ?? env['ASSAY_CONFIG'];
  const operator = textOf(values['operator-config']) ?? env['ASSAY_OPERATOR_CONFIG'];
  return readConfig({
    ...(file === undefined ? {} : { file: readConfigFile(file) }),
    ...(operator === undefined ? {} : { operator: readConfigFile(operator) }),
    environment: env,
    ...overrides,
    cwd: process.cwd(),
  });
}

function readConfigFile(path: string): ConfigFile {
  try {
    return { path, text: readFileSync(path, 'utf8') };
  } catch (error) {
    throw new ConfigError(
      `${path} cannot be read (${(error as NodeJS.ErrnoException).code ?? 'unknown error'})`,
      undefined,
      error,
    );
  }
}

export function textOf(value: Parsed['values'][string]): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** `[ID=]FILE` → id and absolute path; without an id, the file's name without `.gguf`. */
export function modelArgument(argument: string): { readonly id: string; readonly path: string } {
  const at = argument.indexOf('=');
  const path = resolve(at < 0 ? argument : argument.slice(at + 1));
  return { id: at < 0 ? basename(path).replace(/\.gguf$/i, '') : argument.slice(0, at), path };
}

/** From package.json, beside the sources, beside dist/, or in an image's bundle. */
export function version(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      const json = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as {
        readonly name?: unknown;
        readonly version?: unknown;
      };
      if (json.name === 'assay' && typeof json.version === 'string') return json.version;
    } catch {
      // The next one.
    }
  }
  return 'unknown';
}

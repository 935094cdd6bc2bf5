// Shared by the commands: arguments, configuration files, the version.

import { readFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { environment, readConfig, type Config, type ConfigFile } from '../config/read.ts';
import { nearestOf } from '../config/keys.ts';
import { ConfigError } from '../base/errors.ts';
import { systemReason } from '../base/system-error.ts';

/** Wrong arguments; exit 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** The command failed; exit 1, one line. */
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
    // The rest of Node's message is advice that does not fit here.
    const message = error instanceof Error ? error.message : 'wrong arguments';
    const [first = message] = message.split(/\.? To specify |\n/);
    const option = /^Unknown option '(--[^']+)'/.exec(message)?.[1];
    const known = Object.keys(options).map((name) => `--${name}`);
    const nearest = option === undefined ? undefined : nearestOf(option, known);
    throw new UsageError(
      `${first.replace(/\.$/, '')}${nearest === undefined ? '' : `, did you mean ${nearest}?`}`,
    );
  }
}

export const CONFIG_OPTIONS = {
  config: { type: 'string' },
  'operator-config': { type: 'string' },
} as const satisfies Options;

export interface Overrides {
  /** As `flags`, but everything that is written anywhere wins over them. */
  readonly defaults?: Readonly<Record<string, readonly [option: string, value: unknown]>> | undefined;
  /** Values by dotted key, and the option each comes from. */
  readonly flags?: Readonly<Record<string, readonly [option: string, value: unknown]>> | undefined;
  readonly models?: readonly { readonly id: string; readonly path: string }[] | undefined;
}

/** Configuration from `--config` (or ASSAY_CONFIG), `--operator-config`, the environment and flags. */
export function loadConfig(values: Parsed['values'], overrides: Overrides = {}): Config {
  const env = environment();
  const file = optionText(values['config']) ?? env['ASSAY_CONFIG'];
  const operator = optionText(values['operator-config']) ?? env['ASSAY_OPERATOR_CONFIG'];
  const given = Object.entries(overrides.flags ?? {});
  const assumed = Object.entries(overrides.defaults ?? {});
  return readConfig({
    file: file === undefined ? undefined : readConfigFile(file),
    operator: operator === undefined ? undefined : readConfigFile(operator),
    environment: env,
    defaults: Object.fromEntries(assumed.map(([key, [, value]]) => [key, value])),
    flags: Object.fromEntries(given.map(([key, [, value]]) => [key, value])),
    options: Object.fromEntries([...assumed, ...given].map(([key, [option]]) => [key, option])),
    models: overrides.models,
    cwd: currentFolder(),
  });
}

/** The shell's working folder may have been removed. */
export function currentFolder(): string {
  try {
    return process.cwd();
  } catch (error) {
    throw new UsageError(`the current folder cannot be told: ${systemReason(error)}`);
  }
}

function readConfigFile(path: string): ConfigFile {
  try {
    return { path, text: readFileSync(path, 'utf8') };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError(
      `${path === '' ? '""' : path} cannot be read (${code ?? 'unknown error'})`,
      undefined,
      error,
    );
  }
}

export function optionText(value: Parsed['values'][string]): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** `[ID=]FILE` → id and absolute path; without an id, the file's name without `.gguf`. */
export function modelArgument(argument: string): { readonly id: string; readonly path: string } {
  const at = argument.indexOf('=');
  const file = argument.slice(at + 1);
  if (file === '') throw new UsageError(`--model ${JSON.stringify(argument)} names no file: [ID=]FILE`);
  const path = resolve(currentFolder(), file);
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

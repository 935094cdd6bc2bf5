// The managed Python environment: where it lies, whether it is the one the lock describes, and the one
// command that makes it. Its state is read from its folder alone: the packages' own records beside a mark
// that creation writes last. Without it only the kinds of jobs that need Python are unavailable.

import { existsSync } from 'node:fs';
import { access, constants, readdir, realpath } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readSmallFile } from '../../base/durable-files.ts';
import { isRecord } from '../../base/shape.ts';
import { createEnvironment, MARK, type CreateOptions } from './create.ts';
import { findInterpreter, NEEDED_PYTHON, type Interpreter, type InterpreterOptions } from './interpreter.ts';
import { normalized, readPythonLock, type PythonLock } from './lock.ts';

export const SETUP_COMMAND = 'assay workshop setup';
/** How many packages a message names. */
const NAMED = 5;
const MAX_MARK_BYTES = 4096;
const MAX_ENTRIES = 10_000;

export interface MissingPackage {
  readonly name: string;
  readonly wanted: string;
  /** The version that is installed instead. */
  readonly found: string | null;
}

export interface EnvironmentStatus {
  /** `unsupported`: it cannot be made here; `reason` says what is needed first. */
  readonly state: 'ready' | 'incomplete' | 'missing' | 'unsupported';
  readonly folder: string;
  /** SHA-256 of the requirements file. */
  readonly lock: string;
  /** Of the environment; without one, of the Python it would be made of. */
  readonly python: string | null;
  readonly missing: readonly MissingPackage[];
  readonly reason: string | null;
  /** Makes it, or makes it whole. */
  readonly command: string;
}

export interface PythonEnvironmentOptions extends InterpreterOptions {
  readonly folder?: string | undefined;
  readonly lockPath?: string | undefined;
}

/** The tools and the lock lie beside the sources, also where the compiled tree runs. */
export function toolsFolder(): string {
  const candidates = ['tools/', '../../../../src/workshop/python/tools/'];
  const found = candidates.map((each) => fileURLToPath(new URL(each, import.meta.url))).find(existsSync);
  return found ?? fileURLToPath(new URL('tools/', import.meta.url));
}

export function defaultEnvironmentFolder(): string {
  return join(homedir(), '.cache/assay/python');
}

export class PythonEnvironment {
  readonly folder: string;
  readonly lock: PythonLock;
  readonly #interpreter: InterpreterOptions;

  constructor({
    folder = defaultEnvironmentFolder(),
    lockPath,
    ...interpreter
  }: PythonEnvironmentOptions = {}) {
    this.folder = folder;
    this.lock = readPythonLock(lockPath ?? join(toolsFolder(), '../requirements.txt'));
    this.#interpreter = interpreter;
  }

  get python(): string {
    return join(this.folder, 'bin/python');
  }

  /** Never throws: what cannot be read is not there. */
  async status(): Promise<EnvironmentStatus> {
    const base = { folder: this.folder, lock: this.lock.sha256, command: SETUP_COMMAND };
    const installed = await this.#installed();
    if (installed === undefined) {
      const { version, reason } = await this.#find();
      const state = version === undefined ? 'unsupported' : 'missing';
      const missing = this.#missing(new Map());
      return {
        ...base,
        state,
        python: version ?? null,
        missing,
        reason: reason ?? 'the environment has not been made',
      };
    }
    const mark = await this.#mark();
    const missing = this.#missing(installed);
    const reason = problemOf(missing, mark?.lock === this.lock.sha256);
    const state = reason === null ? 'ready' : 'incomplete';
    return { ...base, state, python: mark?.python ?? null, missing, reason };
  }

  /**
   * Null where all of `names` are installed as locked; else what is missing and the command. The shape of
   * `JobKind.missing`.
   */
  async missing(names: readonly string[]): Promise<string | null> {
    const { state, missing, reason } = await this.status();
    if (state === 'ready') return null;
    if (state === 'unsupported') return `${reason ?? ''}: install that, then run "${SETUP_COMMAND}"`;
    const wanted = names.map((name) => normalized(name));
    const absent = missing.filter(({ name }) => wanted.includes(name)).map(({ name }) => name);
    const what = absent.length > 0 ? `${absent.join(', ')} not installed` : 'the environment is incomplete';
    return `${what}: run "${SETUP_COMMAND}"`;
  }

  /** The version the lock has, null for a package that is not in it. */
  version(name: string): string | null {
    return this.lock.packages.find((each) => each.name === normalized(name))?.version ?? null;
  }

  /** Folders a program of it reads beside the system's libraries. */
  async reads(): Promise<readonly string[]> {
    const real = await realpath(this.python).catch(() => this.python);
    const prefix = dirname(dirname(real));
    return prefix === '/usr' || prefix.startsWith(this.folder) ? [this.folder] : [this.folder, prefix];
  }

  /** ConfigError where no Python fits, another creation is under way or pip fails; 507 storage_full. */
  async create(options: CreateOptions = {}): Promise<void> {
    await createEnvironment(
      { folder: this.folder, lock: this.lock, interpreter: await this.#find() },
      options,
    );
  }

  #find(): Promise<Interpreter> {
    return findInterpreter(this.#interpreter);
  }

  /** Versions by name, of the packages' `NAME-VERSION.dist-info`; undefined where no Python runs. */
  async #installed(): Promise<ReadonlyMap<string, string> | undefined> {
    try {
      await access(this.python, constants.X_OK);
      const names = await readdir(join(this.folder, `lib/python${NEEDED_PYTHON}/site-packages`));
      return new Map(names.slice(0, MAX_ENTRIES).flatMap((name) => distribution(name)));
    } catch {
      return undefined;
    }
  }

  #missing(installed: ReadonlyMap<string, string>): readonly MissingPackage[] {
    return this.lock.packages
      .filter(({ name, version }) => installed.get(name) !== version)
      .map(({ name, version }) => ({ name, wanted: version, found: installed.get(name) ?? null }));
  }

  async #mark(): Promise<{ readonly lock: string; readonly python: string } | undefined> {
    try {
      const file = await readSmallFile(join(this.folder, MARK), MAX_MARK_BYTES);
      if (file === undefined || 'problem' in file) return undefined;
      const value: unknown = JSON.parse(file.text);
      if (!isRecord(value)) return undefined;
      const { lock, python } = value;
      return typeof lock === 'string' && typeof python === 'string' ? { lock, python } : undefined;
    } catch {
      return undefined;
    }
  }
}

function distribution(entry: string): readonly (readonly [string, string])[] {
  const [, name, version] = /^([^-]+)-([^-]+)\.dist-info$/.exec(entry) ?? [];
  return name === undefined || version === undefined ? [] : [[normalized(name), version]];
}

function problemOf(missing: readonly MissingPackage[], marked: boolean): string | null {
  if (missing.length > 0) {
    const named = missing
      .slice(0, NAMED)
      .map(({ name, wanted, found }) =>
        found === null ? `${name} ${wanted}` : `${name} ${wanted} (is ${found})`,
      );
    const more = missing.length > NAMED ? ` and ${missing.length - NAMED} more` : '';
    return `not installed as locked: ${named.join(', ')}${more}`;
  }
  return marked ? null : 'its installation did not end, or it is of another lock';
}

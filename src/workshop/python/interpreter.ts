// Finds the Python the environment is made of: CPython 3.11 with venv and pip on x86-64 Linux, which the
// hashes of requirements.txt are for. Every candidate is asked once, bounded in time and output.

import { execFile } from 'node:child_process';
import { isRecord } from '../../base/shape.ts';

export const NEEDED_PYTHON = '3.11';
/** The lock has wheels for this platform alone. */
const NEEDED_PLATFORM = 'linux-x64';
const CANDIDATES = ['python3.11', 'python3', 'python'] as const;
const ASK = [
  'import importlib.util, json, platform, sys',
  'have = all(importlib.util.find_spec(name) for name in ("venv", "ensurepip"))',
  'print(json.dumps({"version": platform.python_version(), "implementation": platform.python_implementation(), "venv": have}))',
].join('; ');
const ASK_TIMEOUT_MS = 20_000;
const MAX_ANSWER_BYTES = 4096;

/** `command` is there only where the environment can be made of it. */
export interface Interpreter {
  readonly command: string | undefined;
  readonly version: string | undefined;
  /** Why there is none. */
  readonly reason: string | undefined;
}

export interface InterpreterOptions {
  readonly candidates?: readonly string[] | undefined;
  /** `linux-x64`: Node's names of the system and the processor. */
  readonly platform?: string | undefined;
}

interface Answer {
  readonly version: string;
  readonly implementation: string;
  readonly venv: boolean;
}

/** The first candidate that fits. Never throws. */
export async function findInterpreter({
  candidates = CANDIDATES,
  platform = `${process.platform}-${process.arch}`,
}: InterpreterOptions = {}): Promise<Interpreter> {
  const none = { command: undefined, version: undefined };
  if (platform !== NEEDED_PLATFORM)
    return { ...none, reason: `the locked packages are for ${NEEDED_PLATFORM}, and this is ${platform}` };
  const others: string[] = [];
  for (const command of candidates) {
    const answer = await ask(command);
    if (answer === undefined) continue;
    const problem = problemOf(answer);
    if (problem === undefined) return { command, version: answer.version, reason: undefined };
    others.push(`${command} is ${problem}`);
  }
  const found = others.length > 0 ? others.join(', ') : 'no Python is installed';
  return { ...none, reason: `Python ${NEEDED_PYTHON} with venv and pip is needed: ${found}` };
}

function problemOf({ version, implementation, venv }: Answer): string | undefined {
  if (implementation !== 'CPython') return `not CPython`;
  if (!version.startsWith(`${NEEDED_PYTHON}.`)) return version;
  return venv ? undefined : `${version} without venv`;
}

function ask(command: string): Promise<Answer | undefined> {
  return new Promise((resolve) => {
    const limits = { timeout: ASK_TIMEOUT_MS, maxBuffer: MAX_ANSWER_BYTES, killSignal: 'SIGKILL' } as const;
    execFile(command, ['-I', '-c', ASK], limits, (error, stdout) =>
      resolve(error === null ? read(stdout) : undefined),
    );
  });
}

function read(text: string): Answer | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (!isRecord(value)) return undefined;
    const { version, implementation, venv } = value;
    if (typeof version !== 'string' || typeof implementation !== 'string' || typeof venv !== 'boolean')
      return undefined;
    return { version: version.slice(0, 32), implementation: implementation.slice(0, 32), venv };
  } catch {
    return undefined;
  }
}

// A Python environment of its own in the cache, every wheel by its hash, made whole or not at all.

import { execFileSync } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const MARK = 'assay-whole';

/** Its interpreter; undefined where the environment is not there, or not whole. */
export function pinnedPython(folder: string): string | undefined {
  return existsSync(join(folder, MARK)) ? join(folder, 'bin/python') : undefined;
}

/** Says on stderr why it could not be made, and sets the exit code. */
export function makePinnedVenv(what: string, folder: string, requirements: string): void {
  const stdio = ['ignore', 'ignore', 'inherit'] as const;
  try {
    execFileSync('python3', ['-m', 'venv', folder], { stdio: [...stdio] });
    const install = ['install', '--quiet', '--require-hashes', '--only-binary=:all:', '--no-deps'];
    execFileSync(join(folder, 'bin/pip'), [...install, '-r', requirements], { stdio: [...stdio] });
    writeFileSync(join(folder, MARK), '');
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    console.error(`! ${what} cannot be installed: ${error instanceof Error ? error.message : 'no reason'}`);
    process.exitCode = 1;
  }
}

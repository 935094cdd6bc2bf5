// What is inside a trust boundary comes from the lock, byte for byte, runs no script when it is installed, and has a reason.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const top = fileURLToPath(new URL('..', import.meta.url));
const read = (path: string): string => readFileSync(`${top}/${path}`, 'utf8');

test('docs/tcb.md lists what the lock says, and every package has a line in docs/decisions.md', () => {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/tcb.ts', '--check'], { cwd: top, encoding: 'utf8' });
  expect(stderr.split('\n').filter((line) => /docs\//.test(line))).toEqual([]);
  expect(status).toBe(0);
});

test('every package is pinned by version and SHA-512', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { version?: string; integrity?: string; link?: boolean }>;
  };
  const foreign = Object.entries(packages).filter(([path, entry]) => path.includes('node_modules/') && entry.link !== true);
  expect(foreign.length).toBeGreaterThan(50);
  expect(foreign.filter(([, entry]) => !/^sha512-[A-Za-z0-9+/]{86}==$/.test(entry.integrity ?? '') || entry.version === undefined)).toEqual(
    [],
  );
});

test('our own dependencies are exact versions, and installing runs no script', () => {
  for (const path of ['package.json', 'attestation/package.json']) {
    const manifest = JSON.parse(read(path)) as Record<string, Record<string, string> | undefined>;
    for (const kind of ['dependencies', 'optionalDependencies', 'devDependencies'])
      expect(Object.entries(manifest[kind] ?? {}).filter(([, range]) => !/^\d+\.\d+\.\d+$/.test(range))).toEqual([]);
    expect(Object.keys(manifest['scripts'] ?? {}).filter((name) => /install|prepare|prepublish/.test(name))).toEqual([]);
  }
  const installs = read('Makefile')
    .split('\n')
    .filter((line) => /npm (ci|install)/.test(line));
  expect(installs.length).toBeGreaterThan(0);
  expect(installs.filter((line) => !line.includes('--ignore-scripts'))).toEqual([]);
});

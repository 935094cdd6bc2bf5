// A package inside a trust boundary comes from the lock, byte for byte, runs no script when it is
// installed, and has a reason.

import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { pack, type Packed } from '../../scripts/pack.ts';
import { growth, type Ledger, readDecisions, readLedger } from '../../scripts/tcb.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
function read(path: string): string {
  return readFileSync(`${top}/${path}`, 'utf8');
}

test('docs/tcb.md lists what the locks say, and all of it has a line in docs/decisions/', () => {
  const { status, stderr } = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/tcb.ts', '--check'], {
    cwd: top,
    encoding: 'utf8',
  });
  expect(stderr.split('\n').filter((line) => /docs\//.test(line))).toEqual([]);
  expect(status).toBe(0);
});

describe('growth of a trust boundary without a line in docs/decisions/ is found:', () => {
  const ledger = readLedger();
  const decisions = readDecisions();
  const one = { name: 'left-pad', version: '1.0.0', license: 'MIT', natives: 0, installScript: false };
  const changed = (name: string, change: Partial<Ledger['client'][number]>): Ledger['server'] =>
    ledger.server.map((each) => (each.name === name ? { ...each, ...change } : each));

  test('nothing has grown, and there is something to grow', () => {
    expect(growth(ledger, decisions)).toEqual([]);
    expect(ledger.client.length).toBeGreaterThan(0);
    expect(ledger.image.length).toBeGreaterThan(10);
    // Each reaches what it is known to hold, and the child none of the server.
    for (const { lines } of ledger.boundaries) expect(lines).toBeGreaterThan(100);
    const [client, server, child] = ledger.boundaries.map(({ lines }) => lines) as [number, number, number];
    expect(server).toBeGreaterThan(client);
    expect(child).toBeLessThan(server / 4);
  });

  const pino = ledger.server.find(({ name }) => name === 'pino');
  test.each<[string, Ledger, RegExp]>([
    [
      'a package of the client',
      { ...ledger, client: [...ledger.client, one] },
      /^left-pad is inside a trust boundary/,
    ],
    [
      'a package of the server',
      { ...ledger, server: [...ledger.server, one] },
      /^left-pad is inside a trust boundary/,
    ],
    [
      'a package that moves into the client',
      { ...ledger, client: [...ledger.client, pino ?? one] },
      /^pino is inside the client, and recorded for the server/,
    ],
    [
      'native code where there was none',
      { ...ledger, server: changed('pino', { natives: 1 }) },
      /^pino has 1 native files, 0 recorded/,
    ],
    [
      'more native files',
      { ...ledger, server: changed('@node-llama-cpp/linux-x64', { natives: 99 }) },
      /has 99 native files, 19 recorded/,
    ],
    [
      'an install script',
      { ...ledger, server: changed('fastify', { installScript: true }) },
      /^fastify has an install script/,
    ],
    [
      'a part of the image',
      { ...ledger, image: [...ledger.image, { name: 'curl', version: '8', bytes: 1 }] },
      /^curl is inside the image/,
    ],
    ...ledger.boundaries.map((boundary): [string, Ledger, RegExp] => [
      `lines: ${boundary.name}`,
      { ...ledger, boundaries: [{ ...boundary, lines: Math.ceil(boundary.lines * 1.15) }] },
      new RegExp(`^${boundary.name} has \\d+ lines, \\d+ recorded`),
    ]),
  ])('%s', (_what, grown, expected) => {
    expect(growth(grown, decisions)).toEqual([expect.stringMatching(expected)]);
  });

  test('and a line lets it in', () => {
    const more = `${decisions}\n| \`left-pad\` | server | it pads |\n| native files: \`left-pad\` | 2 | it pads fast |\n`;
    expect(growth({ ...ledger, server: [...ledger.server, { ...one, natives: 2 }] }, more)).toEqual([]);
    expect(growth({ ...ledger, client: [...ledger.client, one] }, more)).toHaveLength(1);
  });
});

test.each([
  'package-lock.json',
  'test/package-lock.json',
  'test/browser/package-lock.json',
  'scripts/package-lock.json',
])('%s: every package is pinned by version and SHA-512', (lock) => {
  const { packages } = JSON.parse(read(lock)) as {
    packages: Record<string, { version?: string; integrity?: string; link?: boolean }>;
  };
  const foreign = Object.entries(packages).filter(
    ([path, entry]) => path.startsWith('node_modules/') && entry.link !== true,
  );
  expect(foreign.length).toBeGreaterThan(0);
  expect(
    foreign.filter(
      ([, entry]) =>
        !/^sha512-[A-Za-z0-9+/]{86}==$/.test(entry.integrity ?? '') || entry.version === undefined,
    ),
  ).toEqual([]);
});

test('what is installed is what is used', () => {
  const { packages } = JSON.parse(read('package-lock.json')) as {
    packages: Record<string, { cpu?: readonly string[]; optional?: boolean }>;
  };
  const engines = Object.entries(packages).filter(([path]) => path.includes('@node-llama-cpp/'));
  // The package says x64 as well, for cross builds: 19 MB that are never loaded there.
  expect(engines.map(([path, { cpu }]) => [path.split('/').at(-1), cpu])).toEqual([
    ['linux-arm64', ['arm64']],
    ['linux-x64', ['x64']],
    ['mac-arm64-metal', ['arm64', 'x64']],
    ['mac-x64', ['x64']],
  ]);
  const MiB = 2 ** 20;
  // Builds that an operator, or `make gpu-test`, adds: no lock names them.
  const added = ['vulkan', 'cuda', 'cuda-ext']
    .map((backend) => `node_modules/@node-llama-cpp/linux-x64-${backend}`)
    .filter((folder) => existsSync(join(top, folder)))
    .reduce((sum, folder) => sum + bytesBelow(folder), 0);
  expect(bytesBelow('node_modules') - added).toBeLessThan(180 * MiB);
  expect(bytesBelow('node_modules') - added + bytesBelow('test/node_modules')).toBeLessThan(317 * MiB);
});

/** On the disk, links not followed. */
function bytesBelow(folder: string): number {
  return readdirSync(join(top, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(join(parentPath, name)).blocks * 512, 0);
}

test('our own dependencies are exact versions, and installing runs no script', () => {
  const manifests = ['package.json', 'attestation/package.json', 'test/package.json', 'scripts/package.json'];
  for (const path of [...manifests, 'test/browser/package.json']) {
    const manifest = JSON.parse(read(path)) as Record<string, Record<string, string> | undefined>;
    for (const kind of ['dependencies', 'optionalDependencies', 'devDependencies'])
      expect(
        Object.entries(manifest[kind] ?? {}).filter(
          ([, range]) => !/^(\d+\.\d+\.\d+(?:-[a-z]+\.\d+)?|file:\.\.\/node_modules\/\w+)$/.test(range),
        ),
      ).toEqual([]);
    expect(
      Object.keys(manifest['scripts'] ?? {}).filter((name) => /install|prepare|prepublish/.test(name)),
    ).toEqual([]);
  }
  const installs = read('Makefile')
    .split('\n')
    .filter((line) => /npm (ci|install)/.test(line));
  expect(installs.length).toBeGreaterThan(0);
  expect(installs.filter((line) => !line.includes('--ignore-scripts'))).toEqual([]);
});

/** A tarball carries the files docs/tcb.md lists, and no script that would run while it is installed. */
function expectLedger(packed: readonly Packed[]): void {
  const ledger = readLedger();
  const verifier = ledger.client.map(({ name }) => name);
  const server = ledger.server
    .map(({ name }) => name)
    .filter((name) => !/^@(node-llama-cpp|koromix)\//.test(name));
  const carried = packed.map(({ files }) =>
    [...new Set(files.flatMap(({ path }) => PACKAGE.exec(path)?.[1] ?? []))].toSorted(),
  );
  // A package may be there in two versions.
  const whole = [...new Set(['@assay/attestation', ...verifier, ...server])];
  expect(carried).toEqual([whole.toSorted(), verifier.toSorted()]);
  for (const { filename, name } of packed) expect(name, filename).not.toMatch(/cbor-extract/);
}

const PACKAGE = /^(?:.*\/)?node_modules\/((?:@[^/]+\/)?[^/]+)\/package\.json$/;

test('npm packages are the same bytes whatever the folder, the file times, the modes and what an earlier build left', async () => {
  const folders = [
    mkdtempSync(join(tmpdir(), 'assay-pack-')),
    mkdtempSync(join(tmpdir(), 'assay-pack-elsewhere-')),
  ];
  try {
    const packed: (readonly Packed[])[] = [];
    for (const [i, folder] of folders.entries()) {
      for (const name of [
        'attestation',
        'image',
        'src',
        'LICENSE',
        'README.md',
        'package.json',
        'tsconfig.base.json',
      ])
        cpSync(join(top, name), join(folder, name), {
          recursive: true,
          filter: (path) => i === 1 || basename(path) !== 'dist',
        });
      symlinkSync(join(top, 'node_modules'), join(folder, 'node_modules'));
      if (i === 1) {
        const stale = join(folder, 'attestation/dist/stale.js');
        cpSync(join(folder, 'README.md'), stale);
        for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
          if (path.startsWith('node_modules') || !statSync(join(folder, path)).isFile()) continue;
          chmodSync(join(folder, path), path.includes('bin/') ? 0o777 : 0o664);
          utimesSync(join(folder, path), 1e9, 1e9);
        }
      }
      packed.push(await pack(folder, join(folder, 'out')));
    }
    const [one, other] = packed;
    expect(one?.map(({ name }) => name)).toEqual(['assay', '@assay/attestation']);
    expect(other?.map(({ integrity }) => integrity)).toEqual(one?.map(({ integrity }) => integrity));
    const files = one?.flatMap((each) => each.files.map(({ path }) => path)) ?? [];
    expect(files).toContain('bin/assay-verify.js');
    expect(files).toContain('dist/src/cli/main.js');
    expect(files).toContain('dist/console.html');
    const own = files.filter((path) => !path.startsWith('node_modules/'));
    expect(
      own.filter(
        (path) =>
          !/^(LICENSE|README\.md|package\.json|bin\/[\w-]+\.js|dist\/[\w/-]+\.(js|d\.ts)|dist\/console\.html|src\/workshop\/python\/[\w/]+\.(py|txt))$/.test(
            path,
          ),
      ),
    ).toEqual([]);
    expectLedger(one ?? []);
  } finally {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  }
}, 400_000);

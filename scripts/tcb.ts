// Writes docs/tcb.md: everything that runs inside a trust boundary — packages, native code, install scripts,
// what the image has of Debian, our own lines. `--check` compares instead, and fails too when any of it has
// grown without a line in docs/decisions/: a package, one that moved into the client, native files, an
// install script, a Debian package, lines past the number recorded.

import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { closureOf, linesOf, ON_DEMAND } from './closures.ts';
import { recordedDigests } from './native/digests.ts';
import { RECIPES } from './native/recipes.ts';

/**
 * Lines of all our files that the entries load, directly or not, in production. What is imported as a type
 * is not there when it runs.
 */
function reached(...entries: readonly string[]): number {
  return linesOf(closureOf(entries, { lazy: ON_DEMAND }));
}

interface LockEntry {
  readonly version?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly hasInstallScript?: boolean;
  readonly link?: boolean;
  readonly license?: string;
}

const top = fileURLToPath(new URL('..', import.meta.url)).replace(/dist\/$/, '');
function read(path: string): string {
  return readFileSync(join(top, path), 'utf8');
}
const lock = (JSON.parse(read('package-lock.json')) as { packages: Record<string, LockEntry> }).packages;

/** Where npm would find `name` from inside `from`, as a key of the lock. */
function resolve(name: string, from: string): string | undefined {
  for (
    let at = from;
    ;
    at = at.includes('node_modules/') ? at.slice(0, at.lastIndexOf('node_modules/')).replace(/\/$/, '') : ''
  ) {
    const key = `${at === '' ? '' : `${at}/`}node_modules/${name}`;
    if (lock[key]) return key;
    if (at === '') return undefined;
  }
}

/**
 * Optional parts that are in no package we publish: an accelerator of cbor-x with an install
 * script, which we do not load.
 */
export const LEFT_OUT: ReadonlySet<string> = new Set(['cbor-extract']);

/** Builds for one platform, which npm fetches by exact version. */
export function isNative(key: string): boolean {
  return /node_modules\/@(node-llama-cpp|koromix)\//.test(key);
}

/** Lock keys of everything reachable from the production dependencies of the package at `root`. */
export function closure(root: string): string[] {
  const seen = new Set<string>();
  const queue = [root];
  for (let at = queue.pop(); at !== undefined; at = queue.pop()) {
    const entry = lock[at];
    for (const name of Object.keys({ ...entry?.dependencies, ...entry?.optionalDependencies })) {
      if (LEFT_OUT.has(name)) continue;
      const key = resolve(name, at);
      if (key === undefined || seen.has(key) || lock[key]?.link) continue;
      // Of a set of per-platform binaries only what the image carries counts; the others never load there.
      if (
        /[-/](?:android|darwin|freebsd|openbsd|win32|mac)|-(?:arm|ia32|riscv64|loong64|ppc64)|linux-arm/.test(
          name,
        )
      )
        continue;
      seen.add(key);
      queue.push(key);
    }
  }
  return [...seen].toSorted();
}

function files(folder: string, pattern: RegExp): string[] {
  if (!existsSync(join(top, folder))) return [];
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => pattern.test(name) && !/(^|\/)(dist|node_modules)\//.test(name))
    .map((name) => join(folder, name));
}

function nameOf(key: string): string {
  return key.slice(key.lastIndexOf('node_modules/') + 'node_modules/'.length);
}

export interface Package {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  /** Files of native code in what npm installed here. */
  readonly natives: number;
  readonly installScript: boolean;
}

/** Our own code that runs inside a boundary, by everything its entries import. */
export interface Boundary {
  readonly name: string;
  readonly about: string;
  readonly lines: number;
}

export interface Ledger {
  readonly client: readonly Package[];
  /** Beyond the client's. */
  readonly server: readonly Package[];
  /** Debian packages and npm tarballs in the image, without the version of the kernel in its name. */
  readonly image: readonly {
    readonly name: string;
    readonly version: string;
    readonly bytes: number | null;
  }[];
  readonly boundaries: readonly Boundary[];
}

/** Lines may pass what docs/decisions/ records by this much before it needs another line. */
const SLACK = 1.05;

export function readLedger(): Ledger {
  const client = closure('attestation');
  const ofClient = new Set(client);
  return {
    client: client.map(packageOf),
    server: closure('')
      .filter((key) => !ofClient.has(key))
      .map(packageOf),
    image: imageParts(),
    boundaries: [
      { name: 'client verifier', about: 'decides, on the client’s machine, whether a server is spoken to', lines: reached('attestation/index.ts', 'attestation/node/index.ts', 'attestation/node/cli/main.ts') }, // prettier-ignore
      {
        name: 'server process',
        about: 'holds the TLS key, the keys of callers and what they send',
        lines: reached('src/cli/main.ts'),
      },
      {
        name: 'engine child',
        about: 'holds texts and weights; no key, no file, no network',
        lines: reached('src/engine/child/worker.ts'),
      },
      {
        name: 'audio child',
        about: 'holds sound, its texts and weights; no key, no file, no network',
        lines: reached('src/engine/child/audio/worker.ts'),
      },
      {
        name: 'converter',
        about: 'reads a folder of weights; reads and writes descriptors it was given, no network',
        lines: reached('src/engine/child/convert/worker.ts'),
      },
      {
        name: 'quantiser',
        about: 'holds one model file; its input, its output and the program, no network',
        lines: reached('src/engine/child/quantize/worker.ts'),
      },
      { name: 'root part', about: 'the only root process of the guest after boot; asks the TEE for reports', lines: reached('src/attestd/main.ts') }, // prettier-ignore
      {
        name: 'guest',
        about: 'boots the image and starts the rest',
        lines: linesOf(files('image/guest', /\.sh$/)),
      },
      {
        name: 'image builder',
        about: 'writes the bytes that are measured',
        lines: reached('image/build.ts'),
      },
    ],
  };
}

/** The two files of decisions that the ledger is held against. */
export function readDecisions(): string {
  return ['dependencies', 'growth'].map((topic) => read(`docs/decisions/${topic}.md`)).join('\n');
}

/** Each is a growth without a line in docs/decisions/. */
export function growth(ledger: Ledger, decisions: string): string[] {
  const named = (name: string): boolean => decisions.includes(`\`${name}\``);
  const rows = decisions.split('\n').filter((line) => line.startsWith('|'));
  const inClient = (name: string): boolean =>
    rows.some((row) => row.includes(`\`${name}\``) && (row.split(' | ')[1] ?? '').includes('client'));
  const recorded = (what: string): number => {
    const row = rows.find((each) => each.startsWith(`| ${what} | `));
    return Number(/^\d+$/.exec((row ?? '').split(' | ')[1] ?? '')?.[0] ?? 0);
  };
  const all = [...ledger.client, ...ledger.server];
  return [
    ...all.filter(({ name }) => !named(name)).map(({ name }) => `${name} is inside a trust boundary`),
    ...ledger.client
      .filter(({ name }) => named(name) && !inClient(name))
      .map(({ name }) => `${name} is inside the client, and recorded for the server alone`),
    ...all
      .filter(({ name, natives }) => natives > recorded(`native files: \`${name}\``))
      .map(
        ({ name, natives }) =>
          `${name} has ${natives} native files, ${recorded(`native files: \`${name}\``)} recorded`,
      ),
    ...all
      .filter(({ name, installScript }) => installScript && recorded(`install scripts: \`${name}\``) === 0)
      .map(({ name }) => `${name} has an install script`),
    ...ledger.image.filter(({ name }) => !named(name)).map(({ name }) => `${name} is inside the image`),
    ...ledger.boundaries
      .filter(({ name, lines: count }) => count > recorded(`lines: ${name}`) * SLACK)
      .map(({ name, lines: count }) => `${name} has ${count} lines, ${recorded(`lines: ${name}`)} recorded`),
  ].map((problem) => `${problem}: docs/decisions/ has no line for it`);
}

function packageOf(key: string): Package {
  const entry = lock[key];
  const natives = existsSync(join(top, key))
    ? files(key, /\.(node|so|dylib|dll|so\.[\d.]+)$/).filter((path) => statSync(join(top, path)).isFile())
    : [];
  return {
    name: nameOf(key),
    version: entry?.version ?? '',
    license: entry?.license ?? '',
    natives: natives.length,
    installScript: entry?.hasInstallScript === true,
  };
}

function imageParts(): Ledger['image'] {
  const inputs = JSON.parse(read('image/inputs.lock.json')) as {
    debian: { package: string; version: string; size: number; use: string }[];
    npm: { package: string; version: string }[];
  };
  return [
    ...inputs.debian
      .filter(({ use }) => use === 'image')
      .map(({ package: name, version, size }) => ({ name: name.replace(/^linux-image-[\d.]+\+deb\d+-/, 'linux-image-'), version, bytes: size })), // prettier-ignore
    ...inputs.npm.map(({ package: name, version }) => ({ name, version, bytes: null })),
  ].toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function nativeRows(): string {
  const { sources, results } = recordedDigests();
  const libraries = results['linux-x64']?.libraries ?? {};
  return RECIPES.map(({ library, needs }) => {
    const digests = needs.map((need) => (need === 'own' ? undefined : sources[need]));
    const from = digests.filter((digest) => digest !== undefined).join(', ');
    return `| ${library}.so | ${from} | ${libraries[`${library}.so`] ?? '–'} |`;
  }).join('\n');
}

function packageTable(packages: readonly Package[]): string {
  return [
    '| package | version | license | native code | install script |',
    '|---|---|---|---|---|',
    ...packages.map(
      ({ name, version, license, natives, installScript }) =>
        `| ${name} | ${version} | ${license} | ${natives === 0 ? '–' : `${natives} files`} | ${installScript ? 'has one, never run' : '–'} |`,
    ),
  ].join('\n');
}

const OWN_LINES = '## Our own lines';

function render(ledger: Ledger): string {
  return `# What is inside the trust boundaries

Generated by \`scripts/tcb.ts\` from package-lock.json, image/inputs.lock.json and the tree. \`make drift\` fails when it is stale, or
when something of it has grown that decisions/ has no line for: packages, native files, install scripts, our own lines by more
than a twentieth. Install scripts never run: the install command is \`npm ci --ignore-scripts\`.

## The client (\`@assay/attestation\`): ${ledger.client.length} packages

${packageTable(ledger.client)}

## The server, beyond that: ${ledger.server.length} packages

${packageTable(ledger.server)}

Development tools (compiler, linter, tests, the OpenAI SDK as a test client, node-llama-cpp's JavaScript as an oracle) are in no boundary.

## The image, beyond that: ${ledger.image.length} parts

| part | version | packed bytes |
|---|---|--:|
${ledger.image.map(({ name, version, bytes }) => `| ${name} | ${version} | ${bytes ?? 'npm'} |`).join('\n')}

Where it is built with \`NATIVE\`, also what \`make native\` compiles from pinned sources ([reproduce.md](reproduce.md)):

| library | sources, by SHA-256 | as compiled for linux-x64 |
|---|---|---|
${nativeRows()}

${OWN_LINES}

By everything an entry imports, so what two boundaries share counts in both. The image holds all but the last.

| boundary | what it is trusted with | lines |
|---|---|--:|
${ledger.boundaries.map(({ name, about, lines: count }) => `| ${name} | ${about} | ${count} |`).join('\n')}
`;
}

/**
 * Our own line counts change with every commit, and have a budget instead; what comes from
 * elsewhere must not drift at all.
 */
function stable(value: string): string {
  return value.slice(0, value.indexOf(OWN_LINES));
}

function main(): void {
  const ledger = readLedger();
  const text = render(ledger);
  const unexplained = growth(ledger, readDecisions());
  const stale = !existsSync(join(top, 'docs/tcb.md')) || stable(read('docs/tcb.md')) !== stable(text);
  if (process.argv.includes('--check')) {
    const problems = [
      ...unexplained,
      ...(stale ? ['docs/tcb.md is stale: run `npx tsx scripts/tcb.ts`'] : []),
    ];
    for (const problem of problems) console.error(problem);
    process.exitCode = problems.length === 0 ? 0 : 1;
    return;
  }
  writeFileSync(join(top, 'docs/tcb.md'), text);
  console.log(`docs/tcb.md: client ${ledger.client.length} packages, server ${ledger.server.length} more`);
  for (const problem of unexplained) console.log(problem);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();

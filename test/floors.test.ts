// The house's floors: a file imports only from lower floors or its own room, and third-party packages are fenced.
// docs/architecture: shared rules in one place, so that the tree stays readable as it grows.
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const top = fileURLToPath(new URL('..', import.meta.url));

/** First match wins. Equal floors may not import each other unless the room is the same. */
const ROOMS: readonly (readonly [RegExp, number, string])[] = [
  [/^src\/(main|cli)/, 7, 'src'],
  [/^src\/(http|routes|openai)\//, 6, 'http'],
  [/^src\/attester\//, 5, 'attester'],
  [/^src\/models\//, 5, 'models'],
  [/^src\/inference\//, 5, 'inference'],
  [/^src\//, 4.5, 'src-base'],
  [/^attestation\/node\//, 4, 'node'],
  [/^attestation\/(policy|reference-values|appraise|appraise-hardware|explain|index|evidence|measure)\.ts$/, 3, 'appraise'],
  [/^attestation\/snp\//, 2, 'snp'],
  [/^attestation\/tdx\//, 2, 'tdx'],
  [/^attestation\/simulated\//, 2.5, 'simulated'],
  [/^attestation\/(errors|codes|checks|bytes|layout|cbor)\.ts$/, 0, 'floor0'],
  [/^attestation\/[^/]+\.ts$/, 1, 'floor1'],
];

const FENCES: Readonly<Record<string, RegExp>> = {
  koffi: /^src\/inference\//,
  '@huggingface/jinja': /^src\/inference\/template/,
  undici: /^(attestation\/node\/|src\/models\/pull|src\/cli)/,
  '@peculiar/x509': /^(attestation\/(x509\.ts|simulated\/)|src\/attester\/certificate)/,
  'cbor-x': /^attestation\/cbor\.ts$/,
  fastify: /^src\/(http|routes)\//,
  'smol-toml': /^src\/config/,
  pino: /^src\/(log|main|http\/)/,
};

const PACKAGES: Readonly<Record<string, string>> = {
  '@assay/attestation': 'attestation/index.ts',
  '@assay/attestation/node': 'attestation/node/fetch.ts',
  '@assay/attestation/simulated': 'attestation/simulated/hierarchy.ts',
};

function sources(folder: string): string[] {
  return readdirSync(join(top, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !/(^|\/)(dist|node_modules)\//.test(name))
    .map((name) => posix.join(folder, name));
}

function imports(file: string): string[] {
  const text = readFileSync(join(top, file), 'utf8');
  return [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom\s+'([^']+)'|^import\s+'([^']+)'|\bimport\('([^']+)'\)/gm)].map(
    (m) => m[1] ?? m[2] ?? m[3] ?? '',
  );
}

function roomOf(file: string): readonly [number, string] {
  const room = ROOMS.find(([pattern]) => pattern.test(file));
  if (!room) throw new Error(`${file} is in no room of test/floors.test.ts`);
  return [room[1], room[2]];
}

const files = [...sources('attestation'), ...sources('src')];

describe('floors', () => {
  test('a file imports only from lower floors or its own room', () => {
    const offending: string[] = [];
    for (const file of files) {
      const [floor, room] = roomOf(file);
      for (const name of imports(file)) {
        const target = name.startsWith('.') ? posix.join(posix.dirname(file), name) : PACKAGES[name];
        if (target === undefined) continue;
        const [targetFloor, targetRoom] = roomOf(target);
        if (targetFloor > floor || (targetFloor === floor && targetRoom !== room))
          offending.push(`${file} (${floor}) → ${target} (${targetFloor})`);
      }
    }
    expect(offending).toEqual([]);
  });

  test('third-party packages stay behind their fences', () => {
    const offending: string[] = [];
    for (const file of files) {
      for (const name of imports(file)) {
        if (name.startsWith('.') || name.startsWith('node:') || name in PACKAGES) continue;
        const packageName = name.startsWith('@') ? name.split('/').slice(0, 2).join('/') : (name.split('/')[0] ?? name);
        const fence = FENCES[packageName];
        if (fence && !fence.test(file)) offending.push(`${file} imports ${packageName}`);
      }
    }
    expect(offending).toEqual([]);
  });

  test('the browser-safe core names nothing of Node', () => {
    const offending = files
      .filter((file) => file.startsWith('attestation/') && !file.startsWith('attestation/node/'))
      .filter(
        (file) =>
          imports(file).some((name) => name.startsWith('node:')) || /\b(Buffer|process)\.\w/.test(readFileSync(join(top, file), 'utf8')),
      );
    expect(offending).toEqual([]);
  });

  test('the verifier never imports the server', () => {
    const offending = files.filter((file) => file.startsWith('attestation/') && imports(file).some((name) => /(^|\/)src\//.test(name)));
    expect(offending).toEqual([]);
  });

  test('process.env is read in configuration and at the command line only', () => {
    const allowed = /^(src\/(config|cli)[\w-]*\.ts|attestation\/node\/cli[\w-]*\.ts)$/;
    const offending = files.filter((file) => !allowed.test(file) && /\bprocess\.env\b/.test(readFileSync(join(top, file), 'utf8')));
    expect(offending).toEqual([]);
  });

  test('the client loads no native code', () => {
    const script =
      "await import('@assay/attestation'); await import('@assay/attestation/node'); console.log(JSON.stringify(process.report.getReport().sharedObjects.filter((name) => name.endsWith('.node'))))";
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { cwd: top, encoding: 'utf8' });
    expect(JSON.parse(stdout || 'null'), stderr).toEqual([]);
  });
});

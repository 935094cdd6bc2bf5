// The house's floors: a file imports only from lower floors or its own room, no two files import each other
// in a circle (types included), and packages stay behind their fences. The rooms are the target tree of
// ARCHITECTURE.md, highest floor first.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { closureOf, importsOf, sourcesBelow, TOP } from '../../scripts/closures.ts';

/**
 * A room is a folder or a file; the longest one that holds a file is its room. Rooms of one floor
 * never import each other.
 */
const SERVER_ROOMS: Readonly<Record<string, number>> = {
  'src/cli/': 6,
  'src/workshop/': 5.5,
  'src/start/': 5,
  'src/api/': 4,
  'src/file-routes/': 3.5,
  'src/http/': 3,
  'src/models/': 2,
  'src/engine/': 2,
  'src/engine/child/': 2,
  'src/grammar/': 2,
  'src/attester/': 2,
  'src/config/': 2,
  'src/audit/': 2,
  'src/files/': 2,
  'src/receipts/': 2,
  'src/sealed/': 2,
  'src/engine/seam/': 1,
  'src/models/convert/': 1,
  'src/attestd/': 0,
  'src/base/': 0,
};

const VERIFIER_ROOMS: Readonly<Record<string, number>> = {
  'attestation/node/': 6,
  'attestation/console/': 5.5,
  'attestation/index.ts': 5,
  'attestation/client/': 5,
  'attestation/appraise/': 4,
  'attestation/simulated/': 4,
  'attestation/snp/': 3,
  'attestation/tdx/': 3,
  'attestation/vtpm/': 3,
  'attestation/gcp/': 3,
  'attestation/receipts/': 3,
  'attestation/sealed/': 3,
  'attestation/protocol/': 2,
  'attestation/x509/': 2,
  'attestation/eventlog/': 2,
  'attestation/launch/': 2,
  'attestation/encoding/': 1,
  'attestation/transcript/': 0,
};

/** Rooms below the server's own that never import the verifier. */
const WITHOUT_VERIFIER = [
  'src/engine/',
  'src/engine/child/',
  'src/engine/seam/',
  'src/models/convert/',
  'src/grammar/',
  'src/attestd/',
  'src/base/',
];

/** Of these rooms, the rooms named may be imported as types only. */
const TYPES_ONLY: Readonly<Record<string, readonly string[]>> = {
  'src/http/': [
    'src/models/',
    'src/engine/seam/',
    'src/attester/',
    'src/audit/',
    'src/files/',
    'src/receipts/',
    'src/sealed/',
  ],
  'src/api/': ['src/models/', 'src/engine/seam/', 'src/attester/', 'src/receipts/', 'src/sealed/'],
};

/** These folders import the folders named and themselves, nothing else of ours. */
const ONLY: Readonly<Record<string, readonly string[]>> = {
  'src/models/gguf/': ['src/base/'],
  'src/models/store/': ['src/base/'],
  'src/models/pull/': ['src/base/', 'src/models/gguf/', 'src/models/store/'],
  'src/audit/': ['src/base/'],
  'src/attester/': ['src/base/', 'src/attestd/', 'attestation/'],
  'src/config/': ['src/base/', 'attestation/'],
  'src/files/': ['src/base/'],
  'src/receipts/': ['src/base/', 'attestation/'],
  'src/sealed/': ['src/base/', 'attestation/'],
  'src/grammar/': ['src/base/', 'src/engine/seam/'],
  // A program of its own: never the routes of serving, the engine's child or the commands.
  'src/workshop/': [
    'src/start/files.ts',
    'src/start/http.ts',
    'src/start/tee.ts',
    'src/file-routes/',
    'src/http/',
    'src/models/',
    'src/engine/convert.ts',
    'src/engine/quantize.ts',
    'src/engine/seam/',
    'src/audit/',
    'src/attester/',
    'src/config/',
    'src/files/',
    'src/base/',
    'attestation/',
  ],
};

/** The order inside api/: what each folder imports of the others. Files beside them serve all. */
const API_ORDER: Readonly<Record<string, readonly string[]>> = {
  generation: [],
  chat: ['generation'],
  completions: ['generation'],
  audio: ['generation'],
  vectors: ['generation'],
  models: ['generation'],
  tokens: ['generation', 'chat'],
  responses: ['generation', 'chat'],
  batches: [],
  messages: ['generation', 'chat'],
};
const API_SHARED = /^src\/api\/(model-access|response-schemas|unsupported)\.ts$/;

const FENCES: Readonly<Record<string, RegExp>> = {
  koffi: /^src\/engine\/child\//,
  '@huggingface/jinja': /^src\/engine\/child\/template\//,
  undici: /^(attestation\/node\/|src\/models\/pull\/)/,
  '@peculiar/x509': /^src\/attester\//,
  'cbor-x': /^src\/attester\/cbor-cross-check\.ts$/,
  fastify: /^src\/http\//,
  'smol-toml': /^src\/config\//,
  pino: /^src\/base\/log\.ts$/,
};

const files = [...sourcesBelow('attestation'), ...sourcesBelow('src')];

function roomOf(file: string): string {
  const rooms = Object.keys({ ...SERVER_ROOMS, ...VERIFIER_ROOMS }).filter((room) => file.startsWith(room));
  const room = rooms.toSorted((a, b) => b.length - a.length)[0];
  if (room === undefined) throw new Error(`${file} is in no room of test/tree/floors.test.ts`);
  return room;
}

function objection(file: string, target: string, kind: string): string | undefined {
  const folder = Object.keys(ONLY).find((each) => file.startsWith(each));
  if (folder !== undefined && ![folder, ...(ONLY[folder] ?? [])].some((each) => target.startsWith(each)))
    return `${folder} imports ${(ONLY[folder] ?? []).join(', ')} only`;
  if (file.startsWith('src/api/') && target.startsWith('src/api/')) return apiObjection(file, target);
  const from = roomOf(file);
  const to = roomOf(target);
  if (from === to) return undefined;
  if (from.startsWith('src/') && to.startsWith('attestation/')) {
    return WITHOUT_VERIFIER.includes(from) ? 'imports nothing of the verifier' : undefined;
  }
  if (from.startsWith('attestation/') && to.startsWith('src/'))
    return 'the verifier never imports the server';
  const floors = from.startsWith('src/') ? SERVER_ROOMS : VERIFIER_ROOMS;
  if ((floors[to] ?? 0) >= (floors[from] ?? 0)) return `floor ${floors[from]} imports floor ${floors[to]}`;
  if (kind !== 'type' && TYPES_ONLY[from]?.includes(to) === true) return 'types only';
  return undefined;
}

function apiObjection(file: string, target: string): string | undefined {
  const [from, to] = [file, target].map((path) => /^src\/api\/(\w+)\//.exec(path)?.[1]);
  if (from === to && from !== undefined) return undefined;
  if (from === undefined)
    return API_SHARED.test(file) && !API_SHARED.test(target)
      ? 'serves all of api/, and imports none'
      : undefined;
  const allowed = API_ORDER[from];
  if (allowed === undefined) return `${from} has no place in the order of api/`;
  if (to === undefined) return API_SHARED.test(target) ? undefined : `${from} imports a list of routes`;
  return allowed.includes(to) ? undefined : `${from} imports ${to} of api/`;
}

describe('floors', () => {
  test('a file imports only from lower floors or its own room', () => {
    const offending = files.flatMap((file) =>
      importsOf(file).flatMap(({ file: target, kind }) => {
        const why = target === null ? undefined : objection(file, target, kind);
        return why === undefined ? [] : [`${file} → ${target}: ${why}`];
      }),
    );
    expect(offending).toEqual([]);
  });

  test('no circle, type imports included', () => {
    expect(circles(files)).toEqual([]);
  });

  test('the engine child imports nothing of the server', () => {
    const allowed =
      /^src\/(engine\/(child|seam)\/|base\/(api-codes|errors|image-formats|json-scan|native-library)\.ts$)/;
    expect(
      sourcesBelow('src/engine/child')
        // The process that converts is another one than the engine, and the only one of them
        // that reads model folders.
        .filter((file) => !file.startsWith('src/engine/child/convert/'))
        .flatMap((file) => closureOf(file))
        .filter((file) => !allowed.test(file)),
    ).toEqual([]);
  });

  test('the root part imports node: and itself, nothing else', () => {
    const all = sourcesBelow('src/attestd').flatMap(importsOf);
    expect(
      all.filter(
        ({ specifier, file }) => !specifier.startsWith('node:') && file?.startsWith('src/attestd/') !== true,
      ),
    ).toEqual([]);
  });

  test('third-party packages stay behind their fences', () => {
    const offending: string[] = [];
    for (const file of files) {
      for (const { specifier, file: target } of importsOf(file)) {
        if (target !== null || specifier.startsWith('node:')) continue;
        const packageName = specifier
          .split('/')
          .slice(0, specifier.startsWith('@') ? 2 : 1)
          .join('/');
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
          importsOf(file).some(({ specifier }) => specifier.startsWith('node:')) ||
          /\b(Buffer|process)\.\w/.test(readFileSync(join(TOP, file), 'utf8')),
      );
    expect(offending).toEqual([]);
  });

  test('process.env is read in configuration and at the command line only', () => {
    const allowed = /^(src\/(config|cli)\/|attestation\/node\/cli\/)/;
    const offending = files.filter(
      (file) => !allowed.test(file) && /\bprocess\.env\b/.test(readFileSync(join(TOP, file), 'utf8')),
    );
    expect(offending).toEqual([]);
  });

  test('nothing imports test/', () => {
    const all = [...files, ...sourcesBelow('image'), ...sourcesBelow('scripts')];
    const allowed = /^scripts\/(bench|soak)/;
    expect(
      all.filter(
        (file) =>
          !allowed.test(file) && importsOf(file).some(({ file: target }) => target?.startsWith('test/')),
      ),
    ).toEqual([]);
  });

  test('the client loads no native code', () => {
    const script =
      "await import('@assay/attestation'); await import('@assay/attestation/node'); console.log(JSON.stringify(process.report.getReport().sharedObjects.filter((name) => name.endsWith('.node'))))";
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      cwd: TOP,
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout || 'null'), stderr).toEqual([]);
  });
});

test.each([
  ['src/api/generation/fold.ts', 'src/api/chat/wire.ts', 'generation imports chat of api/'],
  ['src/api/chat/route.ts', 'src/api/completions/wire.ts', 'chat imports completions of api/'],
  ['src/api/chat/route.ts', 'src/api/routes.ts', 'chat imports a list of routes'],
  ['src/api/another/route.ts', 'src/api/generation/fold.ts', 'another has no place in the order of api/'],
  ['src/api/model-access.ts', 'src/api/chat/wire.ts', 'serves all of api/, and imports none'],
  ['src/api/tokens/route.ts', 'src/api/chat/messages.ts', undefined],
  ['src/api/chat/route.ts', 'src/api/model-access.ts', undefined],
  ['src/api/routes.ts', 'src/api/chat/route.ts', undefined],
  ['src/models/gguf/read.ts', 'src/models/lifecycle.ts', 'src/models/gguf/ imports src/base/ only'],
  ['src/models/pull/pull.ts', 'src/models/store/store.ts', undefined],
  ['src/attester/leaf.ts', 'src/engine/seam/wire.ts', expect.stringContaining('src/attester/ imports')],
  ['src/audit/log.ts', 'attestation/index.ts', 'src/audit/ imports src/base/ only'],
  ['src/engine/client.ts', 'src/engine/child/worker.ts', 'floor 2 imports floor 2'],
  ['src/http/server.ts', 'src/api/routes.ts', 'floor 3 imports floor 4'],
  ['attestation/index.ts', 'src/base/errors.ts', 'the verifier never imports the server'],
])('%s → %s: %s', (file, target, expected) => {
  expect(objection(file, target, 'value')).toEqual(expected);
});

/** Tarjan's strongly connected components of more than one file, each as one line. */
function circles(all: readonly string[]): readonly string[] {
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const found: string[] = [];
  const visit = (file: string): void => {
    index.set(file, index.size);
    low.set(file, index.get(file) ?? 0);
    stack.push(file);
    for (const { file: next } of importsOf(file)) {
      if (next === null || !all.includes(next)) continue;
      if (!index.has(next)) visit(next);
      if (stack.includes(next)) low.set(file, Math.min(low.get(file) ?? 0, low.get(next) ?? 0));
    }
    if (low.get(file) !== index.get(file)) return;
    const circle = stack.splice(stack.indexOf(file));
    if (circle.length > 1) found.push(circle.toSorted().join(' ↔ '));
  };
  for (const file of all) if (!index.has(file)) visit(file);
  return found;
}

// The server as the image holds it, without a guest: what code a bundle has, that a production bundle cannot
// simulate a TEE, and that its files find each other where they are put. The native parts are those npm
// installed, so it needs no locked inputs.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, posix } from 'node:path';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { addServer, type Bundle, bundleServer } from '../../image/bundle.ts';
import type { Sources } from '../../image/sources.ts';
import { TOP } from '../../image/top.ts';
import { newTree, type Tree } from '../../image/tree.ts';
import { sourcesBelow } from '../../scripts/closures.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { measureCode } from '../../src/attester/simulated.ts';
import { readHeader } from '../../src/models/gguf/header.ts';
import { watched } from '../fixtures/e2e/assay.ts';
import { adapterFile, randomPairs } from '../fixtures/models/gguf-adapter.ts';
import { source } from '../fixtures/models/gguf-source.ts';

let folder: string;
let production: Bundle;
let withSimulation: Bundle;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-bundle-'));
  production = await bundleServer();
  withSimulation = await bundleServer({ simulatedTee: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Of the simulation: two of its texts, and names of its functions, as bundles are not minified. */
const MARKERS = [
  'assay/code/v1',
  'is not a saved simulated hierarchy',
  'createSimulatedAmd',
  'createSimulatedIntel',
  'signSimulatedQuote',
];

function isSimulation(path: string): boolean {
  return path.startsWith('attestation/simulated/') || path === 'src/attester/simulated.ts';
}

function markersOf({ files }: Bundle): readonly string[] {
  const text = [...files.values()].map((bytes) => Buffer.from(bytes).toString()).join('\n');
  return MARKERS.filter((marker) => text.includes(marker));
}

describe('what code a bundle has', () => {
  test('the same bytes each time, whichever of two files that import a third is read first', async () => {
    const shown = ({ files }: Bundle): string[] =>
      [...files].map(([path, bytes]) => `${path} ${createHash('sha256').update(bytes).digest('hex')}`);
    // Several at once, so that their reading interleaves differently.
    for (let round = 0; round < 3; round++)
      for (const again of await Promise.all([bundleServer(), bundleServer(), bundleServer()]))
        expect(shown(again)).toEqual(shown(production));
  });

  test('production: nothing of the simulation, neither a source nor a word of one', () => {
    expect(production.sources).toContain('src/start/tee.ts');
    expect(production.sources.filter(isSimulation)).toEqual([]);
    expect(markersOf(production)).toEqual([]);
    expect([...production.files.keys()].filter((path) => path.includes('simulated'))).toEqual([]);
  });

  test('with the simulated TEE: all of it, and whatever production has', () => {
    expect(withSimulation.files.has('dist/src/attester/simulated.js')).toBe(true);
    expect(markersOf(withSimulation)).toEqual(MARKERS);
    const others = withSimulation.sources.filter((path) => !production.sources.includes(path));
    expect(others.filter(isSimulation)).toEqual(
      expect.arrayContaining([
        'attestation/simulated/hierarchy.ts',
        'attestation/simulated/intel.ts',
        'src/attester/simulated.ts',
      ]),
    );
    expect(production.sources.filter((path) => !withSimulation.sources.includes(path))).toEqual([]);
  });

  test('every source of the server that is named by a relative URL is a file of the bundle', () => {
    // `assay image` looks for the builder and `assay workshop` for its program: neither is in an image, and
    // both commands say so.
    const server = sourcesBelow('src').filter((file) => !file.startsWith('src/workshop/'));
    const named = server.flatMap((file) =>
      [
        ...readFileSync(join(TOP, file), 'utf8').matchAll(/new URL\('(\.[^']+\.js)', import\.meta\.url\)/g),
      ].map(
        // A chunk is as deep as the source was.
        (match) => posix.join('dist/src/shared', match[1] ?? ''),
      ),
    );
    expect(named.filter((path) => !production.files.has(path))).toEqual([
      'dist/image/model-disk.js',
      'dist/src/workshop/main.js',
    ]);
    expect(named).toContain('dist/src/engine/child/worker.js');
    expect(production.sources.filter((path) => path.startsWith('src/workshop/'))).toEqual([]);
  });
});

/** The packages npm installed, as the unpacked tarballs: the lock is not read. */
const INSTALLED = {
  npm: (name: string, path: string) => readFileSync(join(TOP, 'node_modules', name, path)),
  npmPaths: (name: string) =>
    readdirSync(join(TOP, 'node_modules', name), { recursive: true, encoding: 'utf8' }),
} satisfies Pick<Sources, 'npm' | 'npmPaths'>;

/** The tree of an image's /opt/assay, in a folder. */
function unpack(tree: Tree, name: string): string {
  const target = join(folder, name);
  for (const [path, node] of tree) {
    const at = join(target, path);
    mkdirSync(dirname(at), { recursive: true });
    if (node.kind === 'directory') mkdirSync(at, { recursive: true });
    else if (node.kind === 'link') symlinkSync(node.target, at);
    else writeFileSync(at, node.content as Uint8Array);
  }
  return join(target, 'opt/assay/dist/src/cli/main.js');
}

async function server(simulatedTee: boolean): Promise<string> {
  const tree = newTree();
  await addServer(tree, INSTALLED, { simulatedTee });
  return unpack(tree, simulatedTee ? 'test' : 'production');
}

/** An adapter of the first query matrix of a GGUF file. */
async function demoAdapter(model: string): Promise<Buffer> {
  const { tensors } = await readHeader(source(readFileSync(model)));
  const { name, shape } = tensors.find((tensor) => tensor.name.endsWith('attn_q.weight'))!;
  return adapterFile(randomPairs({ targets: [{ name, columns: shape[0], rows: shape[1] }] }));
}

function start(main: string, ...args: readonly string[]) {
  const env = { PATH: process.env['PATH'], HOME: folder, ASSAY_TEE_PRODUCT: 'TDX' };
  return watched(spawn(process.execPath, [main, ...args], { cwd: folder, env }));
}

/** The natives are those of the image's platform. */
describe.skipIf(process.platform !== 'linux' || process.arch !== 'x64')(
  'a bundle where the image puts it',
  () => {
    test('production: says its version and help, and that it cannot simulate a TEE, in one line with exit 2', async () => {
      const main = await server(false);
      const { version } = JSON.parse(readFileSync(join(TOP, 'package.json'), 'utf8')) as { version: string };
      const said = start(main, '--version');
      expect((await said.ended)[0]).toBe(0);
      expect(said.out()).toContain(version);
      const helped = start(main, '--help');
      expect((await helped.ended)[0]).toBe(0);
      expect(helped.out()).toContain('serve');
      const refused = start(
        main,
        'serve',
        '--tee',
        'simulated',
        '--listen',
        '127.0.0.1:0',
        '--data',
        join(folder, 'd'),
      );
      expect((await refused.ended)[0]).toBe(2);
      expect(refused.err()).toBe('assay: --tee: tee.mode "simulated": this build cannot simulate a TEE\n');
    });

    test(
      'with the simulated TEE: serves evidence, measured over all its code, and answers from its engine child, with an adapter too',
      { timeout: 400_000 },
      async () => {
        const main = await server(true);
        const model = join(TOP, '.cache/models/demo-chat.gguf');
        const config = join(folder, 'roots.toml');
        writeFileSync(config, `[store]\nmodel_roots = [${JSON.stringify(folder)}]\n`);
        const place = ['--listen', '127.0.0.1:0', '--data', join(folder, 'data'), '--config', config];
        const served = start(main, 'serve', '--tee', 'simulated', ...place, '--model', model);
        try {
          const [, url] = await served.said(/"url":"(https:[^"]+)"/);
          const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
          const shown = await fetch(`${url}/v1/attestation?nonce=${'00'.repeat(32)}`, { dispatcher });
          // Over all code of the two packages as they lie there, chunks included.
          const measurement = await measureCode({
            server: join(dirname(main), '..'),
            attestation: join(dirname(main), '../../../attestation/dist'),
          });
          expect(await shown.json()).toMatchObject({
            tee_type: 'simulated',
            measurement: Buffer.from(measurement).toString('hex'),
          });
          const { question, answer } = EXPECTED[0]!;
          const answered = await fetch(`${url}/v1/chat/completions`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ model: 'demo-chat', messages: [{ role: 'user', content: question }] }),
            dispatcher,
          });
          expect(await answered.json()).toMatchObject({ choices: [{ message: { content: answer } }] });
          // Its engine starts through the launcher, which becomes the worker of the bundle.
          const adapter = join(folder, 'adapter.gguf');
          writeFileSync(adapter, await demoAdapter(model));
          const loaded = await fetch(`${url}/v1/lora/load`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ lora_name: 'adapter', lora_path: adapter }),
            dispatcher,
          });
          expect(await loaded.json()).toMatchObject({ status: 'loaded', parent: 'demo-chat' });
          await dispatcher.close();
        } finally {
          served.child.kill('SIGTERM');
        }
        expect((await served.ended)[0]).toBe(0);
      },
    );
  },
);

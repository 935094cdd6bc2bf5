// The server as it goes into the image: our TypeScript and its JavaScript packages bundled by esbuild into
// one file per entry, with shared code in chunks named by content. No minifying, no source maps, no file
// times or paths of this machine in it. Native parts stay files of their own, from the locked tarballs, and
// only those for linux-x64. The simulated TEE is in test images only: a production image has no code that
// could make such evidence.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { build, type Plugin } from 'esbuild';
import { buildConsole, CONSOLE_FILE } from './console.ts';
import { badInput } from './errors.ts';
import type { Sources } from './sources.ts';
import { TOP } from './top.ts';
import { addFile, addLink, type Tree } from './tree.ts';

/** Entries, as the compiled tree lays them out: they find each other by relative URLs. */
const ENTRIES: Readonly<Record<string, string>> = {
  'dist/src/cli/main': 'src/cli/main.ts',
  'dist/src/attestd/main': 'src/attestd/main.ts',
  'dist/src/engine/child/worker': 'src/engine/child/worker.ts',
  'dist/src/engine/child/adapted/launch': 'src/engine/child/adapted/launch.ts',
  'dist/src/engine/child/audio/worker': 'src/engine/child/audio/worker.ts',
  'dist/src/engine/child/convert/worker': 'src/engine/child/convert/worker.ts',
  'dist/src/engine/child/quantize/launch': 'src/engine/child/quantize/launch.ts',
  'dist/src/engine/child/quantize/worker': 'src/engine/child/quantize/worker.ts',
  'dist/src/engine/child/no-core-dumps': 'src/engine/child/no-core-dumps.ts',
  'attestation/dist/index': 'attestation/index.ts',
};

const ALIASES: Readonly<Record<string, string>> = {
  '@assay/attestation': 'attestation/index.ts',
  '@assay/attestation/codes': 'attestation/transcript/codes.ts',
  '@assay/attestation/console': 'attestation/node/console-page.ts',
  '@assay/attestation/endorsements': 'attestation/node/endorsements/endorsements.ts',
  '@assay/attestation/explain': 'attestation/appraise/explain.ts',
  '@assay/attestation/gpu': 'attestation/gpu/index.ts',
  '@assay/attestation/gpu-endorsements': 'attestation/node/endorsements/nvidia.ts',
  '@assay/attestation/issue': 'attestation/protocol/issue.ts',
  '@assay/attestation/job-verdict': 'attestation/appraise/job-record.ts',
  '@assay/attestation/receipt-verdict': 'attestation/appraise/receipt-verdict.ts',
  '@assay/attestation/launch': 'attestation/launch/index.ts',
  '@assay/attestation/node': 'attestation/node/index.ts',
  '@assay/attestation/policy-lint': 'attestation/appraise/policy-lint.ts',
  '@assay/attestation/receipt': 'attestation/receipts/index.ts',
  '@assay/attestation/sealed-envelope': 'attestation/sealed/envelope.ts',
  '@assay/attestation/vtpm': 'attestation/appraise/clouds.ts',
};

/** The code that makes simulated evidence: an entry of its own, and what it alone imports. */
const SIMULATED_ENTRIES: Readonly<Record<string, string>> = {
  'dist/src/attester/simulated': 'src/attester/simulated.ts',
};
const SIMULATED_ALIASES: Readonly<Record<string, string>> = {
  '@assay/attestation/simulated': 'attestation/simulated/hierarchy.ts',
};

export interface BundleOptions {
  /** Where the sources are; another folder only when reproducing. */
  readonly top?: string | undefined;
  /** Test images only: with it the server can make simulated evidence, which is no proof. */
  readonly simulatedTee?: boolean | undefined;
  /** Libraries that `make native` built (native.ts); absent: the image is without. */
  readonly native?: ReadonlyMap<string, Uint8Array> | undefined;
}

export interface Bundle {
  /** By path below /opt/assay. */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** Repository paths of every source that has code in it. */
  readonly sources: readonly string[];
}

export async function bundleServer(options: BundleOptions = {}): Promise<Bundle> {
  const { top = TOP, simulatedTee = false } = options;
  const aliases = simulatedTee ? { ...ALIASES, ...SIMULATED_ALIASES } : ALIASES;
  const result = await build({
    absWorkingDir: top,
    entryPoints: simulatedTee ? { ...ENTRIES, ...SIMULATED_ENTRIES } : ENTRIES,
    metafile: true,
    outdir: '/bundle',
    bundle: true,
    splitting: true,
    write: false,
    platform: 'node',
    target: 'node22',
    format: 'esm',
    chunkNames: 'dist/src/shared/chunk-[hash]',
    legalComments: 'none',
    charset: 'utf8',
    logLevel: 'silent',
    // Paths in comments stay relative to the sources, wherever node_modules really is.
    preserveSymlinks: true,
    external: ['koffi', '@node-llama-cpp/*', '@koromix/*', 'cbor-extract'],
    // Packages in CommonJS ask for Node's own modules by require().
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module';\nconst require = __createRequire(import.meta.url);",
    },
    alias: Object.fromEntries(Object.entries(aliases).map(([name, target]) => [name, join(top, target)])),
    plugins: [onlyEntries(aliases), ...(simulatedTee ? [] : [WITHOUT_SIMULATED_TEE])],
  });
  const files = result.outputFiles.map(
    (file) => [file.path.replace(/^\/bundle\//, ''), file.contents] as const,
  );
  return {
    files: new Map(files.toSorted(([a], [b]) => (a < b ? -1 : 1))),
    sources: Object.keys(result.metafile.inputs).toSorted(),
  };
}

/**
 * Refuses what is no entry of the workspace. The path itself comes from `alias`: one that a plugin gives
 * lacks the module type of its package, and which of two importers came first would then show in the output.
 */
function onlyEntries(aliases: Readonly<Record<string, string>>): Plugin {
  return {
    name: 'only entries',
    setup(plugin) {
      plugin.onResolve({ filter: /^@assay\// }, ({ path }) => {
        if (aliases[path] === undefined) throw badInput(`${path} is not an entry of the attestation package`);
        return undefined;
      });
    },
  };
}

/**
 * Leaves the import of the simulation as it is written, from `dist/src/<folder>/`, to a file
 * that is not there. Only an import on demand: a static one would be a server that does not
 * start, so the build refuses it.
 */
const WITHOUT_SIMULATED_TEE: Plugin = {
  name: 'without the simulated TEE',
  setup(plugin) {
    plugin.onResolve({ filter: /(^|\/)simulated(\.ts$|\/)/ }, ({ path, kind, importer }) => {
      if (path !== '../attester/simulated.ts' || kind !== 'dynamic-import')
        throw badInput(`${importer} imports ${path}: a production image is without the simulated TEE`);
      return { path: '../attester/simulated.js', external: true };
    });
  },
};

const ROOM = 'opt/assay';

/** Adds the server, its native parts and the package files their look-ups need. */
export async function addServer(
  tree: Tree,
  sources: Pick<Sources, 'npm' | 'npmPaths'>,
  options: BundleOptions = {},
): Promise<void> {
  const { top = TOP, native = new Map<string, Uint8Array>() } = options;
  const { files } = await bundleServer(options);
  for (const [path, bytes] of files) addFile(tree, `${ROOM}/${path}`, bytes);
  addFile(tree, `${ROOM}/${CONSOLE_FILE}`, await buildConsole(top));
  const { version } = JSON.parse(readFileSync(join(top, 'package.json'), 'utf8')) as { version: string };
  addFile(tree, `${ROOM}/package.json`, json({ name: 'assay', version, type: 'module' }));
  addFile(
    tree,
    `${ROOM}/attestation/package.json`,
    json({ name: '@assay/attestation', version, type: 'module', exports: { '.': './dist/index.js' } }),
  );
  addLink(tree, `${ROOM}/node_modules/@assay/attestation`, '../../attestation');
  const modules = `${ROOM}/node_modules`;
  for (const path of sources.npmPaths('koffi')) {
    if (/^(?:package\.json|index\.js|src\/koffi\/(?:src\/)?[a-z]+\.c?js)$/.test(path))
      addFile(tree, `${modules}/koffi/${path}`, sources.npm('koffi', path));
  }
  for (const path of ['package.json', 'index.js', 'linux_x64/koffi.node']) {
    addFile(
      tree,
      `${modules}/@koromix/koffi-linux-x64/${path}`,
      sources.npm('@koromix/koffi-linux-x64', path),
    );
  }
  const llama = '@node-llama-cpp/linux-x64';
  for (const path of sources.npmPaths(llama)) {
    // The node-llama-cpp addon itself is not used: the engine calls libllama.
    if (/^(?:package\.json|dist\/index\.js|bins\/linux-x64\/lib[^/]*\.so)$/.test(path))
      addFile(tree, `${modules}/${llama}/${path}`, sources.npm(llama, path));
  }
  for (const [name, bytes] of native) addFile(tree, `${ROOM}/dist/native/linux-x64/${name}`, bytes);
}

function json(value: unknown): Uint8Array {
  return Buffer.from(`${JSON.stringify(value)}\n`);
}

// Writes the demo models as GGUF files: `npx tsx scripts/demo-model/main.ts [--out DIR]
// [name…]`, default .cache/models. Import `ensureDemoModels` from this file in tests and scripts; importing
// it has no effect by itself. A file that is there with the pinned SHA-256 (pins.ts) is kept; a build that
// differs from its pin is an error, because these bytes are promised to be the same on every machine.
// `--unpinned` writes whatever was built, for changing a model.

import { createHash, randomUUID } from 'node:crypto';
import { existsSync, realpathSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildChatModel } from './chat.ts';
import { buildContextModel } from './context.ts';
import { buildEmbeddingModel } from './embed.ts';
import { PINS } from './pins.ts';
import { buildRerankModel } from './rerank.ts';

const BUILDERS = {
  'demo-chat': buildChatModel,
  'demo-context': buildContextModel,
  'demo-embed': buildEmbeddingModel,
  'demo-rerank': buildRerankModel,
} as const;

export type DemoModelName = keyof typeof BUILDERS;
export const DEMO_MODELS = Object.keys(BUILDERS) as readonly DemoModelName[];

export interface DemoModel {
  /** Absolute path of the GGUF file. */
  readonly path: string;
  /** Lower-case hex. */
  readonly sha256: string;
  /** Bytes. */
  readonly size: number;
}

/** `.cache/models` of this repository. */
export function defaultFolder(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  // The folder of the Makefile: scripts/ has a package.json of its own.
  while (!existsSync(join(folder, 'Makefile'))) folder = dirname(folder);
  return join(folder, '.cache', 'models');
}

/** Builds what is missing and says where everything is. Safe to call from several processes at once. */
export async function ensureDemoModels<Name extends DemoModelName = DemoModelName>(
  names: readonly Name[] = DEMO_MODELS as readonly Name[],
  options: { readonly out?: string | undefined; readonly unpinned?: boolean } = {},
): Promise<Record<Name, DemoModel>> {
  const folder = resolve(options.out ?? defaultFolder());
  await mkdir(folder, { recursive: true });
  const found: [Name, DemoModel][] = [];
  for (const name of names) found.push([name, await ensureOne(folder, name, options.unpinned === true)]);
  return Object.fromEntries(found) as Record<Name, DemoModel>;
}

async function ensureOne(folder: string, name: DemoModelName, unpinned: boolean): Promise<DemoModel> {
  const path = join(folder, `${name}.gguf`);
  if (!unpinned) {
    const old = await readFile(path).catch(() => undefined);
    if (old !== undefined && sha256(old) === PINS[name])
      return { path, sha256: PINS[name], size: old.length };
  }
  const bytes = BUILDERS[name]();
  const digest = sha256(bytes);
  if (!unpinned && digest !== PINS[name])
    throw new Error(`${name}: built ${digest}, but pins.ts promises ${PINS[name]}`);
  const temporary = `${path}.${process.pid}.${randomUUID()}`;
  try {
    await writeFile(temporary, bytes);
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
  return { path, sha256: digest, size: bytes.length };
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

async function main(args: readonly string[]): Promise<void> {
  const names: DemoModelName[] = [];
  let out: string | undefined;
  let unpinned = false;
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (arg === '--unpinned') unpinned = true;
    else if (arg === '--out' && args[i + 1] !== undefined) out = args[++i]!;
    else if (arg in BUILDERS) names.push(arg as DemoModelName);
    else throw new Error(`unknown argument ${arg}; names are ${DEMO_MODELS.join(', ')}`);
  }
  const models = await ensureDemoModels(names.length === 0 ? DEMO_MODELS : names, {
    unpinned,
    out,
  });
  for (const [name, model] of Object.entries(models))
    console.log(`${name}\t${model.size}\t${model.sha256}\t${model.path}`);
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  main(process.argv.slice(2)).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  });
}

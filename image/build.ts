// `make image`: locked inputs → vmlinuz, initrd.cpio, root.img, OVMF.snp.fd, OVMF.tdx.fd, config, cmdline,
// BOOTX64.EFI, disk.gpt (`make disk` writes the disk), manifest.json, SHA256SUMS. No root, no container, no
// network but for locked inputs; ten seconds from the cache.
//   node image/build.js [--out FOLDER] [--inputs FOLDER] [--config FILE.toml] [--model MODEL]…
//                       [--commit HEX] [--native FOLDER] [--with-simulated-tee]
// --native: the libraries of `make native` go in. --model: models (GGUF or whisper files, folders with a
// projector) are packed as disks beside, and listed in the measured configuration. --with-simulated-tee: a
// test image, which can show evidence without hardware: its manifest says so; it gets no reference values.

import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CONSOLE_PATH, type ImageModel } from '@assay/attestation/launch';
import { writeCpio } from './cpio.ts';
import { layoutDisk } from './disk/layout.ts';
import { builtParts } from './disk/parts.ts';
import { writeUki } from './disk/uki.ts';
import { measuredConfig, textDisk, writeVerityImage } from './disks.ts';
import { badInput, ImageError } from './errors.ts';
import { initramfsTree } from './initramfs.ts';
import { readLock } from './lock.ts';
import { buildManifest, manifestText, sha256 } from './manifest.ts';
import { findMirrors, openInputs } from './mirror.ts';
import { packModel } from './model-disk.ts';
import { nativeParts } from './native.ts';
import { type Hooks, rootfsTree } from './rootfs.ts';
import { openSources, type Sources } from './sources.ts';
import { TOP } from './top.ts';
import type { Tree } from './tree.ts';

/** Of systemd-boot-efi: what a firmware starts, and what starts the kernel. */
export const STUB = 'usr/lib/systemd/boot/efi/linuxx64.efi.stub';

export interface BuildOptions {
  readonly out: string;
  readonly sources: Sources;
  /** The server's measured configuration; absent: image/config.default.toml. */
  readonly toml?: string | undefined;
  readonly models?: readonly string[];
  /** Where the project's own sources are; another folder only when reproducing. */
  readonly top?: string;
  /** Of sources that were exported from git; absent: git is asked. */
  readonly commit?: string | undefined;
  /** Test images only, as the manifest then says. */
  readonly simulatedTee?: boolean | undefined;
  readonly hooks?: Hooks | undefined;
  /** Folder with the libraries of `make native`; absent: an image without them. */
  readonly native?: string | undefined;
  readonly extraModules?: ReadonlyMap<string, Uint8Array> | undefined;
}

/** Builds into `out`. Returns the SHA-256 of each file, as written to SHA256SUMS. */
export async function buildImage(options: BuildOptions): Promise<ReadonlyMap<string, string>> {
  const { out, sources } = options;
  const top = options.top ?? TOP;
  mkdirSync(out, { recursive: true });
  const put = (name: string, bytes: Uint8Array | string): void => writeFileSync(join(out, name), bytes);
  const initrd = writeCpio(await initramfsTree(sources, { extraModules: options.extraModules }));
  const tree = await rootfsTree(sources, {
    top,
    simulatedTee: options.simulatedTee,
    hooks: options.hooks,
    native: options.native === undefined ? undefined : nativeParts(options.native, top),
  });
  const root = await writeVerityImage(tree, join(out, 'root.img'));
  const page = contentOf(tree, CONSOLE_PATH);
  const firmware = {
    snp: sources.debian('ovmf-amdsev', 'usr/share/ovmf/OVMF.amdsev.fd'),
    tdx: sources.debian('ovmf-generic', 'usr/share/ovmf/OVMF.fd'),
  };
  const models = await packModels(options.models ?? [], out);
  const config = Buffer.from(
    measuredConfig(models, options.toml ?? readFileSync(join(top, 'image/config.default.toml'), 'utf8')).text,
  );
  put('config', config);
  put('config.img', textDisk(config.toString(), 'config'));
  const manifest = buildManifest({
    variant: variantOf(options),
    release: (JSON.parse(readFileSync(join(top, 'package.json'), 'utf8')) as { version: string }).version,
    source: {
      commit: options.commit ?? commitOf(top),
      inputs: sha256(readFileSync(join(top, 'image/inputs.lock.json'))),
      packages: sha256(readFileSync(join(top, 'package-lock.json'))),
    },
    files: {
      vmlinuz: sources.kernel,
      'initrd.cpio': initrd,
      'root.img': readFileSync(join(out, 'root.img')),
      'OVMF.snp.fd': firmware.snp,
      'OVMF.tdx.fd': firmware.tdx,
      config,
    },
    root: { rootHash: root.rootHash, blocks: root.blocks },
    console: page,
    models,
    disk: (cmdline) => {
      const uki = writeUki(sources.debian('systemd-boot-efi', STUB), {
        '.cmdline': Buffer.from(cmdline),
        '.uname': Buffer.from(sources.kernelRelease),
        '.initrd': initrd,
        '.linux': sources.kernel,
      });
      const { head } = layoutDisk({ uki, ...builtParts(out, root.rootHash, sha256(config), models) }).table;
      put('BOOTX64.EFI', uki);
      put('disk.gpt', head);
      return { uki, head };
    },
  });
  put('vmlinuz', sources.kernel);
  put('initrd.cpio', initrd);
  put('OVMF.snp.fd', firmware.snp);
  put('OVMF.tdx.fd', firmware.tdx);
  put('cmdline', manifest.cmdline);
  put('manifest.json', manifestText(manifest));
  put('console.html', page);
  const sums = new Map(
    Object.entries({ ...manifest.files, ...manifest.disk?.files })
      .map(([name, file]) => [name, file.sha256] as const)
      .concat([
        ['cmdline', sha256(Buffer.from(manifest.cmdline))],
        ['console.html', sha256(page)],
        ['manifest.json', sha256(Buffer.from(manifestText(manifest)))],
      ])
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
  put('SHA256SUMS', [...sums].map(([name, digest]) => `${digest}  ${name}\n`).join(''));
  return sums;
}

/** The bytes of a file that the build itself made. */
function contentOf(tree: Tree, path: string): Uint8Array {
  const node = tree.get(path);
  if (node?.kind !== 'file' || !(node.content instanceof Uint8Array))
    throw badInput(`the root image has no file ${path}`);
  return node.content;
}

/** Whatever is not for production makes it a test image. */
function variantOf({ simulatedTee, hooks, extraModules }: BuildOptions): 'test' | undefined {
  return simulatedTee === true || hooks !== undefined || extraModules !== undefined ? 'test' : undefined;
}

async function packModels(paths: readonly string[], out: string): Promise<readonly ImageModel[]> {
  const models: ImageModel[] = [];
  for (const source of paths) {
    const {
      name,
      rootHash,
      blocks,
      serial,
      path,
      sha256: digest,
    } = await packModel(source, join(out, 'model.tmp'));
    const file = `model-${name}.img`;
    renameSync(join(out, 'model.tmp'), join(out, file));
    process.stdout.write(`model ${name}: ${file}, serial ${serial}, path ${path}\n`);
    models.push({ name, rootHash, blocks, sha256: digest });
  }
  return models;
}

/**
 * Commit of the sources; empty when git cannot tell it or files differ from it, so that a wrong commit is
 * never claimed.
 */
function commitOf(top: string): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', args, { cwd: top, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return git('status', '--porcelain', '--untracked-files=no') === '' ? git('rev-parse', 'HEAD') : '';
  } catch {
    return '';
  }
}

/** The locked inputs, from the cache or the mirror. */
export async function lockedSources(inputs: string): Promise<Sources> {
  return openSources(
    readLock(join(TOP, 'image/inputs.lock.json')),
    openInputs(inputs, () => findMirrors(process.env)),
  );
}

export function defaultInputs(): string {
  return process.env['ASSAY_IMAGE_INPUTS'] ?? join(TOP, '.cache/inputs');
}

function seconds(from: number, to: number): string {
  return ((to - from) / 1000).toFixed(1);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      out: { type: 'string', default: 'out' },
      inputs: { type: 'string' },
      config: { type: 'string' },
      model: { type: 'string', multiple: true },
      commit: { type: 'string' },
      native: { type: 'string' },
      'with-simulated-tee': { type: 'boolean', default: false },
    },
  });
  const started = performance.now();
  const sources = await lockedSources(values.inputs ?? defaultInputs());
  const read = performance.now();
  const out = resolve(values.out);
  const sums = await buildImage({
    out,
    sources,
    models: values.model ?? [],
    simulatedTee: values['with-simulated-tee'],
    commit: values.commit,
    native: values.native,
    toml: values.config === undefined ? undefined : readFileSync(values.config, 'utf8'),
  });
  for (const [name, digest] of sums) process.stdout.write(`${digest}  ${name}\n`);
  process.stdout.write(
    `${out}: inputs ${seconds(started, read)} s, build ${seconds(read, performance.now())} s\n`,
  );
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href) {
  main().catch((error: unknown) => {
    process.stderr.write(
      `image: ${error instanceof ImageError ? error.message : String(error instanceof Error ? error.stack : error)}\n`,
    );
    process.exitCode = 1;
  });
}

// The output of `make image`, without booting it: contents of the root, the manifest and its recomputation,
// and that no measured input can change unseen. Needs the locked inputs in the cache.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AttestationError } from '@assay/attestation';
import { CONSOLE_PATH, measureManifest, parseManifest, type ReleaseFile } from '@assay/attestation/launch';
import { erofsFile } from '../../attestation/launch/erofs.ts';
import { buildImage, lockedSources, STUB } from '../../image/build.ts';
import { bundleServer } from '../../image/bundle.ts';
import { buildConsole } from '../../image/console.ts';
import { layoutDisk } from '../../image/disk/layout.ts';
import { writeUki } from '../../image/disk/uki.ts';
import { measuredConfig, writeVerityImage } from '../../image/disks.ts';
import { initramfsTree, MODULES } from '../../image/initramfs.ts';
import { buildManifest, manifestText, sha256 } from '../../image/manifest.ts';
import { referenceValues } from '../../image/reference.ts';
import { compareFolders, copySources } from '../../image/reproduce.ts';
import { rootfsTree } from '../../image/rootfs.ts';
import type { Sources } from '../../image/sources.ts';
import { TOP } from '../../image/top.ts';
import { addFile, newTree, type Tree } from '../../image/tree.ts';
import { haveInputs, inputsFolder } from '../fixtures/image/guest.ts';

const ready = haveInputs('image');
const CONSOLE = Buffer.from('<!doctype html>');

let folder = '';

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'assay-image-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function out(name: string): string {
  return join(folder, 'out', name);
}

function readOut(name: ReleaseFile): Promise<Uint8Array> {
  return Promise.resolve(readFileSync(out(name)));
}

interface Release {
  readonly manifest: string;
  readonly files: Readonly<Record<ReleaseFile, Uint8Array>>;
}

/** A release with a root image of a few blocks: recomputing it takes a moment. */
async function smallRelease(sources: Sources): Promise<Release> {
  const tree = newTree();
  addFile(tree, 'file', Buffer.alloc(50_000, 'root'));
  addFile(tree, CONSOLE_PATH, CONSOLE);
  const path = join(folder, 'small.img');
  const root = await writeVerityImage(tree, path);
  const files: Record<ReleaseFile, Uint8Array> = {
    vmlinuz: sources.kernel,
    'initrd.cpio': Buffer.from('an initramfs'),
    'root.img': readFileSync(path),
    'OVMF.snp.fd': sources.debian('ovmf-amdsev', 'usr/share/ovmf/OVMF.amdsev.fd'),
    'OVMF.tdx.fd': sources.debian('ovmf-generic', 'usr/share/ovmf/OVMF.fd'),
    config: Buffer.from(measuredConfig([], '[log]\nlevel = "warn"\n').text),
    'BOOTX64.EFI': new Uint8Array(0),
    'disk.gpt': new Uint8Array(0),
  };
  const source = { commit: '', inputs: '0'.repeat(64), packages: '0'.repeat(64) };
  return {
    files,
    manifest: manifestText(
      buildManifest({
        release: '0',
        source,
        files,
        root: { rootHash: root.rootHash, blocks: root.blocks },
        console: CONSOLE,
        models: [],
        disk: (line) => {
          const uki = writeUki(sources.debian('systemd-boot-efi', STUB), {
            '.cmdline': Buffer.from(line),
            '.uname': Buffer.from(sources.kernelRelease),
            '.initrd': files['initrd.cpio'],
            '.linux': files.vmlinuz,
          });
          const { head } = layoutDisk({
            uki,
            root: { path, size: files['root.img'].length, rootHash: root.rootHash },
            config: { path, size: files.config.length, sha256: sha256(files.config) },
            models: [],
          }).table;
          files['BOOTX64.EFI'] = uki;
          files['disk.gpt'] = head;
          return { uki, head };
        },
      }),
    ),
  };
}

describe.skipIf(!ready)('a build', () => {
  let sources: Sources;
  let root: Tree;
  let small: Release;
  beforeAll(async () => {
    sources = await lockedSources(inputsFolder);
    root = await rootfsTree(sources);
    copySources(TOP, join(folder, 'sources'));
    await buildImage({ out: join(folder, 'out'), sources, top: join(folder, 'sources') });
    small = await smallRelease(sources);
  });

  test('the root has what is listed: no shell by a path, no package manager, no login, and programs only where they belong', () => {
    const programs = [...root]
      .filter(([path, node]) => node.kind === 'file' && node.mode === 0o755 && !path.includes('.so'))
      .map(([path]) => path);
    expect(programs.toSorted()).toEqual([
      'opt/assay/dhcp.sh',
      'usr/bin/busybox',
      'usr/bin/node',
      'usr/bin/setpriv',
      'usr/sbin/dmsetup',
      'usr/sbin/init',
    ]);
    for (const path of [
      'usr/bin/sh',
      'usr/bin/bash',
      'usr/bin/login',
      'usr/sbin/sshd',
      'usr/bin/dpkg',
      'usr/bin/apt-get',
      'etc/shadow',
      'etc/inittab',
    ]) {
      expect(root.has(path)).toBe(false);
    }
    expect(root.get('etc/passwd')).toMatchObject({ kind: 'file' });
    const modes = [...root.values()].filter((node) => node.kind === 'file').map((node) => node.mode);
    expect([...new Set(modes)].toSorted((a, b) => a - b)).toEqual([0o644, 0o755]);
  });

  test('native code is for linux-x64 and from the lock: Node, libllama, koffi and the libraries they need', () => {
    const native = [...root]
      .filter(([path, node]) => node.kind === 'file' && /\.(so|node)(\.|$)/.test(path))
      .map(([path]) => path);
    expect(
      native.filter(
        (path) =>
          path.startsWith('opt/') &&
          !/node_modules\/(@node-llama-cpp\/linux-x64\/bins\/linux-x64|@koromix\/koffi-linux-x64\/linux_x64)\//.test(
            path,
          ),
      ),
    ).toEqual([]);
    expect(native.some((path) => /arm|musl|darwin|win32|cuda|vulkan/.test(path))).toBe(false);
  });

  test('the bundle names no folder of this machine and carries no source maps', async () => {
    const offending: string[] = [];
    for (const [path, bytes] of (await bundleServer()).files) {
      const text = Buffer.from(bytes).toString();
      if (text.includes(TOP) || text.includes('sourceMappingURL=data')) offending.push(path);
    }
    expect(offending).toEqual([]);
  });

  test('the initramfs does not depend on the root image, and modules keep their signatures', async () => {
    const tree = await initramfsTree(sources);
    const init = Buffer.from((tree.get('init') as { content: Uint8Array }).content).toString();
    expect(init).not.toMatch(/@[A-Z]+@/);
    for (const name of MODULES) {
      const { content } = tree.get(`lib/modules/${name}.ko`) as { content: Uint8Array };
      expect(Buffer.from(content.subarray(-28)).toString('latin1')).toBe('~Module signature appended~\n');
    }
  });

  test(
    'measure recomputes every line of the manifest from the published files',
    { timeout: 400_000 },
    async () => {
      const report = await measureManifest(readFileSync(out('manifest.json')), readOut);
      expect(report.findings.filter(({ ok }) => !ok)).toEqual([]);
      expect(report.ok).toBe(true);
      expect(report.manifest.snp.flatMap(({ digests }) => digests)).toHaveLength(512);
      expect(readFileSync(out('cmdline'), 'utf8')).toBe(report.manifest.cmdline);
    },
  );

  test('measure finds a changed file, whichever it is, and what follows from it', async () => {
    const manifest = Buffer.from(small.manifest);
    for (const name of ['vmlinuz', 'initrd.cpio', 'root.img', 'config', 'BOOTX64.EFI', 'disk.gpt'] as const) {
      const report = await measureManifest(manifest, async (asked) => {
        const bytes = new Uint8Array(small.files[asked]);
        // In the middle; of the table, which is zeros there, in the disk's own GUID.
        if (asked === name) bytes[name === 'disk.gpt' ? 512 + 56 : bytes.length >> 1]! ^= 1;
        return bytes;
      });
      const wrong = report.findings.filter(({ ok }) => !ok).map((finding) => finding.name);
      expect(report.ok).toBe(false);
      expect(wrong).toContain(`sha256 of ${name}`);
      const follows = {
        vmlinuz: 'tdx rtmr1',
        'initrd.cpio': 'tdx rtmr2',
        'root.img': 'root hash of root.img',
        config: 'assay.cfg of the command line',
        'BOOTX64.EFI': 'disk rtmr1',
        'disk.gpt': 'disk sha384 pcr5',
      };
      expect(wrong).toContain(follows[name]);
    }
  });

  test('measure finds another console in the root image, and one that a manifest leaves out [B26]', async () => {
    const { console: stated } = parseManifest(small.manifest);
    expect(stated).toBe(createHash('sha256').update(CONSOLE).digest('hex'));
    const wrong = async (
      manifest: string,
      change: (root: Uint8Array) => void,
    ): Promise<readonly string[]> => {
      const report = await measureManifest(Buffer.from(manifest), async (asked) => {
        const bytes = new Uint8Array(small.files[asked]);
        if (asked === 'root.img') change(bytes);
        return bytes;
      });
      return report.findings.filter(({ ok }) => !ok).map(({ name }) => name);
    };
    const name = `sha256 of ${CONSOLE_PATH} in root.img`;
    const at = Buffer.from(small.files['root.img']).indexOf(CONSOLE);
    expect(await wrong(small.manifest, () => undefined)).toEqual([]);
    expect(await wrong(small.manifest, (root) => void (root[at + 3]! ^= 1))).toContain(name);
    expect(await wrong(small.manifest.replace(stated ?? '', '0'.repeat(64)), () => undefined)).toEqual([
      name,
    ]);
    expect(await wrong(small.manifest.replace(/\n "console": "[0-9a-f]+",/, ''), () => undefined)).toEqual([
      name,
    ]);
  });

  test('the console of a build is in its root, beside it, in its sums and its manifest: one digest [B26]', async () => {
    const page = await buildConsole(join(folder, 'sources'));
    const digest = createHash('sha256').update(page).digest('hex');
    expect(Buffer.from(erofsFile(readFileSync(out('root.img')), CONSOLE_PATH)!).equals(page)).toBe(true);
    expect(readFileSync(out('console.html')).equals(page)).toBe(true);
    expect(readFileSync(out('SHA256SUMS'), 'utf8')).toContain(`${digest}  console.html\n`);
    expect(parseManifest(readFileSync(out('manifest.json'), 'utf8')).console).toBe(digest);
    expect(referenceValues(new Map([['x', readFileSync(out('manifest.json'))]])).releases['x']?.console).toBe(
      digest,
    );
  });

  test('measure refuses firmware that is not on the list, with its code', async () => {
    const swapped = measureManifest(
      Buffer.from(small.manifest),
      async (name) => small.files[name === 'OVMF.snp.fd' ? 'OVMF.tdx.fd' : name],
    );
    await expect(swapped).rejects.toThrow(expect.objectContaining({ code: 'firmware_not_listed' }));
  });

  test('measure finds a manifest that states other values', async () => {
    const text = small.manifest;
    const { snp, tdx, disk, root: rootOf } = parseManifest(text);
    for (const [from, name] of [
      [snp[3]!.digests[17]!, 'snp EPYC-Milan, features 0x21'],
      [tdx.rtmr2, 'tdx rtmr2'],
      [disk!.rtmr2, 'disk rtmr2'],
      [disk!.sha256.pcr11, 'disk sha256 pcr11'],
      [rootOf.rootHash, 'root hash of root.img'],
    ] as const) {
      const report = await measureManifest(
        Buffer.from(text.replaceAll(from, `${from.startsWith('0') ? '1' : '0'}${from.slice(1)}`)),
        async (asked) => small.files[asked],
      );
      const wrong = report.findings.filter(({ ok }) => !ok).map((finding) => finding.name);
      expect(wrong.some((found) => found.startsWith(name))).toBe(true);
    }
  });

  test('reference values carry what the manifest states, under its own digest', () => {
    const bytes = Buffer.from(small.manifest);
    const { releases } = referenceValues(new Map([['x', bytes]]));
    const { snp, tdx } = parseManifest(small.manifest);
    expect(releases['x']).toMatchObject({ snp, tdx, models: {} });
    expect(releases['x']!.manifestSha256).toBe(createHash('sha256').update(bytes).digest('hex'));
  });

  test(
    'a test image says so, whatever makes it one, and gets no reference values',
    { timeout: 600_000 },
    async () => {
      const [production, test] = [small.manifest, small.manifest.replace('{', '{\n "variant": "test",')].map(
        (text) => Buffer.from(text),
      );
      expect(parseManifest(small.manifest).variant).toBeUndefined();
      expect(parseManifest(String(test)).variant).toBe('test');
      const place = join(folder, 'small');
      mkdirSync(place);
      for (const [name, bytes] of Object.entries(small.files)) writeFileSync(join(place, name), bytes);
      for (const [text, words] of [
        [production, 'release 0'],
        [test, 'release 0 (test image)'],
      ] as const) {
        writeFileSync(join(place, 'manifest.json'), text!);
        const measure = (...more: readonly string[]): string => {
          const args = [
            join(TOP, 'attestation/bin/assay-verify.js'),
            'measure',
            join(place, 'manifest.json'),
            ...more,
          ];
          return execFileSync(process.execPath, args, { encoding: 'utf8' });
        };
        expect(measure()).toContain(`REPRODUCED  ${words}, manifest`);
        const { measurements } = JSON.parse(measure('--policy')) as {
          measurements: readonly { name: string }[];
        };
        expect(new Set(measurements.map(({ name }) => name))).toEqual(new Set([words]));
      }
      expect(() =>
        referenceValues(
          new Map([
            ['x', production!],
            ['y', test!],
          ]),
        ),
      ).toThrow(/^y is a test image: only production images have reference values$/);
      expect(parseManifest(readFileSync(out('manifest.json'), 'utf8')).variant).toBeUndefined();
      for (const [index, options] of [
        { simulatedTee: true },
        { hooks: {} },
        { extraModules: new Map() },
      ].entries()) {
        const target = join(folder, `variant${index}`);
        await buildImage({ out: target, sources, ...options });
        expect(parseManifest(readFileSync(join(target, 'manifest.json'), 'utf8')).variant).toBe('test');
        rmSync(target, { recursive: true });
      }
    },
  );

  test('a manifest of another shape is refused', () => {
    const manifest = JSON.parse(small.manifest) as Record<string, unknown>;
    for (const changed of [
      { ...manifest, extra: 1 },
      { ...manifest, version: 2 },
      { ...manifest, variant: 'production' },
      { ...manifest, snp: [] },
      { ...manifest, cmdline: 5 },
      { ...manifest, root: { rootHash: 'zz', blocks: 2 } },
    ]) {
      expect(() => parseManifest(JSON.stringify(changed))).toThrow(
        expect.objectContaining({ code: 'malformed_manifest' }),
      );
    }
    expect(() => parseManifest('{')).toThrow(AttestationError);
  });

  test('two builds into different folders are the same files', { timeout: 400_000 }, async () => {
    await buildImage({
      out: join(folder, 'again'),
      sources: await lockedSources(inputsFolder),
      top: join(folder, 'sources'),
    });
    expect(compareFolders(join(folder, 'out'), join(folder, 'again'))).toEqual([]);
    writeFileSync(join(folder, 'again', 'cmdline'), 'x');
    expect(compareFolders(join(folder, 'out'), join(folder, 'again'))).toEqual([{ file: 'cmdline', at: 0 }]);
  });
});

// Makes manifest.json of a release or deployment: what the verifier's measureManifest recomputes.

import { createHash } from 'node:crypto';
import {
  type ImageFile,
  type ImageManifest,
  IMAGE_FILES,
  type ImageModel,
  measureDisk,
  measureImage,
} from '@assay/attestation/launch';
import { cmdline } from './cmdline.ts';

export interface ManifestInputs {
  /** Absent: a production image. */
  readonly variant?: ImageManifest['variant'] | undefined;
  readonly release: string;
  readonly source: ImageManifest['source'];
  readonly files: Readonly<Record<ImageFile, Uint8Array>>;
  readonly root: ImageManifest['root'];
  /** The console, as it went into the root image; absent: into none. */
  readonly console?: Uint8Array | undefined;
  readonly models: readonly ImageModel[];
  /** The unified kernel image for that command line, and the beginning of the disk with it. */
  readonly disk?: ((cmdline: string) => { readonly uki: Uint8Array; readonly head: Uint8Array }) | undefined;
}

export function buildManifest(inputs: ManifestInputs): ImageManifest {
  const { files, root } = inputs;
  const line = cmdline({ root: root.rootHash, blocks: root.blocks, config: sha256(files.config) });
  const measured = measureImage({
    snpFirmware: files['OVMF.snp.fd'],
    tdxFirmware: files['OVMF.tdx.fd'],
    kernel: files.vmlinuz,
    initrd: files['initrd.cpio'],
    cmdline: line,
  });
  return {
    version: 1,
    variant: inputs.variant,
    release: inputs.release,
    source: inputs.source,
    files: Object.fromEntries(
      IMAGE_FILES.map((name) => [name, { size: files[name].length, sha256: sha256(files[name]) }]),
    ) as unknown as ImageManifest['files'],
    root,
    console: inputs.console === undefined ? undefined : sha256(inputs.console),
    cmdline: line,
    models: inputs.models,
    ...measured,
    disk: inputs.disk && diskOf(inputs.disk(line)),
  };
}

function diskOf(disk: { readonly uki: Uint8Array; readonly head: Uint8Array }): ImageManifest['disk'] {
  const file = (bytes: Uint8Array): { size: number; sha256: string } => ({
    size: bytes.length,
    sha256: sha256(bytes),
  });
  return { files: { 'BOOTX64.EFI': file(disk.uki), 'disk.gpt': file(disk.head) }, ...measureDisk(disk) };
}

export function manifestText(manifest: ImageManifest): string {
  return `${JSON.stringify(manifest, null, 1)}\n`;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

// `assay-verify measure manifest.json`: recomputes, from the published files of an image alone, everything
// its manifest states: digests, the root hash, what the command line binds, SNP launch digests for every vCPU
// shape, MRTD, RTMR1, RTMR2. A difference is a finding, never an exception; a manifest of another shape, or
// unknown firmware, is refused.

import { sha256 } from '@noble/hashes/sha2.js';
import { fromUtf8, toHex } from '../encoding/bytes.ts';
import { malformed, refused } from '../transcript/errors.ts';
import { DISK_FILES, type DiskFile, diskFindings, type ImageDisk, parseDisk } from './disk.ts';
import { erofsFile } from './erofs.ts';
import { acceptFirmware } from './firmware.ts';
import { type JsonObject, parseJson, shapeReaders } from '../encoding/json.ts';
import { measureSnpMatrix } from './snp.ts';
import { measureMrTd } from './tdx.ts';
import { replay, rtmr1Events, rtmr2Events } from './tdx-rtmr.ts';
import { verityRootHash } from './verity.ts';

/** The files of a release, by the name they are published under. `config` is the measured configuration. */
export const IMAGE_FILES = [
  'vmlinuz',
  'initrd.cpio',
  'root.img',
  'OVMF.snp.fd',
  'OVMF.tdx.fd',
  'config',
] as const;
/** The name of one file of a release, by its part. */
export type ImageFile = (typeof IMAGE_FILES)[number];
/** With those of the disk. */
export type ReleaseFile = ImageFile | DiskFile;

/** The shapes of SNP guests a manifest lists. */
export const SNP_VCPU_TYPES = ['EPYC-v4', 'EPYC-Milan', 'EPYC-Genoa', 'EPYC-Turin'] as const;
export const SNP_GUEST_FEATURES = [0x1n, 0x21n] as const;
export const SNP_MAX_VCPUS = 64;

export interface SnpMeasurements {
  readonly vcpuType: string;
  /** SEV_FEATURES, `0x` and hex digits. */
  readonly guestFeatures: string;
  /** MEASUREMENT in hex for 1, 2, 3 … vCPUs. */
  readonly digests: readonly string[];
}

export interface TdxMeasurements {
  readonly mrTdSinglePass: string;
  readonly mrTdTwoPass: string;
  readonly rtmr1: string;
  readonly rtmr2: string;
}

/** A model volume of an image, with its dm-verity root hash in hex. */
export interface ImageModel {
  readonly name: string;
  readonly rootHash: string;
  readonly blocks: number;
  /** The SHA-256 that an attestation of this model carries: of its file, or of the manifest of several. */
  readonly sha256: string;
}

/**
 * manifest.json of a release: its files, its source and every measurement its launches may have
 * (docs/formats.md).
 */
export interface ImageManifest {
  readonly version: 1;
  /** A test image: it may hold the simulated TEE, hooks and modules. Absent: a production image. */
  readonly variant?: 'test' | undefined;
  /** Version of the server inside. */
  readonly release: string;
  /** Its sources: git commit (empty: unknown), SHA-256 of the lock files. */
  readonly source: { readonly commit: string; readonly inputs: string; readonly packages: string };
  readonly files: Readonly<Record<ImageFile, { readonly size: number; readonly sha256: string }>>;
  readonly root: { readonly rootHash: string; readonly blocks: number };
  /** SHA-256 of the console in the root image; absent of a release before it had one. */
  readonly console?: string | undefined;
  readonly cmdline: string;
  readonly models: readonly ImageModel[];
  readonly snp: readonly SnpMeasurements[];
  readonly tdx: TdxMeasurements;
  /** The disk that boots by itself; absent in manifests of releases before it. */
  readonly disk?: ImageDisk | undefined;
}

/** The console in the root image (image/bundle.ts puts it there). */
export const CONSOLE_PATH = 'opt/assay/attestation/dist/console.html';

const MAX_MANIFEST_CHARACTERS = 4 * 1024 * 1024;
const HEX32 = 64;
const HEX48 = 96;

/**
 * Text → manifest; throws `malformed_json` or `malformed_manifest`.
 * @example const { release, snp } = parseManifest(text);
 */
export function parseManifest(text: string): ImageManifest {
  const top = read.object(
    parseJson(text, 'manifest', MAX_MANIFEST_CHARACTERS),
    'manifest',
    ['version', 'release', 'source', 'files', 'root', 'cmdline', 'models', 'snp', 'tdx'],
    ['variant', 'console', 'disk'],
  );
  read.integer(top['version'], 'manifest version', 1, 1);
  const source = read.object(top['source'], 'source', ['commit', 'inputs', 'packages']);
  const files = read.object(top['files'], 'files', IMAGE_FILES);
  const tdx = read.object(top['tdx'], 'tdx', ['mrTdSinglePass', 'mrTdTwoPass', 'rtmr1', 'rtmr2']);
  if (top['variant'] !== undefined && top['variant'] !== 'test')
    throw malformed('malformed_manifest', 'manifest variant is neither "test" nor absent');
  return {
    version: 1,
    variant: top['variant'],
    release: read.string(top['release'], 'release', 64),
    source: {
      commit: read.string(source['commit'], 'source commit', 64),
      inputs: hex(source['inputs'], 'source inputs', HEX32),
      packages: hex(source['packages'], 'source packages', HEX32),
    },
    files: Object.fromEntries(
      IMAGE_FILES.map((name) => [name, parseFile(files[name], name)]),
    ) as unknown as ImageManifest['files'],
    root: parseRoot(read.object(top['root'], 'root', ['rootHash', 'blocks']), 'root'),
    console: top['console'] === undefined ? undefined : hex(top['console'], 'console', HEX32),
    cmdline: read.string(top['cmdline'], 'cmdline', 2048),
    models: read.list(top['models'], 'models', 0, 1000).map((entry, index) => {
      const model = read.object(entry, `models[${index}]`, ['name', 'rootHash', 'blocks', 'sha256']);
      const name = read.string(model['name'], `models[${index}] name`, 64);
      return {
        name,
        ...parseRoot(model, `model ${name}`),
        sha256: hex(model['sha256'], `model ${name} sha256`, HEX32),
      };
    }),
    snp: read.list(top['snp'], 'snp', 1, 100).map((entry, index) => {
      const shape = read.object(entry, `snp[${index}]`, ['vcpuType', 'guestFeatures', 'digests']);
      return {
        vcpuType: read.string(shape['vcpuType'], `snp[${index}] vcpuType`, 32),
        guestFeatures: read.string(shape['guestFeatures'], `snp[${index}] guestFeatures`, 18),
        digests: read
          .list(shape['digests'], `snp[${index}] digests`, 1, 1024)
          .map((digest) => hex(digest, `snp[${index}] digest`, HEX48)),
      };
    }),
    tdx: {
      mrTdSinglePass: hex(tdx['mrTdSinglePass'], 'tdx mrTdSinglePass', HEX48),
      mrTdTwoPass: hex(tdx['mrTdTwoPass'], 'tdx mrTdTwoPass', HEX48),
      rtmr1: hex(tdx['rtmr1'], 'tdx rtmr1', HEX48),
      rtmr2: hex(tdx['rtmr2'], 'tdx rtmr2', HEX48),
    },
    disk: top['disk'] === undefined ? undefined : parseDisk(top['disk'], read, { hex, file: parseFile }),
  };
}

/**
 * Every SNP MEASUREMENT of the manifest: what a policy that names this release allows.
 * @example const measurements = snpMeasurementsOf(parseManifest(text));
 */
export function snpMeasurementsOf(manifest: ImageManifest): readonly string[] {
  return manifest.snp.flatMap(({ digests }) => digests);
}

export interface MeasurementInputs {
  readonly snpFirmware: Uint8Array;
  readonly tdxFirmware: Uint8Array;
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
  readonly cmdline: string;
}

/**
 * The measurements of an image in all shapes a manifest lists. Takes about half a second. Listed firmware
 * only.
 * @example const { snp, tdx } = measureImage({ snpFirmware, tdxFirmware, kernel, initrd, cmdline });
 */
export function measureImage(inputs: MeasurementInputs): {
  readonly snp: readonly SnpMeasurements[];
  readonly tdx: TdxMeasurements;
} {
  const { kernel, initrd, cmdline } = inputs;
  const matrix = measureSnpMatrix({
    firmware: inputs.snpFirmware,
    kernel: { kernel, initrd, cmdline },
    vmm: 'qemu',
    vcpuTypes: SNP_VCPU_TYPES,
    maxVcpus: SNP_MAX_VCPUS,
    guestFeatures: SNP_GUEST_FEATURES,
  });
  const snp = SNP_VCPU_TYPES.flatMap((vcpuType) =>
    SNP_GUEST_FEATURES.map((features) => ({
      vcpuType,
      guestFeatures: `0x${features.toString(16)}`,
      digests: matrix
        .filter((entry) => entry.vcpuType === vcpuType && entry.guestFeatures === features)
        .map((entry) => toHex(entry.measurement)),
    })),
  );
  const directBoot = acceptFirmware(inputs.tdxFirmware, 'tdx').known?.tdx?.directBoot;
  if (directBoot === undefined)
    throw refused('firmware_not_listed', 'it is not known how this firmware measures a direct boot');
  const mrTd = measureMrTd(inputs.tdxFirmware);
  return {
    snp,
    tdx: {
      mrTdSinglePass: toHex(mrTd.singlePass),
      mrTdTwoPass: toHex(mrTd.twoPass),
      rtmr1: toHex(replay(rtmr1Events({ kernel }))),
      rtmr2: toHex(replay(rtmr2Events({ cmdline, initrd }, directBoot))),
    },
  };
}

/** One thing recomputed. */
export interface MeasureFinding {
  readonly name: string;
  readonly ok: boolean;
  readonly expected: string;
  readonly actual: string;
}

/** The findings of {@link measureManifest}. */
export interface MeasureReport {
  readonly manifest: ImageManifest;
  /** SHA-256 of the manifest itself: what a release announcement or a policy pins. */
  readonly manifestSha256: string;
  readonly findings: readonly MeasureFinding[];
  /** Every finding is ok. */
  readonly ok: boolean;
}

/**
 * Recomputes a manifest. `readFile` gives the bytes of a published file, or throws. Throws
 * AttestationError for a manifest of another shape and for firmware that is not on our list; differences
 * are findings with `ok: false`.
 * @example const { ok, findings } = await measureManifest(manifest, (name) => readFile(`release/${name}`));
 */
export async function measureManifest(
  manifestBytes: Uint8Array,
  readFile: (name: ReleaseFile) => Promise<Uint8Array>,
): Promise<MeasureReport> {
  const manifest = parseManifest(fromUtf8(manifestBytes, 'manifest', 'malformed_manifest'));
  const findings: MeasureFinding[] = [];
  const compare = (name: string, expected: string, actual: string): void =>
    void findings.push({ name, ok: expected === actual, expected, actual });
  const files = new Map<ImageFile, Uint8Array>();
  for (const name of IMAGE_FILES) {
    const bytes = await readFile(name);
    files.set(name, bytes);
    compare(`sha256 of ${name}`, manifest.files[name].sha256, toHex(sha256(bytes)));
  }
  const file = (name: ImageFile): Uint8Array => files.get(name) ?? new Uint8Array(0);
  compare(
    'root hash of root.img',
    manifest.root.rootHash,
    verityRootHash(file('root.img'), manifest.root.blocks),
  );
  // A manifest that leaves it out does not have it unchecked: then the image must be without.
  const page = erofsFile(file('root.img'), CONSOLE_PATH);
  compare(
    `sha256 of ${CONSOLE_PATH} in root.img`,
    manifest.console ?? 'absent',
    page === undefined ? 'absent' : toHex(sha256(page)),
  );
  for (const [word, expected] of [
    ['assay.root', manifest.root.rootHash],
    ['assay.blocks', String(manifest.root.blocks)],
    ['assay.cfg', toHex(sha256(file('config')))],
  ] as const) {
    compare(`${word} of the command line`, expected, valueOf(manifest.cmdline, word));
  }
  compare('models of the configuration', modelLines(manifest.models), configuredModels(file('config')));
  const measured = measureImage({
    snpFirmware: file('OVMF.snp.fd'),
    tdxFirmware: file('OVMF.tdx.fd'),
    kernel: file('vmlinuz'),
    initrd: file('initrd.cpio'),
    cmdline: manifest.cmdline,
  });
  for (const { vcpuType, guestFeatures, digests } of measured.snp) {
    const stated = manifest.snp.find(
      (shape) => shape.vcpuType === vcpuType && shape.guestFeatures === guestFeatures,
    );
    const count = Math.max(digests.length, stated?.digests.length ?? 0);
    const differs = Array.from({ length: count }, (_, index) => index).find(
      (index) => stated?.digests[index] !== digests[index],
    );
    const at = differs ?? 0;
    compare(
      `snp ${vcpuType}, features ${guestFeatures}, 1–${count} vcpus`,
      stated?.digests[at] ?? 'absent',
      digests[at] ?? 'absent',
    );
  }
  compare('number of snp shapes', String(manifest.snp.length), String(measured.snp.length));
  for (const key of ['mrTdSinglePass', 'mrTdTwoPass', 'rtmr1', 'rtmr2'] as const)
    compare(`tdx ${key}`, manifest.tdx[key], measured.tdx[key]);
  if (manifest.disk !== undefined) {
    const { disk } = manifest;
    const [uki, head] = await Promise.all(DISK_FILES.map((name) => readFile(name)));
    for (const [name, bytes] of [
      ['BOOTX64.EFI', uki],
      ['disk.gpt', head],
    ] as const)
      compare(`sha256 of ${name}`, disk.files[name].sha256, toHex(sha256(bytes ?? new Uint8Array(0))));
    const partitions = new Map([
      ['root.img', manifest.root.rootHash],
      ['config', manifest.files.config.sha256],
      ...manifest.models.map(({ name, rootHash }) => [`model ${name}`, rootHash] as const),
    ]);
    const expected = {
      cmdline: manifest.cmdline,
      vmlinuz: manifest.files.vmlinuz.sha256,
      initrd: manifest.files['initrd.cpio'].sha256,
      partitions,
    };
    for (const found of diskFindings(
      disk,
      { uki: uki ?? new Uint8Array(0), head: head ?? new Uint8Array(0) },
      expected,
    ))
      compare(...found);
  }
  return {
    manifest,
    manifestSha256: toHex(sha256(manifestBytes)),
    findings,
    ok: findings.every(({ ok }) => ok),
  };
}

const read = shapeReaders('malformed_manifest');

function hex(value: unknown, name: string, length: number): string {
  const text = read.string(value, name, length);
  if (text.length !== length || !/^[0-9a-f]*$/.test(text))
    read.oneOf(text, name, [`${length} lower-case hex digits`]);
  return text;
}

function parseFile(value: unknown, name: string): { size: number; sha256: string } {
  const file = read.object(value, name, ['size', 'sha256']);
  return {
    size: read.integer(file['size'], `${name} size`, 1),
    sha256: hex(file['sha256'], `${name} sha256`, HEX32),
  };
}

function parseRoot(value: JsonObject, name: string): { rootHash: string; blocks: number } {
  return {
    rootHash: hex(value['rootHash'], `${name} rootHash`, HEX32),
    blocks: read.integer(value['blocks'], `${name} blocks`, 2, 999_999_999),
  };
}

/** The value of the one parameter of that name. */
function valueOf(cmdline: string, name: string): string {
  const found = cmdline.split(' ').filter((word) => word.startsWith(`${name}=`));
  return found.length === 1 ? (found[0] ?? '').slice(name.length + 1) : `given ${found.length} times`;
}

function modelLines(models: readonly ImageModel[]): string {
  return models.map(({ name, rootHash, blocks }) => `model ${name} ${rootHash} ${blocks}`).join('; ');
}

/** The model lines of the measured configuration, up to its server part. */
function configuredModels(config: Uint8Array): string {
  const lines = fromUtf8(config, 'config', 'malformed_manifest').split('\n');
  return lines
    .slice(0, Math.max(0, lines.indexOf('---')))
    .filter((line) => line.startsWith('model '))
    .join('; ');
}

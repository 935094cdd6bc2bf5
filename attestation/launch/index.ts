// The entry of `@assay/attestation/launch`: launch measurements of SNP and TDX, recomputed from what is
// launched. A program that only checks evidence does not load it.

export {
  CONSOLE_PATH,
  IMAGE_FILES,
  type ImageFile,
  type ImageManifest,
  type ImageModel,
  measureImage,
  measureManifest,
  type MeasureFinding,
  type MeasureReport,
  parseManifest,
  type ReleaseFile,
  snpMeasurementsOf,
} from './manifest.ts';
export { DISK_FILES, type DiskFile, type DiskMeasurements, type ImageDisk, measureDisk } from './disk.ts';
export { acceptFirmware, guidBytes, KNOWN_FIRMWARE, type KnownFirmware } from './firmware.ts';
export { measureSnpLaunch, measureSnpMatrix, type SnpLaunch, type SnpMatrix } from './snp.ts';
export { measureMrTd, type MrTd } from './tdx.ts';
export {
  type DirectBoot,
  replay,
  type Rtmr0Shape,
  rtmr0Events,
  rtmr1Events,
  rtmr2Events,
} from './tdx-rtmr.ts';
export { GPT_HEAD_BYTES, type Gpt, type GptEntry, readGpt } from './gpt.ts';
export { type PeFile, type PeSection, readPe, SECTION_HEADER_BYTES } from './pe.ts';
export {
  type BootDisk,
  bootEvents,
  type BootEvents,
  readUki,
  type UkiSection,
  type UnifiedKernel,
} from './uki.ts';
export { extendAll } from './registers.ts';
export { VERITY_SALT, verityRootHash } from './verity.ts';

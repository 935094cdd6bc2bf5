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
  snpMeasurementsOf,
} from './manifest.ts';
export { acceptFirmware, KNOWN_FIRMWARE, type KnownFirmware } from './firmware.ts';
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
export { VERITY_SALT, verityRootHash } from './verity.ts';

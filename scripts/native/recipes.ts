// The table of `make native`: two libraries that the npm packages of llama.cpp leave out, against the very
// libllama and libggml that the server loads, and the decoder of libwebp; all from sources whose SHA-256
// image/native.lock.json records. One table says files, flags and links; everything in it is part of the
// digest a build is cached by.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NativeLibraryName } from '../../src/base/native-library.ts';

export interface Unit {
  /** Below one of the folders of `Places`. */
  readonly source: string;
  /** Which folder. */
  readonly from: keyof Places;
  /** For this unit alone, before the include paths of all. */
  readonly flags?: readonly string[] | undefined;
}

/** Folders with the unpacked sources; every path that a compiler sees begins with one of these names. */
export interface Places {
  readonly llama: string;
  readonly whisper: string;
  /** libwebp. */
  readonly webp: string;
  readonly opus: string;
  /** This folder: what we add ourselves. */
  readonly own: string;
}

export interface Recipe {
  readonly library: NativeLibraryName;
  readonly needs: readonly (keyof Places)[];
  /** Below the places, as `llama/include`. */
  readonly includes: readonly string[];
  readonly flags: readonly string[];
  readonly linkFlags?: readonly string[] | undefined;
  /** Patterns of the functions that others may call; all else stays inside, whatever its template says. */
  readonly exports: readonly string[];
  /** File names beside libllama. They are found by name because the process has loaded them before. */
  readonly links: readonly string[];
  readonly units: (places: Places) => readonly Unit[];
}

/** For every unit: no path, time or processor of this machine gets into the result. */
export const COMPILE_FLAGS = [
  '-O2',
  '-g0',
  '-fPIC',
  '-fvisibility=hidden',
  '-fstack-protector-strong',
  '-D_FORTIFY_SOURCE=2',
  '-D_GLIBCXX_ASSERTIONS',
  '-DNDEBUG',
  '-DGGML_SHARED',
  '-DGGML_BACKEND_SHARED',
  '-w',
] as const;

export const LINK_FLAGS = [
  '-shared',
  '-Wl,--build-id=none',
  '-Wl,--strip-all',
  '-Wl,--no-undefined',
  '-Wl,-z,relro,-z,now,-z,noexecstack',
] as const;

const X64 = process.arch === 'x64';
/** Variants of libwebp's functions for processors that have more than all have; it asks them at run time. */
const DSP_VARIANTS: readonly (readonly [string, ...string[]])[] = X64
  ? [['sse2'], ['sse41', '-msse4.1'], ['avx2', '-mavx2']]
  : [['neon']];

/**
 * libopus as its own build for 64 bits without processor-specific code: floats, arrays on the stack, and an
 * abort where the decoder finds itself in a state that it cannot be in.
 */
const OPUS_FLAGS: readonly string[] = [
  ...['include', 'celt', 'silk', 'silk/float'].map((folder) => `-Iopus/${folder}`),
  '-DOPUS_BUILD',
  '-DVAR_ARRAYS',
  '-DHAVE_LRINT',
  '-DHAVE_LRINTF',
  '-DENABLE_HARDENING',
  '-DPACKAGE_VERSION="1.3.1"',
];

/** The files of libopus that the decoder needs; of the encoder, the entropy coder that bands.c names. */
const OPUS_DECODER: readonly string[] = [
  ...unitsBelow('src', 'opus opus_decoder'),
  ...unitsBelow(
    'celt',
    'bands celt celt_decoder celt_lpc cwrs entcode entdec entenc kiss_fft laplace mathops mdct modes pitch ' +
      'quant_bands rate vq',
  ),
  ...unitsBelow(
    'silk',
    'CNG LPC_analysis_filter LPC_fit LPC_inv_pred_gain NLSF2A NLSF_decode NLSF_stabilize NLSF_unpack PLC ' +
      'bwexpander bwexpander_32 code_signs dec_API decode_core decode_frame decode_indices decode_parameters ' +
      'decode_pitch decode_pulses decoder_set_fs gain_quant init_decoder lin2log log2lin pitch_est_tables ' +
      'resampler resampler_private_AR2 resampler_private_IIR_FIR resampler_private_down_FIR ' +
      'resampler_private_up2_HQ resampler_rom shell_coder sort stereo_MS_to_LR stereo_decode_pred sum_sqr_shift ' +
      'table_LSF_cos tables_LTP tables_NLSF_CB_NB_MB tables_NLSF_CB_WB tables_gain tables_other ' +
      'tables_pitch_lag tables_pulses_per_block',
  ),
];

export const RECIPES: readonly Recipe[] = [
  {
    library: 'libmtmd',
    needs: ['llama'],
    includes: ['tools/mtmd', 'include', 'ggml/include', 'common', 'vendor', 'vendor/hash'].map(
      (path) => `llama/${path}`,
    ),
    // Without MTMD_VIDEO, which starts ffmpeg.
    flags: ['-DLLAMA_SHARED', '-DLLAMA_BUILD'],
    exports: ['mtmd_*'],
    links: ['libllama.v0.4.0.so', 'libggml.v0.4.0.so', 'libggml-base.so'],
    units: ({ llama }) => [
      ...namedUnits(llama),
      ...['hash.cpp', 'sha256/sha256.c', 'xxhash/xxhash.c'].map((file): Unit => ({
        from: 'llama',
        source: `vendor/hash/${file}`,
      })),
    ],
  },
  {
    library: 'libwhisper',
    needs: ['llama', 'whisper', 'opus', 'own'],
    includes: ['whisper/include', 'whisper/src', 'llama/include', 'llama/ggml/include', 'llama/vendor'],
    flags: ['-DWHISPER_SHARED', '-DWHISPER_BUILD', '-DWHISPER_VERSION="1.9.3-dev"'],
    exports: ['whisper_*', 'assay_audio_*'],
    links: ['libggml.v0.4.0.so', 'libggml-base.so'],
    units: () => [
      { from: 'whisper', source: 'src/whisper.cpp' },
      { from: 'own', source: 'audio.cpp' },
      { from: 'own', source: 'transcribe.cpp' },
      { from: 'own', source: 'opus.cpp', flags: ['-Iopus/include'] },
      ...OPUS_DECODER.map((source): Unit => ({ from: 'opus', source, flags: OPUS_FLAGS })),
    ],
  },
  {
    library: 'libwebpdecoder',
    needs: ['webp', 'own'],
    includes: ['webp'],
    // Its choice between the variants of a function is made under a lock; no thread is started.
    flags: ['-DWEBP_USE_THREAD', ...(X64 ? ['-DWEBP_HAVE_SSE41', '-DWEBP_HAVE_AVX2'] : [])],
    // webp.cpp counts what a file may allocate.
    linkFlags: ['-Wl,--wrap=malloc,--wrap=calloc,--wrap=free'],
    exports: ['assay_webp_*'],
    links: [],
    units: ({ webp }) => [
      ...webpUnits(webp, 'dec', 'libwebpdecode_la_SOURCES'),
      ...webpUnits(webp, 'utils', 'COMMON_SOURCES'),
      ...webpUnits(webp, 'dsp', 'COMMON_SOURCES'),
      ...DSP_VARIANTS.flatMap(([variant, ...flags]) =>
        webpUnits(webp, 'dsp', `libwebpdspdecode_${variant}_la_SOURCES`, flags),
      ),
      { from: 'webp', source: 'src/demux/demux.c' },
      { from: 'own', source: 'webp.cpp' },
    ],
  },
];

/** The files that libwebp's own build gives its decoder. */
function webpUnits(webp: string, folder: string, list: string, flags?: readonly string[]): readonly Unit[] {
  const text = readFileSync(join(webp, 'src', folder, 'Makefile.am'), 'utf8');
  const files = [...text.matchAll(/^(\w+) \+= (\w+\.c)$/gm)].filter(([, of]) => of === list);
  if (files.length === 0) throw new Error(`the sources of libwebp name no files in ${folder}`);
  return files.map(([, , file]) => ({ from: 'webp', source: `src/${folder}/${file}`, flags }));
}

function unitsBelow(folder: string, names: string): readonly string[] {
  return names.split(' ').map((name) => `${folder}/${name}.c`);
}

/** The files that llama.cpp's own build gives mtmd, in its order. */
function namedUnits(llama: string): readonly Unit[] {
  const text = readFileSync(join(llama, 'tools/mtmd/CMakeLists.txt'), 'utf8');
  const list = /add_library\(mtmd\n([^)]*)\)/.exec(text)?.[1] ?? '';
  const files = list.split(/\s+/).filter((name) => name.endsWith('.cpp'));
  if (files.length === 0) throw new Error('the sources of mtmd name no files');
  return files.map((name) => ({ from: 'llama', source: `tools/mtmd/${name}` }));
}

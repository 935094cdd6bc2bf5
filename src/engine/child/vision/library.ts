// libmtmd (llama.cpp tools/mtmd/mtmd.h and mtmd-helper.h, v0.4.0), built by `make native` against the very
// libllama that is loaded, called through koffi. A wrong layout corrupts memory silently, so `loadMtmd`
// refuses another structure size and defaults that do not come back as the header's constructor writes them.

import koffi from 'koffi';
import { LlamaLibraryError } from '../../seam/library-folder.ts';
import { POINTER, type Pointer } from '../llama/declarations.ts';
import { libcSymbol } from '../llama/library.ts';

const contextParams = koffi.struct({
  use_gpu: 'bool',
  device: POINTER,
  print_timings: 'bool',
  n_threads: 'int32',
  image_marker: POINTER,
  media_marker: POINTER,
  flash_attn_type: 'int32',
  warmup: 'bool',
  image_min_tokens: 'int32',
  image_max_tokens: 'int32',
  cb_eval: POINTER,
  cb_eval_user_data: POINTER,
  batch_max_tokens: 'int32',
  progress_callback: POINTER,
  progress_callback_user_data: POINTER,
});

const videoParams = koffi.struct({
  fps_target: 'float',
  ffmpeg_bin_dir: POINTER,
  timestamp_interval_ms: 'int64',
});

const decodedBitmap = koffi.struct({ bitmap: POINTER, video_ctx: POINTER });

interface ContextParams {
  use_gpu: boolean;
  print_timings: boolean;
  n_threads: number;
  flash_attn_type: number;
  warmup: boolean;
  image_max_tokens: number;
  media_marker: Pointer | null;
}

const decoderPosition = koffi.struct({ t: 'uint32', x: 'uint32', y: 'uint32', z: 'uint32' });

/** Moment, column and row. */
export interface DecoderPosition {
  readonly t: number;
  readonly x: number;
  readonly y: number;
}

interface Decoded {
  readonly bitmap: Pointer | null;
  readonly video_ctx: Pointer | null;
}

type Native<A extends unknown[], R> = ((...args: A) => R) & {
  async(...args: [...A, (error: Error | null, result: R) => void]): void;
};

/** The functions that are called, by their C names. */
export interface MtmdLibrary {
  readonly mtmd_context_params_default: Native<[], ContextParams>;
  readonly mtmd_init_from_file: Native<[string, Pointer, ContextParams], Pointer | null>;
  readonly mtmd_support_vision: Native<[Pointer], boolean>;
  readonly mtmd_decode_use_non_causal: Native<[Pointer, null], boolean>;
  readonly mtmd_decode_use_mrope: Native<[Pointer], boolean>;
  readonly mtmd_bitmap_init: Native<[number, number, Pointer | null], Pointer | null>;
  readonly mtmd_bitmap_get_nx: Native<[Pointer], number>;
  readonly mtmd_bitmap_get_ny: Native<[Pointer], number>;
  readonly mtmd_bitmap_get_data: Native<[Pointer], Pointer | null>;
  readonly mtmd_bitmap_is_audio: Native<[Pointer], boolean>;
  readonly mtmd_bitmap_free: Native<[Pointer], void>;
  readonly mtmd_input_chunks_init: Native<[], Pointer>;
  readonly mtmd_input_chunks_size: Native<[Pointer], number>;
  readonly mtmd_input_chunks_get: Native<[Pointer, number], Pointer>;
  readonly mtmd_input_chunks_free: Native<[Pointer], void>;
  readonly mtmd_input_chunk_get_type: Native<[Pointer], number>;
  readonly mtmd_input_chunk_get_tokens_text: Native<[Pointer, Uint8Array], Pointer | null>;
  readonly mtmd_input_chunk_get_n_tokens: Native<[Pointer], number>;
  readonly mtmd_input_chunk_get_n_pos: Native<[Pointer], number>;
  readonly mtmd_input_chunk_get_tokens_image: Native<[Pointer], Pointer | null>;
  readonly mtmd_image_tokens_get_decoder_pos: Native<[Pointer, number, number], DecoderPosition>;
  readonly mtmd_tokenize_from_parts: Native<[Pointer, Pointer, Pointer, number, boolean], number>;
  readonly mtmd_encode_chunk: Native<[Pointer, Pointer], number>;
  readonly mtmd_get_output_embd: Native<[Pointer], Pointer | null>;
  readonly mtmd_helper_init_opt_default: Native<[], object>;
  readonly mtmd_helper_bitmap_init_from_buf: Native<[Pointer, Pointer, number, boolean, object], Decoded>;
  readonly mtmd_helper_support_video: Native<[Pointer], boolean>;
  readonly mtmd_helper_log_set: Native<[Pointer, null], void>;
}

type Type = string | ReturnType<typeof koffi.struct>;

const SIGNATURES: { readonly [name in keyof MtmdLibrary]: readonly [result: Type, args: readonly Type[]] } = {
  mtmd_context_params_default: [contextParams, []],
  mtmd_init_from_file: [POINTER, ['str', POINTER, contextParams]],
  mtmd_support_vision: ['bool', [POINTER]],
  mtmd_decode_use_non_causal: ['bool', [POINTER, POINTER]],
  mtmd_decode_use_mrope: ['bool', [POINTER]],
  mtmd_bitmap_init: [POINTER, ['uint32', 'uint32', POINTER]],
  mtmd_bitmap_get_nx: ['uint32', [POINTER]],
  mtmd_bitmap_get_ny: ['uint32', [POINTER]],
  mtmd_bitmap_get_data: [POINTER, [POINTER]],
  mtmd_bitmap_is_audio: ['bool', [POINTER]],
  mtmd_bitmap_free: ['void', [POINTER]],
  mtmd_input_chunks_init: [POINTER, []],
  mtmd_input_chunks_size: ['size_t', [POINTER]],
  mtmd_input_chunks_get: [POINTER, [POINTER, 'size_t']],
  mtmd_input_chunks_free: ['void', [POINTER]],
  mtmd_input_chunk_get_type: ['int32', [POINTER]],
  mtmd_input_chunk_get_tokens_text: [POINTER, [POINTER, POINTER]],
  mtmd_input_chunk_get_n_tokens: ['size_t', [POINTER]],
  mtmd_input_chunk_get_n_pos: ['int32', [POINTER]],
  mtmd_input_chunk_get_tokens_image: [POINTER, [POINTER]],
  mtmd_image_tokens_get_decoder_pos: [decoderPosition, [POINTER, 'int32', 'size_t']],
  mtmd_tokenize_from_parts: ['int32', [POINTER, POINTER, POINTER, 'size_t', 'bool']],
  mtmd_encode_chunk: ['int32', [POINTER, POINTER]],
  mtmd_get_output_embd: [POINTER, [POINTER]],
  mtmd_helper_init_opt_default: [videoParams, []],
  mtmd_helper_bitmap_init_from_buf: [decodedBitmap, [POINTER, POINTER, 'size_t', 'bool', videoParams]],
  mtmd_helper_support_video: ['bool', [POINTER]],
  mtmd_helper_log_set: ['void', [POINTER, POINTER]],
};

/** After libllama, with whose symbols it is linked. */
export function loadMtmd(path: string): MtmdLibrary {
  assertSizes();
  const library = koffi.load(path);
  // koffi's functions are untyped; MtmdLibrary is their only typing, kept beside `SIGNATURES`.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const mtmd = Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, [result, args]]) => [name, library.func(name, result, [...args])]),
  ) as unknown as MtmdLibrary;
  assertMtmdDefaults(mtmd);
  return mtmd;
}

/** Its log could tell of an image: none from here on. */
export function silence(mtmd: MtmdLibrary): void {
  mtmd.mtmd_helper_log_set(libcSymbol('abs'), null);
}

/** LP64: x86-64 and arm64 alike. */
function assertSizes(): void {
  const expected = [
    ['mtmd_context_params', contextParams, 96],
    ['mtmd_helper_init_opt', videoParams, 24],
    ['mtmd_helper_bitmap_wrapper', decodedBitmap, 16],
    ['mtmd_decoder_pos', decoderPosition, 16],
  ] as const;
  for (const [name, type, size] of expected)
    if (koffi.sizeof(type) !== size)
      throw new LlamaLibraryError(`${name} is ${koffi.sizeof(type)} bytes, the pinned header says ${size}`);
}

/** Every distinctive default, from the first field to the last: a shifted layout cannot pass. */
export function assertMtmdDefaults(
  mtmd: Pick<MtmdLibrary, 'mtmd_context_params_default' | 'mtmd_helper_init_opt_default'>,
): void {
  check('mtmd_context_params', mtmd.mtmd_context_params_default(), {
    use_gpu: true,
    device: null,
    print_timings: true,
    n_threads: 4,
    image_marker: null,
    flash_attn_type: -1,
    warmup: true,
    image_min_tokens: -1,
    image_max_tokens: -1,
    cb_eval: null,
    cb_eval_user_data: null,
    batch_max_tokens: 1024,
    progress_callback: null,
    progress_callback_user_data: null,
  });
  check('mtmd_helper_init_opt', mtmd.mtmd_helper_init_opt_default(), {
    fps_target: 4,
    ffmpeg_bin_dir: null,
    timestamp_interval_ms: 5000,
  });
}

function check(struct: string, actual: object, expected: Readonly<Record<string, unknown>>): void {
  for (const [field, value] of Object.entries(expected)) {
    const found: unknown = Reflect.get(actual, field);
    if (found !== value && !(typeof found === 'bigint' && found === BigInt(Number(value))))
      throw new LlamaLibraryError(
        `${struct}.${field} defaults to ${String(found)}, the pinned header says ${String(value)}`,
      );
  }
}

// A loaded projector: the layout of an image in tokens, its pixels made ready, and their vectors. Everything
// that reads a stranger's image runs in this process, after it is confined. The text around images never goes
// through libmtmd, so no user can write its marks. Refuses: projectors whose vectors need positions that the
// scheduler does not give, vocabularies without the marks of an image, damaged images.

import { createHash } from 'node:crypto';
import koffi from 'koffi';
import type { MessageImage } from '../../seam/engine.ts';
import { positionsOf } from '../decode/media-span.ts';
import type { Pointer } from '../llama/declarations.ts';
import { nativeView } from '../llama/library.ts';
import { ModelLoadError, type LoadedModel } from '../llama/model.ts';
import { called, decodeImage } from './decode-image.ts';
import { silence, type MtmdLibrary } from './library.ts';
import type { WebpLibrary } from './webp.ts';

/** One run of an image: marks of the vocabulary, or vectors of as many tokens. */
export type ImagePiece =
  | { readonly kind: 'text'; readonly tokens: readonly number[] }
  | {
      readonly kind: 'image';
      readonly length: number;
      /** Vectors of a row, where they have rows and columns. */
      readonly columns?: number | undefined;
      /** Each attends to all of them. */
      readonly whole?: boolean | undefined;
    };

/** An image whose pixels are read; holds native memory until `free`. */
export interface ReadyImage {
  /** SHA-256 of the pixels and their dimensions. */
  readonly key: string;
  /** The vectors of a piece of kind `image`, row by row. */
  encode(piece: number): Promise<Float32Array>;
  /** Idempotent; memory in use goes with the end of its use. */
  free(): void;
}

const [TEXT_CHUNK, IMAGE_CHUNK] = [0, 1];
/** An image of a few tiles; how its marks stand tells whether the vocabulary has them. */
const PROBE = { width: 96, height: 64 };
/** Of an image whose vectors grow with it: attention within windows takes memory by the square (libmtmd). */
const MOST_GRID = 1024;

export interface ProjectorOptions {
  /** Opened by name, twice. */
  readonly path: string;
  readonly threads: number;
  /** Its kind gives vectors that stand in rows and columns. */
  readonly grid: boolean;
  /** The decoder of WebP; absent or null: there is none. */
  readonly webp?: WebpLibrary | null | undefined;
}

export class Projector {
  /** Numbers of one vector. */
  readonly width: number;
  /** Vectors that attend to each other; 0 where each attends to those before it. */
  readonly wholeRun: number;
  readonly #mtmd: MtmdLibrary;
  readonly #webp: WebpLibrary | null;
  readonly #handle: Pointer;
  readonly #vocabSize: number;
  readonly #grid: boolean;
  readonly #whole: boolean;
  readonly #count = new Uint8Array(8);

  /** Throws ModelLoadError. */
  constructor(mtmd: MtmdLibrary, model: LoadedModel, { path, threads, grid, webp = null }: ProjectorOptions) {
    const params = mtmd.mtmd_context_params_default();
    params.use_gpu = false;
    params.print_timings = false;
    params.n_threads = threads;
    params.image_max_tokens = grid ? MOST_GRID : -1;
    // Encodes an empty image: a projector that cannot work fails here, not in a request.
    params.warmup = true;
    const handle = mtmd.mtmd_init_from_file(path, model.handle, params);
    silence(mtmd);
    if (handle === null) throw new ModelLoadError('the projector cannot be loaded for this model');
    this.#mtmd = mtmd;
    this.#webp = webp;
    this.#handle = handle;
    this.#vocabSize = model.vocabSize;
    this.width = model.inputSize;
    if (!mtmd.mtmd_support_vision(handle)) throw new ModelLoadError('the projector is not for images');
    if (mtmd.mtmd_helper_support_video(handle))
      throw new ModelLoadError('libmtmd was built with video, which starts programs');
    // libmtmd asks the model alone, and gives a projector of any kind what that has.
    if (mtmd.mtmd_decode_use_mrope(handle) !== grid)
      throw new ModelLoadError(
        grid
          ? 'the projector is for models with positions of several components (M-RoPE), which this one has not'
          : 'the model has positions of several components (M-RoPE), and the projector is for one without',
      );
    // Its graph adds them behind its first layers; the last one has fewer rows, which is an assertion.
    if (model.inputSize > model.embeddingSize * model.layers)
      throw new ModelLoadError('the model takes vectors behind more layers than it has');
    this.#grid = grid;
    this.#whole = mtmd.mtmd_decode_use_non_causal(handle, null);
    const runs = this.layout(PROBE).map((piece) => (piece.kind === 'image' ? piece.length : 0));
    this.wholeRun = this.#whole ? Math.max(...runs) : 0;
  }

  /** How an image of these dimensions stands in a prompt. Reads no pixel. */
  layout({ width, height }: Pick<MessageImage, 'width' | 'height'>): readonly ImagePiece[] {
    const bitmap = this.#mtmd.mtmd_bitmap_init(width, height, null);
    if (bitmap === null) throw new Error('libmtmd made no bitmap');
    const chunks = this.#mtmd.mtmd_input_chunks_init();
    const part = partOf(bitmap);
    try {
      if (this.#mtmd.mtmd_tokenize_from_parts(this.#handle, chunks, part.list, 1, false) !== 0)
        throw new Error('libmtmd gave no layout of an image');
      return this.#pieces(chunks);
    } finally {
      koffi.free(part.memory);
      this.#mtmd.mtmd_input_chunks_free(chunks);
      this.#mtmd.mtmd_bitmap_free(bitmap);
    }
  }

  /** Decodes and prepares an image, beside the event loop. ApiError 400 invalid_image where it is damaged. */
  async ready(image: MessageImage): Promise<ReadyImage> {
    const bitmap = await decodeImage({ mtmd: this.#mtmd, handle: this.#handle, webp: this.#webp }, image);
    const part = partOf(bitmap);
    try {
      const key = this.#keyOf(bitmap);
      const chunks = this.#mtmd.mtmd_input_chunks_init();
      const code = await called((then) =>
        this.#mtmd.mtmd_tokenize_from_parts.async(this.#handle, chunks, part.list, 1, false, then),
      );
      if (code !== 0) {
        this.#mtmd.mtmd_input_chunks_free(chunks);
        throw new Error('libmtmd could not prepare an image');
      }
      return this.#holding(key, chunks);
    } finally {
      koffi.free(part.memory);
      this.#mtmd.mtmd_bitmap_free(bitmap);
    }
  }

  #keyOf(bitmap: Pointer): string {
    const [width, height] = [this.#mtmd.mtmd_bitmap_get_nx(bitmap), this.#mtmd.mtmd_bitmap_get_ny(bitmap)];
    const data = this.#mtmd.mtmd_bitmap_get_data(bitmap);
    if (data === null) throw new Error('libmtmd has no pixels');
    const pixels = new Uint8Array(nativeView(data, width * height * 3));
    return createHash('sha256').update(`${width}×${height}:`).update(pixels).digest('hex');
  }

  #holding(key: string, chunks: Pointer): ReadyImage {
    const mtmd = this.#mtmd;
    let users = 1;
    const leave = (): void => {
      users -= 1;
      if (users === 0) mtmd.mtmd_input_chunks_free(chunks);
    };
    let freed = false;
    const pieces = this.#pieces(chunks);
    return {
      key,
      encode: async (at) => {
        const piece = pieces[at];
        if (freed || piece?.kind !== 'image') throw new Error('there is no such part of an image');
        users += 1;
        try {
          const chunk = mtmd.mtmd_input_chunks_get(chunks, at);
          const code = await called((then) => mtmd.mtmd_encode_chunk.async(this.#handle, chunk, then));
          const output = code === 0 ? mtmd.mtmd_get_output_embd(this.#handle) : null;
          if (output === null) throw new Error('libmtmd could not encode an image');
          return new Float32Array(nativeView(output, piece.length * this.width * 4)).slice();
        } finally {
          leave();
        }
      },
      free() {
        if (freed) return;
        freed = true;
        leave();
      },
    };
  }

  /** Checks that its positions are those which the scheduler gives. */
  #run(chunk: Pointer, length: number): ImagePiece {
    const mtmd = this.#mtmd;
    const image = mtmd.mtmd_input_chunk_get_tokens_image(chunk);
    if (image === null || length < 1) throw new ModelLoadError('the projector gives an image no vectors');
    const last = mtmd.mtmd_image_tokens_get_decoder_pos(image, 0, length - 1);
    const columns = this.#grid ? last.x + 1 : undefined;
    const [column, row, moment] =
      columns === undefined ? [length - 1, length - 1, length - 1] : [columns - 1, length / columns - 1, 0];
    const told = [last.x, last.y, last.t, mtmd.mtmd_input_chunk_get_n_pos(chunk)];
    if (told.join() !== [column, row, moment, positionsOf({ length, columns })].join())
      throw new ModelLoadError('the projector gives an image other positions than its kind has');
    return { kind: 'image', length, columns, whole: this.#whole };
  }

  /** Checks every token before any is decoded: marks that a vocabulary lacks come back as −1. */
  #pieces(chunks: Pointer): readonly ImagePiece[] {
    const mtmd = this.#mtmd;
    return Array.from({ length: Number(mtmd.mtmd_input_chunks_size(chunks)) }, (_, i): ImagePiece => {
      const chunk = mtmd.mtmd_input_chunks_get(chunks, i);
      const kind = mtmd.mtmd_input_chunk_get_type(chunk);
      const length = Number(mtmd.mtmd_input_chunk_get_n_tokens(chunk));
      if (kind === IMAGE_CHUNK) return this.#run(chunk, length);
      const tokens = kind === TEXT_CHUNK ? mtmd.mtmd_input_chunk_get_tokens_text(chunk, this.#count) : null;
      if (tokens === null) throw new ModelLoadError('the projector gives an image parts of another kind');
      const text = [...new Int32Array(nativeView(tokens, length * 4))];
      if (text.some((token) => token < 0 || token >= this.#vocabSize))
        throw new ModelLoadError('the vocabulary lacks the marks that the projector sets around an image');
      return { kind: 'text', tokens: text };
    });
  }
}

/** A `struct mtmd_input_part` (text, bitmap) with an image, and behind it a list of this one part. */
function partOf(bitmap: Pointer): { readonly memory: Pointer; readonly list: Pointer } {
  const memory: unknown = koffi.alloc('uint8', 24);
  if (typeof memory !== 'bigint') throw new Error('no memory for an image');
  new BigUint64Array(nativeView(memory, 24)).set([0n, bitmap, memory]);
  return { memory, list: memory + 16n };
}

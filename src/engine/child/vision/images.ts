// The images of requests that wait to be read: prepared one at a time, the callers in turn, within a budget
// of memory of which one caller has at most half. Prepared images of equal pixels get equal ids, by which
// the prefix cache tells them; an id never stands for two images.

import { ApiError, queueFull } from '../../../base/errors.ts';
import type { MessageImage } from '../../seam/engine.ts';
import type { MediaSpan } from '../decode/media-span.ts';
import type { ImagePiece, ReadyImage } from './projector.ts';
import { WEBP_TABLE_BYTES } from './webp.ts';

/** The parts of a projector that are used; tests have their own. */
export interface ImageReader {
  layout(image: Pick<MessageImage, 'width' | 'height'>): readonly ImagePiece[];
  ready(image: MessageImage): Promise<ReadyImage>;
}

export interface ImageRoomOptions {
  /** Bytes of native memory for images that are prepared and not yet answered. */
  readonly budget: number;
  /** Requests that may wait. */
  readonly maxWaiting: number;
  /** Pixels of a prepared image for each vector of it. */
  readonly vectorPixels: number;
}

/** A prompt whose images have their places. */
export interface Pictured {
  /** Tokens; negative numbers where vectors stand, equal ones for equal parts of equal images. */
  readonly prompt: readonly number[];
  readonly media: readonly MediaSpan[];
  /** Gives the images back. */
  readonly release: () => void;
}

/** Of a prompt in which −1 − i stands for image i, whose pixels are not read yet. */
export interface Laid {
  readonly tokens: readonly number[];
  readonly images: readonly MessageImage[];
  readonly layouts: readonly (readonly ImagePiece[])[];
  /** Tokens of the whole prompt. */
  readonly length: number;
}

interface Waiting {
  readonly laid: Laid;
  readonly bytes: number;
  cancelled: boolean;
  readonly resolve: (prepared: readonly ReadyImage[]) => void;
  readonly reject: (error: unknown) => void;
}

/** Of a pixel while a file is decoded, by the decoder's allocations: a GIF takes most, and WebP as much. */
const DECODED_BYTES = 12;
/** Of a pixel as the encoder reads it, and while it is resized. */
const PREPARED_BYTES = 3 * 4 + 3;
/** Ids that are remembered; an image whose id is forgotten is read again. */
const MAX_IDS = 4096;

export class ImageRoom {
  readonly #reader: ImageReader;
  readonly #options: ImageRoomOptions;
  /** In the order of turns: a served scope goes to its end. */
  readonly #queues = new Map<string, Waiting[]>();
  readonly #held = new Map<string, number>();
  readonly #ids = new Map<string, number>();
  #nextId = 1;
  #busy = false;

  constructor(reader: ImageReader, options: ImageRoomOptions) {
    this.#reader = reader;
    this.#options = options;
  }

  /** Reads no pixel. */
  lay(tokens: readonly number[], images: readonly MessageImage[]): Laid {
    const layouts = images.map((image) => this.#reader.layout(image));
    let length = 0;
    for (const token of tokens)
      for (const piece of token >= 0 ? [ONE_TOKEN] : layouts[-1 - token]!)
        length += piece.kind === 'text' ? piece.tokens.length : piece.length;
    return { tokens, images, layouts, length };
  }

  /** −1 stands for each vector. */
  counted({ tokens, layouts }: Laid): readonly number[] {
    const counted = (piece: ImagePiece): readonly number[] =>
      piece.kind === 'text' ? piece.tokens : Array<number>(piece.length).fill(-1);
    return tokens.flatMap((token) => (token >= 0 ? [token] : layouts[-1 - token]!.flatMap(counted)));
  }

  /** Refuses at once what can never be held, and what finds the queue full. */
  async prepare(scope: string, laid: Laid, signal: AbortSignal): Promise<Pictured> {
    const bytes = this.#bytesOf(laid);
    if (bytes > this.#options.budget / 2)
      throw new ApiError('invalid_image', 'the images of the request have too many pixels together', {
        param: laid.images[0]?.param,
      });
    if (this.#waiting() >= this.#options.maxWaiting) throw queueFull();
    const images = await this.#turn(scope, laid, bytes, signal);
    const release = (): void => {
      for (const image of images) image.free();
      this.#give(scope, bytes);
    };
    return { ...this.#place(laid, images), release };
  }

  #bytesOf({ images, layouts }: Laid): number {
    const decoded = images.reduce((sum, { width, height }) => sum + width * height * DECODED_BYTES, 0);
    const vectors = layouts.flat().reduce((sum, each) => sum + (each.kind === 'image' ? each.length : 0), 0);
    // Images are decoded one after the other.
    const tables = images.some(({ kind }) => kind === 'webp') ? WEBP_TABLE_BYTES : 0;
    return decoded + tables + vectors * this.#options.vectorPixels * PREPARED_BYTES;
  }

  #waiting(): number {
    let count = 0;
    for (const queue of this.#queues.values()) count += queue.length;
    return count;
  }

  async #turn(scope: string, laid: Laid, bytes: number, signal: AbortSignal): Promise<readonly ReadyImage[]> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { laid, bytes, cancelled: false, resolve, reject };
      signal.addEventListener('abort', () => {
        waiting.cancelled = true;
        this.#forget(scope, waiting);
        reject(signal.reason);
      });
      this.#queues.set(scope, [...(this.#queues.get(scope) ?? []), waiting]);
      this.#next();
    });
  }

  #forget(scope: string, waiting: Waiting): void {
    const rest = (this.#queues.get(scope) ?? []).filter((each) => each !== waiting);
    if (rest.length === 0) this.#queues.delete(scope);
    else this.#queues.set(scope, rest);
  }

  /** Starts what is next in turn and has room. */
  #next(): void {
    if (this.#busy) return;
    const total = [...this.#held.values()].reduce((sum, held) => sum + held, 0);
    for (const [scope, [waiting]] of this.#queues) {
      if (waiting === undefined) continue;
      const mine = this.#held.get(scope) ?? 0;
      const { budget } = this.#options;
      if (total + waiting.bytes > budget || mine + waiting.bytes > budget / 2) continue;
      this.#forget(scope, waiting);
      const rest = this.#queues.get(scope);
      if (rest !== undefined) {
        this.#queues.delete(scope);
        this.#queues.set(scope, rest);
      }
      this.#held.set(scope, mine + waiting.bytes);
      this.#busy = true;
      void this.#read(scope, waiting);
      return;
    }
  }

  async #read(scope: string, waiting: Waiting): Promise<void> {
    const images: ReadyImage[] = [];
    try {
      for (const image of waiting.laid.images)
        if (!waiting.cancelled) images.push(await this.#reader.ready(image));
      if (!waiting.cancelled) return waiting.resolve(images);
      this.#drop(scope, waiting, images);
    } catch (error) {
      this.#drop(scope, waiting, images);
      waiting.reject(error);
    } finally {
      this.#busy = false;
      this.#next();
    }
  }

  #drop(scope: string, { bytes }: Waiting, images: readonly ReadyImage[]): void {
    for (const image of images) image.free();
    this.#give(scope, bytes);
  }

  #give(scope: string, bytes: number): void {
    const rest = (this.#held.get(scope) ?? 0) - bytes;
    if (rest > 0) this.#held.set(scope, rest);
    else this.#held.delete(scope);
    this.#next();
  }

  #place({ tokens, layouts }: Laid, images: readonly ReadyImage[]): Omit<Pictured, 'release'> {
    const prompt: number[] = [];
    const media: MediaSpan[] = [];
    for (const token of tokens) {
      if (token >= 0) {
        prompt.push(token);
        continue;
      }
      const image = images[-1 - token]!;
      for (const [i, piece] of layouts[-1 - token]!.entries()) {
        if (piece.kind === 'text') prompt.push(...piece.tokens);
        else {
          const { length, columns, whole } = piece;
          media.push({ start: prompt.length, length, columns, whole, encode: async () => image.encode(i) });
          const id = this.#idOf(`${image.key}/${i}`);
          for (let j = 0; j < piece.length; j += 1) prompt.push(-id);
        }
      }
    }
    return { prompt, media };
  }

  #idOf(key: string): number {
    const id = this.#ids.get(key) ?? this.#nextId;
    if (id === this.#nextId) this.#nextId += 1;
    // The least used is forgotten first.
    this.#ids.delete(key);
    this.#ids.set(key, id);
    const [oldest] = this.#ids.keys();
    if (this.#ids.size > MAX_IDS && oldest !== undefined) this.#ids.delete(oldest);
    return id;
  }
}

const ONE_TOKEN: ImagePiece = { kind: 'text', tokens: [0] };

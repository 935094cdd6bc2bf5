// Frames between the server and the engine child, over one socket pair: u32 length, u32 length of the JSON
// part, JSON, raw bytes (embedding vectors). Little endian, native to both ends of one machine. Refuses
// frames over `maxFrameBytes` and anything that is not JSON; either end drops the connection then.

import { openJsonScan } from '../../base/json-scan.ts';
import type { Accelerator, Backend, Device, ModelNeeds } from './backend.ts';
import type {
  AdapterSpec,
  Drafting,
  EngineInfo,
  EngineStats,
  GenerateEvent,
  GenerateRequest,
  KvType,
  MessageImage,
  ModelType,
  ProjectorSpec,
  Prompt,
  Sampling,
} from './engine.ts';
import type { TranscribeEvent, WireTranscription } from './transcription.ts';

export const MAX_FRAME_BYTES = 128 * 1024 * 1024;
/** A shorter frame is small whatever its values are; nearly all frames are shorter. */
const SCANNED_FROM_BYTES = 1024 * 1024;
/**
 * The values of a frame take at most the heap its bytes may take: a compromised child must not exhaust the
 * server.
 */
const VALUE_BOUNDS = { maxWeight: MAX_FRAME_BYTES / 8, maxDepth: 200 } as const;

/** A GenerateRequest as JSON can carry it. */
export interface WireRequest extends Omit<GenerateRequest, 'sampling'> {
  readonly sampling: Omit<Sampling, 'logitBias'> & {
    readonly logitBias?: readonly (readonly [number, number])[] | undefined;
  };
}

/** The images of a conversation in the raw part of its frame, one after the other. */
export interface FramedImage extends Omit<MessageImage, 'bytes'> {
  /** The message it is in. */
  readonly message: number;
  readonly size: number;
}

export type ToChild =
  | {
      readonly kind: 'load';
      readonly path: string;
      readonly parentPid: number;
      readonly type?: ModelType | undefined;
      readonly contextLength?: number | undefined;
      readonly slots?: number | undefined;
      readonly threads?: number | undefined;
      readonly kvType?: KvType | undefined;
      readonly chatTemplate?: string | undefined;
      /** On the descriptors from ADAPTER_FD on. */
      readonly adapters: readonly Omit<AdapterSpec, 'fd'>[];
      /** On the descriptor after the adapters'. */
      readonly projector?: Omit<ProjectorSpec, 'fd'> | undefined;
      readonly maxQueued: number;
      readonly reusePrefixes: boolean;
      readonly maxChunk?: number | undefined;
      readonly maxCells?: number | undefined;
      readonly exact?: boolean | undefined;
      readonly accelerator?: Accelerator | undefined;
      readonly needs?: ModelNeeds | undefined;
      readonly drafting: Drafting;
    }
  /** Instead of a load: which devices does this backend find? */
  | { readonly kind: 'devices'; readonly backend: Backend }
  /** Instead of a load: what is wrong with this chat template? */
  | { readonly kind: 'template'; readonly source: string }
  | {
      readonly kind: 'generate';
      readonly id: number;
      readonly request: WireRequest;
      readonly images?: readonly FramedImage[] | undefined;
    }
  | { readonly kind: 'cancel' | 'pause' | 'resume' | 'ping'; readonly id: number }
  | {
      readonly kind: 'tokenize';
      readonly id: number;
      readonly prompt: Prompt;
      /** Without their files. */
      readonly images?: readonly FramedImage[] | undefined;
      readonly addSpecial: boolean;
      readonly parseSpecial: boolean;
      /** The field that refusals name. */
      readonly param: string;
    }
  | { readonly kind: 'detokenize' | 'pieces'; readonly id: number; readonly tokens: readonly number[] }
  | {
      readonly kind: 'embed';
      readonly id: number;
      readonly scope: string;
      readonly inputs: readonly (string | readonly number[])[];
    }
  | {
      readonly kind: 'rank';
      readonly id: number;
      readonly scope: string;
      readonly query: string;
      readonly documents: readonly string[];
    }
  /** The sound file is the raw part. */
  | { readonly kind: 'transcribe'; readonly id: number; readonly request: WireTranscription };

export type FromChild =
  | { readonly kind: 'progress'; readonly fraction: number }
  | { readonly kind: 'ready'; readonly info: EngineInfo }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'template'; readonly problem: string | null }
  | { readonly kind: 'devices'; readonly devices: readonly Device[] }
  | {
      readonly kind: 'events';
      readonly events: readonly (readonly [number, GenerateEvent])[];
      readonly stats: EngineStats;
    }
  | {
      readonly kind: 'error';
      readonly id: number;
      readonly status: number;
      readonly code: string;
      readonly message: string;
      readonly param?: string | undefined;
      readonly retryAfterSeconds?: number | undefined;
    }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown }
  /** `count` vectors of `size` floats each, in the raw part. */
  | {
      readonly kind: 'vectors';
      readonly id: number;
      readonly count: number;
      readonly size: number;
      readonly tokens: number;
      /** See `Pooled`. */
      readonly inputsSha256: string;
    }
  | { readonly kind: 'transcription'; readonly id: number; readonly event: TranscribeEvent }
  /** Answers a cancel once that request or call is dropped. */
  | { readonly kind: 'dropped'; readonly id: number }
  | { readonly kind: 'pong'; readonly id: number };

export class WireError extends Error {
  override readonly name = 'WireError';
}

const NO_BYTES = new Uint8Array(0);

/** One frame. NaN travels as null (see `decodeLogprob`). */
export function encodeFrame(message: ToChild | FromChild, raw: Uint8Array = NO_BYTES): Buffer {
  const json = JSON.stringify(message);
  const jsonLength = Buffer.byteLength(json);
  const length = 4 + jsonLength + raw.length;
  if (length > MAX_FRAME_BYTES)
    throw new WireError(`a frame of ${length} bytes is over the limit of ${MAX_FRAME_BYTES}`);
  const frame = Buffer.allocUnsafe(4 + length);
  frame.writeUInt32LE(length, 0);
  frame.writeUInt32LE(jsonLength, 4);
  frame.write(json, 8);
  frame.set(raw, 8 + jsonLength);
  return frame;
}

/** Feeds chunks of the stream; calls back per frame. Throws WireError on anything malformed. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- the caller says which way it reads
export function frameReader<M extends ToChild | FromChild>(
  onFrame: (message: M, raw: Uint8Array) => void,
): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let held = 0;
  let wanted = 4;
  return (chunk) => {
    parts.push(chunk);
    held += chunk.length;
    if (held < wanted) return;
    let buffer = parts.length === 1 ? chunk : Buffer.concat(parts);
    while (buffer.length >= 4) {
      const length = buffer.readUInt32LE(0);
      if (length > MAX_FRAME_BYTES || length < 4)
        throw new WireError(`frame length ${length} is out of bounds`);
      wanted = 4 + length;
      if (buffer.length < wanted) break;
      const jsonLength = buffer.readUInt32LE(4);
      if (jsonLength > length - 4) throw new WireError('the JSON part is longer than its frame');
      let message: M;
      try {
        // Both ends are this program; the fields of a frame are checked where they are used.
        // oxlint-disable-next-line typescript/no-unsafe-type-assertion
        if (jsonLength > SCANNED_FROM_BYTES)
          openJsonScan(VALUE_BOUNDS).push(buffer.subarray(8, 8 + jsonLength));
        message = JSON.parse(buffer.toString('utf8', 8, 8 + jsonLength)) as M;
      } catch (cause) {
        throw new WireError('a frame is not JSON, or has too many values', { cause });
      }
      const raw = buffer.subarray(8 + jsonLength, wanted);
      buffer = buffer.subarray(wanted);
      wanted = 4;
      onFrame(message, raw);
    }
    parts = buffer.length === 0 ? [] : [buffer];
    held = buffer.length;
  };
}

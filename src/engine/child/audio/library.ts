// libwhisper, as `make native` builds it from pinned sources, called through koffi. Parameters of whisper.cpp
// are set inside it (scripts/native/transcribe.cpp), where the compiler knows their layout; here are only
// functions of numbers and addresses. Long calls run beside the event loop, so that this process answers.

import koffi from 'koffi';
import { LlamaLibraryError } from '../../seam/library-folder.ts';
import { POINTER, type Pointer } from '../llama/declarations.ts';
import type { OpusSound } from './files/opus.ts';

const MINIAUDIO = '0.11.25';
const LIBOPUS = 'libopus 1.3.1';

export interface WhisperLibrary {
  open(bytes: Pointer, size: number): Pointer | null;
  /** Frames, or −1: not a file that is read, −2: longer than `capacity`. */
  decode(bytes: Uint8Array, samples: Pointer, capacity: number): Promise<number>;
  /** Frames, or −1: a packet is broken. */
  decodeOpus(sound: OpusSound, to: OpusRoom): Promise<number>;
  /** 0 when the whole sound was heard. */
  transcribe(context: Pointer, work: TranscribeCall): Promise<number>;
  isMultilingual(context: Pointer): boolean;
  languageId(name: string): number;
  languageName(id: number): string;
  foundLanguage(context: Pointer): number;
  endOfText(context: Pointer): number;
  segments(context: Pointer): number;
  /** Hundredths of a second. */
  segmentTimes(context: Pointer, segment: number): readonly [number, number];
  segmentText(context: Pointer, segment: number): string;
  noSpeech(context: Pointer, segment: number): number;
  tokens(context: Pointer, segment: number): number;
  tokenId(context: Pointer, segment: number, token: number): number;
  tokenProbability(context: Pointer, segment: number, token: number): number;
  /** Its bytes need not be whole UTF-8. */
  tokenBytes(context: Pointer, segment: number, token: number): Buffer;
  tokenTimes(context: Pointer, segment: number, token: number): readonly [number, number];
}

/** In frames of 16 kHz, as they are written. */
export interface OpusRoom {
  readonly skip: number;
  /** No more are written. */
  readonly frames: number;
  readonly samples: Pointer;
}

export interface TranscribeCall {
  readonly samples: Pointer;
  readonly count: number;
  readonly threads: number;
  readonly translate: boolean;
  readonly words: boolean;
  readonly temperature: number;
  /** Added to the temperature at each further attempt; 0: none is made. */
  readonly fallback: number;
  readonly language: string | null;
  readonly prompt: string | null;
  /** A byte that ends the work when it is not 0. */
  readonly stop: Pointer;
  readonly onSegment: Pointer;
}

/**
 * Context, samples, their count, threads, flags, temperature, its steps, language, prompt, stop, listener.
 */
const TRANSCRIBE_TYPES = 'void*,void*,int32,int32,int32,float,float,str,str,void*,void*'.split(',');

/** Packets, their bytes, their sizes, how many, gain, frames to leave out, where to, frames. */
const OPUS_TYPES = [POINTER, 'uint64', POINTER, 'uint64', 'int32', 'uint64', POINTER, 'uint64'];

/**
 * whisper.cpp runs on the stack of koffi's worker thread, and its regular expressions take a deep one. Must
 * come before any native call.
 */
export function growNativeStacks(): void {
  koffi.config({ sync_stack_size: STACK_BYTES, async_stack_size: STACK_BYTES });
}

const STACK_BYTES = 16 * 1024 * 1024;

/** After libggml, whose names it is linked with. */
export function loadWhisper(path: string): WhisperLibrary {
  const library = koffi.load(path);
  const versions = ['assay_audio_version', 'assay_audio_opus_version'].map((name) =>
    versionOf(library, name),
  );
  if (versions[0] !== MINIAUDIO || versions[1] !== LIBOPUS)
    throw new LlamaLibraryError(
      `libwhisper has miniaudio ${versions[0]} and ${versions[1]}, expected ${MINIAUDIO} and ${LIBOPUS}: make native`,
    );
  const run = library.func('assay_audio_transcribe', 'int32', TRANSCRIBE_TYPES);
  const decode = library.func('assay_audio_decode', 'int64', [POINTER, 'size_t', POINTER, 'uint64']);
  const opus = library.func('assay_audio_opus', 'int64', OPUS_TYPES);
  const open = library.func('assay_audio_open', POINTER, [POINTER, 'size_t']);
  const ofContext = (name: string, result: string) => library.func(name, result, [POINTER]);
  const ofSegment = (name: string, result: string) => library.func(name, result, [POINTER, 'int32']);
  const ofToken = (name: string, result: string) => library.func(name, result, [POINTER, 'int32', 'int32']);
  const languageId = library.func('whisper_lang_id', 'int32', ['str']);
  const languageName = library.func('whisper_lang_str', 'str', ['int32']);
  const multilingual = ofContext('whisper_is_multilingual', 'int32');
  const found = ofContext('whisper_full_lang_id', 'int32');
  const endOfText = ofContext('whisper_token_eot', 'int32');
  const segments = ofContext('whisper_full_n_segments', 'int32');
  const [t0, t1] = ['t0', 't1'].map((end) => ofSegment(`whisper_full_get_segment_${end}`, 'int64'));
  const text = ofSegment('whisper_full_get_segment_text', 'str');
  const noSpeech = ofSegment('whisper_full_get_segment_no_speech_prob', 'float');
  const tokens = ofSegment('whisper_full_n_tokens', 'int32');
  const tokenId = ofToken('whisper_full_get_token_id', 'int32');
  const tokenP = ofToken('whisper_full_get_token_p', 'float');
  const tokenText = ofToken('whisper_full_get_token_text', POINTER);
  const [w0, w1] = ['t0', 't1'].map((end) => ofToken(`whisper_full_get_token_${end}`, 'int64'));
  const length = koffi.load(null).func('strlen', 'size_t', [POINTER]);
  return {
    open(bytes, size) {
      const context: unknown = open(bytes, size);
      return typeof context === 'bigint' && context !== 0n ? context : null;
    },
    decode: (bytes, samples, capacity) => beside(decode, bytes, bytes.length, samples, capacity),
    decodeOpus: ({ packets, sizes, gain }, { skip, frames, samples }) =>
      beside(opus, packets, packets.length, sizes, sizes.length, gain, skip, samples, frames),
    transcribe: (context, call) =>
      beside(
        run,
        context,
        call.samples,
        call.count,
        call.threads,
        (call.translate ? 1 : 0) + (call.words ? 2 : 0),
        call.temperature,
        call.fallback,
        call.language,
        call.prompt,
        call.stop,
        call.onSegment,
      ),
    isMultilingual: (context) => Number(multilingual(context)) === 1,
    languageId: (name) => Number(languageId(name)),
    languageName: (id) => String(languageName(id) ?? ''),
    foundLanguage: (context) => Number(found(context)),
    endOfText: (context) => Number(endOfText(context)),
    segments: (context) => Number(segments(context)),
    segmentTimes: (context, segment) => [Number(t0?.(context, segment)), Number(t1?.(context, segment))],
    segmentText: (context, segment) => String(text(context, segment) ?? ''),
    noSpeech: (context, segment) => Number(noSpeech(context, segment)),
    tokens: (context, segment) => Number(tokens(context, segment)),
    tokenId: (context, segment, token) => Number(tokenId(context, segment, token)),
    tokenProbability: (context, segment, token) => Number(tokenP(context, segment, token)),
    tokenBytes(context, segment, token) {
      const bytes: unknown = tokenText(context, segment, token);
      if (typeof bytes !== 'bigint' || bytes === 0n) return Buffer.alloc(0);
      return Buffer.from(Buffer.from(koffi.view(bytes, Number(length(bytes)))));
    },
    tokenTimes: (context, segment, token) => [
      Number(w0?.(context, segment, token)),
      Number(w1?.(context, segment, token)),
    ],
  };
}

/** `none` of a library that has no such function. */
function versionOf(library: ReturnType<typeof koffi.load>, name: string): string {
  try {
    return String(library.func(name, 'str', [])());
  } catch {
    return 'none';
  }
}

/** On koffi's worker thread. */
function beside(
  call: ReturnType<ReturnType<typeof koffi.load>['func']>,
  ...given: unknown[]
): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...given, (error: Error | null, result: unknown) => {
      if (error === null) resolve(Number(result));
      else reject(error);
    });
  });
}

/** A function of C that calls `listener`, on this thread. */
export function listenerAddress(listener: () => void): Pointer {
  return koffi.register(listener, koffi.pointer(koffi.proto('void', [])));
}

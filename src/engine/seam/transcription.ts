// A transcription as server and audio child both know it: the request, whose sound file travels as the raw
// part of its frame, and the events of its answer. Codes of refusals: 400 `invalid_audio` (no file of a kind
// that is read), 400 `audio_too_long`.

/** Frames in a second of what whisper hears. */
export const SAMPLE_RATE = 16_000;
/** Longest sound of one request, in seconds. */
export const MAX_AUDIO_SECONDS = 3600;

export interface TranscribeRequest {
  /** The file as it was sent. */
  readonly audio: Uint8Array;
  /** Sounds of different scopes (an opaque per-API-key salt) are heard in turn. */
  readonly scope?: string | undefined;
  /** Into English instead of its own language. */
  readonly translate: boolean;
  /** ISO 639-1; absent: found out. */
  readonly language?: string | undefined;
  /** Text that comes before it: names, spelling, style. */
  readonly prompt?: string | undefined;
  readonly temperature: number;
  /** Whether a passage that fails is tried again at higher temperatures. */
  readonly fallback: boolean;
  /** Whether words get their times. */
  readonly words: boolean;
}

/** As a frame's JSON part carries it. */
export type WireTranscription = Omit<TranscribeRequest, 'audio'>;

export interface TimedWord {
  readonly word: string;
  /** Seconds. */
  readonly start: number;
  readonly end: number;
}

export interface TranscribedSegment {
  /** Seconds. */
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly tokens: readonly number[];
  /** Mean over its tokens. */
  readonly averageLogprob: number;
  /** Probability that there was no speech. */
  readonly noSpeech: number;
  readonly words: readonly TimedWord[];
}

export type TranscribeEvent =
  /** Once, first: the file was read. */
  | { readonly kind: 'start'; readonly seconds: number }
  | { readonly kind: 'segment'; readonly segment: TranscribedSegment }
  /** Once, last. */
  | { readonly kind: 'done'; readonly language: string };

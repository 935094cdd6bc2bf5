// One sound after the other through one whisper model, those of different callers in turn: decoded, heard,
// and told segment by segment. A request that is cancelled while it waits is gone at once; one that is being
// heard ends at whisper's next question whether to go on. After each request its samples are given back to
// the system.

import { ApiError } from '../../../base/errors.ts';
import {
  MAX_AUDIO_SECONDS,
  SAMPLE_RATE,
  type TimedWord,
  type TranscribedSegment,
  type TranscribeEvent,
  type WireTranscription,
} from '../../seam/transcription.ts';
import type { Pointer } from '../llama/declarations.ts';
import { nativeAlloc } from '../llama/library.ts';
import { decodeSound } from './files/sound.ts';
import { listenerAddress, type WhisperLibrary } from './library.ts';
import { reserve } from './memory.ts';
import { CallerTurns } from './caller-turns.ts';

/** Added at each attempt, as other programs with whisper do. */
const FALLBACK = 0.2;
const CAPACITY = MAX_AUDIO_SECONDS * SAMPLE_RATE;

export interface TranscriberOptions {
  readonly library: WhisperLibrary;
  readonly context: Pointer;
  readonly threads: number;
  readonly maxQueued: number;
  readonly onEvent: (id: number, event: TranscribeEvent) => void;
  readonly onError: (id: number, error: unknown) => void;
}

interface Job {
  readonly id: number;
  readonly scope: string;
  readonly request: WireTranscription;
  readonly audio: Uint8Array;
}

export class Transcriber {
  readonly #options: TranscriberOptions;
  readonly #waiting = new CallerTurns<Job>();
  readonly #samples = reserve(CAPACITY * 4);
  readonly #stop = nativeAlloc(8);
  readonly #stopByte = new Uint8Array(this.#stop.memory);
  readonly #onSegment: Pointer;
  #running: Job | undefined;
  /** Segments of the running job that were told. */
  #told = 0;
  /** Called when the running job has ended. */
  #ended: (() => void)[] = [];

  constructor(options: TranscriberOptions) {
    this.#options = options;
    this.#onSegment = listenerAddress(() => this.#tell());
  }

  get waiting(): number {
    return this.#waiting.count;
  }

  get active(): number {
    return this.#running === undefined ? 0 : 1;
  }

  add(job: Job): void {
    if (this.#running !== undefined && this.#waiting.count >= this.#options.maxQueued)
      throw new ApiError('engine_overloaded', 'the queue of this model is full', { retryAfterSeconds: 1 });
    this.#waiting.add(job);
    if (this.#running === undefined) void this.#work();
  }

  /** `dropped` is called once it is gone. */
  cancel(id: number, dropped: () => void): void {
    this.#waiting.remove(id);
    if (this.#running?.id !== id) return dropped();
    this.#stopByte[0] = 1;
    this.#ended.push(dropped);
  }

  async #work(): Promise<void> {
    for (let job = this.#waiting.next(); job !== undefined; job = this.#waiting.next()) {
      this.#running = job;
      this.#told = 0;
      this.#stopByte[0] = 0;
      try {
        await this.#transcribe(job);
      } catch (error) {
        if (this.#stopByte[0] === 0) this.#options.onError(job.id, error);
      }
      this.#samples.forget();
      this.#running = undefined;
      for (const ended of this.#ended.splice(0)) ended();
    }
  }

  async #transcribe({ id, request, audio }: Job): Promise<void> {
    const { library, context, threads, onEvent } = this.#options;
    const language = this.#languageOf(request);
    const count = await decodeSound(library, audio, this.#samples.pointer, CAPACITY);
    if (this.#stopByte[0] === 1) return;
    onEvent(id, { kind: 'start', seconds: count / SAMPLE_RATE });
    const result = await library.transcribe(context, {
      samples: this.#samples.pointer,
      count,
      threads,
      translate: request.translate,
      words: request.words,
      temperature: request.temperature,
      fallback: request.fallback ? FALLBACK : 0,
      language,
      prompt: request.prompt ?? null,
      stop: this.#stop.pointer,
      onSegment: this.#onSegment,
    });
    if (this.#stopByte[0] === 1) return;
    if (result !== 0) throw new Error('whisper.cpp ended with an error');
    this.#tell();
    onEvent(id, { kind: 'done', language: language ?? this.#heardLanguage() });
  }

  #languageOf({ language, translate }: WireTranscription): string | null {
    const { library, context } = this.#options;
    const multilingual = library.isMultilingual(context);
    if (!multilingual && translate)
      throw new ApiError('wrong_model_type', 'this model hears English only; it translates nothing', {
        param: 'model',
      });
    if (language === undefined) return multilingual ? null : 'en';
    if (library.languageId(language) < 0 || (!multilingual && language !== 'en'))
      throw new ApiError('invalid_value', 'language is none that this model hears', { param: 'language' });
    return language;
  }

  #heardLanguage(): string {
    const { library, context } = this.#options;
    return library.languageName(library.foundLanguage(context));
  }

  /** Everything that was heard and not told yet. */
  #tell(): void {
    const job = this.#running;
    if (job === undefined) return;
    const { library, context, onEvent } = this.#options;
    for (const count = library.segments(context); this.#told < count; this.#told++)
      onEvent(job.id, { kind: 'segment', segment: this.#segment(this.#told, job.request.words) });
  }

  #segment(segment: number, words: boolean): TranscribedSegment {
    const { library, context } = this.#options;
    const endOfText = library.endOfText(context);
    const [from, to] = library.segmentTimes(context, segment);
    const start = Math.max(0, from) / 100;
    const all = Array.from({ length: library.tokens(context, segment) }, (_, i) => i);
    const texts = all.filter((i) => library.tokenId(context, segment, i) < endOfText);
    const logprobs = texts.map((i) => Math.log(library.tokenProbability(context, segment, i) || 1e-10));
    return {
      start,
      end: Math.max(start, to / 100),
      text: library.segmentText(context, segment),
      tokens: all.map((i) => library.tokenId(context, segment, i)),
      averageLogprob: logprobs.reduce((sum, each) => sum + each, 0) / Math.max(1, logprobs.length),
      noSpeech: library.noSpeech(context, segment),
      words: words
        ? wordsOf(
            texts.map((i) => ({
              bytes: library.tokenBytes(context, segment, i),
              times: library.tokenTimes(context, segment, i),
            })),
          )
        : [],
    };
  }
}

interface TimedToken {
  readonly bytes: Buffer;
  /** Hundredths of a second. */
  readonly times: readonly [number, number];
}

/** A token that begins with a space begins a word. */
export function wordsOf(tokens: readonly TimedToken[]): readonly TimedWord[] {
  const groups: TimedToken[][] = [];
  for (const token of tokens) {
    const last = groups.at(-1);
    if (last === undefined || token.bytes[0] === 0x20) groups.push([token]);
    else last.push(token);
  }
  const words: TimedWord[] = [];
  for (const group of groups) {
    const word = Buffer.concat(group.map(({ bytes }) => bytes))
      .toString()
      .trim();
    const start = Math.max(0, group[0]?.times[0] ?? 0, (words.at(-1)?.start ?? 0) * 100) / 100;
    const end = Math.max(start, (group.at(-1)?.times[1] ?? 0) / 100);
    if (word !== '') words.push({ word, start, end });
  }
  return words;
}

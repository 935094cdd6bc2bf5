// The five forms of an answer, and its events, as the OpenAI API has them. Usage is in seconds of sound.

import { deflateSync } from 'node:zlib';
import type { TranscribedSegment } from '../../engine/seam/transcription.ts';
import { srtOf, vttOf } from './subtitles.ts';
import type { AudioFormat } from './wire.ts';

export interface Heard {
  readonly seconds: number;
  readonly language: string;
  readonly segments: readonly TranscribedSegment[];
}

export interface AnswerForm {
  readonly format: AudioFormat;
  readonly task: 'transcribe' | 'translate';
  readonly temperature: number;
  readonly words: boolean;
  readonly segments: boolean;
}

/** JSON, or text. */
export function transcriptOf(heard: Heard, form: AnswerForm): object | string {
  const { segments } = heard;
  switch (form.format) {
    case 'text':
      return `${spokenText(segments)}\n`;
    case 'srt':
      return srtOf(segments);
    case 'vtt':
      return vttOf(segments);
    case 'verbose_json':
      return verbose(heard, form);
    case 'json':
      return { text: spokenText(segments), usage: secondsUsed(heard) };
  }
}

export function spokenText(segments: readonly TranscribedSegment[]): string {
  return segments
    .map(({ text }) => text)
    .join('')
    .trim();
}

export function secondsUsed({ seconds }: Pick<Heard, 'seconds'>): object {
  return { type: 'duration', seconds: Math.ceil(seconds) };
}

function verbose(heard: Heard, form: AnswerForm): object {
  const { seconds, language, segments } = heard;
  return {
    task: form.task,
    language: nameOf(language),
    duration: rounded(seconds),
    text: spokenText(segments),
    words: form.words ? segments.flatMap(({ words }) => words) : undefined,
    segments: form.segments ? segments.map((each, id) => segmentOf(each, id, form.temperature)) : undefined,
    usage: secondsUsed(heard),
  };
}

function segmentOf(segment: TranscribedSegment, id: number, temperature: number): object {
  const { start, end, text, tokens, averageLogprob, noSpeech } = segment;
  const bytes = Buffer.from(text);
  return {
    id,
    seek: Math.floor(start * 100),
    start,
    end,
    text,
    tokens,
    temperature,
    avg_logprob: averageLogprob,
    compression_ratio: bytes.length / deflateSync(bytes).length,
    no_speech_prob: noSpeech,
  };
}

/** `english` for `en`: the API gives names. */
function nameOf(language: string): string {
  try {
    return new Intl.DisplayNames('en', { type: 'language' }).of(language)?.toLowerCase() ?? language;
  } catch {
    return language;
  }
}

function rounded(seconds: number): number {
  return Math.round(seconds * 100) / 100;
}

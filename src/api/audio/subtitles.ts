// Segments as subtitles: SubRip (srt) and WebVTT (W3C). In both an empty line ends a cue and `-->` is its
// time line, so the text of a segment has neither.

import type { TranscribedSegment } from '../../engine/seam/transcription.ts';

type Cue = Pick<TranscribedSegment, 'start' | 'end' | 'text'>;

export function srtOf(segments: readonly Cue[]): string {
  return segments
    .map((cue, i) => `${i + 1}\n${stamp(cue.start, ',')} --> ${stamp(cue.end, ',')}\n${lineOf(cue)}\n\n`)
    .join('');
}

export function vttOf(segments: readonly Cue[]): string {
  const cues = segments.map(
    (cue) => `${stamp(cue.start, '.')} --> ${stamp(cue.end, '.')}\n${escaped(lineOf(cue))}\n\n`,
  );
  return `WEBVTT\n\n${cues.join('')}`;
}

/** Hours have two digits at least. */
function stamp(seconds: number, point: ',' | '.'): string {
  const all = Math.round(Math.max(0, seconds) * 1000);
  const pad = (value: number, digits: number): string => String(Math.floor(value)).padStart(digits, '0');
  const [hours, minutes, rest] = [all / 3_600_000, (all / 60_000) % 60, all % 60_000];
  return `${pad(hours, 2)}:${pad(minutes, 2)}:${pad(rest / 1000, 2)}${point}${pad(rest % 1000, 3)}`;
}

function lineOf({ text }: Cue): string {
  return text.replaceAll(/\s+/g, ' ').trim().replaceAll('-->', '->');
}

/** WebVTT cue text is markup. */
function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

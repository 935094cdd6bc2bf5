// Any accepted file to the samples that whisper hears: Ogg and WebM are read here, and libopus gets their
// packets; the rest is for miniaudio, which tells WAV, MP3 and FLAC apart. All by content, whatever a file is
// named. No sample leaves here that is not a number from -1 to 1.

import { SAMPLE_RATE } from '../../../seam/transcription.ts';
import type { Pointer } from '../../llama/declarations.ts';
import type { WhisperLibrary } from '../library.ts';
import { samplesAt } from '../memory.ts';
import { isOgg, readOgg } from './ogg.ts';
import { OPUS_RATE, type OpusSound } from './opus.ts';
import { noSound, tooLong } from './refusals.ts';
import { isWebm, readWebm } from './webm.ts';

/** Writes mono samples of 16 kHz, and gives their number. Throws ApiError invalid_audio or audio_too_long. */
export async function decodeSound(
  library: Pick<WhisperLibrary, 'decode' | 'decodeOpus'>,
  file: Uint8Array,
  samples: Pointer,
  capacity: number,
): Promise<number> {
  const count = await decoded(library, file, samples, capacity);
  limitSamples(samplesAt(samples, count));
  return count;
}

async function decoded(
  library: Pick<WhisperLibrary, 'decode' | 'decodeOpus'>,
  file: Uint8Array,
  samples: Pointer,
  capacity: number,
): Promise<number> {
  if (isOgg(file)) return decodeOpus(library, readOgg(file), samples, capacity);
  if (isWebm(file)) return decodeOpus(library, readWebm(file), samples, capacity);
  if (isMpeg4(file)) throw noSound('M4A and MP4 are not among those that are read');
  const count = await library.decode(file, samples, capacity);
  if (count === -2) throw tooLong();
  if (count <= 0) throw noSound('it is of none of those that are read, or empty');
  return count;
}

async function decodeOpus(
  library: Pick<WhisperLibrary, 'decodeOpus'>,
  sound: OpusSound,
  samples: Pointer,
  capacity: number,
): Promise<number> {
  const frames = Math.round((sound.frames * SAMPLE_RATE) / OPUS_RATE);
  if (frames > capacity) throw tooLong();
  if (frames === 0) throw noSound('nothing of it is to be heard');
  const skip = Math.round((sound.skip * SAMPLE_RATE) / OPUS_RATE);
  const count = await library.decodeOpus(sound, { skip, frames, samples });
  if (count <= 0) throw noSound('a packet of its Opus stream is broken');
  return count;
}

/**
 * Files of floats, and loud heads of Opus, give any value. One that is no number is no sound, and those
 * beyond the range are cut as loudspeakers do: with either, whisper.cpp would end the process and with it
 * every request that waits.
 */
function limitSamples(samples: Float32Array): void {
  for (let i = 0; i < samples.length; i++) {
    const value = samples[i] ?? 0;
    if (value >= -1 && value <= 1) continue;
    if (Number.isNaN(value)) throw noSound('some of its samples are no numbers');
    samples[i] = value > 1 ? 1 : -1;
  }
}

/** ISO 14496-12: the first box is that of the file's type. */
function isMpeg4(file: Uint8Array): boolean {
  return Buffer.from(file.subarray(4, 8)).toString('latin1') === 'ftyp';
}

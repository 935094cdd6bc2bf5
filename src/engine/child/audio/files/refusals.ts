// The refusals of sound files, each a 400 that names the parameter `file`: what is wrong with this one, and
// which are accepted. No byte of the file is quoted.

import { ApiError } from '../../../../base/errors.ts';
import { MAX_AUDIO_SECONDS } from '../../../seam/transcription.ts';

const ACCEPTED = 'accepted are WAV, MP3, FLAC, and Opus in Ogg or WebM, told by content';

/** `why`: as in "its first page is not whole". */
export function noSound(why: string): ApiError {
  return new ApiError('invalid_audio', `the file cannot be read as sound: ${why}; ${ACCEPTED}`, {
    param: 'file',
  });
}

export function tooLong(): ApiError {
  return new ApiError('audio_too_long', `the sound is longer than ${MAX_AUDIO_SECONDS} seconds`, {
    param: 'file',
  });
}

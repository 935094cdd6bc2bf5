// Hides the length of streamed text: every event of a stream is as long as the others, unless its text is
// longer than a slot; then it is whole slots longer. The filler goes into the `obfuscation` field that
// OpenAI's clients already ignore. The number of events and their times stay visible (docs/api.md).

import { randomBytes } from 'node:crypto';

/** Bytes of text, tool call framing or logprobs one event holds before it becomes longer than the others. */
const SLOT = 128;

/** The same of an event that repeats a whole text: coarser, so that it tells little of the length. */
export const WHOLE = 1024;

export interface Padding {
  /**
   * An event's JSON object → the same object with filler. `unit`: bytes of a slot; `beside`: bytes of the
   * event outside its JSON.
   */
  pad(json: string, unit?: number, beside?: number): string;
}

/** `baseBytes`: length of this stream's event with an empty text. */
export function createPadding(baseBytes: number): Padding {
  // Not compressible, so that a proxy that compresses does not undo it. The letters carry no information.
  const filler = randomBytes((SLOT * 3) / 4 + 48).toString('base64url');
  return {
    pad(json, unit = SLOT, beside = 0) {
      const bytes = Buffer.byteLength(json) + beside;
      const slots = Math.max(1, Math.ceil((bytes - baseBytes) / unit));
      const missing = baseBytes + slots * unit - bytes;
      // An event shorter than the base (a finish chunk) is at most a slot short of it.
      const text =
        missing <= filler.length
          ? filler.slice(0, missing)
          : filler.repeat(Math.ceil(missing / filler.length)).slice(0, missing);
      return `${json.slice(0, -1)},"obfuscation":"${text}"}`;
    },
  };
}

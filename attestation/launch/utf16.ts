// UTF-16LE, which UEFI's texts are in.

import { viewOf } from '../encoding/bytes.ts';

/** Two bytes per character, without a mark and without a NUL of its own. */
export function utf16(text: string): Uint8Array {
  const bytes = new Uint8Array(2 * text.length);
  const view = viewOf(bytes);
  for (let i = 0; i < text.length; i++) view.setUint16(2 * i, text.charCodeAt(i), true);
  return bytes;
}

// The built console beside this package's code, for the server and the local proxy: the same bytes. It is
// made by `make build` (image/console.ts), and carried inside the executable of one file.

import { readFile } from 'node:fs/promises';
import { type ConsolePage, consolePage } from '../console/headers.ts';
import { utf8 } from '../encoding/bytes.ts';
import { AttestationError } from '../transcript/errors.ts';

export type { ConsolePage } from '../console/headers.ts';

/** Set in the executable of one file (image/client.ts). */
declare const ASSAY_CONSOLE: string | undefined;

/** Of compiled files, of sources, and of the image's bundles in dist/src/…/. */
const PLACES = ['../console.html', '../dist/console.html', '../../../attestation/dist/console.html'];

/**
 * Reads the page that this package was built with.
 * @throws AttestationError `internal` where it was not built
 * @example const { html, sha256, headers } = await readConsolePage();
 */
export async function readConsolePage(): Promise<ConsolePage> {
  if (typeof ASSAY_CONSOLE === 'string') return consolePage(utf8(ASSAY_CONSOLE));
  for (const place of PLACES) {
    const html = await readFile(new URL(place, import.meta.url)).catch(() => undefined);
    if (html !== undefined) return consolePage(new Uint8Array(html));
  }
  throw new AttestationError('internal', 'internal', 'console.html is not beside the package: make build');
}

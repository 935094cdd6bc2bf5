// GET /: the console, a page that judges this server's evidence and seals to its key (docs/console.md). The
// same bytes as the local proxy serves; open, since it holds no data of this server.

import type { ConsolePage } from '@assay/attestation/console';
import { route } from '../http/route.ts';

/** Undefined: `api.console` is off, and `/` is no path of this server. */
export function consoleRoutes(page: ConsolePage | undefined) {
  if (page === undefined) return [];
  const bytes = Buffer.from(page.html);
  return [
    route({
      method: 'GET',
      path: '/',
      access: 'open',
      unsealedOnly: true,
      summary: 'The console: a page that judges evidence, and talks to what it accepts.',
      tag: 'Attestation',
      bytes: 'text/html',
      async handle({ reply }) {
        reply.headers(page.headers);
        return bytes;
      },
    }),
  ];
}

// Where the repository is, from the sources as well as from dist/.

import { fileURLToPath } from 'node:url';

export const TOP = fileURLToPath(
  new URL(import.meta.url.includes('/dist/image/') ? '../../' : '../', import.meta.url),
);

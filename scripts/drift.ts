// Regenerates what is generated and says what differs from the tree. Run by `make drift`; each
// generator knows `--check`.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('..', import.meta.url));
const GENERATORS = [
  'scripts/tcb.ts',
  'scripts/formats.ts',
  'scripts/openapi.ts',
  'scripts/configuration.ts',
  'scripts/reading-paths.ts',
  'scripts/reference.ts',
  'scripts/catalog.ts',
  'scripts/proofs.ts',
];

let failed = 0;
for (const generator of GENERATORS) {
  const { status } = spawnSync(process.execPath, ['--import', 'tsx', generator, '--check'], {
    cwd: top,
    stdio: 'inherit',
  });
  if (status !== 0) failed += 1;
  console.log(`${status === 0 ? 'ok   ' : 'drift'} ${generator}`);
}
process.exitCode = failed === 0 ? 0 : 1;

// The simulation is loaded by one import, and only when it is asked for. (A build without it:
// cli/wrong-start.)

import { expect, test } from 'vitest';
import { closureOf, importsOf, sourcesBelow } from '../../../scripts/closures.ts';

test('nothing the server loads at its start holds the simulation; one import does, when it is asked for', () => {
  const atStart = closureOf('src/cli/serve.ts', { dynamic: false });
  expect(atStart.filter((file) => file.includes('simulated'))).toEqual([]);
  const importers = sourcesBelow('src').flatMap((file) =>
    importsOf(file)
      .filter(({ file: target, kind }) => kind !== 'type' && /simulated/.test(target ?? ''))
      .map(({ kind }) => `${file}: ${kind}`),
  );
  expect(importers).toEqual([
    'src/attester/gpu/simulated.ts: value',
    'src/attester/simulated.ts: value',
    'src/attester/simulated.ts: value',
    'src/start/tee.ts: dynamic',
  ]);
});

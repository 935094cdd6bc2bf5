// Options of `assay serve` that are refused before anything starts.

import { expect, test } from 'vitest';
import { serveCommand } from '../../../src/cli/serve.ts';

test('a key on the command line is refused, with the way keys are given, and not repeated', async () => {
  const error = await serveCommand(['--api-key', 'sk-secret']).then(
    () => null,
    (reason: unknown) => reason as Error,
  );
  expect(error?.name).toBe('UsageError');
  expect(error?.message).toContain('assay api-key add NAME');
  expect(error?.message).not.toContain('sk-secret');
});

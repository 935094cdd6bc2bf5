// Batches over a restart of the server.

import { afterEach, expect, test } from 'vitest';
import { DEFAULT_CONFIG } from '../../../../src/http/deps.ts';
import {
  begun,
  chatLine,
  ended,
  type FilesApi,
  linesOf,
  startFilesApi,
  turn,
} from '../../../fixtures/files/files-api.ts';
import type { ApiServerOptions } from '../../../fixtures/http/api-server.ts';
import { latch, untilAborted } from '../../../fixtures/latch.ts';

let files: FilesApi | undefined;
afterEach(async () => {
  await files?.close();
  files = undefined;
});

test('a server that stops and starts again goes on with a batch, and answers each line once', async () => {
  const gate = latch();
  let over = 0;
  const stuck: ApiServerOptions = {
    engine: {
      beforeToken: async (_position, signal) => {
        over += 1;
        if (over > 8) await Promise.race([gate.opened, untilAborted(signal)]);
      },
    },
    config: { files: { ...DEFAULT_CONFIG.files, batchConcurrency: 2 } },
  };
  const first = await startFilesApi(stuck);
  const made = await begun(
    first.client(),
    ['a', 'b', 'c', 'd'].map((each) => chatLine(each)),
  );
  while (over <= 8) await turn();
  files = await first.again({});
  const client = files.client();
  const batch = await ended(client, made.id);
  expect(batch).toMatchObject({
    status: 'completed',
    request_counts: { total: 4, completed: 4, failed: 0 },
  });
  expect(batch.usage).toMatchObject({ output_tokens: 16 });
  const lines = await linesOf(client, batch.output_file_id);
  expect(lines.map((line) => line.custom_id).toSorted()).toEqual(['a', 'b', 'c', 'd']);
});

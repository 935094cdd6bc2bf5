// Ids of answers come from a page of random bytes at a time; no byte is given twice.

import { expect, test } from 'vitest';
import { startApi } from '../../fixtures/http/api-server.ts';

test('ids of many answers, over several pages of random bytes, are all different', async () => {
  const api = await startApi();
  const ids: string[] = [];
  // A page has the bytes of 256 ids.
  for (let i = 0; i < 600; i += 1) {
    const answer = await fetch(`${api.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'demo', messages: [{ role: 'user', content: 'hello' }] }),
    });
    ids.push(((await answer.json()) as { readonly id: string }).id);
  }
  await api.close();
  expect(ids.every((id) => /^chatcmpl-[0-9a-f]{32}$/.test(id))).toBe(true);
  // Halves too: two ids that overlap would share one.
  const halves = ids.flatMap((id) => [id.slice(9, 25), id.slice(25)]);
  expect(new Set(halves).size).toBe(1200);
});

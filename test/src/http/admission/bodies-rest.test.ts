// The rest of a refused body is read before its answer, as far as it is small and comes soon.

import { PassThrough } from 'node:stream';
import { expect, test, vi } from 'vitest';
import { dropRest } from '../../../../src/http/admission/bodies.ts';

test('resolves at the end of the body, of which nothing is kept', async () => {
  const body = new PassThrough();
  const dropped = dropRest(body);
  for (let i = 0; i < 64; i++)
    if (!body.write(Buffer.alloc(64 * 1024))) await new Promise((go) => body.once('drain', go));
  body.end();
  await dropped;
  expect([body.readableEnded, body.readableLength]).toEqual([true, 0]);
  // To ask once more takes no time.
  await dropRest(body);
});

test('of a body that is larger than is waited for, the rest is dropped later', async () => {
  const body = new PassThrough();
  body.write(Buffer.alloc(5000));
  await dropRest(body, { bytes: 4096 });
  expect(body.readableEnded).toBe(false);
  body.end(Buffer.alloc(10_000));
  await new Promise((resolve) => body.once('end', resolve));
  expect(body.readableLength).toBe(0);
});

test.each(['close', 'error'] as const)('one that ends with %s is over', async (how) => {
  const body = new PassThrough();
  body.on('error', () => undefined);
  const dropped = dropRest(body);
  body.destroy(how === 'error' ? new Error('reset') : undefined);
  await dropped;
  expect(body.listenerCount('data')).toBe(0);
});

test('one that stops coming is not waited for longer than its time', async () => {
  vi.useFakeTimers();
  try {
    const body = new PassThrough();
    let over = false;
    const dropped = dropRest(body, { ms: 5000 }).then(() => (over = true));
    await vi.advanceTimersByTimeAsync(4999);
    expect(over).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await dropped;
    expect(over).toBe(true);
  } finally {
    vi.useRealTimers();
  }
});

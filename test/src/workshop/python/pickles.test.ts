// The operator's switch for pickles fails closed: without the barriers no workshop starts with it, and no job
// that would read one runs.

import { afterAll, beforeAll, expect, test } from 'vitest';
import { PythonEnvironment } from '../../../../src/workshop/python/environment.ts';
import { crossKind, litertKind } from '../../../../src/workshop/python/kinds.ts';
import { assertPickles, PICKLE_BARRIERS } from '../../../../src/workshop/python/pickles.ts';
import { openJobs, scratch } from '../../../fixtures/workshop/kinds.ts';

let folder: ReturnType<typeof scratch>;
beforeAll(() => {
  folder = scratch();
});
afterAll(() => folder.remove());

test.each(PICKLE_BARRIERS)('without the barrier %s a workshop that allows them does not start', (gone) => {
  const barriers = PICKLE_BARRIERS.filter((each) => each !== gone);
  expect(() => assertPickles('jail', { barriers })).toThrow(
    expect.objectContaining({ key: 'workshop.pickles', message: expect.stringContaining(gone) }) as Error,
  );
  expect(() => assertPickles('refuse', { barriers: [] })).not.toThrow();
  expect(() => assertPickles('jail', { barriers: PICKLE_BARRIERS })).not.toThrow();
});

test('the parameter that is signed is there only where they are allowed', () => {
  const python = new PythonEnvironment({ folder: '/nonexistent' });
  for (const pickles of [true, false]) {
    const cross = crossKind(python, { pickles }).plan({ path: 'pytorch_to_onnx', input_path: 'a' });
    const litert = litertKind(python, { pickles }).plan({ model_path: 'a' });
    for (const { parameters } of [cross, litert])
      expect(parameters['pickles']).toBe(pickles ? 'jail' : undefined);
  }
});

test('no job runs without the jail', async () => {
  const python = new PythonEnvironment({ folder: '/nonexistent' });
  const kind = { ...crossKind(python, { pickles: true }), missing: () => Promise.resolve(null) };
  const jobs = await openJobs(folder.path, [kind], { modes: ['none'] });
  const plan = kind.plan({ path: 'pytorch_to_safetensors', input_path: 'a' });
  await expect(jobs.submit('me', kind, plan)).rejects.toMatchObject({ code: 'confinement_missing' });
  await jobs.close();
});

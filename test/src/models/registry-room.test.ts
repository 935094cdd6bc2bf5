// As many models as evidence can name, and no more: a verifier refuses a longer list, and so the server.

import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();
const MOST = 256;

test('a model too many is refused before the store has it, and none that is there is lost', async () => {
  const path = join(fixture.roots, 'few.gguf');
  copyFileSync(join(fixture.roots, 'chat.gguf'), path);
  for (let i = 0; i < MOST - 1; i += 1) await fixture.models.add({ id: `m${i}`, path }, signal);
  await fixture.models.register({ name: 'last', path });
  await expect(fixture.models.register({ name: 'more', path })).rejects.toMatchObject({
    code: 'too_many_models',
    status: 409,
    param: 'name',
  });
  await expect(fixture.models.add({ id: 'more', path }, signal)).rejects.toMatchObject({
    code: 'too_many_models',
  });
  expect(fixture.models.registry.attested()).toHaveLength(MOST);
  await fixture.models.register({ name: 'last', path });
  await fixture.models.remove('last');
  await fixture.models.register({ name: 'more', path });
  expect(await fixture.restart()).toEqual([]);
  expect(fixture.models.list().map(({ id }) => id)).toEqual(['more']);
});

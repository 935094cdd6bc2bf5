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

test('two at once for the last place: one has it, the other is refused and leaves nothing', async () => {
  const path = join(fixture.roots, 'few.gguf');
  copyFileSync(join(fixture.roots, 'chat.gguf'), path);
  for (let i = 0; i < MOST - 1; i += 1) await fixture.models.add({ id: `m${i}`, path }, signal);
  const names = ['a', 'b', 'c', 'd'];
  const asked = await Promise.allSettled(names.map((name) => fixture.models.register({ name, path })));
  const refused = asked.flatMap((each) => (each.status === 'rejected' ? [each.reason as unknown] : []));
  expect(refused).toHaveLength(3);
  for (const reason of refused) expect(reason).toMatchObject({ code: 'too_many_models', status: 409 });
  const [last] = fixture.models.list().filter(({ id }) => names.includes(id));
  // A refused one is not in the store: it would come back with the next start, as a model too many.
  expect(await fixture.restart()).toEqual([]);
  expect(fixture.models.list().map(({ id }) => id)).toEqual([last?.id]);
});

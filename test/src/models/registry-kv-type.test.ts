// The type of a model's keys and values: set for it or for all that generate, counted before a load, kept
// over a restart, and refused where the model cannot have it.

import { copyFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { estimateBytes } from '../../../src/models/load.ts';
import { tinyGguf } from '../../fixtures/models/gguf-tiny.ts';
import { demo, signal, useModelService } from '../../fixtures/models/model-service.ts';

const fixture = useModelService();

function at(name: string): string {
  return join(fixture.roots, name);
}

describe('kv_type', () => {
  test('of one model reaches its engine, is listed, and outlives a restart', async () => {
    const registered = await fixture.models.register({ name: 'chat', path: at('chat.gguf'), kvType: 'q8_0' });
    expect(registered).toMatchObject({ kvType: 'q8_0', kind: 'blob' });
    expect(await fixture.restart()).toEqual([]);
    await fixture.models.load('chat', signal);
    expect(fixture.engines[0]?.spec.kvType).toBe('q8_0');
    expect(fixture.models.get('chat')).toMatchObject({ kvType: 'q8_0' });
  });

  test('for all is that of models that generate and set none; it is not written into their manifests', async () => {
    copyFileSync(demo['demo-embed'].path, at('embed.gguf'));
    await fixture.restart({ kvType: 'q8_0' });
    await fixture.models.register({ name: 'chat', path: at('chat.gguf') });
    await fixture.models.register({ name: 'plain', path: at('chat.gguf'), kvType: 'f16' });
    await fixture.models.register({ name: 'embed', path: at('embed.gguf') });
    const types = (): unknown[] =>
      ['chat', 'plain', 'embed'].map((id) => fixture.models.get(id)?.kvType ?? 'unset');
    expect(types()).toEqual(['q8_0', 'f16', 'unset']);
    await fixture.restart();
    expect(types()).toEqual(['unset', 'f16', 'unset']);
  });

  test('is counted before a load: 34 bytes for 64', async () => {
    const path = at('chat.gguf');
    const bytes = async (id: string, kvType: 'f16' | 'q8_0'): Promise<number> =>
      estimateBytes(await fixture.models.add({ id, path, kvType }, signal), 4);
    const [f16, q8] = [await bytes('a', 'f16'), await bytes('b', 'q8_0')];
    expect(f16 - q8).toBe(4 * 1024 * 3072 * (1 - 34 / 64));
  });

  test('that a model cannot have is refused with the reason, for one and for all', async () => {
    writeFileSync(at('tiny.gguf'), tinyGguf());
    copyFileSync(demo['demo-embed'].path, at('embed.gguf'));
    for (const [name, kvType, reason] of [
      ['tiny', 'q8_0', /heads have a width of 16, expected a multiple of 32/],
      ['embed', 'f16', /keeps no keys and values/],
      ['embed', 'q8_0', /keeps no keys and values/],
    ] as const)
      await expect(
        fixture.models.register({ name, path: at(`${name}.gguf`), kvType }),
        `${name} ${kvType}`,
      ).rejects.toMatchObject({
        status: 400,
        code: 'invalid_value',
        param: 'kv_type',
        message: expect.stringMatching(reason) as string,
      });
    expect(
      await fixture.models.register({ name: 'tiny', path: at('tiny.gguf'), kvType: 'f16' }),
    ).toMatchObject({
      kvType: 'f16',
    });
    await fixture.restart({ kvType: 'q8_0' });
    await expect(fixture.models.add({ id: 'other', path: at('tiny.gguf') }, signal)).rejects.toMatchObject({
      param: 'kv_type',
      message: expect.stringContaining('model "other"') as string,
    });
    expect(fixture.models.list().map(({ id }) => id)).toEqual(['tiny']);
  });
});

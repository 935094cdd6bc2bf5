// Layers on devices: the arithmetic of their memory, and what is refused.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { deviceBudget, layerBytes, planLayers } from '../../../../src/engine/child/device-plan.ts';
import { ModelLoadError } from '../../../../src/engine/child/llama/model.ts';
import type { Device } from '../../../../src/engine/seam/backend.ts';
import { LlamaLibraryError } from '../../../../src/engine/seam/library-folder.ts';

function device(freeBytes: number): Device {
  return { name: 'Vulkan0', description: 'a card', totalBytes: 2 * freeBytes, freeBytes };
}

const NEEDS = { weightBytes: 5_000, cacheBytes: 400, layers: 4 };

describe('bytes of layers', () => {
  test.each([
    [0, 0],
    // A fifth of the weights, a quarter of the keys and values.
    [1, 1_100],
    [2, 2_200],
    [4, 4_400],
    // The output layer keeps no keys and values.
    [5, 5_400],
    [99, 5_400],
  ])('%i layers take %i', (count, bytes) => {
    expect(layerBytes(NEEDS, count)).toBe(bytes);
  });

  test('property: never less for more layers, and all of the model in the end', () => {
    const bytes = fc.integer({ min: 0, max: 2 ** 40 });
    const any = fc.record({
      weightBytes: bytes,
      cacheBytes: bytes,
      layers: fc.integer({ min: 0, max: 200 }),
    });
    fc.assert(
      fc.property(any, (model) => {
        const all = Array.from({ length: model.layers + 2 }, (_, count) => layerBytes(model, count));
        expect(all).toEqual(all.toSorted((a, b) => a - b));
        const cache = model.layers === 0 ? 0 : model.cacheBytes;
        expect(all.at(-1)).toBe(model.weightBytes + cache);
      }),
    );
  });
});

test('nine tenths of what is free on each device are for models', () => {
  expect(deviceBudget([])).toBe(0);
  expect(deviceBudget([device(1000), device(15)])).toBe(900 + 13);
});

describe('a plan', () => {
  test('on the CPU is no layer, whatever devices there are', () => {
    expect(planLayers({ kind: 'cpu' }, [device(1e9)], NEEDS)).toBe(0);
  });

  test('all layers without a wish, those wished with one', () => {
    expect(planLayers({ kind: 'vulkan' }, [device(6000)], NEEDS)).toBe(0x7fffffff);
    expect(planLayers({ kind: 'vulkan', layers: 3 }, [device(6000)], NEEDS)).toBe(3);
    expect(planLayers({ kind: 'cuda', layers: 3 }, [device(1)], undefined)).toBe(3);
  });

  test('two devices hold together what neither holds alone', () => {
    expect(() => planLayers({ kind: 'vulkan' }, [device(3001)], NEEDS)).toThrow(ModelLoadError);
    expect(planLayers({ kind: 'vulkan' }, [device(3000), device(3001)], NEEDS)).toBe(0x7fffffff);
  });

  test('property: refused exactly where the layers take more than the devices have for models', () => {
    const model = fc.record({
      weightBytes: fc.integer({ min: 1, max: 10_000 }),
      cacheBytes: fc.integer({ min: 0, max: 10_000 }),
      layers: fc.integer({ min: 1, max: 20 }),
    });
    const free = fc.array(fc.integer({ min: 0, max: 10_000 }), { minLength: 1, maxLength: 3 });
    const layers = fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined });
    fc.assert(
      fc.property(model, free, layers, (model, free, layers) => {
        const devices = free.map(device);
        const plan = (): number => planLayers({ kind: 'vulkan', layers }, devices, model);
        const fits = layerBytes(model, layers ?? Infinity) <= deviceBudget(devices);
        if (fits) expect(plan()).toBe(layers ?? 0x7fffffff);
        else
          expect(plan).toThrow(
            /take \d+ bytes, and the vulkan devices have \d+ for models: engine\.gpu_layers/,
          );
      }),
    );
  });

  test('without a device is refused', () => {
    expect(() => planLayers({ kind: 'cuda' }, [], NEEDS)).toThrow(LlamaLibraryError);
  });
});

// How many layers of a model its devices hold. A device gets what is free on it when the model loads, less a
// part for the buffers of a computation; models loaded before it are no longer free memory, so each model is
// measured against what the others left. Refuses a model that does not fit, because llama.cpp would fail in
// the middle of a load, or later.

import type { Accelerator, Device, ModelNeeds } from '../seam/backend.ts';
import { LlamaLibraryError } from '../seam/library-folder.ts';
import { ModelLoadError } from './llama/model.ts';

/** Of the free memory; the rest is for what a computation needs, and for others on the device. */
const USED_PART = 0.9;

/** llama.cpp's number for all layers, whatever a model has. */
const ALL_LAYERS = 0x7fffffff;

/** Bytes that models may take of the devices together. */
export function deviceBudget(devices: readonly Device[]): number {
  return devices.reduce((sum, { freeBytes }) => sum + Math.floor(freeBytes * USED_PART), 0);
}

/**
 * Bytes of `count` layers: their part of the weights and of the keys and values. The output counts as one
 * more layer, as llama.cpp counts it.
 */
export function layerBytes({ weightBytes, cacheBytes, layers }: ModelNeeds, count: number): number {
  const most = layers + 1;
  const held = Math.min(count, most);
  return Math.ceil(
    (weightBytes * held) / most + (cacheBytes * Math.min(count, layers)) / Math.max(1, layers),
  );
}

/** `n_gpu_layers` for this model. Without known needs (a bare engine) the wish is taken as it is. */
export function planLayers(
  { kind, layers }: Accelerator,
  devices: readonly Device[],
  needs: ModelNeeds | undefined,
): number {
  if (kind === 'cpu') return 0;
  if (devices.length === 0)
    throw new LlamaLibraryError(`the ${kind} build finds no device: is its driver installed and allowed?`);
  const wanted = layers ?? ALL_LAYERS;
  if (needs === undefined) return wanted;
  const [budget, bytes] = [deviceBudget(devices), layerBytes(needs, wanted)];
  if (bytes > budget)
    throw new ModelLoadError(
      `its layers take ${bytes} bytes, and the ${kind} devices have ${budget} for models: engine.gpu_layers puts fewer there`,
    );
  return wanted;
}

// Settings of where models compute. They are measured: a graphics card and its driver get texts and weights.

import { measured, oneOf, whole } from './fields.ts';

export const engineSection = {
  backend: measured(
    oneOf(
      ['cpu', 'vulkan', 'cuda'],
      'where models compute: `cpu`, or graphics cards through another build of llama.cpp, an npm package that is not installed by default (docs/gpu.md)',
      { default: 'cpu' },
    ),
  ),
  gpu_device: measured(
    whole(0, 63, 'index of the only device used, as its driver counts; unset: every graphics card'),
  ),
  gpu_layers: measured(
    whole(1, 10_000, 'layers of a model computed on the devices, the rest on the CPU; unset: all'),
  ),
} as const;

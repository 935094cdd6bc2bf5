// The engine child of this installation, as the commands that load models start it.

import type { Config } from '../config/read.ts';
import type { EngineOptions } from '../engine/open.ts';

export function engineOptions(config: Config): EngineOptions {
  return {
    workerEntry: new URL('../engine/child/worker.js', import.meta.url),
    loadTimeoutMs: config.models.loadTimeoutMs,
    maxQueued: config.limits.maxQueuePerModel,
    accelerator: {
      kind: config.engine.backend,
      device: config.engine.gpuDevice,
      layers: config.engine.gpuLayers,
    },
    drafting: config.models.drafting,
  };
}

// Where a model computes: on the CPU, or on graphics cards through another build of llama.cpp.

export type Backend = 'cpu' | 'vulkan' | 'cuda';

/** A backend as it is configured. */
export interface Accelerator {
  readonly kind: Backend;
  /** Index of the only device used, as its driver counts; absent: every graphics card. */
  readonly device?: number | undefined;
  /** Layers a model has on the devices; absent: all. */
  readonly layers?: number | undefined;
}

/** A device that is not the CPU, as its driver describes it. */
export interface Device {
  readonly name: string;
  readonly description: string;
  readonly totalBytes: number;
  readonly freeBytes: number;
}

/** Memory of a model, for the layers a device has room for; from the strict GGUF reader. */
export interface ModelNeeds {
  readonly weightBytes: number;
  /** Keys and values of all slots. */
  readonly cacheBytes: number;
  readonly layers: number;
}

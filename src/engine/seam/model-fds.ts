// Where an engine child finds its model, and from where on its adapters and then its projector, among the
// descriptors of its spawn.

export const MODEL_FD = 4;
export const ADAPTER_FD = 5;

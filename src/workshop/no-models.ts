// The workshop loads no model. The HTTP room asks a service of models for its metrics and its routes of
// serving; this one has none, and answers every request for one as a server does that does not have it.

import type { Engine } from '../engine/seam/engine.ts';
import { ApiError } from '../base/errors.ts';
import type { ModelService } from '../models/seam.ts';

function none(): Promise<never> {
  return Promise.reject(new ApiError('model_not_found', 'a workshop serves no models'));
}

export const noModels: ModelService<Engine> = {
  list: () => [],
  get: () => undefined,
  acquire: none,
  load: none,
  unload: none,
  register: none,
  addAdapter: none,
  removeAdapter: none,
  remove: none,
  async *pull() {
    yield await none();
  },
  pullStatus: () => Promise.resolve(undefined),
  cancelPull: () => Promise.resolve(false),
};

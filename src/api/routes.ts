// Every route of the server, in the order of docs/api.md.

import type { Route, RouteContext } from '../http/route.ts';
import { attestation } from './attestation.ts';
import { chat } from './chat/route.ts';
import { completions } from './completions/route.ts';
import { embeddings, rerank } from './vectors/route.ts';
import { responses } from './responses/route.ts';
import type { ResponseStore } from '../files/response-store.ts';
import { storedResponseRoutes } from './responses/stored-routes.ts';
import { batchRoutes } from './batches/route.ts';
import { fileRoutes } from './files/route.ts';
import { health } from './health.ts';
import { loadLora, unloadLora } from './models/lora.ts';
import { loadModel, modelStatus, unloadModel } from './models/load.ts';
import { metricsRoute } from './metrics.ts';
import { deleteModel, getModel, listModels, registerModel } from './models/registry.ts';
import { cancelPull, pullModel, pullStatus } from './models/pull.ts';
import { detokenize, tokenize } from './tokens/route.ts';

/** `stored` null: no responses are stored. */
export function allRoutes(context: RouteContext, stored: ResponseStore | null = null): readonly Route[] {
  const replayed = [chat, responses(stored), completions, embeddings];
  return [
    ...replayed,
    ...storedResponseRoutes(stored),
    rerank,
    tokenize,
    detokenize,
    listModels,
    getModel,
    registerModel,
    deleteModel,
    pullModel,
    pullStatus,
    cancelPull,
    loadModel,
    unloadModel,
    modelStatus,
    loadLora,
    unloadLora,
    ...fileRoutes,
    ...batchRoutes(context, replayed),
    attestation,
    health(context),
    metricsRoute(context),
  ];
}

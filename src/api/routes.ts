// Every route of the server, in the order of docs/api.md.

import type { ConsolePage } from '@assay/attestation/console';
import type { Route, RouteContext } from '../http/route.ts';
import { transcriptions, translations } from './audio/route.ts';
import { chat } from './chat/route.ts';
import { completions } from './completions/route.ts';
import { embeddings, rerank } from './vectors/route.ts';
import { responses } from './responses/route.ts';
import type { ResponseStore } from '../files/response-store.ts';
import { storedResponseRoutes } from './responses/stored-routes.ts';
import { batchRoutes } from './batches/route.ts';
import { FILE_ROUTES } from '../file-routes/route.ts';
import { messageRoutes } from './messages/route.ts';
import { attestation } from '../http/attestation.ts';
import { consoleRoutes } from './console.ts';
import { health } from './health.ts';
import { loadLora, unloadLora } from './models/lora.ts';
import { loadModel, modelStatus, unloadModel } from './models/load.ts';
import { sealed, sealedKeys } from './sealed.ts';
import { metricsRoute } from './metrics.ts';
import { receiptRoute } from './receipts.ts';
import { deleteModel, getModel, listModels, registerModel } from './models/registry.ts';
import { cancelPull, pullModel, pullStatus } from './models/pull.ts';
import { detokenize, tokenize } from './tokens/route.ts';

/** Parts that not every server has. */
export interface RouteParts {
  /** Null: no responses are stored. */
  readonly stored?: ResponseStore | null | undefined;
  /** Undefined: no console is served. */
  readonly console?: ConsolePage | undefined;
}

export function allRoutes(context: RouteContext, parts: RouteParts = {}): readonly Route[] {
  const { stored = null } = parts;
  const replayed = [chat, responses(stored), completions, embeddings];
  return [
    ...replayed,
    ...messageRoutes(),
    ...storedResponseRoutes(stored),
    rerank,
    transcriptions,
    translations,
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
    ...FILE_ROUTES,
    ...batchRoutes(context, replayed),
    attestation,
    receiptRoute,
    sealed,
    sealedKeys,
    health(context),
    metricsRoute(context),
    ...consoleRoutes(parts.console),
  ];
}

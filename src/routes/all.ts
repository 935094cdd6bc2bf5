// Every route of the server, in the order of docs/api.md.

import type { ServerConfig } from '../http/deps.ts';
import type { Route } from '../http/route.ts';
import type { ServerMetrics } from '../http/server-metrics.ts';
import { attestation } from './attestation.ts';
import { chat } from './chat.ts';
import { health } from './health.ts';
import { getModel, listModels } from './models.ts';

/** What a few routes need of the server itself. */
export interface RouteContext {
  readonly config: ServerConfig;
  readonly metrics: Pick<ServerMetrics, 'text'>;
  readonly startedAt: number;
  readonly isDraining: () => boolean;
}

export function allRoutes(context: RouteContext): readonly Route[] {
  return [chat, listModels, getModel, attestation, health(context)];
}

// The numbers this server counts for /metrics, by name. Labels: route pattern, method, status,
// id of a registered model.

import type { Attester } from '../../attester/attester.ts';
import type { Engine, EngineStats } from '../../engine/seam/engine.ts';
import type { Exchange } from '../exchange.ts';
import { type Counter, createMetrics, type MetricFamily } from './families.ts';
import type { ModelService, ModelStatus } from '../../models/seam.ts';

export interface ServerMetrics {
  readonly authFailures: Counter;
  readonly resumptionsRefused: Counter;
  readonly brokenRequests: Counter;
  requestEnded(request: {
    readonly exchange: Exchange;
    readonly method: string;
    readonly status: number;
    readonly milliseconds: number;
    readonly complete: boolean;
  }): void;
  /** Reads the numbers of this engine with every scrape of /metrics, until it is closed. */
  readonly watch: (modelId: string, engine: Engine) => void;
  text(): string;
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

export function createServerMetrics(observed: {
  readonly models: ModelService<Engine>;
  readonly attester: Attester | null;
  readonly open: () => number;
  readonly startedAt: number;
  readonly sources: readonly (() => Iterable<MetricFamily>)[];
}): ServerMetrics {
  const registry = createMetrics();
  const requests = registry.counter(
    'assay_http_requests_total',
    'Requests answered, by route pattern, method and status.',
    ['route', 'method', 'status'],
  );
  const durations = registry.histogram(
    'assay_http_request_duration_seconds',
    'From the request header to the last byte of the answer.',
    ['route'],
    SECONDS,
  );
  const firstToken = registry.histogram(
    'assay_time_to_first_token_seconds',
    'From the request header to the first token.',
    ['model'],
    SECONDS,
  );
  const promptTokens = registry.counter('assay_prompt_tokens_total', 'Tokens of prompts, by model.', [
    'model',
  ]);
  const completionTokens = registry.counter('assay_completion_tokens_total', 'Tokens generated, by model.', [
    'model',
  ]);
  const aborted = registry.counter(
    'assay_http_requests_aborted_total',
    'Answers that ended before their last byte.',
    ['route'],
  );
  const errors = registry.counter('assay_errors_total', 'Errors told to clients, by code.', ['code']);
  const authFailures = registry.counter(
    'assay_auth_failures_total',
    'Requests without a known API key where one is needed.',
    [],
  );
  const resumptionsRefused = registry.counter(
    'assay_tls_resumptions_refused_total',
    'TLS connections closed because they resumed a session.',
    [],
  );
  const brokenRequests = registry.counter(
    'assay_http_broken_requests_total',
    'Connections closed for bad HTTP or for being too slow.',
    [],
  );
  registry.gauge('assay_http_requests_in_flight', 'Requests being answered.', observed.open);
  registry.gauge(
    'assay_start_time_seconds',
    'Start of the server, seconds since 1970.',
    () => observed.startedAt / 1000,
  );
  registry.gauge(
    'assay_models_registered',
    'Models that can be served.',
    () => observed.models.list().length,
  );
  registry.gauge(
    'assay_models_loaded',
    'Models loaded now.',
    () => observed.models.list().filter((model) => model.loaded).length,
  );
  registry.gauge('assay_model_requests_in_flight', 'Requests that hold a loaded model.', () =>
    requestsHeld(observed.models.list()),
  );

  const engines = new Map<string, Engine>();

  return {
    authFailures,
    resumptionsRefused,
    brokenRequests,
    requestEnded({ exchange, method, status, milliseconds, complete }) {
      requests.add([exchange.route, METHODS.has(method) ? method : 'other', String(status)]);
      durations.observe([exchange.route], milliseconds / 1000);
      if (!complete) aborted.add([exchange.route]);
      if (exchange.errorCode !== null) errors.add([exchange.errorCode]);
      // Set only after the id was found in the registry.
      if (exchange.modelId === null) return;
      if (exchange.firstTokenMs !== null)
        firstToken.observe([exchange.modelId], exchange.firstTokenMs / 1000);
      if (exchange.usage.promptTokens > 0) promptTokens.add([exchange.modelId], exchange.usage.promptTokens);
      if (exchange.usage.completionTokens > 0)
        completionTokens.add([exchange.modelId], exchange.usage.completionTokens);
    },
    watch(modelId, engine) {
      if (engines.get(modelId) === engine) return;
      engines.set(modelId, engine);
      const forget = async (): Promise<void> => {
        await engine.closed;
        if (engines.get(modelId) === engine) engines.delete(modelId);
      };
      void forget();
    },
    text: () => registry.text([...engineFamilies(engines), ...families(observed)]),
  };
}

/** Those of an adapter hold its base, which counts them. */
function requestsHeld(models: readonly ModelStatus[]): number {
  return models.reduce((sum, model) => (model.parent === undefined ? sum + model.inFlight : sum), 0);
}

const METHODS = new Set(['GET', 'POST', 'DELETE', 'HEAD', 'OPTIONS', 'PUT', 'PATCH']);

function* engineFamilies(engines: ReadonlyMap<string, Engine>): Iterable<MetricFamily> {
  const stats = [...engines].map(([model, engine]) => ({ labels: { model }, stats: engine.stats() }));
  const family = (
    name: string,
    help: string,
    type: 'counter' | 'gauge',
    of: keyof EngineStats,
  ): MetricFamily => ({
    name,
    help,
    type,
    samples: stats.map(({ labels, stats: each }) => ({ labels, value: each[of] })),
  });
  yield family('assay_engine_queued', 'Requests waiting for a slot.', 'gauge', 'queued');
  yield family('assay_engine_active', 'Sequences being decoded.', 'gauge', 'active');
  yield family(
    'assay_engine_cached_tokens_total',
    'Prompt tokens taken from the cache since the model was loaded.',
    'counter',
    'cachedTokens',
  );
  yield family(
    'assay_engine_decode_steps_total',
    'Decode steps since the model was loaded.',
    'counter',
    'decodeSteps',
  );
  yield {
    name: 'assay_engine_locked_bytes',
    help: 'Memory for texts that cannot be swapped out; 0 where the machine does not allow it.',
    type: 'gauge',
    samples: [...engines].map(([model, engine]) => ({ labels: { model }, value: engine.info.lockedBytes })),
  };
}

function* families(observed: {
  readonly attester: Attester | null;
  readonly sources: readonly (() => Iterable<MetricFamily>)[];
}): Iterable<MetricFamily> {
  if (observed.attester !== null) {
    const status = observed.attester.status();
    yield one(
      'assay_attestation_available',
      '1 while evidence can be had.',
      'gauge',
      status.available ? 1 : 0,
    );
    yield one(
      'assay_attestation_queued',
      'Attestation requests waiting for a report.',
      'gauge',
      status.queued,
    );
    yield one('assay_attestation_reports_total', 'Hardware reports made.', 'counter', status.reports);
    yield one('assay_attestations_total', 'Nonces answered.', 'counter', status.answered);
    yield one('assay_attestation_failures_total', 'Attestations that failed.', 'counter', status.failed);
    if (status.endorsementsExpireAt !== null) {
      yield one(
        'assay_endorsements_expire_time_seconds',
        'When the first stapled endorsement expires, seconds since 1970.',
        'gauge',
        status.endorsementsExpireAt / 1000,
      );
    }
    yield one(
      'assay_endorsements_failing',
      '1 after the last refresh of endorsements failed.',
      'gauge',
      status.endorsementsError === null ? 0 : 1,
    );
  }
  for (const source of observed.sources) yield* source();
}

function one(name: string, help: string, type: 'counter' | 'gauge', value: number): MetricFamily {
  return { name, help, type, samples: [{ value }] };
}

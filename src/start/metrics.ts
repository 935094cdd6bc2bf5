// Counts events of models, for /metrics. Labels: ids of registered models and our own
// words, no text of a caller.

import type { MetricFamily } from '../http/metrics/families.ts';
import type { LifecycleEvent } from '../models/slot.ts';

export interface ModelMetrics {
  count(event: LifecycleEvent): void;
  families(): Iterable<MetricFamily>;
}

/** Ids come from an admin; more than this many are counted together. */
const MAX_MODELS = 1000;

export function createModelMetrics(): ModelMetrics {
  const loads = new Map<string, number>();
  const loadSeconds = new Map<string, number>();
  const failures = new Map<string, number>();
  const crashes = new Map<string, number>();
  const unloads = new Map<string, number>();

  return {
    count(event) {
      switch (event.kind) {
        case 'loaded':
          add(loads, event.id);
          add(loadSeconds, event.id, event.milliseconds / 1000);
          return;
        case 'load_failed':
          add(failures, event.id);
          return;
        case 'crashed':
          add(crashes, event.id);
          return;
        case 'unloaded':
          add(unloads, event.reason);
          return;
        case 'loading':
      }
    },
    *families() {
      yield family('assay_model_loads_total', 'Models loaded.', 'model', loads);
      yield family(
        'assay_model_load_seconds_total',
        'Time spent staging, measuring and loading.',
        'model',
        loadSeconds,
      );
      yield family('assay_model_load_failures_total', 'Loads that failed.', 'model', failures);
      yield family(
        'assay_engine_crashes_total',
        'Engine processes that ended by themselves.',
        'model',
        crashes,
      );
      yield family(
        'assay_model_unloads_total',
        'Models unloaded, by reason: idle, evicted, asked, shutdown.',
        'reason',
        unloads,
      );
    },
  };
}

function add(counts: Map<string, number>, id: string, amount = 1): void {
  const key = counts.has(id) || counts.size < MAX_MODELS ? id : 'other';
  counts.set(key, (counts.get(key) ?? 0) + amount);
}

function family(
  name: string,
  help: string,
  label: string,
  counts: ReadonlyMap<string, number>,
): MetricFamily {
  return {
    name,
    help,
    type: 'counter',
    samples: [...counts].map(([of, value]) => ({ labels: { [label]: of }, value })),
  };
}

// Numbers for Prometheus (text exposition format 0.0.4): counters, gauges and histograms, and their text.
// Label values come from fixed sets (route patterns, statuses, ids of registered models); a family that would
// grow past MAX_SERIES counts the rest under "other". No text of a caller becomes a label.

export interface MetricFamily {
  readonly name: string;
  readonly help: string;
  readonly type: 'counter' | 'gauge';
  readonly samples: readonly {
    readonly labels?: Readonly<Record<string, string>> | undefined;
    readonly value: number;
  }[];
}

const MAX_SERIES = 2000;

type Labels = readonly string[];

interface Instrument {
  write(out: string[]): void;
}

export interface Counter {
  add(labels: Labels, amount?: number): void;
}

interface Histogram {
  observe(labels: Labels, value: number): void;
}

export interface MetricsRegistry {
  counter(name: string, help: string, labelNames: Labels): Counter;
  histogram(name: string, help: string, labelNames: Labels, buckets: readonly number[]): Histogram;
  gauge(name: string, help: string, read: () => number): void;
  /** The exposition text, with `extra` families appended. */
  text(extra?: Iterable<MetricFamily>): string;
}

export function createMetrics(): MetricsRegistry {
  const instruments: Instrument[] = [];

  return {
    counter(name, help, labelNames) {
      const { of, all } = series(labelNames, () => ({ total: 0 }));
      instruments.push({
        write(out) {
          header(out, name, help, 'counter');
          for (const { text, value } of all.values()) out.push(sample(name, text, value.total));
        },
      });
      return {
        add(labels, amount = 1) {
          of(labels).total += amount;
        },
      };
    },
    histogram(name, help, labelNames, buckets) {
      const { of, all } = series(labelNames, () => ({
        counts: Array.from({ length: buckets.length + 1 }, () => 0),
        sum: 0,
        count: 0,
      }));
      instruments.push({
        write(out) {
          header(out, name, help, 'histogram');
          for (const { text, value } of all.values()) {
            const comma = text === '' ? '' : ',';
            let below = 0;
            buckets.forEach((limit, i) => {
              below += value.counts[i] ?? 0;
              out.push(sample(`${name}_bucket`, `${text}${comma}le="${limit}"`, below));
            });
            out.push(
              sample(`${name}_bucket`, `${text}${comma}le="+Inf"`, value.count),
              sample(`${name}_sum`, text, value.sum),
              sample(`${name}_count`, text, value.count),
            );
          }
        },
      });
      return {
        observe(labels, value) {
          const one = of(labels);
          let i = 0;
          while (i < buckets.length && value > (buckets[i] ?? Infinity)) i += 1;
          one.counts[i] = (one.counts[i] ?? 0) + 1;
          one.sum += value;
          one.count += 1;
        },
      };
    },
    gauge(name, help, read) {
      instruments.push({
        write(out) {
          header(out, name, help, 'gauge');
          out.push(sample(name, '', read()));
        },
      });
    },
    text(extra = []) {
      const out: string[] = [];
      for (const instrument of instruments) instrument.write(out);
      for (const family of extra) {
        header(out, family.name, family.help, family.type);
        for (const { labels = {}, value } of family.samples) {
          const text = Object.entries(labels).map(([name, label]) => `${name}="${escapeLabel(label)}"`);
          out.push(sample(family.name, text.join(','), value));
        }
      }
      return `${out.join('\n')}\n`;
    },
  };
}

function header(out: string[], name: string, help: string, type: string): void {
  out.push(
    `# HELP ${name} ${help.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')}`,
    `# TYPE ${name} ${type}`,
  );
}

function sample(name: string, labels: string, value: number): string {
  const number = String(value).replace(
    /^(-?)Infinity$/,
    (_, sign: string) => `${sign === '' ? '+' : '-'}Inf`,
  );
  return labels === '' ? `${name} ${number}` : `${name}{${labels}} ${number}`;
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}

function series<T>(
  labelNames: Labels,
  fresh: () => T,
): {
  readonly of: (labels: Labels) => T;
  readonly all: Map<string, { readonly text: string; readonly value: T }>;
} {
  const all = new Map<string, { readonly text: string; readonly value: T }>();
  const of = (labels: Labels): T => {
    const key = labels.join('\0');
    const known = all.get(key);
    if (known !== undefined) return known.value;
    const full = all.size >= MAX_SERIES;
    if (full && key !== labelNames.map(() => 'other').join('\0')) return of(labelNames.map(() => 'other'));
    const value = fresh();
    all.set(key, {
      text: labelNames.map((name, i) => `${name}="${escapeLabel(labels[i] ?? '')}"`).join(','),
      value,
    });
    return value;
  };
  return { of, all };
}

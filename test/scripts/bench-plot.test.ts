// Charts of a bench report: lengths are in proportion to values, names are escaped, no number is NaN.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  caseChart,
  scaleChart,
  streamChart,
  type BenchReport,
  type BenchRow,
} from '../../scripts/bench-plot.ts';

function report(rows: readonly Partial<BenchRow>[]): BenchReport {
  const row: BenchRow = {
    model: 'a model',
    via: 'https',
    name: 'a case',
    unit: 'tok/s',
    threads: 2,
    assay: [],
    llamaServer: [],
    ratio: undefined,
    processorRatio: undefined,
  };
  const all = rows.map((each) => ({ ...row, ...each }));
  return { processor: 'EPYC <1> & "2"', processors: 2, node: 'v20', rounds: 3, rows: all };
}

function widths(svg: string, side: string): number[] {
  return [...svg.matchAll(new RegExp(`<rect class="${side}" x="300"[^>]* width="([\\d.]+)"`, 'g'))].map(
    ([, width]) => Number(width),
  );
}

describe('bars', () => {
  test('property: two bars of a case are as long as their medians', () => {
    const value = fc.double({ min: 0.01, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(fc.array(fc.tuple(value, value), { minLength: 1, maxLength: 5 }), (pairs) => {
        const svg = caseChart(report(pairs.map(([our, their]) => ({ assay: [our], llamaServer: [their] }))));
        const [ours, theirs] = [widths(svg, 'ours'), widths(svg, 'theirs')];
        expect(ours).toHaveLength(pairs.length);
        for (const [i, [a, b]] of pairs.entries()) {
          const most = Math.max(a, b);
          expect(ours[i]).toBeCloseTo((310 * a) / most, 0);
          expect(theirs[i]).toBeCloseTo((310 * b) / most, 0);
        }
        expect(svg).not.toMatch(/NaN|Infinity|undefined/);
      }),
    );
  });

  test('the median of the rounds is shown, with its unit; a time says that less is better', () => {
    const svg = caseChart(report([{ unit: 'ms', assay: [900, 12.34, 1], llamaServer: [200] }]));
    expect(svg).toContain('>12.3 ms<');
    expect(svg).toContain('>200 ms<');
    expect(svg).toContain('less is better');
  });

  test('without a peer there is one bar', () => {
    const svg = caseChart(report([{ assay: [5] }]));
    expect(widths(svg, 'ours')).toEqual([310]);
    expect(widths(svg, 'theirs')).toEqual([]);
  });

  test('names are escaped, and both colour schemes are there', () => {
    const svg = caseChart(report([{ model: 'a<b>&"c"', assay: [1] }]));
    expect(svg).toContain('a&lt;b&gt;&amp;&quot;c&quot;');
    expect(svg).toContain('EPYC &lt;1&gt; &amp; &quot;2&quot;');
    expect(svg).toContain('prefers-color-scheme: dark');
    expect(svg.match(/</g)).toHaveLength(svg.match(/>/g)?.length ?? 0);
  });
});

describe('lines', () => {
  const streams = (counts: readonly number[], rate: (count: number) => number): Partial<BenchRow>[] =>
    counts.map((count) => ({
      name: `decode, ${count} stream${count === 1 ? '' : 's'}`,
      assay: [rate(count)],
      llamaServer: [rate(count) / 2],
    }));

  test('points go by the number of streams, whatever the order of the rows', () => {
    const rows = streams([16, 1, 8, 4], (count) => count * 10);
    const [ours, theirs] = [...streamChart(report(rows)).matchAll(/<polyline [^>]*points="([^"]+)"/g)].map(
      ([, points = '']) => points.split(' ').map((point) => point.split(',').map(Number)),
    );
    // Four points on a straight line to the right upper corner, and one of half the slope.
    expect(ours?.map(([left]) => left)).toEqual([106.9, 217.5, 365, 660]);
    expect(ours?.map(([, top]) => top)).toEqual([234.6, 206.5, 169, 94]);
    expect(theirs?.map(([, top]) => top)).toEqual([239.3, 225.3, 206.5, 169]);
  });

  test('a model with one number of streams has no panel', () => {
    const rows = [
      { model: 'vectors', name: 'embeddings', assay: [1] },
      { model: 'lone', name: 'decode, 4 streams', assay: [1] },
    ];
    expect(streamChart(report(rows))).not.toContain('polyline class');
  });
});

describe('sizes', () => {
  const drawn = (points: readonly (readonly [number, number])[]): readonly (readonly number[])[][] =>
    [
      ...scaleChart({
        processor: 'EPYC',
        processors: 2,
        node: 'v20',
        rounds: 1,
        series: [{ title: 'a<b', x: 'streams', y: 'ms', points }],
      }).matchAll(/<polyline [^>]*points="([^"]+)"/g),
    ].map(([, line = '']) => line.split(' ').map((point) => point.split(',').map(Number)));

  test('a series that grows with its size lies on the line, whatever its unit', () => {
    fc.assert(
      fc.property(fc.double({ min: 0.001, max: 1e6, noNaN: true }), (unit) => {
        const sizes = [1, 2, 4, 16, 100];
        const [line = [], own = []] = drawn(sizes.map((size) => [size, size * unit]));
        expect(own[0]).toEqual(line[0]);
        expect(own.at(-1)).toEqual(line.at(-1));
        const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = []] = line;
        for (const [x = 0, y = 0] of own) expect(y).toBeCloseTo(y0 + ((y1 - y0) * (x - x0)) / (x1 - x0), 0);
      }),
    );
  });

  test('what stays the same is level, and one size alone is a point', () => {
    const [, level = []] = drawn([
      [1, 5],
      [100, 5],
    ]);
    expect(new Set(level.map(([, height]) => height)).size).toBe(1);
    for (const [[x, y] = []] of drawn([[1, 5]])) expect([x, y].every(Number.isFinite)).toBe(true);
  });
});

// Charts of a report of `make bench-engine JSON=FILE`, as SVG for docs/performance.md: `node --import tsx
// scripts/bench-plot.ts FILE FOLDER` writes `cases.svg` (two bars for each case) and `streams.svg` (tokens
// per second by the number of streams); of a report of `make bench-scale JSON=FILE` it writes `scale.svg`.
// The colours follow the reader's colour scheme.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface BenchRow {
  readonly model: string;
  /** The engine at its seam, or the whole server over attested TLS. */
  readonly via: 'seam' | 'https';
  readonly name: string;
  readonly unit: 'tok/s' | 'ms' | '1/s';
  readonly threads: number;
  /** One value for each round. */
  readonly assay: readonly number[];
  /** None where there was no peer. */
  readonly llamaServer: readonly number[];
  /** Above 1 ours is faster. */
  readonly ratio: number | undefined;
  /** Their processor time over ours. */
  readonly processorRatio: number | undefined;
}

export interface BenchReport {
  readonly processor: string;
  readonly processors: number;
  readonly node: string;
  readonly rounds: number;
  readonly rows: readonly BenchRow[];
}

/** A result of `make bench-scale`: one value for each size. */
export interface Series {
  readonly title: string;
  /** Name of the sizes. */
  readonly x: string;
  /** Unit of the values. */
  readonly y: string;
  readonly points: readonly (readonly [number, number])[];
}

export interface ScaleReport {
  readonly processor: string;
  readonly processors: number;
  readonly node: string;
  readonly rounds: number;
  readonly series: readonly Series[];
}

const WIDTH = 720;
const LABEL = 300;
const MARGIN = 16;
const STYLE = `
  svg { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --faint: #d1d9e0; --ours: #0a6e5c; --theirs: #9a6700 }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #0d1117; --ink: #f0f6fc; --faint: #3d444d; --ours: #3fb9a2; --theirs: #d4a72c }
  }
  text { font: 12px system-ui, sans-serif; fill: var(--ink) }
  .title { font-weight: 600 }
  .paper { fill: var(--paper) }
  .ours { fill: var(--ours); stroke: var(--ours) }
  .theirs { fill: var(--theirs); stroke: var(--theirs) }
  polyline { fill: none !important; stroke-width: 2 }
  .axis { stroke: var(--faint) }
`;

function escaped(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;');
}

function text(left: number, base: number, content: string, attributes = ''): string {
  return `<text x="${rounded(left)}" y="${rounded(base)}"${attributes}>${escaped(content)}</text>`;
}

function rounded(value: number): string {
  return String(Math.round(value * 10) / 10);
}

function shown(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0);
}

function median(values: readonly number[]): number | undefined {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

function document(height: number, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${rounded(height)}" width="${WIDTH}" height="${rounded(height)}" role="img">
<style>${STYLE}</style>
<rect class="paper" width="${WIDTH}" height="${rounded(height)}"/>
${parts.join('\n')}
</svg>
`;
}

function legend(base: number): string[] {
  return [
    `<rect class="ours" x="${MARGIN}" y="${base - 9}" width="10" height="10"/>`,
    text(MARGIN + 16, base, 'Assay'),
    `<rect class="theirs" x="${MARGIN + 80}" y="${base - 9}" width="10" height="10"/>`,
    text(MARGIN + 96, base, 'llama-server'),
  ];
}

/** Two bars for each case; the longer one of a case fills the width, since cases have units of their own. */
export function caseChart({ rows, ...machine }: BenchReport): string {
  const parts = [
    text(MARGIN, 24, 'Assay and llama-server, median of each case', ' class="title"'),
    text(MARGIN, 42, `${machine.processor}, ${machine.processors} processors, ${machine.rounds} rounds`),
    ...legend(62),
  ];
  const room = WIDTH - LABEL - 110;
  let y = 84;
  let model = '';
  for (const row of rows) {
    const title = `${row.model}, ${row.via === 'https' ? 'whole server over attested TLS' : 'engine'}`;
    if (title !== model) {
      model = title;
      y += 12;
      parts.push(text(MARGIN, y, title, ' class="title"'));
      y += 12;
    }
    parts.push(text(MARGIN, y + 14, row.unit === 'ms' ? `${row.name} (less is better)` : row.name));
    const bars = [
      ['ours', median(row.assay)],
      ['theirs', median(row.llamaServer)],
    ] as const;
    const most = Math.max(...bars.map(([, value]) => value ?? 0), Number.MIN_VALUE);
    for (const [side, value] of bars) {
      if (value !== undefined) {
        const width = (room * value) / most;
        parts.push(
          `<rect class="${side}" x="${LABEL}" y="${rounded(y)}" width="${rounded(width)}" height="9" stroke="none"/>`,
          text(LABEL + width + 6, y + 9, `${shown(value)} ${row.unit}`),
        );
      }
      y += 11;
    }
    y += 8;
  }
  return document(y + MARGIN, parts);
}

interface Line {
  readonly side: 'ours' | 'theirs';
  readonly points: readonly (readonly [streams: number, rate: number])[];
}

/** `decode, N streams` of one model, by N. */
function linesOf(rows: readonly BenchRow[]): readonly Line[] {
  const by = (side: Line['side'], of: (row: BenchRow) => readonly number[]): Line => ({
    side,
    points: rows
      .flatMap((row): (readonly [number, number])[] => {
        const streams = /^decode, (\d+) streams?$/.exec(row.name)?.[1];
        const rate = median(of(row));
        return streams === undefined || rate === undefined ? [] : [[Number(streams), rate]];
      })
      .toSorted(([a], [b]) => a - b),
  });
  return [by('ours', (row) => row.assay), by('theirs', (row) => row.llamaServer)].filter(
    ({ points }) => points.length > 1,
  );
}

/** Tokens per second of all streams together, by their number: one panel for each model. */
export function streamChart({ rows }: BenchReport): string {
  const parts = [
    text(MARGIN, 24, 'Tokens per second by concurrent streams', ' class="title"'),
    ...legend(44),
  ];
  const panel = { height: 150, left: 70, right: WIDTH - 60 };
  let y = 60;
  for (const model of new Set(rows.map((row) => row.model))) {
    const lines = linesOf(rows.filter((row) => row.model === model));
    if (lines.length === 0) continue;
    const all = lines.flatMap(({ points }) => points);
    const most = Math.max(...all.map(([, rate]) => rate));
    const widest = Math.max(...all.map(([streams]) => streams));
    const top = y + 34;
    const bottom = top + panel.height;
    const at = ([streams, rate]: readonly [number, number]): readonly [number, number] => [
      panel.left + ((panel.right - panel.left) * streams) / widest,
      bottom - (panel.height * rate) / most,
    ];
    parts.push(
      text(MARGIN, y + 20, model, ' class="title"'),
      `<path class="axis" d="M${panel.left} ${top}V${bottom}H${panel.right}" fill="none"/>`,
      text(panel.left - 8, top + 5, shown(most), ' text-anchor="end"'),
      text(panel.left - 8, bottom + 4, '0', ' text-anchor="end"'),
    );
    for (const streams of new Set(all.map(([count]) => count)))
      parts.push(text(at([streams, 0])[0], bottom + 16, String(streams), ' text-anchor="middle"'));
    for (const { side, points } of lines) {
      const places = points.map((point) => at(point).map(rounded).join(','));
      parts.push(`<polyline class="${side}" points="${places.join(' ')}"/>`);
    }
    y = bottom + 24;
  }
  return document(y + MARGIN, parts);
}

/** One panel for each series, both axes logarithmic; the thin line is what linear growth would be. */
export function scaleChart({ series, ...machine }: ScaleReport): string {
  const parts = [
    text(MARGIN, 24, 'Where it stops being linear', ' class="title"'),
    text(MARGIN, 42, `${machine.processor}, ${machine.processors} processors, ${machine.rounds} rounds`),
  ];
  const panel = { width: WIDTH / 2, height: 130, left: 56, right: 24 };
  for (const [i, { title, x, y: unit, points }] of series.entries()) {
    const left = (i % 2) * panel.width + panel.left;
    const right = (i % 2) * panel.width + panel.width - panel.right;
    const top = 90 + Math.floor(i / 2) * (panel.height + 64);
    const bottom = top + panel.height;
    const [first = [1, 1] as const] = points;
    const last = points.at(-1) ?? first;
    const linear = [last[0], (first[1] * last[0]) / first[0]] as const;
    const values = points.map(([, value]) => value);
    const [least, most] = [Math.min(...values), Math.max(...values, linear[1])].map(Math.log);
    const at = ([size, value]: readonly [number, number]): readonly [number, number] => [
      left + ((right - left) * Math.log(size / first[0])) / Math.max(Math.log(last[0] / first[0]), 1e-9),
      bottom - (panel.height * (Math.log(value) - (least ?? 0))) / Math.max((most ?? 0) - (least ?? 0), 1e-9),
    ];
    const path = (line: readonly (readonly [number, number])[]): string =>
      line.map((point) => at(point).map(rounded).join(',')).join(' ');
    parts.push(
      text(left - panel.left + MARGIN, top - 20, `${title}, ${unit}`, ' class="title"'),
      `<path class="axis" d="M${left} ${top}V${bottom}H${right}" fill="none"/>`,
      `<polyline class="axis" points="${path([first, linear])}"/>`,
      `<polyline class="ours" points="${path(points)}"/>`,
      text(right, bottom + 32, x, ' text-anchor="end"'),
    );
    for (const point of points) {
      const [across, up] = at(point);
      parts.push(
        text(across, bottom + 16, String(Math.round(point[0])), ' text-anchor="middle"'),
        text(across, up - 5, shown(point[1]), ' text-anchor="middle"'),
      );
    }
  }
  return document(90 + Math.ceil(series.length / 2) * (panel.height + 64), parts);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [file = '', folder = ''] = process.argv.slice(2);
  // Our own file, written by one of the benches.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  const report = JSON.parse(readFileSync(file, 'utf8')) as BenchReport | ScaleReport;
  mkdirSync(folder, { recursive: true });
  if ('series' in report) writeFileSync(join(folder, 'scale.svg'), scaleChart(report));
  else {
    writeFileSync(join(folder, 'cases.svg'), caseChart(report));
    writeFileSync(join(folder, 'streams.svg'), streamChart(report));
  }
}

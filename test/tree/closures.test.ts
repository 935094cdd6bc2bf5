// The files each process loads, counted: every trust boundary has a ceiling of its own, and folders that are
// not to be in it. A ceiling rises only together with its reason in docs/decisions.
// `npx tsx scripts/closures.ts` prints the figures of today.

import { build } from 'esbuild';
import { describe, expect, test } from 'vitest';
import { closureOf, linesOf, ON_DEMAND, PROCESSES, TOP } from '../../scripts/closures.ts';

interface Ceiling {
  readonly entry: string;
  readonly files: number;
  readonly lines: number;
  /** Paths no file of the closure may match. */
  readonly without: RegExp;
}

const CEILINGS: Readonly<Record<string, Ceiling>> = {
  'root part': { entry: PROCESSES.rootPart, files: 3, lines: 416, without: /^(?!src\/attestd\/)/ },
  'engine child': {
    entry: PROCESSES.engineChild,
    files: 85,
    lines: 11_900,
    without:
      /^(?!src\/engine\/(child|seam)\/|src\/base\/(api-codes|errors|image-formats|json-scan|native-library)\.ts$)/,
  },
  'engine child, launched': {
    entry: PROCESSES.engineLaunch,
    files: 8,
    lines: 730,
    without:
      /^(?!src\/engine\/(child\/(adapted\/|become|llama\/(declarations|library)|harden|landlock)|seam\/(library-folder|model-fds)))/,
  },
  'audio child': {
    entry: PROCESSES.audioChild,
    files: 30,
    lines: 3_700,
    without:
      /^(?!src\/engine\/(child\/(audio\/|llama\/(cores|declarations|grammar|library)|confine|harden|prompt|replies)|seam\/)|src\/base\/(api-codes|errors|image-formats|json-scan|native-library)\.ts$)/,
  },
  converter: {
    entry: PROCESSES.converter,
    files: 35,
    lines: 5_440,
    without:
      /^(?!src\/engine\/(child\/(convert\/|llama\/(declarations|library)|confine|harden|task)|seam\/(library-folder|task))|src\/models\/convert\/|src\/base\/(api-codes|errors|image-formats|json-scan|native-library)\.ts$)/,
  },
  quantiser: {
    entry: PROCESSES.quantiser,
    files: 13,
    lines: 1_960,
    without:
      /^(?!src\/engine\/(child\/(quantize\/|llama\/(declarations|library)|confine|harden|task)|seam\/(library-folder|quantize|task))|src\/base\/(api-codes|errors)\.ts$)/,
  },
  'quantiser, launched': {
    entry: PROCESSES.quantiserLaunch,
    files: 8,
    lines: 750,
    without:
      /^(?!src\/engine\/(child\/(quantize\/|become|llama\/(declarations|library)|harden|landlock)|seam\/(library-folder|task)))/,
  },
  server: {
    entry: PROCESSES.server,
    // The console is read as a file: four files that find and serve it.
    files: 540,
    lines: 72_900,
    without: /^src\/(engine\/child|workshop)\/|simulated/,
  },
  workshop: {
    entry: PROCESSES.workshop,
    files: 301,
    lines: 42_300,
    without: /^src\/(api|cli|engine\/child)\/|simulated/,
  },
  'workshop, its program in a jail': {
    entry: PROCESSES.workshopTool,
    // `gguf/quantised` among them: a model is refused before its matrix is collected.
    files: 44,
    lines: 6_000,
    without: /^src\/(api|attester|audit|cli|config|files|http|start)\/|attestation\//,
  },
  client: {
    entry: PROCESSES.client,
    files: 143,
    lines: 22_500,
    without: /^(src\/|attestation\/(launch|simulated)\/)/,
  },
  'browser, sealing': {
    entry: 'attestation/client/sealed-fetch.ts',
    files: 113,
    lines: 17_800,
    without: /^(src\/|attestation\/(node|launch|simulated)\/)/,
  },
  'browser, the console': {
    entry: PROCESSES.console,
    files: 121,
    lines: 20_200,
    without: /^(src\/|attestation\/(node|launch|simulated)\/)/,
  },
  browser: {
    entry: PROCESSES.browser,
    files: 70,
    lines: 11_900,
    without: /^(src\/|attestation\/(node|launch|simulated)\/)/,
  },
};

describe.each(Object.entries(CEILINGS))('%s', (_name, { entry, files, lines, without }) => {
  const closure = closureOf(entry, { lazy: ON_DEMAND });

  test('is no larger than its ceiling', () => {
    expect(closure.length).toBeLessThanOrEqual(files);
    expect(linesOf(closure)).toBeLessThanOrEqual(lines);
  });

  test('loads nothing of the folders it is to be without', () => {
    expect(closure.filter((file) => without.test(file))).toEqual([]);
  });
});

test('the bundle of the root part is small enough to read', async () => {
  const { outputFiles } = await build({
    absWorkingDir: TOP,
    entryPoints: [PROCESSES.rootPart],
    outdir: '/bundle',
    bundle: true,
    write: false,
    platform: 'node',
    format: 'esm',
  });
  expect(outputFiles.map(({ contents }) => contents.length)).toEqual([
    expect.toSatisfy((size: number) => size <= 15_000),
  ]);
});

test('what is loaded on demand is left out only where the import is dynamic, and is there when asked for', () => {
  const { server } = PROCESSES;
  expect(closureOf(server)).toEqual(
    expect.arrayContaining([...ON_DEMAND, 'attestation/simulated/hierarchy.ts']),
  );
  expect(closureOf(ON_DEMAND, { lazy: ON_DEMAND })).toContain('attestation/simulated/hierarchy.ts');
  expect(closureOf('src/attester/simulated.ts', { lazy: ['src/base/errors.ts'] })).toContain(
    'src/base/errors.ts',
  );
});

test('a closure follows values, not types, and sees a folder that is added', () => {
  expect(closureOf('src/attestd/main.ts')).toContain('src/attestd/tsm.ts');
  expect(closureOf(['src/attestd/main.ts', 'attestation/index.ts']).length).toBeGreaterThan(
    closureOf('attestation/index.ts').length,
  );
});

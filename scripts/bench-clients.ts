// The cost of sealing a request in Python and Go (docs/clients.md): `make bench-clients`. It measures and
// prints, and asserts no bound.

import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { goTool } from './go-toolchain.ts';
import { clientsPython } from './python-clients.ts';

const clients = fileURLToPath(new URL('../clients', import.meta.url));

function run(command: string, args: readonly string[], folder: string): string {
  const { stdout, stderr, status } = spawnSync(command, args, {
    cwd: join(clients, folder),
    encoding: 'utf8',
    env: { ...process.env, GOTOOLCHAIN: 'local', GOPROXY: 'off', PYTHONDONTWRITEBYTECODE: '1' },
  });
  if (status !== 0) throw new Error(stderr);
  return stdout;
}

const python = clientsPython();
if (python === undefined) console.log('Python: `make python-clients` was not run');
else {
  const { median, p99 } = JSON.parse(run(python, ['-m', 'tests.bench'], 'python')) as Record<string, number>;
  console.log(
    `Python: ${median?.toFixed(3)} ms a request, 99 of 100 within ${p99?.toFixed(3)} ms (at most 2)`,
  );
}

const go = goTool();
if (go === undefined) console.log('Go: no Go 1.26 here');
else {
  const said = run(go, ['test', '-run=^$', '-bench=Seal', '-benchtime=2000x', '.'], 'go');
  const nanoseconds = Number(/BenchmarkSeal\S*\s+\d+\s+(\d+) ns\/op/.exec(said)?.[1]);
  console.log(`Go: ${(nanoseconds / 1e6).toFixed(3)} ms a request (at most 2)`);
}

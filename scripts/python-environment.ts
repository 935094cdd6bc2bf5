// Makes the one Python environment of the project, of src/workshop/python/requirements.txt, where `make
// convert-oracle` and the tests look for it; there already and whole, it stays. `--folder FOLDER` makes it
// elsewhere, `--seconds N` gives up after so many. Exit 0: it is there and whole; 2: it cannot be had here,
// with the reason. The command of the workshop is `assay workshop setup`.

import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { PythonEnvironment } from '../src/workshop/python/environment.ts';

const { folder, seconds } = parseArgs({
  options: { folder: { type: 'string' }, seconds: { type: 'string' } },
}).values;
const environment = new PythonEnvironment({ folder });
const { state, reason } = await environment.status();
if (state === 'ready') console.log(`${environment.folder}: ready`);
else {
  console.log(`${environment.folder}: ${state} (${reason ?? ''})`);
  const begun = performance.now();
  const end = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => end.abort(new Error(`ended by ${signal}`)));
  let last = '';
  try {
    await environment.create({
      signal: end.signal,
      timeoutMs: seconds === undefined ? undefined : Number(seconds) * 1000,
      onProgress: ({ stage }) => {
        if (stage !== last) console.log(stage);
        last = stage;
      },
    });
    console.log(`made in ${Math.round((performance.now() - begun) / 1000)} seconds`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    console.error(`! the Python environment cannot be had here: ${why}`);
    process.exitCode = 2;
  }
}

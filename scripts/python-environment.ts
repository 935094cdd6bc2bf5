// Makes the one Python environment of the project, of src/workshop/python/requirements.txt, where `make
// convert-oracle` and the tests look for it; there already and whole, it stays. `--folder FOLDER` makes it
// elsewhere. The command of the workshop is `assay workshop setup`.

import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { PythonEnvironment } from '../src/workshop/python/environment.ts';

const { folder } = parseArgs({ options: { folder: { type: 'string' } } }).values;
const environment = new PythonEnvironment({ folder });
const { state, reason } = await environment.status();
if (state === 'ready') console.log(`${environment.folder}: ready`);
else {
  console.log(`${environment.folder}: ${state} (${reason ?? ''})`);
  const begun = performance.now();
  let last = '';
  await environment.create({
    onProgress: ({ stage, done, total }) => {
      const line = `${stage} ${done} of ${total}`;
      if (line !== last) console.log(line);
      last = line;
    },
  });
  console.log(`made in ${Math.round((performance.now() - begun) / 1000)} seconds`);
}

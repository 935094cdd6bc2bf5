// `make soak`: ten minutes (`--seconds N`) of random clients and faults against the real server. Prints a
// table; ends with 1 when something leaked or a request is unaccounted for.

import { parseArgs } from 'node:util';
import { runSoak } from '../test/fixtures/e2e/soak.ts';
import { mebibytes, type Sample } from '../test/fixtures/e2e/soak-accounts.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    clients: { type: 'string', default: '12' },
    seed: { type: 'string' },
  },
});
const seed = Number(values.seed ?? Date.now() % 1_000_000);
console.log(`soak: ${values.seconds} s, ${values.clients} clients, seed ${seed}\n`);
console.log(' seconds    RSS MiB   descriptors   children');
function line({ seconds, rssBytes, descriptors, children }: Sample): void {
  return console.log(
    `${seconds.toFixed(0).padStart(8)} ${mebibytes(rssBytes).padStart(10)} ${String(descriptors).padStart(13)} ${String(children).padStart(10)}`,
  );
}
let shown = 0;
const report = await runSoak(
  { seconds: Number(values.seconds), clients: Number(values.clients), seed, faultEveryMs: 1500 },
  (sample) => {
    if (sample.seconds < shown) return;
    shown += Number(values.seconds) / 20;
    line(sample);
  },
);
console.log('\nidle before and after:');
line(report.before);
line(report.after);
console.log('\nfaults:');
for (const [fault, count] of Object.entries(report.faults))
  console.log(`${String(count).padStart(8)}  ${fault}`);
console.log('\nrequests by outcome:');
for (const [outcome, count] of [...report.outcomes].toSorted((a, b) => b[1] - a[1]))
  console.log(`${String(count).padStart(8)}  ${outcome}`);
console.log(
  report.problems.length === 0
    ? '\nno leak, every request accounted for'
    : `\n${report.problems.slice(0, 50).join('\n')}`,
);
process.exitCode = report.problems.length === 0 ? 0 : 1;

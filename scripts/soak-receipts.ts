// `make soak`: receipts of a thousand answers (`--answers N`), each verified, their chain without a gap,
// memory without growth. Prints a table; ends with 1 when anything was wrong.

import { parseArgs } from 'node:util';
import { mebibytes } from '../test/fixtures/e2e/soak-accounts.ts';
import { soakReceipts } from '../test/fixtures/e2e/soak-receipts.ts';

const { values } = parseArgs({ options: { answers: { type: 'string', default: '1000' } } });
console.log(`receipts: ${values.answers} answers\n`);
console.log(' seconds    RSS MiB   descriptors');
const soak = await soakReceipts(Number(values.answers), ({ seconds, rssBytes, descriptors }) =>
  console.log(
    `${seconds.toFixed(0).padStart(8)} ${mebibytes(rssBytes).padStart(10)} ${String(descriptors).padStart(13)}`,
  ),
);
console.log(`\n${soak.verified} receipts verified, ${soak.checkpoints} of them behind checkpoints`);
console.log(
  soak.problems.length === 0 ? 'chain without a gap, no growth' : soak.problems.slice(0, 50).join('\n'),
);
process.exitCode = soak.problems.length === 0 ? 0 : 1;

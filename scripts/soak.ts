// `make soak`: the loop of an agent (`--turns N`, 2,000), receipts that are replayed (`--receipts N`, 1,000),
// then ten minutes (`--seconds N`) of random clients and faults, each against a real server of its own.
// Prints tables; ends with 1 when something leaked, a turn was not as recorded, a replay was not equal or a
// request is unaccounted for.

import { parseArgs } from 'node:util';
import { runAgentLoop } from '../test/fixtures/e2e/agent-loop.ts';
import { runSoak } from '../test/fixtures/e2e/soak.ts';
import { runReplays } from '../test/fixtures/e2e/soak-replay.ts';
import { mebibytes, type Sample } from '../test/fixtures/e2e/soak-accounts.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '600' },
    clients: { type: 'string', default: '12' },
    turns: { type: 'string', default: '2000' },
    receipts: { type: 'string', default: '1000' },
    seed: { type: 'string' },
  },
});

console.log(`agent: ${values.turns} turns\n`);
console.log('    turn   RSS MiB: server   engine   descriptors: server   engine   requests open');
const agent = await runAgentLoop(Number(values.turns), ({ turn, server, engine, open }) => {
  const columns = [
    [turn, 8],
    [mebibytes(server.rssBytes), 18],
    [mebibytes(engine.rssBytes), 9],
    [server.descriptors, 22],
    [engine.descriptors, 9],
    [open, 16],
  ] as const;
  console.log(columns.map(([value, width]) => String(value).padStart(width)).join(''));
});
console.log(
  `\n${agent.turns} turns, ${agent.calls} calls of the tool, ${agent.compactions} compactions of the history`,
);
console.log(verdict(agent.problems, 'no leak, every turn as recorded'));

console.log(`replay: ${values.receipts} receipts of class 2\n`);
console.log('   asked    equal');
const replays = await runReplays(Number(values.receipts), {
  onBatch: (asked, equal) => console.log(String(asked).padStart(8) + String(equal).padStart(9)),
});
console.log(
  `\n${replays.equal} of ${replays.asked} equal, ${replays.tokens} tokens of ${replays.models.join(', ')}`,
);
console.log(verdict(replays.problems, 'every receipt replays equal'));

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
console.log(verdict(report.problems, 'no leak, every request accounted for'));
const PROBLEMS = [...agent.problems, ...replays.problems, ...report.problems];
process.exitCode = PROBLEMS.length === 0 ? 0 : 1;

function verdict(problems: readonly string[], passed: string): string {
  return `\n${problems.length === 0 ? passed : problems.slice(0, 50).join('\n')}\n`;
}

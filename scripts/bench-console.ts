// The time of the console from evidence received to verdict shown, in headless Chromium: the time between the
// end of the evidence's response (Resource Timing) and the change of the verdict (a MutationObserver outside
// of the page's script), of the real page before a simulated server. Prints figures, without a bound.

import { gzipSync } from 'node:zlib';
import { buildConsole } from '../image/console.ts';
import { accept, tick, withConsole } from './shown-console.ts';

const ROUNDS = 20;

const WATCH = `new MutationObserver(() => (globalThis.shownAt = performance.now()))
  .observe(document.getElementById('verdict'), { attributes: true, attributeFilter: ['data-verdict'] })`;
const TOOK = `(() => {
  const { responseEnd } = performance.getEntriesByType('resource').filter(({ name }) => name.includes('/v1/attestation')).at(-1);
  return globalThis.shownAt - responseEnd;
})()`;

const html = await buildConsole();
process.stdout.write(`console.html: ${html.length} bytes, ${gzipSync(html, { level: 9 }).length} gzip\n`);
await withConsole(async ({ browser, url }) => {
  const page = await browser.newPage({});
  await page.goto(url);
  await accept(page);
  await page.evaluate(WATCH);
  const times: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    // Asked again without the tick, which is for one judgement, and then with it.
    await page.click('#verdict-actions button');
    await page.waitForSelector('#simulated');
    await tick(page);
    times.push(await page.evaluate<number>(TOOK));
  }
  const sorted = times.toSorted((one, other) => one - other);
  const at = (share: number): string => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
  process.stdout.write(
    `evidence received to verdict shown, ${ROUNDS} rounds: median ${at(0.5)} ms, best ${at(0)} ms, worst ${at(1)} ms; goal 60 ms\n`,
  );
});

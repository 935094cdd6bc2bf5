// `make pictures`: the pictures of the console in docs/pictures, taken of the real page in headless Chromium
// after one question (scripts/shown-console.ts): light and dark, desktop and phone.

import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TOP } from './closures.ts';
import { palettePng } from './palette-png.ts';
import { accept, type ShownConsole, withConsole } from './shown-console.ts';

const QUESTION = 'Write one sentence about the sea.';
const OUT = join(TOP, 'docs/pictures');

interface Shot {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly scheme: 'light' | 'dark';
  /** The element at the top of the picture; absent: the first of the page. */
  readonly from?: string | undefined;
}

const SHOTS: readonly Shot[] = [
  { name: 'console-light', width: 1180, height: 1000, scheme: 'light' },
  { name: 'console-dark', width: 1180, height: 1000, scheme: 'dark' },
  { name: 'console-phone-light', width: 360, height: 760, scheme: 'light' },
  { name: 'console-phone-dark', width: 360, height: 760, scheme: 'dark', from: 'conversation' },
];

await withConsole(async (shown) => {
  await mkdir(OUT, { recursive: true });
  for (const shot of SHOTS) await take(shown, shot);
});

async function take({ browser, url, model }: ShownConsole, shot: Shot): Promise<void> {
  const { name, width, height, scheme, from } = shot;
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
  await page.goto(url);
  await accept(page);
  await page.evaluate(`document.getElementById('chat-model').value = ${JSON.stringify(model)}`);
  await page.fill('#chat-text', QUESTION);
  await page.click('#chat-send');
  await page.waitForSelector('.seal.good', { timeout: 120_000 });
  await page.evaluate('document.activeElement.blur()');
  const top = from === undefined ? '0' : `document.getElementById(${JSON.stringify(from)}).offsetTop - 12`;
  await page.evaluate(`scrollTo({ top: ${top}, behavior: 'instant' })`);
  const picture = await palettePng(await page.screenshot({}));
  await writeFile(join(OUT, `${name}.png`), picture);
  process.stdout.write(`docs/pictures/${name}.png  ${picture.length} bytes\n`);
  await page.close();
}

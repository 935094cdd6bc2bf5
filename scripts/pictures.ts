// `make pictures`: the pictures of the console in docs/pictures, taken of the real page in headless Chromium:
// a server with the simulated TEE, `assay-verify console` in front of it, one question. Light and dark,
// desktop and phone; published weights answer where they are there (make real-models), else the demo model.
// Needs Chromium and its driver (`cd test/browser && npm ci`).

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { installModel } from './real-models/install.ts';
import { TOP } from './closures.ts';
import { palettePng } from './palette-png.ts';

const CHROMIUM = process.env['ASSAY_CHROMIUM'] ?? '/usr/bin/chromium';
const MODEL = 'smollm2';
const QUESTION = 'Write one sentence about the sea.';
const OUT = join(TOP, 'docs/pictures');

interface Shot {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly scheme: 'light' | 'dark';
}

const SHOTS: readonly Shot[] = [
  { name: 'console-light', width: 1180, height: 1000, scheme: 'light' },
  { name: 'console-dark', width: 1180, height: 1000, scheme: 'dark' },
  { name: 'console-phone-light', width: 360, height: 1000, scheme: 'light' },
  { name: 'console-phone-dark', width: 360, height: 1000, scheme: 'dark' },
];

interface Page {
  goto(url: string): Promise<unknown>;
  click(selector: string): Promise<void>;
  fill(selector: string, text: string): Promise<void>;
  waitForSelector(selector: string, options?: object): Promise<unknown>;
  evaluate(script: string): Promise<unknown>;
  screenshot(options: object): Promise<Buffer>;
  close(): Promise<void>;
}

interface Browser {
  newPage(options: object): Promise<Page>;
  close(): Promise<void>;
}

interface Playwright {
  readonly chromium: { launch(options: object): Promise<Browser> };
}

const driver = createRequire(join(TOP, 'test/browser/package.json'))('playwright-core') as Playwright;
const folder = await mkdtemp(join(tmpdir(), 'assay-pictures-'));
const running: ChildProcess[] = [];
try {
  const model = await installModel(MODEL).catch(() => undefined);
  const published = model === undefined ? [] : ['--model', `${MODEL}=${model.weights}`];
  const server = start('dist/src/cli/main.js', ['serve', '--demo', '--listen', '127.0.0.1:0', '--data', folder, ...published]); // prettier-ignore
  const url = await said(server, 'stderr', /"url":"(https:[^"]+)"/);
  const policy = join(folder, 'policy.json');
  const console_ = start('attestation/bin/assay-verify.js', ['console', url, '--policy', policy, '--allow-simulated']); // prettier-ignore
  const page = await said(console_, 'stdout', /console on (http:\S+)/);
  await mkdir(OUT, { recursive: true });
  const browser = await driver.chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] }); // prettier-ignore
  for (const shot of SHOTS) await take(browser, page, shot, model === undefined ? 'demo-chat' : MODEL);
  await browser.close();
} finally {
  for (const child of running.toReversed()) {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
  }
  await rm(folder, { recursive: true, force: true });
}

function start(path: string, args: readonly string[]): ChildProcess {
  const child = spawn(process.execPath, [join(TOP, path), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  running.push(child);
  return child;
}

async function said(child: ChildProcess, stream: 'stdout' | 'stderr', pattern: RegExp): Promise<string> {
  const input = child[stream];
  if (input === null) throw new Error('the program has no output');
  for await (const line of createInterface({ input })) {
    const found = pattern.exec(line)?.[1];
    if (found === undefined) continue;
    input.resume();
    return found;
  }
  throw new Error(`the program ended without ${pattern}`);
}

async function take(browser: Browser, url: string, shot: Shot, model: string): Promise<void> {
  const { name, width, height, scheme } = shot;
  const page = await browser.newPage({ viewport: { width, height }, colorScheme: scheme });
  await page.goto(url);
  await page.click('#policy-kept button');
  await page.waitForSelector('#simulated');
  await page.click('#simulated');
  await page.click('#verdict-actions button');
  await page.waitForSelector('#verdict[data-verdict=simulated]');
  await page.evaluate(`document.getElementById('chat-model').value = ${JSON.stringify(model)}`);
  await page.fill('#chat-text', QUESTION);
  await page.click('#chat-send');
  await page.waitForSelector('.seal.good', { timeout: 120_000 });
  await page.evaluate('document.activeElement.blur(); scrollTo(0, 0)');
  const picture = await palettePng(await page.screenshot({}));
  await writeFile(join(OUT, `${name}.png`), picture);
  process.stdout.write(`docs/pictures/${name}.png  ${picture.length} bytes\n`);
  await page.close();
}

// The console as a reader has it, for scripts that look at it: a server with the simulated TEE,
// `assay-verify console` in front of it, the page in headless Chromium. Published weights answer where they
// are there (make real-models), else the demo model. Needs `make models`, Chromium and its driver
// (`cd test/browser && npm ci`).

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { TOP } from './closures.ts';
import { installModel } from './real-models/install.ts';

const CHROMIUM = process.env['ASSAY_CHROMIUM'] ?? '/usr/bin/chromium';
const PUBLISHED = 'smollm2';

/** The part of playwright-core that these scripts use. */
export interface ShownPage {
  goto(url: string): Promise<unknown>;
  click(selector: string): Promise<void>;
  fill(selector: string, text: string): Promise<void>;
  waitForSelector(selector: string, options?: object): Promise<unknown>;
  evaluate<T>(script: string): Promise<T>;
  screenshot(options: object): Promise<Buffer>;
  close(): Promise<void>;
}

interface Browser {
  newPage(options: object): Promise<ShownPage>;
  close(): Promise<void>;
}

interface Playwright {
  readonly chromium: { launch(options: object): Promise<Browser> };
}

export interface ShownConsole {
  readonly browser: Browser;
  readonly url: string;
  /** The one that answers. */
  readonly model: string;
}

export async function withConsole(use: (shown: ShownConsole) => Promise<void>): Promise<void> {
  const { chromium } = createRequire(join(TOP, 'test/browser/package.json'))('playwright-core') as Playwright;
  const folder = await mkdtemp(join(tmpdir(), 'assay-shown-'));
  const running: ChildProcess[] = [];
  try {
    const model = await installModel(PUBLISHED).catch(() => undefined);
    const published = model === undefined ? [] : ['--model', `${PUBLISHED}=${model.weights}`];
    const server = start('dist/src/cli/main.js', ['serve', '--demo', '--listen', '127.0.0.1:0', '--data', folder, ...published]); // prettier-ignore
    running.push(server);
    const origin = await said(server, 'stderr', /"url":"(https:[^"]+)"/);
    const policy = join(folder, 'policy.json');
    const command = start('attestation/bin/assay-verify.js', ['console', origin, '--policy', policy, '--allow-simulated']); // prettier-ignore
    running.push(command);
    const url = await said(command, 'stdout', /console on (http:\S+)/);
    const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox', '--disable-gpu'] }); // prettier-ignore
    await use({ browser, url, model: model === undefined ? 'demo-chat' : PUBLISHED });
    await browser.close();
  } finally {
    for (const child of running.toReversed()) {
      child.kill('SIGTERM');
      if (child.exitCode === null) await once(child, 'exit');
    }
    await rm(folder, { recursive: true, force: true });
  }
}

/** Takes the policy that is offered, and accepts the simulation. */
export async function accept(page: ShownPage): Promise<void> {
  await page.waitForSelector('#verdict:not([data-verdict=asking])');
  await page.click('#policy-kept button');
  await page.waitForSelector('#simulated');
  await tick(page);
}

/** Judged, with the tick. */
export async function tick(page: ShownPage): Promise<void> {
  await page.click('#simulated');
  await page.click('#verdict-actions button');
  await page.waitForSelector('#verdict[data-verdict=simulated]');
}

function start(path: string, args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [join(TOP, path), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
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
  throw new Error(`the program ended without ${String(pattern)}`);
}

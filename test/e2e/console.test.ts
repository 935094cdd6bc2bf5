// The console of the real server and of the real command, the same bytes (docs/console.md [B26]); and a chat
// through both in headless Chromium, the demo model answering. The first line of a page that came from the
// server it judges says so. Needs `make models`; the browser part is skipped, loudly, without Chromium.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Agent, fetch } from 'undici';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Browser, haveBrowser, launchChromium } from '../fixtures/console/chromium.ts';
import { openTab, type Tab } from '../fixtures/console/opened.ts';
import { type RealServer, startRealServer } from '../fixtures/e2e/real-server.ts';

const VERIFY = fileURLToPath(new URL('../../attestation/bin/assay-verify.js', import.meta.url));

let server: RealServer;
let command: ChildProcess;
let local: string;
const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });

beforeAll(async () => {
  server = await startRealServer();
  command = run('console', server.url, '--policy', server.policyPath, '--allow-simulated');
  for await (const line of createInterface({ input: command.stdout! })) {
    local = /^console on (http:\S+)\/$/.exec(line)?.[1] ?? '';
    break;
  }
});
afterAll(async () => {
  command.kill('SIGTERM');
  await once(command, 'exit');
  await server.stop();
  await dispatcher.close();
});

function run(...args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [VERIFY, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
}

async function pageAt(url: string): Promise<{ readonly bytes: Buffer; readonly policy: string | null }> {
  const answer = await fetch(`${url}/`, { dispatcher });
  return {
    bytes: Buffer.from(await answer.arrayBuffer()),
    policy: answer.headers.get('content-security-policy'),
  };
}

test('server and command hand out the same page with the same policy, and --check says so [B26]', async () => {
  const [theirs, ours] = [await pageAt(server.url), await pageAt(local)];
  expect(theirs.bytes.equals(ours.bytes)).toBe(true);
  expect(theirs.bytes.length).toBeGreaterThan(100_000);
  expect([theirs.policy, theirs.policy?.startsWith("default-src 'none'; ")]).toEqual([ours.policy, true]);
  for (const url of [server.url, local]) {
    const check = run('console', '--check', url);
    expect(await once(check, 'exit')).toEqual([0, null]);
  }
});

test('api.console = false: there is no page, and --check says that, too [B26]', async () => {
  const without = await startRealServer({ env: { ASSAY_API_CONSOLE: 'false' } });
  try {
    expect((await fetch(`${without.url}/`, { dispatcher })).status).toBe(404);
    const check = run('console', '--check', without.url);
    expect(await once(check, 'exit')).toEqual([10, null]);
  } finally {
    await without.stop();
  }
});

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchChromium();
  });
  afterAll(() => browser.close());

  async function talk(tab: Tab): Promise<void> {
    await tab.acceptSimulated();
    await tab.page.evaluate("document.getElementById('chat-model').value = 'demo-chat'");
    await tab.ask('What is attestation?');
    await tab.page.waitForSelector('#chat-log .seal.good');
    expect((await tab.text('#chat-log li:nth-child(2) > .words')).length).toBeGreaterThan(5);
    expect(tab.complaints).toEqual([]);
  }

  test('from the command: it offers its policy, which takes a click, and both judge', async () => {
    const tab = await openTab(browser, local);
    await tab.verdict('not-judged');
    expect(await tab.text('#vouch')).toContain(`judged the connection to ${server.url}`);
    expect(await tab.open()).toBe(false);
    await tab.page.click('#policy-kept button');
    await tab.verdict('refused');
    await talk(tab);
    expect(tab.requests.every((line) => line.includes(local))).toBe(true);
    await tab.context.close();
  });

  test('from the server: its first line says that it cannot vouch for that, and what to do', async () => {
    const tab = await openTab(browser, server.url);
    expect(await tab.page.evaluate("document.querySelector('header').firstElementChild.id")).toBe('vouch');
    await tab.verdict('not-judged');
    expect(await tab.text('#vouch')).toMatch(/^A page cannot vouch for whoever served it, and this one came from the very server it judges\./); // prettier-ignore
    expect(await tab.text('#vouch')).toContain(`assay-verify console ${server.url}`);
    // It asks its server for no policy: that would choose its own.
    expect(tab.requests.filter((line) => line.includes('console.json'))).toEqual([]);
    await tab.usePolicy(JSON.stringify(server.policy));
    await tab.verdict('refused');
    await talk(tab);
    await tab.context.close();
  });
});

// The console in headless Chromium, in conversation (docs/console.md): an accepted chat with its receipt, a
// stream that was tampered with or cut, a server without receipts, a key that rotates and a server that
// starts anew in the middle, two tabs, a reload, files for the archive, and what is left in the browser.
// Skipped, loudly, without Chromium.

import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { judgeReceipt, receiptsIn } from '../../../attestation/appraise/receipt-verdict.ts';
import { parsePolicy } from '../../../attestation/appraise/policy.ts';
import type { Json } from '../../../attestation/encoding/json.ts';
import { type Guest, SEALED_POLICY } from '../../fixtures/attestation/sealed-guest.ts';
import { type Browser, haveBrowser, launchChromium } from '../../fixtures/console/chromium.ts';
import {
  type ConsoleGuestOptions,
  openTab,
  PASTED,
  startConsoleGuest,
  type Tab,
} from '../../fixtures/console/opened.ts';

const CANARY = 'canary-5b2f9c';
const KEY = 'key-canary-77aa01';

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  let guest: Guest;
  const tabs: Tab[] = [];
  const guests: Guest[] = [];
  beforeAll(async () => {
    browser = await launchChromium();
    guest = await startConsoleGuest();
  });
  afterAll(async () => {
    await browser.close();
    await guest.close();
  });
  afterEach(async () => {
    for (const tab of tabs.splice(0)) await tab.context.close();
    for (const each of guests.splice(0)) await each.close();
  });

  async function opened(url = guest.url, within?: Tab): Promise<Tab> {
    const tab = await openTab(browser, url, within?.context);
    if (within === undefined) tabs.push(tab);
    return tab;
  }

  async function started(options: ConsoleGuestOptions, boot?: number): Promise<Guest> {
    const each = await startConsoleGuest(options, boot);
    guests.push(each);
    return each;
  }

  /** With a policy and the tick: ready to talk. */
  async function accepted(url?: string): Promise<Tab> {
    const tab = await opened(url);
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    return tab;
  }

  function runs(of: Guest): number {
    return of.api.engine.requests.length;
  }

  test('an accepted chat: streamed, sealed, receipted; the next turn has the one before', async () => {
    const tab = await accepted();
    const before = runs(guest);
    await tab.page.fill('#chat-key', KEY);
    await tab.ask(`What is ${CANARY}?`);
    await tab.page.waitForSelector('#chat-log .seal.good');
    expect(await tab.text('#chat-log li:nth-child(2) > .words')).toBe('Hello, world!');
    expect(await tab.text('#chat-log .seal.good')).toMatch(/Receipt verified: \d+ tokens of demo/);
    expect(await tab.text('#announce')).toMatch(/complete, and its receipt verified/);
    await tab.ask('And again?');
    await tab.page.waitForSelector('#chat-log li:nth-child(4) .seal.good');
    expect(runs(guest)).toBe(before + 2);
    expect(guest.api.engine.requests.at(-1)?.prompt).toMatchObject({ messages: [{ role: 'user' }, { role: 'assistant' }, { role: 'user' }] }); // prettier-ignore
    const sealed = tab.requests.filter((line) => line.startsWith('POST'));
    expect(sealed).toEqual(Array(2).fill(`POST ${guest.url}/v1/sealed`));
    expect(tab.complaints).toEqual([]);
  });

  test.each<[string, (body: Buffer) => Buffer, RegExp]>([
    ['changed', (body) => { body[body.length - 40]! ^= 1; return body; }, /answer was altered on the way/],
    ['cut', (body) => body.subarray(0, body.length - 60), /cut off on the way/],
    ['put in its place', () => Buffer.from('{"choices":[{"message":{"content":"hi"}}]}'), /altered|framing|sealed_/],
  ])('a stream that was %s on the way is not taken for an answer', async (_, change, words) => {
    const tab = await accepted();
    const before = runs(guest);
    await tab.page.route('**/v1/sealed', async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: change(Buffer.from(await response.body())) });
    });
    await tab.ask('Is this whole?');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    expect(await tab.text('#chat-log .broken')).toMatch(words);
    expect(await tab.text('#chat-log')).not.toMatch(/Receipt verified/);
    // It ran once, and is not sent again.
    expect(runs(guest)).toBe(before + 1);
    await tab.page.unroute('**/v1/sealed');
    await tab.ask('And now?');
    await tab.page.waitForSelector('#chat-log .seal.good');
    // A broken answer is not part of the conversation.
    expect(guest.api.engine.requests.at(-1)?.prompt).toMatchObject({ messages: [{ role: 'user', content: 'And now?' }] });
  }); // prettier-ignore

  test('a request that was altered on the way, and a server that answers without sealing', async () => {
    const tab = await accepted();
    await tab.page.route('**/v1/sealed', (route) => route.fulfill({ status: 400, contentType: 'application/problem+json', body: '{"type":"https://iana.org/assignments/http-problem-types#ohttp-key"}' })); // prettier-ignore
    await tab.ask('Altered?');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    expect(await tab.text('#chat-log .broken')).toMatch(/Your message was altered on the way/);
    await tab.page.unroute('**/v1/sealed');
    await tab.page.route('**/v1/sealed', (route) => route.fulfill({ status: 500, body: '<h1>shown to no one</h1>' })); // prettier-ignore
    await tab.ask('Unsealed?');
    await tab.page.waitForSelector('#chat-log li:nth-child(4).broken .seal.bad');
    expect(await tab.text('#chat-log')).not.toContain('shown to no one');
  });

  test('an answer without a receipt is none', async () => {
    const unsigned = await started({ unsigned: true });
    const tab = await accepted(unsigned.url);
    await tab.ask('Signed?');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    expect(await tab.text('#chat-log .broken')).toMatch(/receipt_missing/);
  });

  test('an error of the server is said in its words', async () => {
    const limited = await started({ config: { auth: { required: true, keys: [], adminEnabled: false } } });
    const tab = await accepted(limited.url);
    await tab.ask('May I?');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    expect(await tab.text('#chat-log .broken')).toMatch(/key/i);
    expect(await tab.page.evaluate("document.getElementById('chat-text').value")).toBe('May I?');
  });

  test('an answer can be stopped, and what came stays marked', async () => {
    let release: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const slow = await started({ engine: { beforeToken: (at) => (at === 2 ? held : Promise.resolve()) } });
    const tab = await accepted(slow.url);
    await tab.ask('Slowly?');
    await tab.page.waitForSelector('#chat-log li[aria-busy=true] > .words:not(:empty)');
    await tab.page.click('#chat-stop');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    release();
    expect(await tab.text('#chat-log .broken > .words')).toBe('Hello,');
    expect(await tab.text('#chat-log .broken')).toMatch(/You stopped it.*not covered by a receipt/s);
    expect(await tab.open()).toBe(true);
  });

  test('a key that rotated stops the conversation until its evidence is accepted [B24]', async () => {
    const turning = await started({});
    const tab = await accepted(turning.url);
    await tab.ask('First');
    await tab.page.waitForSelector('#chat-log .seal.good');
    await turning.sealed.rotate();
    await turning.sealed.rotate();
    const before = runs(turning);
    await tab.ask('Second');
    await tab.verdict('rotated');
    await tab.page.waitForSelector('#chat-log .broken .seal.bad');
    expect(await tab.text('#verdict-more')).toMatch(/same boot/);
    expect(await tab.text('#chat-log .broken')).toMatch(/another key.*not sent again/s);
    expect([runs(turning), await tab.open()]).toEqual([before, false]);
    // Accepted without the tick: refused. With it, the conversation goes on.
    await tab.page.click('#verdict-actions button');
    await tab.verdict('refused');
    expect(await tab.open()).toBe(false);
    await tab.acceptSimulated();
    await tab.page.press('#chat-text', 'Enter');
    await tab.page.waitForSelector('#chat-log li:nth-child(6) .seal.good');
    expect(runs(turning)).toBe(before + 1);
  });

  test('a server that started anew in the middle of it does, too [B24]', async () => {
    const first = await startConsoleGuest({}, 1);
    const port = Number(new URL(first.url).port);
    const tab = await accepted(first.url);
    await tab.ask('First');
    await tab.page.waitForSelector('#chat-log .seal.good');
    await first.close();
    const second = await started({ config: { port } }, 2);
    await tab.ask('Second');
    await tab.verdict('rotated');
    expect(await tab.text('#verdict-more')).toMatch(/another boot/);
    expect([runs(second), await tab.open()]).toEqual([0, false]);
  });

  test('two tabs know nothing of each other but the kept policy, which takes a click [B24]', async () => {
    const one = await accepted();
    const two = await opened(guest.url, one);
    await two.verdict('not-judged');
    expect(await two.open()).toBe(false);
    expect(await two.text('#policy-kept')).toMatch(/Kept in this browser since .*SHA-256 [0-9a-f]{64}/);
    expect([await one.text('#verdict-word'), await one.open()]).toEqual(['Simulated', true]);
    await two.page.click('#policy-kept button');
    await two.verdict('refused');
    expect(await two.status('P4')).toBe('pass');
    expect(await two.open()).toBe(false);
    expect([await one.text('#verdict-word'), await one.open()]).toEqual(['Simulated', true]);
    await two.page.close();
  });

  test('a reload forgets verdict, key and texts, and keeps the policy until told to forget it [B24]', async () => {
    const tab = await accepted();
    await tab.page.fill('#chat-key', KEY);
    await tab.ask(CANARY);
    await tab.page.waitForSelector('#chat-log .seal.good');
    await tab.page.reload();
    await tab.verdict('not-judged');
    expect(await tab.open()).toBe(false);
    expect(await tab.page.evaluate("document.getElementById('chat-key').value + document.getElementById('chat-text').value + document.getElementById('chat-log').textContent")).toBe(''); // prettier-ignore
    await tab.page.click('#policy-kept button:nth-of-type(2)');
    await tab.page.waitForSelector('#policy-kept:empty', { state: 'attached' });
    await tab.page.reload();
    await tab.verdict('not-judged');
    expect(await tab.text('#policy-kept')).toBe('');
  });

  const STORED = `(async () => {
    const kept = [document.cookie, JSON.stringify(history.state), JSON.stringify({ ...localStorage }),
      JSON.stringify({ ...sessionStorage }), ...(await caches.keys()), ...(await navigator.serviceWorker.getRegistrations()).map(String)];
    for (const { name } of await indexedDB.databases()) {
      const open = await new Promise((resolve) => { const asked = indexedDB.open(name); asked.onsuccess = () => resolve(asked.result); });
      for (const store of open.objectStoreNames) {
        const of = open.transaction(store).objectStore(store);
        for (const ask of [of.getAll(), of.getAllKeys()])
          kept.push(store + JSON.stringify(await new Promise((resolve) => { ask.onsuccess = () => resolve(ask.result); }), (_, value) => typeof value === 'bigint' ? String(value) : value));
      }
      open.close();
    }
    return kept;
  })()`;

  test('canary: policy and highest versions are all that the page stores; no text, key or verdict', async () => {
    const tab = await accepted();
    await tab.page.fill('#chat-key', KEY);
    await tab.ask(`What is ${CANARY}?`);
    await tab.page.waitForSelector('#chat-log .seal.good');
    const kept = await tab.page.evaluate<string[]>(STORED);
    const text = kept.join('\n');
    for (const word of [CANARY, KEY, 'Hello', 'simulated', 'receipt', 'transcript'])
      expect(text).not.toContain(word);
    // The look itself finds what is there.
    expect(text).toContain(JSON.stringify(PASTED).slice(1, -1));
    expect(text).toContain('seen["');
    expect(await tab.context.cookies()).toEqual([]);
  });

  test('saves evidence and receipts that the verifier judges again, and texts only when ticked', async () => {
    const tab = await accepted();
    await tab.ask(`What is ${CANARY}?`);
    await tab.page.waitForSelector('#chat-log .seal.good');
    const saved = async (): Promise<string> => {
      const download = tab.page.waitForEvent('download');
      await tab.page.click('#save');
      return readFileSync(await (await download).path(), 'utf8');
    };
    const without = await saved();
    await tab.page.check('#save-texts');
    const withTexts = await saved();
    expect([without.includes(CANARY), withTexts.includes(CANARY)]).toEqual([false, true]);
    for (const [file, compared] of [
      [without, ['model']],
      [withTexts, ['request', 'response', 'model']],
    ] as const) {
      const archive = JSON.parse(file) as Json;
      const evidence = { archive, policy: parsePolicy(SEALED_POLICY) };
      const judged = await judgeReceipt(receiptsIn(archive)[0]!, { evidence, now: Date.now() });
      expect(judged).toMatchObject({ kind: 'attested', compared });
    }
  });
});

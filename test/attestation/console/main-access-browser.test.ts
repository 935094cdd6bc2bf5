// The console in headless Chromium for readers without a mouse, with small or large letters, without light,
// or with a browser that keeps no storage (docs/console.md): the way by keyboard, where the focus goes,
// contrast, and the tree of an assistive technology. Skipped, loudly, without Chromium.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Guest } from '../../fixtures/attestation/sealed-guest.ts';
import { type Browser, haveBrowser, launchChromium } from '../../fixtures/console/chromium.ts';
import { openTab, PASTED, startConsoleGuest, type Tab } from '../../fixtures/console/opened.ts';

/** Texts whose contrast with what is behind them is under 4.5 (WCAG 2.2 §1.4.3), placeholders too. */
const FAINT = `(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parts = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => parts(color).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const { backgroundColor } = getComputedStyle(at);
      if (parts(backgroundColor)[3] === 255) return backgroundColor;
    }
    return 'Canvas';
  };
  const looked = [];
  for (const element of document.querySelectorAll('body *')) {
    if (!element.checkVisibility() || element.matches(':disabled')) continue;
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    for (const part of [own || element.matches('textarea, select') ? null : undefined, element.placeholder ? '::placeholder' : undefined]) {
      if (part === undefined) continue;
      const [one, other] = [light(getComputedStyle(element, part).color), light(behind(element))].sort((a, b) => b - a);
      looked.push({ ratio: (one + 0.05) / (other + 0.05), name: element.tagName + '#' + element.id + (part ?? '') });
    }
  }
  return { count: looked.length, faint: looked.filter(({ ratio }) => ratio < 4.5) };
})()`;

const FOCUSED = 'document.activeElement.id';

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  let guest: Guest;
  let tab: Tab;
  beforeAll(async () => {
    browser = await launchChromium();
    guest = await startConsoleGuest();
  });
  afterAll(async () => {
    await browser.close();
    await guest.close();
  });
  afterEach(() => tab.context.close());

  async function within(options: Readonly<Record<string, unknown>>): Promise<Tab> {
    return openTab(browser, guest.url, await browser.newContext({ ignoreHTTPSErrors: true, ...options }));
  }

  test.each(['light', 'dark'])('in the %s, every text has its contrast, in each state', async (colorScheme) => {
    tab = await within({ colorScheme });
    const check = async (): Promise<void> => {
      const { count, faint } = await tab.page.evaluate<{ count: number; faint: unknown[] }>(FAINT);
      expect(faint).toEqual([]);
      expect(count).toBeGreaterThan(40);
    };
    await tab.verdict('not-judged');
    await check();
    await tab.usePolicy('{');
    await check();
    await tab.usePolicy();
    await tab.verdict('refused');
    await check();
    await tab.acceptSimulated();
    await tab.ask('Readable?');
    await tab.page.waitForSelector('#chat-log .seal.good');
    await check();
    await tab.page.route('**/v1/sealed', (route) => route.abort());
    await tab.ask('And broken?');
    await tab.page.waitForSelector('#chat-log .seal.bad');
    await check();
  }); // prettier-ignore

  test('by keyboard alone: a policy, the tick, a question, its end; the focus is never lost', async () => {
    tab = await within({});
    const { page } = tab;
    const press = async (...keys: readonly string[]): Promise<void> => {
      for (const key of keys) await page.keyboard.press(key);
    };
    /** Tab, as often as it takes. */
    const reach = async (id: string): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        await press('Tab');
        if ((await page.evaluate(FOCUSED)) === id) return;
      }
      throw new Error(`${id} is not reached by Tab`);
    };
    await tab.verdict('not-judged');
    await reach('policy-text');
    await page.fill('#policy-text', PASTED);
    await reach('policy-use');
    await press('Enter');
    await tab.verdict('refused');
    expect(await page.evaluate(FOCUSED)).toBe('verdict');
    await press('Tab', 'Space', 'Tab', 'Enter');
    await tab.verdict('simulated');
    expect(await page.evaluate(FOCUSED)).toBe('verdict');
    await reach('chat-text');
    await page.fill('#chat-text', 'Hello');
    await reach('chat-send');
    await press('Enter');
    await page.waitForSelector('#chat-log .seal.good');
    expect(await page.evaluate(FOCUSED)).toBe('chat-text');
    await reach('chat-new');
    await press('Enter');
    expect(await page.evaluate(FOCUSED)).toBe('chat-text');
    await reach('save-texts');
    await reach('save');
  });

  test('letters of twice the size in 320 px, and one word without an end, need no sideways scrolling', async () => {
    tab = await within({ viewport: { width: 320, height: 640 } });
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    await tab.ask('w'.repeat(3000));
    await tab.page.waitForSelector('#chat-log .seal.good');
    await tab.page.evaluate("document.documentElement.style.fontSize = '200%', document.body.style.fontSize = '2rem', document.querySelectorAll('details').forEach((each) => { each.open = true })"); // prettier-ignore
    const wide =
      "[...document.querySelectorAll('main *, header *, footer *')].filter((each) => each.getBoundingClientRect().right > 320 && each.checkVisibility()).map((each) => each.tagName + '#' + each.id + '.' + each.className)";
    expect(await tab.page.evaluate(wide)).toEqual([]);
    expect(await tab.page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(320);
  });

  test.each([
    ['is full', "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError') }"],
    ['was taken away', "IDBDatabase.prototype.transaction = () => { throw new DOMException('closed', 'InvalidStateError') }"],
    ['is refused', "IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError') }"],
  ])('a storage that %s is as none: evidence is judged, and the page forgets', async (_, script) => {
    tab = await within({});
    await tab.page.addInitScript(script);
    await tab.page.reload();
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    await tab.ask('Without storage?');
    await tab.page.waitForSelector('#chat-log .seal.good');
    await tab.page.reload();
    await tab.verdict('not-judged');
    expect(await tab.text('#policy-kept')).toBe('');
    expect(tab.complaints).toEqual([]);
  }); // prettier-ignore
});

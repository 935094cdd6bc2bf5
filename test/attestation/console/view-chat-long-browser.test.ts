// A long answer in headless Chromium (docs/console.md): however many pieces it comes in, each character is
// written to the page once. Skipped, loudly, without Chromium.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Guest } from '../../fixtures/attestation/sealed-guest.ts';
import { type Browser, haveBrowser, launchChromium } from '../../fixtures/console/chromium.ts';
import { openTab, startConsoleGuest } from '../../fixtures/console/opened.ts';

const PIECE = 'a word and \u202E<b>another</b>, ';
const PIECES = 1500;
const SHOWN = PIECE.replace('\u202E', '⟨U+202E⟩').repeat(PIECES);

/** Counts the characters that are written below the conversation. */
const COUNTED = `globalThis.written = 0; for (const [kind, name] of [[Node.prototype, 'textContent'], [CharacterData.prototype, 'data']]) {
  const { get, set } = Object.getOwnPropertyDescriptor(kind, name);
  Object.defineProperty(kind, name, { get, set(text) { globalThis.written += text.length; set.call(this, text); } });
}
const append = CharacterData.prototype.appendData;
CharacterData.prototype.appendData = function (text) { globalThis.written += text.length; append.call(this, text); };`;

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  let guest: Guest;
  beforeAll(async () => {
    browser = await launchChromium();
    guest = await startConsoleGuest({
      engine: { script: () => Array.from({ length: PIECES }, () => PIECE) },
    });
  });
  afterAll(async () => {
    await browser.close();
    await guest.close();
  });

  test('is written once, piece by piece', async () => {
    const tab = await openTab(browser, guest.url);
    await tab.page.addInitScript(COUNTED);
    await tab.page.reload();
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    await tab.page.evaluate('globalThis.written = 0');
    await tab.ask('At length?');
    await tab.page.waitForSelector('#chat-log .seal.good');
    expect(await tab.text('#chat-log li:nth-child(2) > .words')).toBe(SHOWN);
    expect(await tab.page.evaluate('globalThis.written')).toBeGreaterThanOrEqual(SHOWN.length);
    expect(await tab.page.evaluate('globalThis.written')).toBeLessThan(2 * SHOWN.length);
    await tab.context.close();
  });
});

// The console in headless Chromium, verdict by verdict (docs/console.md [B24]): each class of refusal, what
// is not judged, the simulated TEE with and without its tick; what is proven is told from what is not, and
// no text is sent before a verdict accepts. Skipped, loudly, without Chromium.

import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { TOP } from '../../../image/top.ts';
import { type Browser, haveBrowser, launchChromium, type Route } from '../../fixtures/console/chromium.ts';
import { openTab, PASTED, startConsoleGuest, type Tab } from '../../fixtures/console/opened.ts';
import type { Guest } from '../../fixtures/attestation/sealed-guest.ts';

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

  /** Requests that carry anything of the reader's. */
  function sealed(): readonly string[] {
    return tab.requests.filter((line) => line.includes('/v1/sealed'));
  }

  test('without a policy all is shown, nothing is judged, and the input is off [B24]', async () => {
    tab = await openTab(browser, guest.url);
    await tab.verdict('not-judged');
    expect(await tab.text('#verdict-word')).toBe('Not judged');
    expect(await tab.open()).toBe(false);
    // The hardware is checked; what only a policy can say is neither ok nor failed.
    expect(await tab.status('S1')).toBe('pass');
    expect(await tab.status('C1')).toBe('pass');
    expect(await tab.page.evaluate("[...document.querySelectorAll('#checks [data-check^=P]')].map((row) => row.dataset.status).filter((status) => status !== 'skip')")).toEqual([]); // prettier-ignore
    expect(await tab.text('#models')).toMatch(/demo.*not proven.*SHA-256 64656d6f/s);
    expect(await tab.text('#proven')).not.toMatch(/yes.*Is it genuine hardware/s);
    expect(sealed()).toEqual([]);
    expect(tab.complaints).toEqual([]);
  });

  test('what is not proven is open, whatever the verdict [B24]', async () => {
    tab = await openTab(browser, guest.url);
    const visible = "document.getElementById('never').checkVisibility() && document.querySelectorAll('#never li').length"; // prettier-ignore
    await tab.verdict('not-judged');
    expect(await tab.page.evaluate(visible)).toBeGreaterThan(3);
    await tab.usePolicy();
    await tab.verdict('refused');
    expect(await tab.page.evaluate(visible)).toBeGreaterThan(3);
    await tab.acceptSimulated();
    expect(await tab.page.evaluate(visible)).toBeGreaterThan(3);
    expect(await tab.text('#never')).toMatch(/that the answers are right/);
  });

  test('simulated evidence is refused without a tick, and is never called verified with it [B24]', async () => {
    tab = await openTab(browser, guest.url);
    await tab.usePolicy();
    await tab.verdict('refused');
    expect(await tab.status('P2')).toBe('fail');
    expect(await tab.text('#checks')).toContain('FAIL');
    expect(await tab.open()).toBe(false);
    // Judged again without the tick: refused again.
    await tab.page.click('#verdict-actions button');
    await tab.verdict('refused');
    expect(await tab.open()).toBe(false);
    await tab.acceptSimulated();
    expect(await tab.text('#verdict-word')).toBe('Simulated');
    expect(await tab.text('#proven')).toMatch(/genuine hardware\?not proven/);
    expect(await tab.text('#proven')).not.toMatch(/software I know\?yes/);
    expect(await tab.open()).toBe(true);
    // The tick is for one judgement.
    await tab.page.click('#verdict-actions button');
    await tab.verdict('refused');
    expect(await tab.open()).toBe(false);
    expect(sealed()).toEqual([]);
  });

  const policy = JSON.parse(PASTED) as Record<string, unknown>;
  const OTHER = 'ab'.repeat(48);
  test.each<[string, string, string]>([
    ['another build', JSON.stringify({ ...policy, measurements: [OTHER] }), 'P4'],
    ['another model', JSON.stringify({ ...policy, models: { demo: 'cd'.repeat(32) } }), 'P6'],
    ['a model that is not listed', JSON.stringify({ ...policy, models: { other: 'cd'.repeat(32) } }), 'P5'],
    ['a policy of connections alone', JSON.stringify({ ...policy, channel: 'exporter' }), 'C10'],
    ['a machine that is not listed', JSON.stringify({ ...policy, chips: ['ee'.repeat(64)] }), 'P7'],
  ])('refused, and locked: %s [B24]', async (_, text, check) => {
    tab = await openTab(browser, guest.url);
    await tab.usePolicy(text);
    await tab.verdict('refused');
    // Also once the simulation is let pass.
    await tab.page.check('#simulated');
    await tab.page.click('#verdict-actions button');
    await tab.page.waitForSelector('#checks [data-check=P2][data-status=pass]', { state: 'attached' });
    await tab.verdict('refused');
    expect(await tab.status(check)).toBe('fail');
    expect(await tab.page.evaluate("document.getElementById('checks-more').open")).toBe(true);
    expect(await tab.open()).toBe(false);
    await tab.page.evaluate("document.getElementById('chat-form').requestSubmit()");
    expect(sealed()).toEqual([]);
  });

  test.each<[string, (route: Route) => Promise<void>, RegExp]>([
    ['no evidence', (route) => route.fulfill({ status: 503, body: '{}' }), /answered 503/],
    ['no document', (route) => route.fulfill({ status: 200, body: '{"version":"9"}' }), /lacks tee_type/],
    ['no connection', (route) => route.abort(), /could not be asked/],
    ['more than is read', (route) => route.fulfill({ status: 200, body: Buffer.alloc(40 << 20, ' ') }), /413|larger/],
  ])('refused, and locked: %s [B24]', async (_, answer, words) => {
    tab = await openTab(browser, guest.url);
    await tab.verdict('not-judged');
    await tab.page.route('**/v1/attestation*', answer);
    await tab.usePolicy();
    await tab.verdict('refused');
    expect(await tab.text('#verdict-text')).toMatch(words);
    expect(await tab.open()).toBe(false);
  }); // prettier-ignore

  test('refused, and locked: evidence that was made for another question [B24]', async () => {
    tab = await openTab(browser, guest.url);
    let first: Buffer | undefined;
    await tab.page.route('**/v1/attestation*', async (route) => {
      const response = await route.fetch();
      first ??= await response.body();
      await route.fulfill({ response, body: first });
    });
    await tab.page.reload();
    await tab.verdict('not-judged');
    await tab.usePolicy();
    await tab.verdict('refused');
    expect(await tab.status('C1')).toBe('fail');
    expect(await tab.open()).toBe(false);
  });

  test('a text that is no policy changes nothing, and says what is wrong [B24]', async () => {
    tab = await openTab(browser, guest.url);
    for (const [text, words] of [
      ['', /no policy in the field/],
      ['{', /no policy:/],
      [JSON.stringify({ ...policy, measurments: [] }), /measurments/],
      [JSON.stringify({ ...policy, tee: ['simulated'] }), /no policy can accept/],
    ] as const) {
      await tab.usePolicy(text);
      expect(await tab.text('#policy-error')).toMatch(words);
      expect(await tab.text('#verdict-word')).toBe('Not judged');
      expect(await tab.open()).toBe(false);
    }
  });

  test('a policy opened as a file is judged by', async () => {
    tab = await openTab(browser, guest.url);
    await tab.verdict('not-judged');
    await tab.page.evaluate("document.getElementById('policy-edit').open = true");
    await tab.page.setInputFiles('#policy-file', { name: 'policy.json', mimeType: 'application/json', buffer: Buffer.from(PASTED) }); // prettier-ignore
    await tab.verdict('refused');
    expect(await tab.status('P4')).toBe('pass');
  });

  test('each verdict has a word, a sign and a sentence of its own [B24]', async () => {
    tab = await openTab(browser, guest.url);
    const shown = await everyVerdict();
    const kinds = ['asking', 'not-judged', 'refused', 'simulated', 'verified', 'rotated'];
    expect(shown.map(({ kind }) => kind)).toEqual(kinds);
    expect(shown.map(({ word }) => word)).toEqual(['Asking for evidence', 'Not judged', 'Refused', 'Simulated', 'Verified', 'Another key']); // prettier-ignore
    for (const part of ['word', 'sign', 'text'] as const)
      expect(new Set(shown.map((each) => each[part])).size).toBe(kinds.length);
    // Neither colour alone: a reader of shapes tells them apart.
    expect(shown.find(({ kind }) => kind === 'verified')).toMatchObject({ sign: '✓', text: expect.stringMatching(/machine that your policy accepts/) }); // prettier-ignore
    expect(shown.find(({ kind }) => kind === 'refused')).toMatchObject({ sign: '✕', shape: '6px' });
  });

  /** The verdict's view with each verdict: no test can have evidence of real hardware. */
  async function everyVerdict(): Promise<
    readonly Record<'kind' | 'word' | 'sign' | 'text' | 'shape', string>[]
  > {
    const { outputFiles } = await build({
      stdin: {
        contents: `import { VerdictView } from './attestation/console/view-verdict.ts';
          const view = new VerdictView({ judge: () => undefined });
          const text = (id) => document.getElementById(id).textContent;
          globalThis.shown = ['asking', 'not judged', 'refused', 'simulated', 'verified', 'rotated'].map((kind) => {
            view.show({ kind, outcome: undefined, document: undefined, at: 0 }, true);
            const card = document.getElementById('verdict');
            return { kind: card.dataset.verdict, word: text('verdict-word'), sign: text('verdict-sign'),
              text: text('verdict-text'), shape: getComputedStyle(card.querySelector('.sign')).borderRadius };
          });`,
        resolveDir: TOP,
        loader: 'ts',
      },
      bundle: true,
      write: false,
      format: 'iife',
    });
    await tab.page.evaluate(outputFiles[0]?.text ?? '');
    return tab.page.evaluate('shown');
  }

  test('states are in words, landmarks and labels, a live region says them, and 320 px hold all', async () => {
    tab = await openTab(browser, guest.url);
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    expect(await tab.text('[role=status]')).toMatch(/^Simulated/);
    const unlabelled = `[...document.querySelectorAll('input, textarea, select')]
      .filter((field) => field.labels.length === 0).map((field) => field.id)`;
    expect(await tab.page.evaluate(unlabelled)).toEqual([]);
    const unnamed = `[...document.querySelectorAll('section')]
      .filter((section) => !document.getElementById(section.getAttribute('aria-labelledby'))).length`;
    expect(await tab.page.evaluate(unnamed)).toBe(0);
    const landmarks =
      "['header', 'main', 'footer', 'h1'].map((name) => document.querySelectorAll(name).length)";
    expect(await tab.page.evaluate(landmarks)).toEqual([1, 1, 1, 1]);
    await tab.page.setViewportSize({ width: 320, height: 640 });
    expect(await tab.page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(320);
    // From the top, by keyboard alone: the first stop leads to the conversation.
    await tab.page.reload();
    await tab.verdict('not-judged');
    await tab.page.keyboard.press('Tab');
    await tab.page.keyboard.press('Enter');
    expect(await tab.page.evaluate('document.activeElement.id')).toBe('conversation');
  });
});

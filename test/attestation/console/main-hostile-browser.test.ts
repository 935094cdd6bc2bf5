// The console in headless Chromium against what would reach it (docs/console.md [B25]): model output that is
// HTML, links or marks of direction, HTML in a file of the same origin, a page of another port, a name that
// was pointed here; and that it asks no other origin for anything. Skipped, loudly, without Chromium.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { readConsolePage } from '../../../attestation/node/console-page.ts';
import type { RunningProxy } from '../../../attestation/node/proxy/proxy.ts';
import { send } from '../../fixtures/attestation/attested-server.ts';
import { startBoth } from '../../fixtures/attestation/local-proxy.ts';
import type { Guest } from '../../fixtures/attestation/sealed-guest.ts';
import { type Browser, haveBrowser, launchChromium, REBOUND } from '../../fixtures/console/chromium.ts';
import { openTab, startConsoleGuest, type Tab } from '../../fixtures/console/opened.ts';

/** Answers of a model that would take over a page that reads them as HTML. */
const HOSTILE: readonly string[] = [
  '<img src="https://elsewhere.example/x" onerror="document.title=\'taken\'">',
  '<script>document.title = "taken"</script>',
  '</p><a href="javascript:document.title=1">click</a> [link](https://elsewhere.example/)',
  '<iframe srcdoc="<script>parent.document.title=1</script>"></iframe><svg onload="document.title=1">',
  'safe \u202Efdp.exe\u202C \u2066hidden\u2069 \u0007 \u{E0041}end',
];

describe.skipIf(!haveBrowser)('in headless Chromium', () => {
  let browser: Browser;
  let guest: Guest;
  let tab: Tab;
  const servers: Server[] = [];
  beforeAll(async () => {
    browser = await launchChromium();
    guest = await startConsoleGuest({ engine: { script: ({ prompt }) => HOSTILE.filter(() => 'messages' in prompt) } });
  }); // prettier-ignore
  afterAll(async () => {
    await browser.close();
    await guest.close();
  });
  afterEach(async () => {
    await tab.context.close();
    for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve));
  });

  test('hostile output stays text, and no request leaves for another origin [B25]', async () => {
    tab = await openTab(browser, guest.url);
    await tab.page.evaluate("addEventListener('securitypolicyviolation', (event) => console.log('security policy ' + event.violatedDirective))"); // prettier-ignore
    await tab.usePolicy();
    await tab.verdict('refused');
    await tab.acceptSimulated();
    await tab.ask('Take the page over');
    await tab.page.waitForSelector('#chat-log .seal.good');
    const shown = await tab.text('#chat-log li:nth-child(2) > .words');
    for (const text of HOSTILE.slice(0, 4)) expect(shown).toContain(text);
    expect(shown).toContain('safe ⟨U+202E⟩fdp.exe⟨U+202C⟩ ⟨U+2066⟩hidden⟨U+2069⟩ ⟨U+0007⟩ ⟨U+E0041⟩end');
    const made = "document.querySelectorAll('#chat-log :is(img, a, script, iframe, svg)').length";
    expect(await tab.page.evaluate(made)).toBe(0);
    expect(await tab.page.evaluate('document.title')).toBe('Simulated · Assay console');
    expect(await tab.page.evaluate("getComputedStyle(document.querySelector('#chat-log .words')).unicodeBidi")).toBe('plaintext'); // prettier-ignore
    expect(new Set(tab.requests.map((line) => new URL(line.split(' ')[1]!).origin))).toEqual(
      new Set([guest.url]),
    );
    expect(tab.complaints).toEqual([]);
  });

  test('the browser itself refuses HTML from strings, foreign requests, other scripts, frames and forms [B25]', async () => {
    tab = await openTab(browser, guest.url);
    await tab.verdict('not-judged');
    const tried = (script: string): Promise<string> =>
      tab.page.evaluate(
        `(async () => { try { ${script}; return 'ran' } catch (error) { return error.name } })()`,
      );
    expect(await tried("document.body.innerHTML = '<b>x</b>'")).toBe('TypeError');
    expect(await tried("document.body.insertAdjacentHTML('beforeend', '<b>x</b>')")).toBe('TypeError');
    expect(await tried("document.createElement('script').text = 'document.title = 1'")).toBe('TypeError');
    expect(await tried("trustedTypes.createPolicy('mine', { createHTML: (text) => text })")).toBe(
      'TypeError',
    );
    expect(await tried("await fetch('https://elsewhere.example/')")).toBe('TypeError');
    expect(await tried("await fetch('http://127.0.0.1:1/')")).toBe('TypeError');
    expect(tab.requests.filter((line) => !line.includes(guest.url))).toEqual([]);
    const loads = (name: string, member: string): Promise<string> =>
      tab.page.evaluate(`new Promise((resolve) => {
        const made = document.createElement('${name}');
        made.onload = () => resolve('loaded'); made.onerror = () => resolve('refused');
        addEventListener('securitypolicyviolation', () => resolve('refused'), { once: true });
        made.${member} = 'http://127.0.0.1:1/x'; document.body.append(made);
      })`);
    expect(await loads('img', 'src')).toBe('refused');
    expect(await loads('iframe', 'src')).toBe('refused');
    expect(tab.complaints.length).toBeGreaterThan(5);
  });

  async function consoleProxy(html: string): Promise<RunningProxy> {
    const respond = (_request: unknown, connection: { readonly socket: Parameters<typeof send>[0] }): void =>
      send(connection.socket, 200, html, { 'content-type': 'text/html', 'content-security-policy': 'script-src *' });
    const page = await readConsolePage();
    return (await startBoth({ respond }, { console: { page, policy: undefined } })).proxy;
  } // prettier-ignore

  const TAKEN = '<!doctype html><title>as it came</title><script>document.title = "taken"</script>';

  test('HTML that the upstream serves at the same origin does not run [B25]', async () => {
    const proxy = await consoleProxy(TAKEN);
    tab = await openTab(browser, proxy.url);
    const answer = await tab.page.goto(`${proxy.url}/v1/files/file-1/content`);
    expect(answer?.headers()).toMatchObject({ 'content-security-policy': 'sandbox', 'x-content-type-options': 'nosniff' }); // prettier-ignore
    expect(await tab.page.evaluate('document.title')).toBe('as it came');
    expect(await tab.page.evaluate('origin')).toBe('null');
  });

  test('a page of another port reads nothing, frames nothing and sends nothing [B25]', async () => {
    const proxy = await consoleProxy(TAKEN);
    const other = createServer((_request, response) => {
      response.setHeader('content-type', 'text/html');
      response.end('<!doctype html><link rel="icon" href="data:,"><title>other</title>');
    });
    servers.push(other);
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    tab = await openTab(browser, `http://127.0.0.1:${(other.address() as AddressInfo).port}`);
    const tried = (path: string, init: string): Promise<string> =>
      tab.page.evaluate(`fetch('${proxy.url}${path}', ${init}).then((answer) => answer.type + answer.status, () => 'refused')`); // prettier-ignore
    for (const path of ['/', '/console.json', '/v1/models', '/v1/sealed'])
      for (const init of ["{ method: 'POST', body: 'x' }", '{}'])
        expect(await tried(path, init)).toBe('refused');
    expect(await tried('/v1/models', "{ method: 'POST', mode: 'no-cors', body: 'x' }")).toBe('opaque0');
    const framed = await tab.page.evaluate<string>(`new Promise((resolve) => {
      const frame = document.createElement('iframe');
      frame.onload = () => { try { resolve(frame.contentDocument === null ? 'foreign' : frame.contentDocument.title) } catch { resolve('foreign') } };
      frame.src = '${proxy.url}/'; document.body.append(frame);
    })`);
    expect(framed).toBe('foreign');
    const seen = await fetch(`${proxy.url}/v1/models`, { headers: { origin: 'http://127.0.0.1:1' } });
    expect(seen.status).toBe(403);
  });

  test('a name that was pointed at this machine gets no page and no answer [B25]', async () => {
    const proxy = await consoleProxy(TAKEN);
    const { port } = new URL(proxy.url);
    tab = await openTab(browser, proxy.url);
    for (const path of ['/', '/console.json', '/v1/models']) {
      const answer = await tab.page.goto(`http://${REBOUND}:${port}${path}`);
      expect(answer?.status()).toBe(403);
    }
    expect((await tab.page.goto(`http://localhost:${port}/`))?.status()).toBe(200);
  });
});

// The page as it is built: the same bytes anywhere, one file, within its size, with a
// policy that lets its own script and style run alone (docs/console.md [B25] [B26]).

import { createHash } from 'node:crypto';
import {
  appendFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { consolePage } from '../../attestation/console/headers.ts';
import { buildConsole } from '../../image/console.ts';
import { TOP } from '../../image/top.ts';

const BUDGET_GZIP_BYTES = 120_000;

let folder: string;
let html: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-console-'));
  html = Buffer.from(await buildConsole()).toString();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function copyOf(name: string): string {
  const top = join(folder, name);
  for (const part of ['attestation', 'tsconfig.base.json'])
    cpSync(join(TOP, part), join(top, part), { recursive: true, filter: (path) => !/\/(dist|node_modules)(\/|$)/.test(path) }); // prettier-ignore
  symlinkSync(join(TOP, 'node_modules'), join(top, 'node_modules'));
  return top;
}

test('two folders give the same bytes, and one changed byte of a source others [B26]', async () => {
  const top = copyOf('a folder with another name');
  expect(Buffer.from(await buildConsole(top)).toString()).toBe(html);
  appendFileSync(join(top, 'attestation/console/style.css'), 'p{margin:1px}');
  expect(Buffer.from(await buildConsole(top)).toString()).not.toBe(html);
});

test('is within its size', () => {
  const zipped = gzipSync(html, { level: 9 }).length;
  console.log(`console.html: ${html.length} characters, ${zipped} bytes gzip (goal ${BUDGET_GZIP_BYTES})`);
  expect(zipped).toBeLessThanOrEqual(BUDGET_GZIP_BYTES);
});

test('is one file: no address of another origin is loaded, no path of this machine and no map is in it [B25]', () => {
  expect(html).not.toContain(TOP);
  expect(html).not.toMatch(/sourceMappingURL|node_modules/);
  const outside = html.replace(/<script>[\s\S]*<\/script>/, '').replace(/<style>[\s\S]*<\/style>/, '');
  expect([...outside.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, at]) => at)).toEqual([
    'data:,',
    '#conversation',
  ]);
  expect(html).not.toMatch(/@import|url\((?!data:)/);
  // No way from a string to HTML or code is used.
  const script = /<script>([\s\S]*)<\/script>/.exec(html)?.[1] ?? '';
  expect(script).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|localStorage|sessionStorage|document\.cookie|serviceWorker/); // prettier-ignore
});

test('its policy names the digests of its script and style, and its headers the same and more [B25]', () => {
  const { headers, sha256 } = consolePage(Buffer.from(html));
  const digest = (name: string): string => {
    const text = new RegExp(`<${name}>([\\s\\S]*)</${name}>`).exec(html)?.[1] ?? '';
    return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
  };
  expect(headers['content-security-policy']).toBe(
    `default-src 'none'; script-src ${digest('script')}; style-src ${digest('style')}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors 'none'`,
  );
  expect(headers).toMatchObject({
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-resource-policy': 'same-origin',
    'referrer-policy': 'no-referrer',
    'x-content-type-options': 'nosniff',
    'permissions-policy': expect.stringMatching(/camera=\(\).*microphone=\(\)/),
  });
  expect(sha256).toBe(createHash('sha256').update(html).digest('hex'));
  expect(() => consolePage(Buffer.from('<!doctype html>'))).toThrow(/no content security policy/);
});

test('a part that would end its element, or a part that there is not, is refused', async () => {
  const top = copyOf('broken');
  const page = join(top, 'attestation/console/page.html');
  const whole = readFileSync(page, 'utf8');
  for (const broken of [whole.replace('<script></script>', ''), whole.replace('{{policy}}', '{{version}}')]) {
    writeFileSync(page, broken);
    await expect(buildConsole(top)).rejects.toThrow(/page\.html has .* not once/);
  }
  writeFileSync(page, whole);
  appendFileSync(join(top, 'attestation/console/main.ts'), '\nconsole.log(`<!-- ${start.name}`);\n');
  await expect(buildConsole(top)).rejects.toThrow('would end its element');
});

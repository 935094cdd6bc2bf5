// The console: page.html, style.css and the script of attestation/console, bundled by esbuild, in one file of
// fixed bytes. Its content security policy allows that script and that style alone, by their digests. No
// source map, no path and no time of this machine is in it.
//
//   node image/console.js       writes attestation/dist/console.html (part of `make build`)

import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { build, transform } from 'esbuild';
import { badInput } from './errors.ts';
import { TOP } from './top.ts';

/** The page below the folder of the sources; the package finds it beside its code. */
export const CONSOLE_FILE = 'attestation/dist/console.html';

const TARGET = 'es2022';

/** `top`: where the sources are; another folder only when reproducing. */
export async function buildConsole(top = TOP): Promise<Uint8Array> {
  const folder = join(top, 'attestation/console');
  const { version } = JSON.parse(await readFile(join(top, 'attestation/package.json'), 'utf8')) as {
    version: string;
  };
  const bundled = await build({
    absWorkingDir: top,
    entryPoints: ['attestation/console/main.ts'],
    bundle: true,
    write: false,
    platform: 'browser',
    target: TARGET,
    format: 'iife',
    minify: true,
    legalComments: 'none',
    charset: 'utf8',
    logLevel: 'silent',
    preserveSymlinks: true,
  });
  const script = bundled.outputFiles[0]?.text.trim() ?? '';
  const styled = await transform(await readFile(join(folder, 'style.css'), 'utf8'), {
    loader: 'css',
    minify: true,
    legalComments: 'none',
    charset: 'utf8',
  });
  const style = styled.code.trim();
  if (/<\/(?:script|style)|<!--/i.test(script + style))
    throw badInput('the script or style of the console would end its element');
  const page = await readFile(join(folder, 'page.html'), 'utf8');
  const html = filled(page.replace(/\n\s+/g, '\n'), [
    ['{{policy}}', contentPolicy(script, style)],
    ['{{version}}', version],
    ['<style></style>', `<style>${style}</style>`],
    ['<script></script>', `<script>${script}</script>`],
  ]);
  return Buffer.from(html);
}

/** Each part is in the page once. */
function filled(page: string, parts: readonly (readonly [string, string])[]): string {
  return parts.reduce((text, [place, part]) => {
    const [before, after, ...more] = text.split(place);
    if (before === undefined || after === undefined || more.length > 0)
      throw badInput(`page.html has ${place} not once`);
    return `${before}${part}${after}`;
  }, page);
}

/** CSP 3; Trusted Types: no string becomes HTML or script, not even by mistake. */
function contentPolicy(script: string, style: string): string {
  return [
    "default-src 'none'",
    `script-src ${sourceOf(script)}`,
    `style-src ${sourceOf(style)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ');
}

function sourceOf(text: string): string {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}

/** Builds the page to where the package looks for it; a reader meanwhile has the one before. */
export async function writeConsole(): Promise<void> {
  const path = join(TOP, CONSOLE_FILE);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(`${path}.${process.pid}`, await buildConsole());
  await rename(`${path}.${process.pid}`, path);
}

if (process.argv[1] !== undefined && import.meta.url === new URL(`file://${resolve(process.argv[1])}`).href)
  await writeConsole();

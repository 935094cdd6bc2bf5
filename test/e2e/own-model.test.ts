// docs/serve-your-own-model.md is run as it is written, with the demo model for a file; so are the
// configurations that docs/configuration.md and examples/ show.

import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { EXPECTED } from '../../scripts/demo-model/text.ts';
import { readConfig } from '../../src/config/read.ts';
import { ASSAY, spawnAssay, type Spawned } from '../fixtures/e2e/assay.ts';

const top = fileURLToPath(new URL('../..', import.meta.url));
const page = readFileSync(join(top, 'docs/serve-your-own-model.md'), 'utf8');

function blocks(text: string, language: string): string[] {
  return [...text.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map(
    (match) => match[1] ?? '',
  );
}

let folder: string;
let server: Spawned | undefined;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-own-'));
  const demo = await ensureDemoModels(['demo-chat']);
  copyFileSync(demo['demo-chat'].path, join(folder, 'assistant.gguf'));
  mkdirSync(join(folder, 'bin'));
  writeFileSync(join(folder, 'bin', 'assay'), `#!/bin/sh\nexec '${process.execPath}' '${ASSAY}' "$@"\n`, {
    mode: 0o755,
  });
});
afterAll(() => {
  server?.child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

function shell(command: string): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = {
    PATH: `${join(folder, 'bin')}:${process.env['PATH']}`,
    HOME: folder,
    // The keys of the simulated hierarchy take seconds to make; those of the checkout will do.
    ASSAY_TEE_SIMULATED_FOLDER: join(top, '.cache/simulated'),
  };
  return new Promise((resolve) => {
    execFile('/bin/sh', ['-c', command], { cwd: folder, env, encoding: 'utf8' }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

test('the page, from a file to a caller', async () => {
  const [file = '', key = '', check = '', serve = '', chat = ''] = blocks(page, 'sh');
  expect((await shell(file)).code).toBe(0);
  const made = (await shell(key)).stdout;
  const [, plain = ''] = /shown this once: (\S+)/.exec(made) ?? [];
  const [, digest = ''] = /sha256 = "([0-9a-f]{64})"/.exec(made) ?? [];
  const toml = (blocks(page, 'toml')[0] ?? '').replace(
    /(\[api\.keys\.alice\]\nsha256 = ")[0-9a-f]{64}/,
    `$1${digest}`,
  );
  writeFileSync(join(folder, 'my/assay.toml'), toml);
  expect(await shell(check)).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^configuration is valid: 1 models, 1 keys/) as string,
  });
  server = spawnAssay([...serve.trim().split(' ').slice(1), '--listen', '127.0.0.1:0'], {
    cwd: folder,
    env: { ASSAY_TEE_SIMULATED_FOLDER: join(top, '.cache/simulated') },
  });
  const url = String((await server.said(/"msg":"listening","url":"([^"]+)"/))[1]);
  await server.said(/attestedFetch\(\{ policy \}\)/);
  const ran = await shell(chat.replace('THE_KEY', plain).replace('https://127.0.0.1:8443', url));
  expect(ran.code, ran.stderr).toBe(0);
  expect(ran.stderr).toMatch(/^127\.0\.0\.1:\d+: SIMULATED, .*\n$/);
  expect(ran.stdout.length).toBeGreaterThan(20);
  expect(EXPECTED.map(({ question }) => question)).toContain('What is attestation?');
  server.child.kill('SIGTERM');
  expect(await server.ended).toEqual([0, null]);
});

test('the configurations that are shown are right', async () => {
  const example = blocks(readFileSync(join(top, 'docs/configuration.md'), 'utf8'), 'toml');
  expect(example.length).toBeGreaterThan(0);
  const shown = [...example, readFileSync(join(top, 'examples/assay.toml'), 'utf8')];
  for (const text of shown) {
    const config = readConfig({ file: { path: join(folder, 'a.toml'), text }, cwd: folder });
    expect(config.modelEntries.size).toBe(1);
  }
  const check = await shell(`assay config check --config '${join(top, 'examples/assay.toml')}'`);
  expect(check).toMatchObject({ code: 0, stderr: '' });
});

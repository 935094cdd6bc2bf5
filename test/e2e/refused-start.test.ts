// Faults of a configuration that only a start can see end it with exit 2 and one line: place, key, value and
// reason. The demo overrides no file.

import { existsSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ensureDemoModels } from '../../scripts/demo-model/main.ts';
import { spawnAssay } from '../fixtures/e2e/assay.ts';

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'assay-refused-'));
  symlinkSync((await ensureDemoModels(['demo-chat']))['demo-chat'].path, join(folder, 'm.gguf'));
  writeFileSync(join(folder, 'broken.jinja'), '{% for m in messages %}{{ m.content }}');
  writeFileSync(join(folder, 'silent.jinja'), `{{ raise_exception('never') }}`);
  writeFileSync(join(folder, 'constant.jinja'), 'hello');
  writeFileSync(join(folder, 'endless.jinja'), '{% for i in range(1000000000) %}x{% endfor %}');
  writeFileSync(
    join(folder, 'good.jinja'),
    `{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}`,
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function last(text: string, args: readonly string[] = []): Promise<readonly [number | null, string]> {
  const whole = `[store]\ndata_dir = "data"\n${text}`;
  writeFileSync(join(folder, 'a.toml'), whole);
  const spawned = spawnAssay(['serve', '--config', 'a.toml', '--listen', '127.0.0.1:0', ...args], {
    cwd: folder,
  });
  const [code] = await spawned.ended;
  const lines = spawned.err().trimEnd().split('\n');
  return [code, lines.filter((line) => line.startsWith('assay: ')).join('\n')];
}

function chat(template: string): string {
  return `[api.models.m]\npath = "m.gguf"\nchat_template = "${template}"\n`;
}

test.each([
  [
    '[tee]\nmode = "none"\n[models]\npreload = ["nope"]',
    /^assay: a\.toml:6: models\.preload \["nope"\]: there is no model "nope" \(model_not_found\)$/,
  ],
  [
    `[tee]\nmode = "none"\n${chat('broken.jinja')}`,
    /^assay: a\.toml:7: api\.models\.m\.chat_template ".*\/broken\.jinja": is no chat template: .+$/,
  ],
  [
    `[tee]\nmode = "none"\n${chat('silent.jinja')}`,
    /^assay: a\.toml:7: .*silent\.jinja": is no chat template: it cannot render a question$/,
  ],
  [
    `[tee]\nmode = "none"\n${chat('constant.jinja')}`,
    /^assay: a\.toml:7: .*constant\.jinja": is no chat template: it leaves the question out$/,
  ],
  [
    `[tee]\nmode = "none"\n${chat('endless.jinja')}`,
    /^assay: a\.toml:7: .*endless\.jinja": is no chat template: .+$/,
  ],
  [
    '[tee]\nmode = "sev-snp"',
    /^assay: a\.toml:4: tee\.mode "sev-snp": in \/sys\/kernel\/config\/tsm\/report no provider is there$/,
  ],
  [
    '[tee]\nmode = "none"\n[engine]\nbackend = "cuda"',
    /^assay: a\.toml:6: engine\.backend "cuda": (@node-llama-cpp\/linux-x64-cuda is not installed: run "npm install .+"|the cuda build finds no device: .+|there is no cuda build for .+)$/,
  ],
])('%j', async (text, line) => {
  const [code, said] = await last(text);
  expect(said).toMatch(line);
  expect(code).toBe(2);
});

test('a good template serves; --demo takes the data folder and the TEE of the file', async () => {
  const text = `[store]\ndata_dir = "mine"\n[tee]\nmode = "none"\n${chat('good.jinja')}[models]\npreload = ["m"]\n`;
  writeFileSync(join(folder, 'b.toml'), text);
  const spawned = spawnAssay(['serve', '--demo', '--config', 'b.toml', '--listen', '127.0.0.1:0'], {
    cwd: folder,
  });
  await spawned.said(/NO TEE: /);
  spawned.child.kill('SIGTERM');
  expect(await spawned.ended).toEqual([0, null]);
  expect([existsSync(join(folder, 'mine')), existsSync(join(folder, '.assay'))]).toEqual([true, false]);
});

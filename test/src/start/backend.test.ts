// The configured backend before anything is loaded.

import { expect, test } from 'vitest';
import { readConfig } from '../../../src/config/read.ts';
import type { Backend, Device } from '../../../src/engine/seam/backend.ts';
import { llamaFolder } from '../../../src/engine/seam/library-folder.ts';
import { checkBackend } from '../../../src/start/backend.ts';
import { configRefusalOf } from '../../fixtures/refusal.ts';

function configOf(text: string): ReturnType<typeof readConfig> {
  return readConfig({ file: { path: 'a.toml', text }, cwd: '/' });
}

const CARD: Device = { name: 'Vulkan0', description: 'a card', totalBytes: 2, freeBytes: 1 };

function isInstalled(backend: Backend): boolean {
  try {
    return llamaFolder(backend) !== '';
  } catch {
    return false;
  }
}

test('the CPU asks for no device', async () => {
  const logged: object[] = [];
  const asked = Promise.reject(new Error('asked'));
  asked.catch(() => undefined);
  await checkBackend(configOf(''), { info: (line: object) => void logged.push(line) }, () => asked);
  expect(logged).toEqual([]);
});

test.each(['vulkan', 'cuda'] as const)(
  '%s without its package: the start is refused with the one command',
  async (kind) => {
    const log = { info: () => undefined };
    const checked = checkBackend(configOf(`[engine]\nbackend = "${kind}"`), log, () =>
      Promise.resolve([CARD]),
    );
    if (isInstalled(kind)) return expect(await checked).toBeUndefined();
    const { message, key } = await configRefusalOf(checked);
    expect(key).toBe('engine.backend');
    expect(message).toMatch(/^a\.toml:2: engine\.backend "(vulkan|cuda)": /);
    if (process.platform === 'linux' && process.arch === 'x64')
      expect(message).toContain(
        `run "npm install --no-save --ignore-scripts @node-llama-cpp/linux-x64-${kind}@3.21.1"`,
      );
    else expect(message).toContain(`there is no ${kind} build for`);
    return undefined;
  },
);

test.skipIf(!isInstalled('vulkan'))(
  'a build without a device, or one that fails, refuses the start',
  async () => {
    const log = { info: () => undefined };
    const config = configOf('[engine]\nbackend = "vulkan"');
    const none = await configRefusalOf(checkBackend(config, log, () => Promise.resolve([])));
    expect(none.message).toMatch(/^a\.toml:2: engine\.backend "vulkan": the vulkan build finds no device: /);
    const broken = await configRefusalOf(
      checkBackend(config, log, () => Promise.reject(new Error('the device Vulkan0 cannot be opened'))),
    );
    expect(broken.message).toBe('a.toml:2: engine.backend "vulkan": the device Vulkan0 cannot be opened');
  },
);

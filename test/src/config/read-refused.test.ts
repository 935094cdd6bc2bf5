// Values that would fail open, or of which only the library that met them would speak: refused with place,
// key and reason.

import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { readConfig, type ConfigSources } from '../../../src/config/read.ts';
import { configRefusal } from '../../fixtures/refusal.ts';

function refusal(text: string, more: Partial<ConfigSources> = {}): string {
  return configRefusal(() => readConfig({ file: { path: 'a.toml', text }, cwd: '/', ...more })).message;
}

function sha(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function keyed(name: string, key: string): string {
  return `[api.keys.${name}]\nsha256 = "${sha(key)}"\n`;
}

test.each([
  [
    `${keyed('x', 'k')}models = []`,
    'a.toml:3: api.keys.x.models must be a list of at least 1, not [] (an empty one does not mean all: leave the key out)',
  ],
  [
    '[limits]\nmax_body_bytes = 99999999999999999999',
    'a.toml:2: limits.max_body_bytes must be an integer from 1024 to 1073741824, not 99999999999999999999',
  ],
  [
    '[api]\ncors_origins = [99999999999999999999]',
    'a.toml:2: api.cors_origins must be a list of texts that are not empty, not ["99999999999999999999"]',
  ],
  [
    `[api.keys.__proto__]\nsha256 = "${sha('k')}"`,
    'a.toml:1: api.keys.__proto__: the name is not one a log can hold',
  ],
  [
    '[api.models.__proto__]\npath = "x"',
    'a.toml:1: api.models.__proto__: the model id must begin with a letter or digit (invalid_model_name)',
  ],
  ['[api.models.m]\npath = "x"\nisq = "Q4K"', 'a.toml:3: api.models.m.isq is for folders of safetensors'],
  ['[__proto__]\na = 1', 'a.toml:1: unknown key __proto__'],
  ['[api]\n__proto__ = 1', 'a.toml:2: unknown key api.__proto__'],
  [
    '[store]\ndata_dir = "a\\u0000b"',
    'a.toml:2: store.data_dir must be a text without zero characters, not "a\\u0000b" (no path or name can hold one)',
  ],
  [
    '[store]\nmodel_roots = ["a\\u0000b"]',
    'a.toml:2: store.model_roots must be a list of texts without zero characters, not ["a\\u0000b"] (no path or name can hold one)',
  ],
  [
    '[engine]\nbackend = "metal"',
    'a.toml:2: engine.backend must be one of "cpu", "vulkan", "cuda", not "metal"',
  ],
  ['[engine]\ngpu_layers = 0', 'a.toml:2: engine.gpu_layers must be an integer from 1 to 10000, not 0'],
  [
    '[engine]\ngpu_layers = 4',
    'a.toml:2: engine.gpu_layers is for graphics cards but engine.backend is "cpu"',
  ],
  [
    '[engine]\nbackend = "cpu"\ngpu_device = 0',
    'a.toml:3: engine.gpu_device is for graphics cards but engine.backend is "cpu"',
  ],
])('%j', (text, message) => {
  expect(refusal(text)).toBe(message);
});

test.each(['hf_a b', 'hf_a\\n', ' '])('a hub token %j is refused, and not repeated', (token) => {
  const reason = 'models.hub_token must be a token (a header can only carry visible ASCII)';
  expect(refusal(`[models]\nhub_token = "${token}"`)).toBe(`a.toml:2: ${reason}`);
  const environment = { HF_TOKEN: token.replace('\\n', '\n') };
  expect(refusal('', { environment })).toBe(`environment variable HF_TOKEN: ${reason}`);
});

describe('one key under two names is refused where the second one stands', () => {
  test.each([
    [
      `${keyed('a', 'k')}${keyed('b', 'k')}`,
      'a.toml:4: api.keys.b.sha256: api keys "a" and "b" are the same key',
    ],
    [
      `[api]\napi_key = "k"\n${keyed('"x y"', 'k')}`,
      'a.toml:4: api.keys."x y".sha256: api keys "key-1" and "x y"',
    ],
    ['[api]\napi_keys = ["k", "k"]', 'a.toml:2: api.api_keys: api keys "key-1" and "key-2"'],
    ['[api]\napi_key = "k"\nadmin_key = "k"', 'a.toml:3: api.admin_key: api keys "key-1" and "admin"'],
  ])('%j', (text, message) => {
    expect(refusal(text).startsWith(message), refusal(text)).toBe(true);
  });
});

test('what stands for defaults yields to whatever is written, by whom it may be written', () => {
  const defaults = { 'tee.mode': 'simulated-if-no-hardware', 'store.data_dir': '/demo' };
  const options = { 'tee.mode': '--demo', 'store.data_dir': '--demo' };
  const read = (text: string, more: Partial<ConfigSources> = {}) =>
    readConfig({ file: { path: '/etc/a.toml', text }, cwd: '/', defaults, options, ...more });
  expect(read('')).toMatchObject({ tee: { mode: 'simulated-if-no-hardware' }, store: { dataDir: '/demo' } });
  expect(read('').origins.get('tee.mode')).toBe('--demo');
  expect(read('[tee]\nmode = "none"\n[store]\ndata_dir = "mine"')).toMatchObject({
    tee: { mode: 'none' },
    store: { dataDir: '/etc/mine' },
  });
  expect(read('', { environment: { ASSAY_TEE_MODE: 'none' } }).tee.mode).toBe('none');
  expect(read('', { flags: { 'tee.mode': 'tdx' } }).tee.mode).toBe('tdx');
});

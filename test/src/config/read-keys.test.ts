// The bearer keys of a configuration, and the digest of all of it.

import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import {
  apiKeys,
  configDigest,
  effectiveConfig,
  readConfig,
  type Config,
  type ConfigSources,
} from '../../../src/config/read.ts';
import { serverConfig } from '../../../src/start/http.ts';
import { configRefusal } from '../../fixtures/refusal.ts';

function read(text: string, more: Partial<ConfigSources> = {}): Config {
  return readConfig({ file: { path: '/etc/assay/assay.toml', text }, cwd: '/work', ...more });
}

describe('keys', () => {
  const sha = (text: string): string =>
    execFileSync('sha256sum', { input: text, encoding: 'utf8' }).slice(0, 64);

  test('are kept as SHA-256 whichever way they are written', () => {
    const config = read(
      `[api]\napi_key = "sk-one"\napi_keys = ["sha256:${sha('sk-two')}"]\nadmin_key = "root"\n[api.keys.alice]\nsha256 = "${sha('sk-a')}"\nmodels = ["m"]\nmax_requests_per_minute = 5`,
    );
    expect(apiKeys(config)).toEqual([
      {
        name: 'key-1',
        sha256: sha('sk-one'),
        admin: false,
        models: null,
        limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 },
      },
      {
        name: 'key-2',
        sha256: sha('sk-two'),
        admin: false,
        models: null,
        limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 },
      },
      {
        name: 'admin',
        sha256: sha('root'),
        admin: true,
        models: null,
        limits: { requestsPerMinute: 0, tokensPerMinute: 0, concurrent: 0 },
      },
      {
        name: 'alice',
        sha256: sha('sk-a'),
        admin: false,
        models: ['m'],
        limits: { requestsPerMinute: 5, tokensPerMinute: 0, concurrent: 0 },
      },
    ]);
  });

  test('one key under two names is refused', () => {
    expect(
      configRefusal(() => apiKeys(read(`[api]\napi_key = "k"\n[api.keys.a]\nsha256 = "${sha('k')}"`)))
        .message,
    ).toContain('are the same key');
  });

  test('admin routes without an admin key are for loopback only, unless said', () => {
    const admin = (text: string): boolean => serverConfig(read(text)).auth.adminEnabled;
    expect(admin('')).toBe(true);
    expect(admin('[api]\naddress = "[::1]:1"')).toBe(true);
    expect(admin('[api]\naddress = "localhost:1"')).toBe(true);
    expect(admin('[api]\naddress = "0.0.0.0:1"')).toBe(false);
    expect(admin('[api]\naddress = "127.evil.example:1"')).toBe(false);
    expect(admin('[api]\naddress = "0.0.0.0:1"\nadmin_key = "k"')).toBe(true);
    expect(admin('[api]\naddress = "0.0.0.0:1"\nadmin_enabled = true')).toBe(true);
    expect(admin('[api]\nadmin_enabled = false')).toBe(false);
  });

  test('auth is on exactly when a key is there, unless said', () => {
    expect(serverConfig(read('')).auth.required).toBe(false);
    expect(serverConfig(read('[api]\napi_key = "k"')).auth.required).toBe(true);
    expect(serverConfig(read('[api]\napi_key = "k"\nrequire_auth = false')).auth.required).toBe(false);
    // An admin key alone guards the admin routes and leaves the others as they were.
    expect(serverConfig(read('[api]\nadmin_key = "k"')).auth.required).toBe(false);
  });
});

describe('the digest', () => {
  const text =
    '[api]\napi_key = "sk-one"\nmax_requests_per_minute = 5\n[api.models.m]\npath = "/m.gguf"\ndefault_temperature = 0.25';
  const hex = (config: Config): string => Buffer.from(configDigest(config)).toString('hex');

  test('does not depend on order, comments or spelling', () => {
    const other =
      '# a comment\n[api.models.m]\ndefault_temperature = 2.5e-1\npath = "/m.gguf"\n[api]\nmax_requests_per_minute = 0x5\napi_key = \'sk-one\'';
    expect(hex(read(text))).toBe(hex(read(other)));
    expect(hex(read(text))).toHaveLength(64);
  });

  test.each([
    '[engine]\nbackend = "vulkan"',
    '[engine]\nbackend = "cuda"\ngpu_layers = 4',
    '[log]\nlevel = "debug"',
    '[limits]\nmax_queue_per_model = 9',
    '[api.models.n]\npath = "/n"',
  ])('changes with %j', (more) => {
    expect(hex(read(`${text}\n${more}`))).not.toBe(hex(read(text)));
  });

  test('changes with a secret, and is the same for a key and its SHA-256, so nobody need tell the key', () => {
    expect(hex(read(text.replace('sk-one', 'sk-two')))).not.toBe(hex(read(text)));
    const digest = execFileSync('sha256sum', { input: 'sk-one', encoding: 'utf8' }).slice(0, 64);
    expect(hex(read(text.replace('sk-one', `sha256:${digest}`)))).toBe(hex(read(text)));
  });

  test('no secret is shown', () => {
    const secrets = '[api]\napi_key = "S1"\napi_keys = ["S2"]\nadmin_key = "S3"\n[models]\nhub_token = "S4"';
    const shown = JSON.stringify(effectiveConfig(read(secrets)));
    for (const secret of ['S1', 'S2', 'S3', 'S4']) expect(shown).not.toContain(`"${secret}"`);
    expect(shown.match(/sha256:[0-9a-f]{64}/g)).toHaveLength(4);
  });
});

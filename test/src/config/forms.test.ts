// Values that `config check` refuses for their form, from every source with the same sentence: where it was
// written, key, value, reason.

import { describe, expect, test } from 'vitest';
import { readConfig, variableOf } from '../../../src/config/read.ts';
import { nearestOf } from '../../../src/config/keys.ts';
import { configRefusal } from '../../fixtures/refusal.ts';

const FORMS: readonly (readonly [key: string, value: string, reason: string])[] = [
  ['api.address', '127.0.0.1:99999', 'the port 99999 is above 65535'],
  ['api.address', '127.0.0.1:65536', 'the port 65536 is above 65535'],
  ['api.address', '300.1.1.1:80', '300.1.1.1 is no IPv4 address'],
  ['api.address', '[::1:80', ''],
  ['api.address', '[1:2]:80', '[1:2] is no IPv6 address'],
  ['api.address', '::1:80', ''],
  ['api.address', 'a..b:80', 'the host is neither a name nor an address'],
  ['api.address', '-x:80', 'the host is neither a name nor an address'],
  ['api.address', ':80', 'the host is neither a name nor an address'],
  ['tls.names', 'a b', 'number 1'],
  ['tls.names', 'münchen.example', 'number 1'],
  ['tls.names', 'https://x', 'number 1'],
  ['tls.names', '10.0.0.256', 'number 1: 10.0.0.256 is no IPv4 address'],
  ['tee.kds_url', 'kds.example', ''],
  ['tee.pcs_url', 'ftp://x', 'its scheme is ftp:'],
  ['models.hub', 'https://x/?a=1', 'it holds more than an address'],
  ['network.https_proxy', 'proxy:3128', 'its scheme is proxy:'],
  ['api.cors_origins', 'https://a/b', 'number 1: its origin is https://a'],
  ['api.cors_origins', 'app', 'number 1'],
  ['models.preload', 'a b', 'number 1: may hold only'],
  ['models.keep_alive', '5 minutes', ''],
  ['store.data_dir', `/${'x'.repeat(256)}`, 'a part of it has 256 bytes'],
  ['store.data_dir', '/x'.repeat(3000), 'it has 6000 bytes'],
  ['tee.attestd_socket', `/${'x'.repeat(120)}`, 'it has 121 bytes'],
];

describe('a value of the wrong form is refused', () => {
  test.each(FORMS)('%s = %j, from the file, with its line', (key, value, reason) => {
    const [section = '', name = ''] = key.split('.');
    const list = ['tls.names', 'api.cors_origins', 'models.preload'].includes(key);
    const text = `# first\n[${section}]\n${name} = ${list ? `[${JSON.stringify(value)}]` : JSON.stringify(value)}\n`;
    const message = configRefusal(() =>
      readConfig({ file: { path: '/etc/a.toml', text }, cwd: '/' }),
    ).message;
    expect(message.startsWith(`/etc/a.toml:3: ${key} must be `), message).toBe(true);
    expect(message).toContain(reason);
    expect(message).not.toContain('\n');
  });

  test.each(FORMS)('%s = %j, from the environment and from a flag', (key, value, reason) => {
    const variable = variableOf(key);
    const fromVariable = configRefusal(() =>
      readConfig({ cwd: '/', environment: { [variable]: value } }),
    ).message;
    expect(fromVariable.startsWith(`environment variable ${variable}: ${key} must be `), fromVariable).toBe(
      true,
    );
    expect(fromVariable).toContain(reason);
    const list = ['tls.names', 'api.cors_origins', 'models.preload'].includes(key);
    const fromFlag = configRefusal(() =>
      readConfig({ cwd: '/', flags: { [key]: list ? [value] : value }, options: { [key]: '--x' } }),
    ).message;
    expect(fromFlag).toBe(fromVariable.replace(`environment variable ${variable}`, '--x'));
  });

  test.each([
    ['[api]\napi_key = "sha256:AB"', 'api.api_key', 'what follows sha256: is no digest'],
    ['[api]\nadmin_key = "zwölf Worte"', 'api.admin_key', 'a header can only carry visible ASCII'],
    ['[api]\napi_keys = ["good", "bad key"]', 'api.api_keys', 'number 2'],
  ])('%s is refused, and no part of it repeated', (text, key, reason) => {
    const message = configRefusal(() => readConfig({ file: { path: 'a.toml', text }, cwd: '/' })).message;
    expect(message.startsWith(`a.toml:2: ${key} must be `), message).toBe(true);
    expect(message).toContain(reason);
    expect(message).not.toMatch(/AB|Worte|bad/);
  });

  test.each([
    ['[api.models."a b"]\npath = "x"', 'a.toml:1: api.models."a b": the model id may hold only'],
    ['[api.models.pull]\npath = "x"', 'a.toml:1: api.models.pull: the model id is a reserved word'],
    ['\n[api.models."a//b"]\npath = "x"', 'a.toml:2: api.models."a//b": the model id has an empty'],
    [
      `[api.keys."a\\nb"]\nsha256 = "${'0'.repeat(64)}"`,
      'a.toml:1: api.keys."a\\nb": the name holds characters',
    ],
  ])('the name in %j', (text, begin) => {
    const message = configRefusal(() => readConfig({ file: { path: 'a.toml', text }, cwd: '/' })).message;
    expect(message.startsWith(begin), message).toBe(true);
  });

  test('an id of the command line', () => {
    const message = configRefusal(() =>
      readConfig({ cwd: '/', models: [{ id: '../x', path: '/x' }] }),
    ).message;
    expect(message).toMatch(/^--model "\.\.\/x": the model id /);
  });

  test('conventional variables are held to the form of the key they stand for', () => {
    expect(
      configRefusal(() => readConfig({ cwd: '/', environment: { HTTPS_PROXY: 'proxy:3128' } })).message,
    ).toMatch(/^environment variable HTTPS_PROXY: network\.https_proxy must be an http or https URL/);
    expect(
      configRefusal(() => readConfig({ cwd: '/', environment: { HF_ENDPOINT: 'http://hub' } })).message,
    ).toMatch(/^environment variable HF_ENDPOINT: models\.hub must be an https URL unless/);
    expect(readConfig({ cwd: '/', environment: { HTTPS_PROXY: '' } }).network.httpsProxy).toBeUndefined();
  });

  test('the password of a proxy is not repeated', () => {
    const message = configRefusal(() =>
      readConfig({ cwd: '/', environment: { HTTPS_PROXY: 'socks5://user:CANARY@proxy' } }),
    ).message;
    expect(message).not.toContain('CANARY');
  });
});

test.each([
  ['127.0.0.1:0'],
  ['[::1]:8443'],
  ['[::ffff:127.0.0.1]:1'],
  ['localhost:65535'],
  ['a-b.example:80'],
])('the address %s is one', (address) => {
  expect(readConfig({ cwd: '/', flags: { 'api.address': address } }).api.address).toBe(address);
});

test.each([
  ['ASSAY_FOO', ['ASSAY_TEE_MODE', 'ASSAY_LOG_LEVEL'], undefined],
  ['ASSAY_TEE_MOD', ['ASSAY_TEE_MODE', 'ASSAY_LOG_LEVEL'], 'ASSAY_TEE_MODE'],
  ['api.zzz', ['api.enabled', 'api.address'], undefined],
  ['x', ['api', 'tls', 'log'], undefined],
  ['server.address', ['api.enabled', 'api.address'], 'api.address'],
  ['tee.mdoe', ['tee.mode', 'tee.product'], 'tee.mode'],
])('for %s of %j the guess is %s', (name, known, guess) => {
  expect(nearestOf(name, known)).toBe(guess);
});

test('where a value was written is kept, for values that are no default', () => {
  const config = readConfig({
    file: { path: 'a.toml', text: '[api.models.m]\npath = "x"' },
    cwd: '/',
    environment: { ASSAY_LIMITS_MAX_CONNECTIONS: '5' },
  });
  expect([...config.origins]).toEqual([
    ['api.models\0m\0path', 'a.toml:2'],
    ['limits.max_connections', 'environment variable ASSAY_LIMITS_MAX_CONNECTIONS'],
  ]);
});

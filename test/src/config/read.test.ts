// The configuration: closed schema, sources in their order, what an operator may not say,
// secrets that never show.

import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  configDigest,
  readConfig,
  variableOf,
  type Config,
  type ConfigSources,
} from '../../../src/config/read.ts';
import { nearestOf } from '../../../src/config/keys.ts';
import { ENTRIES, SECTIONS, type Section } from '../../../src/config/schema.ts';
import { ConfigError } from '../../../src/base/errors.ts';
import { serverConfig } from '../../../src/start/http.ts';
import { configRefusal } from '../../fixtures/refusal.ts';

function read(text: string, more: Partial<ConfigSources> = {}): Config {
  return readConfig({ file: { path: '/etc/assay/assay.toml', text }, cwd: '/work', ...more });
}

describe('reading', () => {
  test('nothing at all gives every default', () => {
    const config = readConfig({ cwd: '/', environment: { HOME: '/home/a' } });
    expect(config.api).toMatchObject({ enabled: true, address: '127.0.0.1:8443', corsOrigins: [] });
    expect(config.tee.mode).toBe('auto');
    expect(config.store.dataDir).toBe('/home/a/.local/share/assay');
    expect(config.audit.folder).toBe('/home/a/.local/share/assay/audit');
    expect(readConfig({ cwd: '/', environment: { XDG_DATA_HOME: '/data' } }).store.dataDir).toBe(
      '/data/assay',
    );
  });

  test('the table of the seed is understood: [api] and [api.models.<id>]', () => {
    const config = read(`
[api]
enabled = true
address = "0.0.0.0:9000"
api_key = "sk-one"
api_keys = ["sk-two"]
require_auth = true
max_requests_per_minute = 10
max_tokens_per_minute = 1000
cors_enabled = true
cors_origins = ["https://app.example"]

[api.models."llama3.2:3b"]
path = "llama.gguf"
type = "chat"
context_length = 4096
default_temperature = 0.5
[api.models.embed]
path = "/models/e.gguf"
type = "embedding"
dimensions = 256
sha256 = "${'ab'.repeat(32)}"
`);
    expect([...config.modelEntries.keys()]).toEqual(['llama3.2:3b', 'embed']);
    expect(config.modelEntries.get('llama3.2:3b')).toMatchObject({
      path: '/etc/assay/llama.gguf',
      type: 'chat',
      contextLength: 4096,
      defaultTemperature: 0.5,
    });
    expect(config.modelEntries.get('embed')).toMatchObject({
      path: '/models/e.gguf',
      dimensions: 256,
      sha256: 'ab'.repeat(32),
    });
    expect(serverConfig(config)).toMatchObject({
      host: '0.0.0.0',
      port: 9000,
      auth: { required: true },
      corsOrigins: ['https://app.example'],
      anonymous: { requestsPerMinute: 10, tokensPerMinute: 1000 },
    });
  });

  test('IPv6 addresses keep their brackets to themselves', () => {
    expect(serverConfig(read('[api]\naddress = "[::1]:0"'))).toMatchObject({ host: '::1', port: 0 });
  });
});

describe('an unknown key', () => {
  test.each([
    ['[api]\nadress = "x"', 2, 'api.adress', 'api.address'],
    ['\n\n[ap]\n', 3, 'ap', 'api'],
    [
      '[api]\n# address = 1\n[api.models.m]\npath = "x"\ncontext_lenght = 5',
      5,
      'api.models.m.context_lenght',
      'api.models.m.context_length',
    ],
    ['api.max_request_per_minute = 4', 1, 'api.max_request_per_minute', 'api.max_requests_per_minute'],
    ['[tee]\nmode = "auto"\nmod = "none"', 3, 'tee.mod', 'tee.mode'],
    ['[log]\n"lev el" = "info"', 2, 'log.lev el', 'log.level'],
    ['[api]\napi_key = """\nadress = 1\n"""\nadress = 2', 5, 'api.adress', 'api.address'],
    ['[api]\nmodel = 1', 2, 'api.model', 'api.models'],
  ])('in %j is named with its line and the nearest known one', (text, line, key, nearest) => {
    const error = configRefusal(() => read(text));
    expect(error.message).toBe(`/etc/assay/assay.toml:${line}: unknown key ${key}, did you mean ${nearest}?`);
    expect(error.key).toBe(key);
  });
});

describe('a wrong value', () => {
  test.each([
    ['[api]\nenabled = "yes"', 'api.enabled must be true or false'],
    ['[api]\naddress = "8443"', 'api.address must be host:port'],
    ['[api]\nmax_requests_per_minute = -1', 'api.max_requests_per_minute must be an integer from 0'],
    ['[api]\nmax_requests_per_minute = 1.5', 'must be an integer'],
    ['[api]\napi_keys = "k"', 'api.api_keys must be a list'],
    ['[api]\napi_keys = ["k", 1]', 'api.api_keys must be a list of texts'],
    ['[api]\napi_key = ""', 'api.api_key must be a text that is not empty'],
    ['[tee]\nmode = "sgx"', 'tee.mode must be one of "auto", "sev-snp", "tdx"'],
    ['[models]\nkeep_alive = "5 minutes"', 'models.keep_alive must be a duration'],
    ['[api.models.m]\npath = "x"\nsha256 = "AB"', 'api.models.m.sha256 must be 64 lower-case hex digits'],
    [
      '[api.models.m]\npath = "x"\ndefault_temperature = 3',
      'default_temperature must be a number from 0 to 2',
    ],
    ['[api.models.m]\ntype = "chat"', 'api.models.m has no path'],
    ['[api.keys.a]\nmodels = []', 'api.keys.a has no sha256'],
    ['api = 1', 'api must be a table'],
    ['[api]\nmodels = 1', 'api.models must be a table'],
    ['[api.models]\nm = 1', 'api.models.m must be a table'],
    ['[api]\nrequire_auth = true', 'no key is configured'],
    ['[api]\ncors_enabled = true', 'api.cors_origins is empty'],
    ['[store]\nresidency = "verity"', 'store.verity_folder is not set'],
    ['[store]\ndata_dir = "a\\u0000b"', 'store.data_dir must be a text'],
  ])('%j is refused', (text, message) => expect(configRefusal(() => read(text)).message).toContain(message));

  test('broken TOML is refused with its line and without its text', () => {
    const error = configRefusal(() => read('[api]\napi_key = "sk-secret\n'));
    expect(error.message).toMatch(/^\/etc\/assay\/assay\.toml:\d: /);
    expect(error.message).not.toContain('sk-secret');
  });

  test('names of JavaScript objects are names like any other, or refused', () => {
    expect(configRefusal(() => read('[api.models.__proto__]\npath = "x"'))).toBeInstanceOf(ConfigError);
    expect(configRefusal(() => read('[api]\nconstructor = 1'))).toBeInstanceOf(ConfigError);
    expect(configRefusal(() => read('[api]\ntoString = 1')).message).toContain('unknown key api.toString');
    expect(({} as Record<string, unknown>)['path']).toBeUndefined();
  });

  test('a file of more than a megabyte is refused unread', () => {
    expect(configRefusal(() => read(`# ${'x'.repeat(1024 * 1024)}`)).message).toContain('is over');
  });
});

describe('sources', () => {
  const operator = (text: string): Partial<ConfigSources> => ({ operator: { path: 'op.toml', text } });

  test('the operator may set what costs availability only, and never over the measured file', () => {
    expect(read('', operator('[api]\naddress = "0.0.0.0:1"')).api.address).toBe('0.0.0.0:1');
    expect(read('[api]\naddress = "127.0.0.1:2"', operator('[api]\naddress = "0.0.0.0:1"')).api.address).toBe(
      '127.0.0.1:2',
    );
  });

  test('every measured key is refused from the operator, and every operator key taken', () => {
    for (const [name, section] of Object.entries(SECTIONS) as [string, Section][]) {
      for (const [key, field] of Object.entries(section)) {
        const value = { text: '"x"', choice: '"x"', boolean: 'true', integer: '1', number: '1', texts: '[]' }[
          field.kind
        ];
        const call = (): unknown => read('', operator(`[${name}]\n${key} = ${value}`));
        if (field.from === 'measured') {
          expect(configRefusal(call).message).toBe(
            `op.toml:2: ${name}.${key} may only be set in the measured configuration, not by the operator`,
          );
        } else {
          try {
            call();
          } catch (error) {
            expect((error as ConfigError).message).not.toContain('may only be set');
          }
        }
      }
    }
    expect(configRefusal(() => read('', operator('[api.models.m]\npath = "x"'))).message).toContain(
      'api.models.m.path may only be set',
    );
    expect(
      configRefusal(() => read('', operator(`[api.keys.a]\nsha256 = "${'00'.repeat(32)}"\nadmin = true`)))
        .message,
    ).toContain('api.keys.a.admin');
    expect(read('', operator(`[api.keys.a]\nsha256 = "${'00'.repeat(32)}"`)).keyEntries.size).toBe(1);
  });

  test('what can reach code, paths, log level or content is measured', () => {
    const paths = Object.entries({ ...SECTIONS, ...ENTRIES } as Record<string, Section>).flatMap(
      ([name, section]) =>
        Object.entries(section)
          .filter(([, field]) => field.path === true && field.from === 'operator')
          .map(([key]) => `${name}.${key}`),
    );
    expect(paths).toEqual([]);
    for (const key of [
      'log.level',
      'tee.mode',
      'models.pull_enabled',
      'models.hub',
      'store.residency',
      'limits.stream_padding',
      'limits.stream_batch_ms',
      'api.admin_enabled',
      'audit.enabled',
    ]) {
      const [section, name] = key.split('.') as [keyof typeof SECTIONS, string];
      expect([key, (SECTIONS[section] as Section)[name]?.from]).toEqual([key, 'measured']);
    }
  });

  test('environment over file, flags over environment', () => {
    const sources = {
      environment: {
        ASSAY_API_ADDRESS: '127.0.0.1:3',
        ASSAY_API_CORS_ORIGINS: 'https://a, https://b',
        ASSAY_MODELS_MAX_LOADED: '7',
      },
    };
    const config = read('[api]\naddress = "127.0.0.1:2"', sources);
    expect([config.api.address, config.api.corsOrigins, config.models.maxLoaded]).toEqual([
      '127.0.0.1:3',
      ['https://a', 'https://b'],
      7,
    ]);
    expect(read('', { ...sources, flags: { 'api.address': '127.0.0.1:4' } }).api.address).toBe('127.0.0.1:4');
  });

  test('a variable with our prefix that is no setting is refused, with the nearest one', () => {
    const error = configRefusal(() =>
      readConfig({ cwd: '/', environment: { ASSAY_API_REQUIRE_AUT: 'true' } }),
    );
    expect(error.message).toBe(
      'environment: unknown variable ASSAY_API_REQUIRE_AUT, did you mean ASSAY_API_REQUIRE_AUTH?',
    );
    expect(() => readConfig({ cwd: '/', environment: { ASSAY_VECTORS: '/v', PATH: '/bin' } })).not.toThrow();
  });

  test('values of the environment are typed like those of the file', () => {
    const environment = (value: string): ConfigSources => ({
      cwd: '/',
      environment: { ASSAY_API_METRICS_ENABLED: value },
    });
    expect(readConfig(environment('true')).api.metricsEnabled).toBe(true);
    expect(configRefusal(() => readConfig(environment('1'))).message).toContain(
      'environment variable ASSAY_API_METRICS_ENABLED',
    );
    expect(
      configRefusal(() => readConfig({ cwd: '/', environment: { ASSAY_MODELS_MAX_LOADED: '0x10' } })).message,
    ).toContain('an integer');
  });

  test('the hub of HF_ENDPOINT and the token of HF_TOKEN are known', () => {
    const config = readConfig({
      cwd: '/',
      environment: { HF_ENDPOINT: 'https://hub.example', HF_TOKEN: 't' },
    });
    expect([config.models.hub, config.models.hubToken]).toEqual(['https://hub.example', 't']);
  });

  test('models of the command line need no file', () => {
    const config = readConfig({ cwd: '/work', environment: {}, models: [{ id: 'm', path: 'm.gguf' }] });
    expect(config.modelEntries.get('m')?.path).toBe('/work/m.gguf');
  });

  test('a flag for a key that does not exist is a mistake of ours, said aloud', () => {
    expect(
      configRefusal(() => readConfig({ cwd: '/', environment: {}, flags: { 'api.adress': 'x' } })).message,
    ).toContain('did you mean api.address');
  });

  test('every setting has its own variable', () => {
    const names = Object.entries(SECTIONS).flatMap(([name, section]) =>
      Object.keys(section).map((key) => variableOf(`${name}.${key}`)),
    );
    expect(new Set(names).size).toBe(names.length);
  });
});

test('property: any text is a configuration or a ConfigError that shows no secret', () => {
  const line = fc.oneof(
    fc.constantFrom(
      '[api]',
      '[api.models.m]',
      '[tee]',
      'path = "x"',
      'mode = "none"',
      'address = "a:1"',
      '[[api]]',
      'api.keys.a.sha256 = 1',
      '[log',
      '"""',
      'x = {a = 1',
    ),
    fc.string({ maxLength: 30 }),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
      try {
        configDigest(read(`[api]\napi_key = "CANARY"\n${lines.join('\n')}`));
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
        expect((error as Error).message).not.toContain('CANARY');
      }
    }),
    { numRuns: 300 * Number(process.env['ASSAY_FUZZ'] ?? 1) },
  );
});

test('the nearest name is by edit distance', () => {
  expect(nearestOf('adress', ['address', 'enabled'])).toBe('address');
  expect(nearestOf('x', [])).toBeUndefined();
});

test('docs/configuration.md is what the schema says', () => {
  const top = fileURLToPath(new URL('../../..', import.meta.url));
  expect(() =>
    execFileSync(process.execPath, ['--import', 'tsx', 'scripts/configuration.ts', '--check'], { cwd: top }),
  ).not.toThrow();
});

// Values of a configuration beyond its sources: defaults that depend on the machine, conventional variables
// in place of keys, and the rules between keys.

import { homedir } from 'node:os';
import { isAbsolute, resolve } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { systemReason } from '../base/system-error.ts';
import { MAX_SOCKET_BYTES, pathProblem } from './forms.ts';
import { quoted, valueKey } from './keys.ts';
import { SECTIONS, type Config, type Section } from './schema.ts';
import type { Environment } from './sources.ts';
import { shownValue, valueOf } from './value.ts';

/** Defaults that depend on the machine, and rules between keys. */
export function finish(config: Config, surroundings: Environment): Config {
  const dataDir = config.store.dataDir ?? resolve(dataHome(surroundings), 'assay');
  const origins = new Map(config.origins);
  const fallback = (key: string, given: string | undefined, variables: readonly string[]) =>
    given ?? fromVariables(key, variables, surroundings, origins);
  const { hub, hubToken } = config.models;
  const { httpProxy, httpsProxy, noProxy } = config.network;
  const finished: Config = {
    ...config,
    origins,
    store: { ...config.store, dataDir },
    models: {
      ...config.models,
      hub: fallback('models.hub', hub, ['HF_ENDPOINT']),
      hubToken: fallback('models.hub_token', hubToken, ['HF_TOKEN']),
    },
    // Lower case wins, as it does for curl.
    network: {
      httpProxy: fallback('network.http_proxy', httpProxy, ['http_proxy', 'HTTP_PROXY']),
      httpsProxy: fallback('network.https_proxy', httpsProxy, ['https_proxy', 'HTTPS_PROXY']),
      noProxy: fallback('network.no_proxy', noProxy, ['no_proxy', 'NO_PROXY']),
    },
    audit: { ...config.audit, folder: config.audit.folder ?? resolve(dataDir, 'audit') },
  };
  checkTogether(finished);
  return finished;
}

/** XDG Base Directory Specification: relative paths in it must be ignored. */
function dataHome(surroundings: Environment): string {
  const home = surroundings['XDG_DATA_HOME'];
  if (home !== undefined && isAbsolute(home)) return home;
  try {
    return resolve(surroundings['HOME'] ?? homedir(), '.local/share');
  } catch (error) {
    throw new ConfigError(
      `store.data_dir is not set and there is no home folder to put it in: ${systemReason(error)}`,
      'store.data_dir',
    );
  }
}

/** The conventional variable in place of a key, held to the same form. An empty one counts as unset. */
function fromVariables(
  key: string,
  variables: readonly string[],
  surroundings: Environment,
  origins: Map<string, string>,
): string | undefined {
  const variable = variables.find((name) => (surroundings[name] ?? '') !== '');
  if (variable === undefined) return undefined;
  const [section, name] = key.split('.') as [keyof typeof SECTIONS, string];
  const field = (SECTIONS[section] as Section)[name];
  if (field === undefined) throw new TypeError(`${key} is no key`);
  const where = `environment variable ${variable}`;
  origins.set(key, where);
  return valueOf(field, key, { value: surroundings[variable], where, base: '/' }) as string;
}

function checkTogether(config: Config): void {
  const { api, store, models, engine } = config;
  const refuse = (key: string, message: string, origin = key): ConfigError => {
    const where = config.origins.get(origin);
    return new ConfigError(`${where === undefined ? '' : `${where}: `}${message}`, key);
  };
  const noKey = api.apiKey === undefined && api.apiKeys.length === 0 && config.keyEntries.size === 0;
  if (api.requireAuth === true && noKey)
    throw refuse(
      'api.require_auth',
      'api.require_auth is true but no key is configured: set api.api_key, api.api_keys or [api.keys.<name>]',
    );
  if (store.residency === 'verity' && store.verityFolder === undefined)
    throw refuse('store.residency', 'store.residency is "verity" but store.verity_folder is not set');
  const unused = [
    ['engine.gpu_device', engine.gpuDevice],
    ['engine.gpu_layers', engine.gpuLayers],
  ] as const;
  const given = unused.find(([, value]) => value !== undefined);
  if (engine.backend === 'cpu' && given !== undefined)
    throw refuse(given[0], `${given[0]} is for graphics cards but engine.backend is "cpu"`);
  if (api.corsEnabled && api.corsOrigins.length === 0)
    throw refuse('api.cors_enabled', 'api.cors_enabled is true but api.cors_origins is empty');
  if (models.hub?.startsWith('http:') === true && !models.hubPrivate)
    throw refuse(
      'models.hub',
      `models.hub must be an https URL unless models.hub_private is true, not ${shownValue(models.hub)}`,
    );
  for (const [id, { format, isq }] of config.modelEntries)
    if (isq !== undefined && (format === undefined || format === 'gguf')) {
      const key = `api.models.${quoted(id)}.isq`;
      const message = `${key} is for folders of safetensors`;
      throw refuse(key, message, valueKey('api.models', id, 'isq'));
    }
  const socket = config.tee.attestdSocket;
  const problem = socket === undefined ? undefined : pathProblem(socket, MAX_SOCKET_BYTES);
  if (problem !== undefined)
    throw refuse('tee.attestd_socket', `tee.attestd_socket must be the path of a socket (${problem})`);
}

// Checks the files and folders of the configuration before anything is made: a missing or wrong one ends the
// start with the key and the configured value, not with a later error about a file of ours.

import { once } from 'node:events';
import { constants } from 'node:fs';
import { access, mkdir, open, stat } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { ConfigError } from '../base/errors.ts';
import { systemReason } from '../base/system-error.ts';
import type { Config } from '../config/read.ts';
import { camel, quoted, valueKey } from '../config/keys.ts';
import { shownValue } from '../config/value.ts';

/** `store.data_dir`, or table, id and key of an entry. */
type Key = readonly [string] | readonly [table: string, id: string, key: string];

/** "FILE:LINE: KEY VALUE: REASON". */
export function refusedValue(config: Config, key: Key, reason: string, cause?: unknown): ConfigError {
  const where = config.origins.get(key.length === 1 ? key[0] : valueKey(...key));
  const name = key.map(quoteEntry).join('.');
  const value = shownValue(writtenAt(config, key));
  return new ConfigError(
    `${where === undefined ? '' : `${where}: `}${name} ${value}: ${reason}`,
    name,
    cause,
  );
}

/** The id of an entry as TOML spells it. */
function quoteEntry(part: string, at: number): string {
  return at === 1 ? quoted(part) : part;
}

function writtenAt(config: Config, key: Key): unknown {
  const [table, id, entryKey] = key;
  if (id !== undefined && entryKey !== undefined) {
    const entries = table === 'api.models' ? config.modelEntries : config.keyEntries;
    return (entries.get(id) as Readonly<Record<string, unknown>> | undefined)?.[camel(entryKey)];
  }
  const [section = '', name = ''] = table.split('.');
  const values = config[section as 'api'] as Readonly<Record<string, unknown>>;
  return values[camel(name)];
}

/** Throws ConfigError. Files first: they are most often missing, and making keys takes seconds. */
export async function checkConfiguredPaths(config: Config): Promise<void> {
  const { store, audit, tee, files } = config;
  for (const [id, { path, format, chatTemplate, jobRecord, jobEvidence }] of config.modelEntries) {
    const folders = format === undefined || format === 'gguf' ? 'may' : 'must';
    await readable(config, ['api.models', id, 'path'], path, { code: ' (file_not_found)', folders });
    if (chatTemplate !== undefined) await readable(config, ['api.models', id, 'chat_template'], chatTemplate);
    if (jobRecord !== undefined) await readable(config, ['api.models', id, 'job_record'], jobRecord);
    if (jobEvidence !== undefined) await readable(config, ['api.models', id, 'job_evidence'], jobEvidence);
  }
  const dataDir = store.dataDir ?? '.';
  await ownFolder(config, ['store.data_dir'], dataDir);
  if (config.responses.store) await ownFolder(config, ['store.data_dir'], join(dataDir, 'responses'));
  if (audit.enabled)
    await ownFolder(config, [keyOr(config, 'audit.folder')], audit.folder ?? join(dataDir, 'audit'));
  if (files.folder !== undefined) await ownFolder(config, ['files.folder'], files.folder);
  if (tee.mode.startsWith('simulated'))
    await ownFolder(
      config,
      [keyOr(config, 'tee.simulated_folder')],
      tee.simulatedFolder ?? join(dataDir, 'simulated'),
    );
  if (store.verityFolder !== undefined) await folder(config, 'store.verity_folder', store.verityFolder);
  for (const [i, root] of store.modelRoots.entries())
    await folder(config, 'store.model_roots', root, `number ${i + 1}: `);
  if (!['none', 'simulated'].includes(tee.mode)) await checkHardwarePlaces(config);
  if (config.origins.has('store.staging_folder'))
    await folder(config, 'store.staging_folder', store.stagingFolder);
}

/**
 * The paths that are used when a TEE is looked for. With a root part, that process reads the folder of
 * reports.
 */
async function checkHardwarePlaces(config: Config): Promise<void> {
  const { attestdSocket, tsmFolder, endorsementsFolder } = config.tee;
  if (attestdSocket !== undefined) await answering(config, 'tee.attestd_socket', attestdSocket);
  else if (config.origins.has('tee.tsm_folder')) await folder(config, 'tee.tsm_folder', tsmFolder);
  if (endorsementsFolder !== undefined) await folder(config, 'tee.endorsements_folder', endorsementsFolder);
}

/** A socket file may outlive its listener. */
async function answering(config: Config, key: string, path: string): Promise<void> {
  const socket = connect(path);
  try {
    await once(socket, 'connect');
  } catch (error) {
    throw refusedValue(config, [key], systemReason(error), error);
  } finally {
    socket.destroy();
  }
}

/** The key to name for a folder: its own when it is set, else that of the data folder it follows from. */
function keyOr(config: Config, key: string): string {
  return config.origins.has(key) ? key : 'store.data_dir';
}

interface Readable {
  readonly code?: string | undefined;
  /** Absent: it may be none. */
  readonly folders?: 'may' | 'must' | undefined;
}

async function readable(
  config: Config,
  key: Key,
  path: string,
  { code = '', folders }: Readable = {},
): Promise<void> {
  let file;
  try {
    // Reading a pipe would wait for a writer.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await file.stat();
    if (folders !== undefined && found.isDirectory()) return;
    if (folders !== 'must' && found.isFile()) return;
  } catch (error) {
    throw refusedValue(config, key, `${systemReason(error)}${code}`, error);
  } finally {
    await file?.close();
  }
  throw refusedValue(config, key, folders === 'must' ? 'is not a folder' : 'is not a regular file');
}

/** Makes a missing folder, as the start would later. */
async function ownFolder(config: Config, key: Key, path: string): Promise<void> {
  const inside = writtenAt(config, key) === path ? '' : `${path} in it: `;
  try {
    await makeFolder(path);
    await access(path, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    throw refusedValue(config, key, `${inside}${folderReason(error)}`, error);
  }
}

/**
 * Not `recursive`: Node retries without end where a file system takes no folders (mkdir in /proc is ENOENT).
 */
async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const parent = dirname(path);
    if (code === 'EEXIST' && (await stat(path)).isDirectory()) return;
    if (code !== 'ENOENT' || parent === path || (await exists(parent))) throw error;
    await makeFolder(parent);
    await makeFolder(path);
  }
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

/** mkdir fails with EEXIST where a file stands in place of the folder. */
function folderReason(error: unknown): string {
  return (error as NodeJS.ErrnoException).code === 'EEXIST'
    ? 'is not a folder (ENOTDIR)'
    : systemReason(error);
}

async function folder(config: Config, key: string, path: string, which = ''): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) return;
  } catch (error) {
    throw refusedValue(config, [key], `${which}${systemReason(error)}`, error);
  }
  throw refusedValue(config, [key], `${which}is not a folder (ENOTDIR)`);
}

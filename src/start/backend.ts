// The configured backend, before a model is loaded: its build is installed and finds a device. Refuses the
// start where it is not so, rather than every later load.

import type { Config } from '../config/read.ts';
import type { Log } from '../base/log.ts';
import type { Device } from '../engine/seam/backend.ts';
import { llamaFolder } from '../engine/seam/library-folder.ts';
import { refusedValue } from './configured-paths.ts';

/** `findDevices` asks a child of the engine: this process loads no driver. */
export async function checkBackend(
  config: Config,
  log: Pick<Log, 'info'>,
  findDevices: () => Promise<readonly Device[]>,
): Promise<void> {
  const { backend } = config.engine;
  if (backend === 'cpu') return;
  let devices: readonly Device[];
  try {
    llamaFolder(backend);
    devices = await findDevices();
  } catch (error) {
    throw refusedValue(config, ['engine.backend'], error instanceof Error ? error.message : 'fails', error);
  }
  if (devices.length === 0)
    throw refusedValue(
      config,
      ['engine.backend'],
      `the ${backend} build finds no device: its driver must be installed, and this user may have to be allowed its device nodes (docs/gpu.md)`,
    );
  for (const { name, description, totalBytes, freeBytes } of devices)
    log.info({ msg: 'device', backend, name, description, totalBytes, freeBytes });
}

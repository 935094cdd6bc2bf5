// The devices of ggml's registry that are not the CPU (ggml/include/ggml-backend.h). Opening one makes its
// driver open the device nodes and files it needs, so that none is opened after this process is confined.

import koffi from 'koffi';
import type { Device } from '../../seam/backend.ts';
import { LlamaLibraryError } from '../../seam/library-folder.ts';
import { POINTER, type Pointer } from './declarations.ts';
import type { loadLlama } from './library.ts';

/** enum ggml_backend_dev_type: discrete and integrated graphics. */
const GRAPHICS: ReadonlySet<unknown> = new Set([1, 2]);

export interface OpenDevice extends Device {
  /** Kept as long as the process: the last one closed would close the driver. */
  readonly backend: Pointer;
}

/** Opens all of them; throws LlamaLibraryError for one that cannot be. */
export function openDevices(ggml: ReturnType<typeof loadLlama>['ggml']): readonly OpenDevice[] {
  const [registry, base] = [ggml.registry, ggml.base()];
  const count: unknown = registry.func('ggml_backend_dev_count', 'size_t', [])();
  const get = registry.func('ggml_backend_dev_get', POINTER, ['size_t']);
  const typeOf = base.func('ggml_backend_dev_type', 'int32', [POINTER]);
  const nameOf = base.func('ggml_backend_dev_name', 'str', [POINTER]);
  const descriptionOf = base.func('ggml_backend_dev_description', 'str', [POINTER]);
  const size = koffi.out(koffi.pointer('size_t'));
  const memoryOf = base.func('ggml_backend_dev_memory', 'void', [POINTER, size, size]);
  const init = base.func('ggml_backend_dev_init', POINTER, [POINTER, 'str']);
  const devices: OpenDevice[] = [];
  for (let i = 0; i < Number(count); i += 1) {
    const handle: unknown = get(i);
    if (!GRAPHICS.has(typeOf(handle))) continue;
    const name = String(nameOf(handle));
    const backend: unknown = init(handle, null);
    if (typeof backend !== 'bigint' || backend === 0n)
      throw new LlamaLibraryError(`the device ${name} cannot be opened`);
    const [free, total] = [[0], [0]] as [[number], [number]];
    memoryOf(handle, free, total);
    devices.push({
      backend,
      name,
      description: String(descriptionOf(handle)),
      freeBytes: Number(free[0]),
      totalBytes: Number(total[0]),
    });
  }
  return devices;
}

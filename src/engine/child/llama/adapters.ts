// LoRA adapters of a loaded model. llama.cpp opens an adapter by name, twice, so they are loaded while this
// process may still open their files, and no others (child/adapted/launch). A context then uses one at a
// time.

import type { LlamaLibrary, Pointer } from './declarations.ts';
import { nativeAlloc } from './library.ts';
import { ModelLoadError } from './model.ts';

/** The arguments of llama_set_adapters_lora for one adapter, in native memory. */
export interface LoadedAdapter {
  /** Of one `llama_adapter_lora *`. */
  readonly handles: Pointer;
  /** Of one float. */
  readonly scales: Pointer;
}

export function loadAdapter(
  llama: LlamaLibrary,
  model: Pointer,
  { path, scale }: { readonly path: string; readonly scale: number },
): LoadedAdapter {
  const handle = llama.llama_adapter_lora_init(model, path);
  if (handle === null) throw new ModelLoadError('an adapter cannot be loaded');
  const handles = nativeAlloc(8);
  new DataView(handles.memory).setBigUint64(0, handle, true);
  const scales = nativeAlloc(4);
  new DataView(scales.memory).setFloat32(0, scale, true);
  return { handles: handles.pointer, scales: scales.pointer };
}

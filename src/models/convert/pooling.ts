// How the vectors of a folder of sentence-transformers become one: modules.json names a module for it, whose
// config.json says mean, first or last token (`_try_set_pooling_type` of the official converter). A module
// after the model that changes the vectors is refused: llama.cpp would leave it out.

import { Fields } from './config.ts';
import { invalidDescription, type Folder } from './folder.ts';
import { isObject, readJson, readJsonList } from './json.ts';

const MODULES = 'modules.json';
const POOLING_MODES = [
  ['pooling_mode_mean_tokens', 'mean', 1],
  ['pooling_mode_cls_token', 'cls', 2],
  ['pooling_mode_lasttoken', 'lasttoken', 3],
] as const;

/** LLAMA_POOLING_TYPE of a folder of sentence-transformers; undefined where it is none. */
export function poolingOf(folder: Folder): number | undefined {
  const modules = readJsonList(folder, MODULES);
  if (modules === undefined) return undefined;
  let path: string | undefined;
  for (const [i, each] of modules.entries()) {
    const module = isObject(each) ? new Fields(MODULES, each, `[${i}].`) : undefined;
    const type = module?.string('type');
    if (module === undefined || type === undefined)
      throw invalidDescription(MODULES, `[${i}].type is missing`);
    // Layers after the model, which would change every vector.
    if (!/(?:Transformer|Pooling|Normalize)$/.test(type))
      throw module.wrong('type', 'is a module that is not supported');
    if (!type.endsWith('Pooling')) continue;
    path ??= module.string('path') ?? '';
  }
  if (path === undefined) return undefined;
  const name = `${path}/config.json`;
  const json = /^[\w-]{1,64}$/.test(path) ? readJson(folder, name) : undefined;
  if (json === undefined) throw invalidDescription(MODULES, 'the path of its pooling names no config.json');
  const pooling = new Fields(name, json);
  for (const [field, , type] of POOLING_MODES) if (pooling.boolean(field) === true) return type;
  const named = pooling.value('pooling_mode');
  const mode = POOLING_MODES.find(([, mode]) => mode === named);
  if (mode === undefined) throw pooling.wrong('pooling_mode', 'is none of mean, cls, lasttoken');
  return mode[2];
}

// The facts of a Hugging Face folder that decide how its adapters are written as GGUF: its architecture by
// llama.cpp's name, its layers and its heads.

import type { AdapterBase } from '../../models/convert/adapter.ts';
import { ARCHITECTURES } from '../../models/convert/architectures.ts';
import { Fields } from '../../models/convert/config.ts';
import { invalidDescription, unsupportedModel, type Folder } from '../../models/convert/folder.ts';
import { readJson } from '../../models/convert/json.ts';

const CONFIG = 'config.json';

const MOST = 65_536;

/** 400 invalid_model_config · unsupported_model_format. */
export function adapterBaseOf(folder: Folder): AdapterBase {
  const json = readJson(folder, CONFIG);
  if (json === undefined) throw invalidDescription(CONFIG, 'the folder has no such file');
  const config = new Fields(CONFIG, json);
  const name = config.list('architectures')?.[0];
  const architecture =
    typeof name === 'string' && Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (architecture === undefined)
    throw unsupportedModel(`${CONFIG}: the converter has no rules for the architecture of this model`);
  const heads = config.integer('num_attention_heads', MOST);
  return {
    architecture: architecture.gguf,
    layers: config.integer('num_hidden_layers', MOST),
    heads,
    headsKv: config.optionalInteger('num_key_value_heads', MOST) ?? heads,
  };
}

// The facts of a Hugging Face folder that decide how its adapters are written as GGUF: its architecture by
// llama.cpp's name, its layers and its heads.

import { ARCHITECTURES } from '../../models/convert/architectures.ts';
import type { AdapterBase } from '../../models/convert/adapter.ts';
import { invalidDescription, unsupportedModel, type Folder } from '../../models/convert/folder.ts';
import { readJson } from '../../models/convert/json.ts';
import { isRecord } from '../../base/shape.ts';

const CONFIG = 'config.json';

/** 400 invalid_model_config · unsupported_model_format. */
export function adapterBaseOf(folder: Folder): AdapterBase {
  const config = readJson(folder, CONFIG);
  if (!isRecord(config)) throw invalidDescription(CONFIG, 'it is missing or no object');
  const names: unknown = config['architectures'];
  const name: unknown = Array.isArray(names) ? names[0] : undefined;
  const architecture = typeof name === 'string' && Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (architecture === undefined)
    throw unsupportedModel(`${CONFIG}: the converter has no rules for the architecture of this model`);
  const layers = count(config, 'num_hidden_layers');
  const heads = count(config, 'num_attention_heads');
  const headsKv = config['num_key_value_heads'] === undefined ? heads : count(config, 'num_key_value_heads');
  return { architecture: architecture.gguf, layers, heads, headsKv };
}

function count(config: Readonly<Record<string, unknown>>, field: string): number {
  const value = config[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1 || value > 65_536)
    throw invalidDescription(CONFIG, `\`${field}\` is not a whole number from 1 to 65536`);
  return value;
}

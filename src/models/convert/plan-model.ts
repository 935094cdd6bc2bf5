// The plan of a GGUF file, of headers and descriptions alone: of a model of text, or of one of the two files
// of a model that sees.

import { ARCHITECTURES, type TextModel } from './architectures.ts';
import { architectureName, CONFIG, Fields, mustBePlain, shownName } from './config.ts';
import { invalidDescription, unsupportedModel, type Folder } from './folder.ts';
import { addGeneral, FLOAT_FILE_TYPES, typeOf, type Planned, type PlanOptions } from './general.ts';
import { readJson } from './json.ts';
import type { Metadata } from './plan.ts';
import { readTensors } from './safetensors.ts';
import { planTensors, usedTensors } from './tensors.ts';
import { addTokens } from './tokens.ts';
import { isSeeing, mustHaveMarks, planProjector, seeingModelOf } from './vision.ts';

/** Of a model that sees. */
export type ConvertedPart = 'text' | 'projector';

/** Everything that can be refused without reading a weight is refused here. */
export function planConversion(
  folder: Folder,
  options: PlanOptions & { readonly part?: ConvertedPart | undefined },
): Planned {
  const json = readJson(folder, CONFIG);
  if (json === undefined) throw invalidDescription(CONFIG, 'the folder has no such file');
  const config = new Fields(CONFIG, json);
  const { part } = options;
  if (part === undefined) return planText(folder, textModelOf(config, folder), options);
  const model = seeingModelOf(config, folder);
  if (part === 'projector') return planProjector(folder, model, options);
  const planned = planText(folder, model.text, options);
  mustHaveMarks(folder, planned.plan.metadata);
  return planned;
}

function planText(folder: Folder, model: TextModel, options: PlanOptions): Planned {
  const { architecture, config, tokens } = model;
  const used = usedTensors(architecture, model.tensors);
  const type = typeOf(options.type, used);
  const metadata: Metadata = new Map([['general.architecture', { string: architecture.gguf }]]);
  const fileType = FLOAT_FILE_TYPES[type];
  const parameters = architecture.parameters({
    config,
    folder,
    architecture: architecture.gguf,
    fileType,
    metadata,
  });
  const { sizes } = parameters;
  const tied = model.tied ?? architecture.tiedUnlessSaid === true;
  const heads = { queries: sizes.queries / sizes.head, keys: sizes.keys / sizes.head };
  const copied = planTensors(used, { table: architecture, sizes, type, heads, tied });
  const planned = [...parameters.extra, ...copied];
  addGeneral(metadata, { folder, kind: 'model', name: options.name, tensors: planned });
  parameters.write();
  metadata.set('general.quantization_version', { u32: 2 });
  const { vocabulary, tokenTypes } = sizes;
  addTokens({ folder, config: tokens, metadata, vocabulary, tokenTypes, rules: architecture.tokens });
  return { plan: { metadata, tensors: planned }, architecture: architecture.gguf, type };
}

function textModelOf(config: Fields, folder: Folder): TextModel {
  const name = architectureName(config);
  const architecture = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
  if (architecture === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ');
    const why = isSeeing(name)
      ? 'has an image encoder, and is converted as the format vision'
      : `is not converted; ${known} are`;
    throw unsupportedModel(`${CONFIG}: architectures: ${shownName(name)} ${why}`);
  }
  if (config.string('model_type') !== architecture.modelType)
    throw config.wrong('model_type', `is not ${architecture.modelType}, as ${name} has it`);
  mustBePlain(config, name, ['text_config', 'vision_config']);
  architecture.check?.(config);
  const tied = config.boolean('tie_word_embeddings');
  return { architecture, config, tokens: config, tied, tensors: readTensors(folder) };
}

// The steps done to an image before a model sees it: processor_config.json, else preprocessor_config.json,
// with the settings of `image_processor` or `media_proc_cfg` before those beside them, as the official
// converter merges them. Refuses values that are no sensible numbers, and steps that libmtmd does not leave
// out.

import { Fields } from './config.ts';
import { invalidDescription, type Folder } from './folder.ts';
import { isObject, readJson } from './json.ts';

/** With the object in each whose fields count more. */
const FILES = [
  ['processor_config.json', 'image_processor'],
  ['preprocessor_config.json', 'media_proc_cfg'],
] as const;

export interface ImageSettings {
  /** Subtracted from and divides each of red, green, blue, from 0 to 1. */
  readonly mean: readonly number[];
  readonly deviation: readonly number[];
  /** Pixels of the longest edge of an image that is cut into tiles. */
  readonly longest: number;
}

/** An image may be so many tiles wide, and has an edge of this at least (models/gguf/projector). */
const MAX_GRID = 8;
const MIN_LONGEST = 64;

/** Steps that are always taken. */
const STEPS = ['do_resize', 'do_rescale', 'do_normalize', 'do_image_splitting'] as const;

/** `tile`: image_size of config.json. */
export function readImageSettings(folder: Folder, tile: number): ImageSettings {
  const layers = layersOf(folder);
  const [last] = layers.slice(-1);
  if (last === undefined)
    throw invalidDescription(
      'preprocessor_config.json',
      'the folder has neither it nor processor_config.json',
    );
  /** The first that has the field, else the one that should have it. */
  const saying = (name: string): Fields => layers.find((each) => each.names().includes(name)) ?? last;
  for (const name of STEPS)
    if (saying(name).boolean(name) === false)
      throw saying(name).wrong(name, 'is false, which is not supported');
  const scale = saying('rescale_factor').optionalNumber('rescale_factor', 0, 1);
  if (scale !== undefined && Math.abs(scale * 255 - 1) > 1e-6)
    throw saying('rescale_factor').wrong('rescale_factor', 'is not 1/255');
  const most = saying('max_image_size')
    .object('max_image_size')
    ?.optionalInteger('longest_edge', 1 << 16);
  if (most !== undefined && most !== tile)
    throw saying('max_image_size').wrong(
      'max_image_size.longest_edge',
      `is not ${tile}, the image_size of config.json`,
    );
  const size = saying('size').object('size');
  const longest = size?.optionalInteger('longest_edge', tile * MAX_GRID, Math.max(tile, MIN_LONGEST));
  if (longest === undefined && tile < MIN_LONGEST)
    throw saying('size').wrong(
      'size.longest_edge',
      `is missing, and a tile has less than ${MIN_LONGEST} pixels`,
    );
  return {
    mean: threeOf(saying('image_mean'), 'image_mean', 0),
    deviation: threeOf(saying('image_std'), 'image_std', 1e-3),
    longest: longest ?? tile,
  };
}

function layersOf(folder: Folder): readonly Fields[] {
  return FILES.flatMap(([file, inner]) => {
    const json = readJson(folder, file);
    if (json === undefined) return [];
    const own = json[inner];
    if (own !== undefined && own !== null && !isObject(own))
      throw invalidDescription(file, `${inner} is not an object`);
    return [...(isObject(own) ? [new Fields(file, own, `${inner}.`)] : []), new Fields(file, json)];
  });
}

/** A number from `min` to 1 for each colour. */
function threeOf(fields: Fields, name: string, min: number): readonly number[] {
  const list = fields.list(name);
  if (list === undefined) throw fields.wrong(name, 'is missing');
  const numbers = list.filter((each) => typeof each === 'number' && each >= min && each <= 1);
  if (list.length !== 3 || numbers.length !== 3)
    throw fields.wrong(name, `is not three numbers from ${min} to 1`);
  return numbers.map(Number);
}

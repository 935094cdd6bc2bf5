// The fields of POST /v1/audio/transcriptions and /v1/audio/translations: parts of a form are text, and are
// read here by the shapes that bodies in JSON are read by, so that their refusals are the same.

import {
  decimal,
  choice,
  flag,
  list,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  text,
} from '../../base/shape.ts';
import type { Infer, JsonSchema, Shape } from '../../base/shape.ts';
import type { FormField } from '../../http/multipart.ts';
import { keepAlive, modelId } from '../generation/sampling.ts';
import { inert, unsupportedParameter } from '../unsupported.ts';

const FORMATS = ['json', 'text', 'srt', 'verbose_json', 'vtt'] as const;
export type AudioFormat = (typeof FORMATS)[number];

const translation = {
  model: modelId,
  prompt: optionalOrEmpty(text({ max: 8192, about: 'Text before the sound: names, spelling, style.' })),
  response_format: optionalOrEmpty(choice(FORMATS, 'Default: json.')),
  temperature: optionalOrEmpty(
    decimal({ min: 0, max: 1, about: 'Default: 0, and more where a passage fails.' }),
  ),
  keep_alive: keepAlive,
};

export const transcriptionFields = object({
  ...translation,
  language: optionalOrEmpty(
    text({
      max: 8,
      pattern: /^[a-z]{2,3}$/,
      form: 'a code such as "en"',
      about: 'ISO 639-1; default: heard.',
    }),
  ),
  timestamp_granularities: optional(
    list(choice(['word', 'segment']), { max: 2, about: 'With verbose_json. Default: segment.' }),
  ),
  stream: optional(flag('Segments as they are heard, as server-sent events; with json or text.')),
  chunking_strategy: inert(text({ max: 512 }), 'the whole sound is heard in order.'),
  include: unsupportedParameter('the API has no log probabilities for whisper models'),
});

export const translationFields = object(translation);

export type TranscriptionFields = Infer<typeof transcriptionFields>;
export type TranslationFields = Infer<typeof translationFields>;

const LISTS = new Set(['timestamp_granularities', 'include']);
const NUMBERS = new Set(['temperature']);
const FLAGS = new Set(['stream']);

/** The value a shape reads: a field is text, a list is its field several times, with or without `[]`. */
export function readFields<T>(shape: Shape<T>, fields: readonly FormField[]): T {
  const values: Record<string, unknown> = Object.create(null) as Record<string, unknown>;
  for (const [given, value] of fields) {
    // SDKs write the object of a strategy as one field for each of its members.
    if (/^chunking_strategy\[\w{1,32}\]$/.test(given)) continue;
    const name = given.replace(/\[\d*\]$/, '');
    if (LISTS.has(name)) {
      const before = values[name];
      values[name] = [...(Array.isArray(before) ? (before as readonly unknown[]) : []), value];
    } else if (name in values) throw refuse('invalid_value', name, `${name} is there twice`);
    else values[name] = parsed(name, value);
  }
  return shape.read({ ...values }, '');
}

function parsed(name: string, value: string): unknown {
  if (NUMBERS.has(name)) return NUMBER.test(value) ? Number(value) : value;
  if (FLAGS.has(name)) return FLAG_WORDS.get(value.toLowerCase()) ?? value;
  return value;
}

/** As programs print numbers: Python and JavaScript write 1e-05 and 1e-7. */
const NUMBER = /^-?\d{1,10}(\.\d{1,20})?(e[+-]?\d{1,3})?$/;

const FLAG_WORDS: ReadonlyMap<string, boolean> = new Map([
  ['true', true],
  ['false', false],
  ['1', true],
  ['0', false],
]);

/** For openapi.json: the fields, and the file. */
export function formSchema({ schema }: Shape<unknown>): JsonSchema {
  const { properties, required, ...rest } = schema;
  const file = {
    type: 'string',
    format: 'binary',
    description: 'WAV, MP3, FLAC, or Opus in Ogg or WebM, told by content.',
  };
  return {
    ...rest,
    properties: { file, ...(properties as object) },
    required: ['file', ...(Array.isArray(required) ? (required as readonly string[]) : [])],
  };
}

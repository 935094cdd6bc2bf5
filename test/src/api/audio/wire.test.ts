// Fields of a form become the values that shapes read: numbers, flags and lists are text on the wire.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { formSchema, readFields, transcriptionFields } from '../../../../src/api/audio/wire.ts';
import { ApiError } from '../../../../src/base/errors.ts';
import type { FormField } from '../../../../src/http/multipart.ts';

function read(...fields: readonly FormField[]) {
  return readFields(transcriptionFields, fields);
}

test('text, numbers, flags and lists', () => {
  expect(
    read(
      ['model', 'whisper'],
      ['temperature', '0.2'],
      ['stream', 'true'],
      ['timestamp_granularities[]', 'word'],
      ['timestamp_granularities[]', 'segment'],
      ['response_format', 'verbose_json'],
      ['chunking_strategy', 'auto'],
    ),
  ).toMatchObject({
    model: 'whisper',
    temperature: 0.2,
    stream: true,
    timestamp_granularities: ['word', 'segment'],
    response_format: 'verbose_json',
  });
});

test('numbers as Python and JavaScript print them, and none', () => {
  for (const [written, value] of [
    ['1e-05', 0.000_01],
    ['1.5e-7', 0.000_000_15],
    ['1', 1],
    ['', undefined],
  ] as const)
    // prettier-ignore
    expect(read(['model', 'a'], ['temperature', written]).temperature).toBe(value);
});

test('a strategy of pieces is ignored, as text, as JSON and as the fields of an SDK', () => {
  for (const fields of [
    [['chunking_strategy', 'auto']],
    [['chunking_strategy', '{"type":"server_vad","threshold":0.5,"silence_duration_ms":200}']],
    [
      ['chunking_strategy[type]', 'server_vad'],
      ['chunking_strategy[threshold]', '0.5'],
    ],
  ] as const)
    // prettier-ignore
    expect(read(['model', 'a'], ...fields)).toMatchObject({ model: 'a' });
});

test.each<readonly [string, readonly FormField[], string]>([
  ['a field twice', [['model', 'a'], ['model', 'b']], 'invalid_value'], // prettier-ignore
  ['an unknown one', [['model', 'a'], ['modell', 'b']], 'unknown_parameter'], // prettier-ignore
  ['a prototype', [['model', 'a'], ['__proto__', 'b']], 'unknown_parameter'], // prettier-ignore
  ['no model', [['prompt', 'b']], 'missing_required_parameter'],
  ['a number of letters', [['model', 'a'], ['temperature', '1e']], 'invalid_type'], // prettier-ignore
  ['a flag of letters', [['model', 'a'], ['stream', 'yes']], 'invalid_type'], // prettier-ignore
  ['a long prompt', [['model', 'a'], ['prompt', 'x'.repeat(9000)]], 'string_above_max_length'], // prettier-ignore
])('%s is refused', (_, fields, code) => {
  expect(() => read(...fields)).toThrow(expect.objectContaining({ code }));
});

test('property: whatever is sent is read or refused with a code of 400', () => {
  const name = fc.constantFrom(
    'model',
    'temperature',
    'stream',
    'language',
    'prompt',
    'include[]',
    'toString',
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(name, fc.string()), { maxLength: 6 }), (fields) => {
      try {
        read(...fields);
      } catch (error) {
        expect(error).toBeInstanceOf(ApiError);
        expect((error as ApiError).status).toBe(400);
      }
    }),
  );
});

test('the schema of the form has the file', () => {
  expect(formSchema(transcriptionFields)).toMatchObject({
    properties: { file: { format: 'binary' }, model: {} },
    required: ['file', 'model'],
  });
});

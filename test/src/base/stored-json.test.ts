// Stored JSON read by a shape: what is refused, and that messages speak of keys of a file and quote no value.

import { expect, test } from 'vitest';
import { anything, integer, list, object, text } from '../../../src/base/shape.ts';
import { checked, parseStored } from '../../../src/base/stored-json.ts';

const shape = object({
  version: checked(anything, (version) => version === 1, 'is not 1'),
  items: list(object({ name: text({ max: 4 }), size: integer({ min: 0, max: 9 }) }), { max: 2 }),
});

test('reads what has the shape', () => {
  const stored = { version: 1, items: [{ name: 'a', size: 3 }] };
  expect(parseStored(shape, JSON.stringify(stored))).toEqual(stored);
});

test.each<[string, string]>([
  ['', 'is not JSON'],
  ['{"version":1', 'is not JSON'],
  ['[]', 'is not an object'],
  ['null', 'is not an object'],
  ['{"version":1}', 'items is missing'],
  ['{"version":2,"items":[]}', 'version is not 1'],
  ['{"version":1,"items":[],"SECRET":1}', 'has an unknown key, SECRET'],
  ['{"version":1,"items":[],"SEC RET":1}', 'has an unknown key'],
  [
    '{"version":1,"items":[{"name":"SECRET","size":1}]}',
    'items[0].name has 6 characters, expected at most 4',
  ],
  ['{"version":1,"items":[{"name":"a","size":-1}]}', 'items[0].size is too small, expected at least 0'],
  ['{"version":1,"items":[{"name":"a","size":1,"x":1}]}', 'has an unknown key, items[0].x'],
])('refuses %s', (json, message) => {
  expect(() => parseStored(shape, json)).toThrow(new Error(message));
});

test('does not hide other faults', () => {
  const broken = {
    ...shape,
    read: (): never => {
      throw new TypeError('a fault of the program');
    },
  };
  expect(() => parseStored(broken, '{}')).toThrow(TypeError);
});

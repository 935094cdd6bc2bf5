// Sealed reasoning: only the same caller, with the same model and the same server, opens it.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { ReasoningSeal } from '../../../../src/api/chat/sealed-reasoning.ts';
import { refusal } from '../../../fixtures/refusal.ts';

const seal = new ReasoningSeal();
const OWNER = { owner: 'a', modelSha256: 'f'.repeat(64) };

test('property: what is sealed is opened as it was, and does not show', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      const sealed = seal.seal(text, OWNER);
      expect(seal.open(sealed, OWNER, 'x')).toBe(text);
      expect(sealed).toMatch(/^[\w-]+$/);
      if (text.length > 8) expect(Buffer.from(sealed, 'base64url').toString()).not.toContain(text);
      expect(seal.seal(text, OWNER)).not.toBe(sealed);
    }),
  );
});

test('property: no changed byte and no cut is opened', () => {
  fc.assert(
    fc.property(fc.string(), fc.nat(), fc.integer({ min: 1, max: 255 }), (text, at, change) => {
      const bytes = Buffer.from(seal.seal(text, OWNER), 'base64url');
      const place = at % bytes.length;
      const changed = Buffer.from(bytes);
      changed[place] = (changed[place] ?? 0) ^ change;
      for (const each of [changed, bytes.subarray(0, place)])
        expect(refusal(() => seal.open(each.toString('base64url'), OWNER, 'x'))).toMatchObject({
          code: 'invalid_encrypted_content',
          param: 'x',
        });
    }),
  );
});

test.each([
  ['another key', seal, { ...OWNER, owner: 'b' }],
  ['another model', seal, { ...OWNER, modelSha256: 'e'.repeat(64) }],
  ['a server that started again', new ReasoningSeal(), OWNER],
])('not opened for %s', (_, by, owner) => {
  const sealed = seal.seal('thoughts', OWNER);
  expect(refusal(() => by.open(sealed, owner, 'x'))).toMatchObject({ code: 'invalid_encrypted_content' });
});

test('caller and model are not joined: a boundary that moves is another owner', () => {
  const sealed = seal.seal('thoughts', { owner: 'ab', modelSha256: 'c' });
  expect(refusal(() => seal.open(sealed, { owner: 'a', modelSha256: 'bc' }, 'x'))).toMatchObject({
    code: 'invalid_encrypted_content',
  });
});

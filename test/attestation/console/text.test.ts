// Text of others as the page shows it: what would reorder or hide is written out; the rest stays.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { agoWords, shownPart, visibleText } from '../../../attestation/console/text.ts';

test.each([
  ['a\u202Eb', 'a⟨U+202E⟩b'],
  ['\u2066x\u2069', '⟨U+2066⟩x⟨U+2069⟩'],
  ['a\u0000b\u001Bc\u009F', 'a⟨U+0000⟩b⟨U+001B⟩c⟨U+009F⟩'],
  ['tag \u{E0041}', 'tag ⟨U+E0041⟩'],
  ['a\u200Bb\u2060c\uFEFFd\u00ADe', 'a⟨U+200B⟩b⟨U+2060⟩c⟨U+FEFF⟩d⟨U+00AD⟩e'],
  ['two\u2028lines\u2029', 'two⟨U+2028⟩lines⟨U+2029⟩'],
  ['👍\u{E0154}\u{E0155}', '👍⟨U+E0154⟩⟨U+E0155⟩'],
  ['\u3164\uFFA0\u115F', '⟨U+3164⟩⟨U+FFA0⟩⟨U+115F⟩'],
  ['half \uD83D of one', 'half ⟨U+D83D⟩ of one'],
  ['❤\uFE0F 葛\uFE00', '❤\uFE0F 葛\uFE00'],
  ['one\r\ntwo\rthree\tfour\n', 'one\ntwo\nthree\tfour\n'],
  // Marks of a direction, joiners and combined emoji are how languages are written.
  ['שלום\u200F, عربى\u061C, 👩\u200D💻, e\u0301', 'שלום\u200F, عربى\u061C, 👩\u200D💻, e\u0301'],
  ['<img src=x onerror=alert(1)>&amp;', '<img src=x onerror=alert(1)>&amp;'],
])('%j', (text, shown) => {
  expect(visibleText(text)).toBe(shown);
});

test('property: shown text has no control that moves other text, and showing it again changes nothing', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const shown = visibleText(text);
      // eslint-disable-next-line no-control-regex
      expect(shown).not.toMatch(/[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]/);
      expect(visibleText(shown)).toBe(shown);
    }),
  );
});

test('property: a text in pieces is shown as the whole, wherever it is cut', () => {
  const parts = fc.array(fc.constantFrom('a', '\r', '\n', '\uDB40', '\uDC41', '\u202E', '👍'), { maxLength: 12 });
  fc.assert(
    fc.property(fc.array(parts, { maxLength: 6 }), (pieces) => {
      let shown = '';
      let held = '';
      for (const piece of pieces) {
        const next = shownPart(held + piece.join(''));
        shown += visibleText(next.ready);
        held = next.held;
      }
      expect(held.length).toBeLessThanOrEqual(1);
      expect(shown + visibleText(held)).toBe(visibleText(pieces.flat().join('')));
    }),
  );
}); // prettier-ignore

test.each([
  [0, 'a moment ago'],
  [15_000, '15 seconds ago'],
  [60_000, '1 minute ago'],
  [7_200_000, '2 hours ago'],
  [4 * 86_400_000, '4 days ago'],
])('%i ms: %s', (ms, words) => {
  expect(agoWords(ms)).toBe(words);
});

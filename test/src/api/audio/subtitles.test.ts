// Subtitles: the two formats as players read them, also of odd times and of texts that look like markup.

import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { srtOf, vttOf } from '../../../../src/api/audio/subtitles.ts';

const CUES = [
  { start: 0, end: 3.4, text: ' The quick fox.' },
  { start: 3599.9996, end: 36_061.5, text: ' a < b\n\n--> c & d' },
];

test('SubRip', () => {
  expect(srtOf(CUES)).toBe(
    '1\n00:00:00,000 --> 00:00:03,400\nThe quick fox.\n\n2\n01:00:00,000 --> 10:01:01,500\na < b -> c & d\n\n',
  );
});

test('WebVTT', () => {
  expect(vttOf(CUES)).toBe(
    'WEBVTT\n\n00:00:00.000 --> 00:00:03.400\nThe quick fox.\n\n01:00:00.000 --> 10:01:01.500\na &lt; b -&gt; c &amp; d\n\n',
  );
});

test('nothing was said', () => {
  expect(srtOf([])).toBe('');
  expect(vttOf([])).toBe('WEBVTT\n\n');
});

test('property: a cue is a number, a time line and one line of text, whatever was said', () => {
  const cue = fc.record({
    start: fc.double({ min: 0, max: 360_000, noNaN: true }),
    end: fc.double({ min: 0, max: 360_000, noNaN: true }),
    text: fc.string({ unit: 'binary' }).map((text) => `x${text}`),
  });
  fc.assert(
    fc.property(fc.array(cue, { minLength: 1, maxLength: 5 }), (cues) => {
      const blocks = srtOf(cues).split('\n\n').slice(0, -1);
      expect(blocks).toHaveLength(cues.length);
      for (const [i, block] of blocks.entries()) {
        const [number, times, ...text] = block.split('\n');
        expect(number).toBe(String(i + 1));
        expect(times).toMatch(/^\d{2,}:[0-5]\d:[0-5]\d,\d{3} --> \d{2,}:[0-5]\d:[0-5]\d,\d{3}$/);
        expect(text).toHaveLength(1);
        expect(text[0]).not.toContain('-->');
      }
      expect(vttOf(cues).split('\n\n')).toHaveLength(cues.length + 2);
    }),
  );
});

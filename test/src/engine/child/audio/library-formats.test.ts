// The kinds of file that libwhisper takes, decoded by the library itself: WAV and FLAC to the same samples,
// MP3 to as many as its frames have; the others, cut and random files to a refusal. Needs libwhisper (make
// native).

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import koffi from 'koffi';
import { beforeAll, describe, expect, test } from 'vitest';
import { llamaSources } from '../../../../../scripts/real-models/llama-sources.ts';
import { loadWhisper, type WhisperLibrary } from '../../../../../src/engine/child/audio/library.ts';
import { reserve } from '../../../../../src/engine/child/audio/memory.ts';
import { loadLlama } from '../../../../../src/engine/child/llama/library.ts';
import { nativeLibrary } from '../../../../../src/base/native-library.ts';
import { flacOf, MP3_FRAME, silentMp3 } from '../../../../fixtures/audio/packed.ts';
import { toneWav } from '../../../../fixtures/audio/sound.ts';

const path = nativeLibrary('libwhisper');
const NUM_RUNS = 100 * Number(process.env['ASSAY_FUZZ'] ?? 1);
/** Of the tests of llama.cpp's own tool: 140 kB at 64 kbit/s. */
const SPEECH = { name: 'tools/mtmd/test-2.mp3', seconds: 17.5 };

describe.skipIf(path === undefined)('a file', () => {
  let library: WhisperLibrary;
  const CAPACITY = 16_000 * 60;
  let room: ReturnType<typeof reserve>;
  beforeAll(() => {
    loadLlama();
    library = loadWhisper(path ?? '');
    room = reserve(CAPACITY * 4);
  });

  async function decoded(file: Uint8Array): Promise<Float32Array | number> {
    room.forget();
    const count = await library.decode(file, room.pointer, CAPACITY);
    if (count < 0) return count;
    return new Float32Array(koffi.view(room.pointer, count * 4).slice(0));
  }

  const wav = toneWav({ seconds: 2.5 });
  const samples = new Int16Array(Uint8Array.from(wav.subarray(44)).buffer);
  const flac = flacOf(samples);

  test('FLAC has the samples of WAV, in whole and shorter frames', async () => {
    expect(samples.length % 4096).not.toBe(0);
    const [one, other] = [await decoded(wav), await decoded(flac)];
    expect(one).toHaveLength(40_000);
    expect(other).toEqual(one);
  });

  test('MP3 has the samples of its frames, at 16 kHz', async () => {
    const heard = await decoded(silentMp3(100));
    const expected = (100 * MP3_FRAME.samples * 16_000) / MP3_FRAME.rate;
    expect(heard).toBeInstanceOf(Float32Array);
    expect(Math.abs((heard as Float32Array).length - expected)).toBeLessThan(MP3_FRAME.samples);
    expect((heard as Float32Array).every((value) => Math.abs(value) < 1e-4)).toBe(true);
  });

  const sources = llamaSources('tools/mtmd');
  test.skipIf(sources === undefined)('speech in MP3 has its length, and is loud', async () => {
    const heard = await decoded(readFileSync(join(sources ?? '', SPEECH.name)));
    expect(heard).toBeInstanceOf(Float32Array);
    const { length } = heard as Float32Array;
    expect(length / 16_000).toBeCloseTo(SPEECH.seconds, 0);
    const power = (heard as Float32Array).reduce((sum, value) => sum + value * value, 0) / length;
    expect(power).toBeGreaterThan(1e-4);
  });

  test.each([
    ['Ogg', 'OggS\0\x02'],
    ['WebM', '\x1a\x45\xdf\xa3'],
    ['M4A', '\0\0\0\x20ftypM4A '],
    ['AIFF', 'FORM\0\0\0\x20AIFF'],
    ['text', 'these are words'],
  ])('%s is refused', async (_, start) => {
    const file = Buffer.concat([Buffer.from(start, 'latin1'), Buffer.alloc(4000)]);
    expect(await decoded(file)).toBe(-1);
  });

  test('property: a file with changed or missing bytes is decoded within the room, or refused', async () => {
    const files = [wav.subarray(0, 4000), flac.subarray(0, 20_000), silentMp3(10)] as const;
    const change = fc.tuple(fc.nat(), fc.nat({ max: 255 }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        fc.array(change, { maxLength: 12 }),
        fc.nat({ max: 20_000 }),
        async (file, changes, length) => {
          const bytes = Buffer.from(file.subarray(0, length));
          for (const [at, value] of changes)
            if (bytes.length > 0) bytes[at % Math.min(64, bytes.length)] = value;
          const heard = await decoded(bytes);
          if (typeof heard === 'number') expect([-1, -2]).toContain(heard);
          else expect(heard.length).toBeLessThanOrEqual(CAPACITY);
        },
      ),
      { numRuns: NUM_RUNS },
    );
  });
});

// Files to samples by the library itself: Opus in Ogg and in WebM are the same samples, those of the sound
// that was encoded, at the time it was; packets that are none are refused by libopus, whatever their
// container says. Needs libwhisper (make native).

import * as fc from 'fast-check';
import koffi from 'koffi';
import { beforeAll, describe, expect, test } from 'vitest';
import { decodeSound } from '../../../../../../src/engine/child/audio/files/sound.ts';
import { loadWhisper, type WhisperLibrary } from '../../../../../../src/engine/child/audio/library.ts';
import { reserve } from '../../../../../../src/engine/child/audio/memory.ts';
import { loadLlama } from '../../../../../../src/engine/child/llama/library.ts';
import { nativeLibrary } from '../../../../../../src/base/native-library.ts';
import { oggOf, opusHead } from '../../../../../fixtures/audio/ogg-file.ts';
import { CELT, riseAt, SILK_HYBRID } from '../../../../../fixtures/audio/opus-sample.ts';
import { floatWav, toneWav } from '../../../../../fixtures/audio/sound.ts';
import { webmOf } from '../../../../../fixtures/audio/webm-file.ts';

const path = nativeLibrary('libwhisper');
const NUM_RUNS = 200 * Number(process.env['ASSAY_FUZZ'] ?? 1);
const CAPACITY = 16_000 * 60;

describe.skipIf(path === undefined)('a file', () => {
  let library: WhisperLibrary;
  let room: ReturnType<typeof reserve>;
  beforeAll(() => {
    loadLlama();
    library = loadWhisper(path ?? '');
    room = reserve(CAPACITY * 4);
  });

  async function decoded(file: Uint8Array, capacity = CAPACITY): Promise<Float32Array> {
    room.forget();
    const count = await decodeSound(library, file, room.pointer, capacity);
    return new Float32Array(koffi.view(room.pointer, count * 4).slice(0));
  }

  /** 1 where the samples are the rising tone, `late` samples later. */
  function likeness(samples: Float32Array, late: number): number {
    let [both, heard, spoken] = [0, 0, 0];
    for (const [i, value] of samples.entries()) {
      const expected = riseAt((i - late) / 16_000);
      both += value * expected;
      heard += value * value;
      spoken += expected * expected;
    }
    return both / Math.sqrt(heard * spoken);
  }

  test.each([
    ['CELT', CELT],
    ['SILK and hybrid', SILK_HYBRID],
  ])('%s has the sound that was encoded, in Ogg and in WebM', async (_, sample) => {
    const heard = await decoded(oggOf(sample, { packetsPerPage: 7 }));
    expect(heard).toHaveLength(16_000);
    // The decoder of a lower rate is late by a part of a sample, no more.
    expect(Math.max(likeness(heard, 0), likeness(heard, 1))).toBeGreaterThan(0.95);
    expect(likeness(heard, 8)).toBeLessThan(0.8);
    expect(await decoded(webmOf(sample, { grouped: true, lacing: 'xiph', packetsPerBlock: 5 }))).toEqual(
      heard,
    );
    const live = await decoded(webmOf(sample, { live: true }));
    expect(live).toHaveLength(Math.round((51 * 960 - sample.skip) / 3));
    expect(live.subarray(0, 16_000)).toEqual(heard);
  });

  test('is as loud as its head says', async () => {
    const power = (samples: Float32Array): number => samples.reduce((sum, value) => sum + value * value, 0);
    const plain = power(await decoded(oggOf(CELT)));
    // −6.02 dB: half as loud.
    const quiet = power(await decoded(oggOf(CELT, { head: opusHead({ skip: 120, gain: -1541 }) })));
    expect(plain / quiet).toBeCloseTo(4, 1);
  });

  test('two channels are heard as one', async () => {
    const heard = await decoded(oggOf(CELT, { head: opusHead({ skip: 120, channels: 2 }) }));
    expect(heard).toEqual(await decoded(oggOf(CELT)));
  });

  test.each([
    ['M4A', Buffer.from('\0\0\0\x20ftypM4A \0\0\0\0', 'latin1'), 'M4A and MP4 are not among'],
    ['Ogg', Buffer.from('OggS and then nothing'), 'Ogg page'],
    ['WebM', Buffer.from('1a45dfa3', 'hex'), 'EBML'],
    ['AIFF', Buffer.from('FORM\0\0\0\x20AIFF'), 'none of those'],
    ['text', Buffer.from('these are words'), 'none of those'],
    ['a byte', Buffer.from('O'), 'none of those'],
    ['nothing', Buffer.alloc(0), 'none of those'],
    ['Opus of no frames to hear', oggOf({ ...CELT, frames: 1 }), 'nothing of it'],
    ['Opus that is cut before it begins', oggOf({ ...CELT, skip: 60_000 }), 'nothing of it'],
  ])('%s is a refusal that says why, and what is accepted', async (_, file, why) => {
    await expect(decoded(file)).rejects.toMatchObject({
      status: 400,
      code: 'invalid_audio',
      param: 'file',
      message: expect.stringMatching(new RegExp(`${why}.*WAV, MP3, FLAC, and Opus in Ogg or WebM`)),
    });
  });

  test('floats beyond the range are cut, and what is no number is refused', async () => {
    const heard = await decoded(floatWav([0.5, -0.25, 1.5, -2, 3e38, -3e38, Infinity, -Infinity]));
    expect([...heard]).toEqual([0.5, -0.25, 1, -1, 1, -1, 1, -1]);
    for (const value of [Number.NaN, -Number.NaN])
      await expect(decoded(floatWav([0, value]))).rejects.toMatchObject({
        code: 'invalid_audio',
        message: expect.stringContaining('no numbers'),
      });
    const loud = await decoded(oggOf(CELT, { head: opusHead({ skip: 120, gain: 32_767 }) }));
    expect(loud.every((value) => value >= -1 && value <= 1)).toBe(true);
    expect(loud).toContain(1);
  });

  test('WAV and Opus longer than there is room for', async () => {
    for (const file of [toneWav({ seconds: 1.1 }), oggOf(CELT, { unended: true })])
      await expect(decoded(file, 16_000)).rejects.toMatchObject({ code: 'audio_too_long' });
    expect(await decoded(oggOf(CELT), 16_000)).toHaveLength(16_000);
  });

  test('property: packets of any bytes are decoded within the room, or refused', async () => {
    const packet = fc.uint8Array({ minLength: 1, maxLength: 400 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(packet, fc.constantFrom(...SILK_HYBRID.packets)), { minLength: 1, maxLength: 20 }),
        fc.nat({ max: 65_535 }),
        fc.integer({ min: -32_768, max: 32_767 }),
        async (bytes, skip, gain) => {
          const packets = bytes.map((each) => Buffer.from(each));
          const file = oggOf({ packets, skip, frames: 0 }, { unended: true, head: opusHead({ skip, gain }), packetFrames: 5760 }); // prettier-ignore
          const heard = await decoded(file).catch((error: unknown) => error);
          if (heard instanceof Float32Array) expect(heard.length).toBeLessThanOrEqual(20 * 1920);
          else expect(heard).toMatchObject({ code: 'invalid_audio' });
        },
      ),
      { numRuns: NUM_RUNS },
    );
  });

  test('property: packets with changed bytes are decoded, or refused', async () => {
    const change = fc.tuple(fc.nat({ max: 50 }), fc.nat({ max: 400 }), fc.nat({ max: 255 }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(CELT, SILK_HYBRID),
        fc.array(change, { minLength: 1, maxLength: 10 }),
        async (sample, changes) => {
          const packets = sample.packets.map((each) => Buffer.from(each));
          for (const [at, byte, value] of changes) {
            const packet = packets[at] ?? Buffer.alloc(1);
            packet[byte % packet.length] = value;
          }
          const heard = await decoded(webmOf({ ...sample, packets })).catch((error: unknown) => error);
          if (heard instanceof Float32Array)
            expect(heard.every((value) => Number.isFinite(value))).toBe(true);
          else expect(heard).toMatchObject({ code: 'invalid_audio' });
        },
      ),
      { numRuns: NUM_RUNS },
    );
  });
});

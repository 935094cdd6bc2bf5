// `make bench-audio`: seconds of transcription in our confined child beside pywhispercpp, on the same model,
// sound and number of threads, each alone and in turns, medians. Loading is not counted on either side.
// Needs what the tests of words need (make native, make real-models, make audio-peer).

import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openEngine } from '../src/engine/open.ts';
import { resampled, samplesOf, wavOf } from '../test/fixtures/audio/sound.ts';
import { convertCTranslate2 } from '../test/fixtures/audio/whisper-file.ts';
import { askPeer, havePeer, haveSpeech, speak, wordErrorRate } from './audio-peer.ts';
import { findInstalled } from './real-models/install.ts';

const ROUNDS = 5;
const THREADS = [1, 2];
const SPOKEN =
  'We walked along the river until the evening, and then we took the last train home. Nobody in the house had ' +
  'heard the letter arrive, and the lamp in the hall was still burning when the clock struck nine.';

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

async function main(): Promise<void> {
  const weights = await findInstalled('whisper-tiny-en');
  if (weights === undefined || !havePeer() || !haveSpeech()) {
    console.log('bench-audio needs make real-models and make audio-peer');
    return;
  }
  const folder = mkdtempSync(join(tmpdir(), 'assay-bench-audio-'));
  const model = join(folder, 'tiny.en.bin');
  convertCTranslate2(dirname(weights.weights), model);
  const { samples, rate } = samplesOf(speak(SPOKEN));
  const sound = resampled(samples, rate, 16_000);
  const audio = wavOf(sound, { rate: 16_000, channels: 1 });
  const workerEntry = fileURLToPath(new URL('../dist/src/engine/child/worker.js', import.meta.url));
  console.log(
    '| threads | seconds of sound | ours, s | pywhispercpp, s | peer ÷ ours | word errors, ours | peer |',
  );
  console.log('|--:|--:|--:|--:|--:|--:|--:|');
  for (const threads of THREADS) {
    const fd = openSync(model, 'r');
    const engine = await openEngine({ workerEntry })(
      { path: '/proc/self/fd/4', fd, type: 'transcription', contextLength: 448, threads },
      new AbortController().signal,
    );
    const [ours, theirs]: [number[], number[]] = [[], []];
    let [mine, peer] = ['', ''];
    const request = { audio, translate: false, temperature: 0, fallback: true, words: false };
    for (let round = 0; round < ROUNDS; round++) {
      const start = performance.now();
      mine = '';
      for await (const event of engine.transcribe?.(request, new AbortController().signal) ?? [])
        if (event.kind === 'segment') mine += event.segment.text;
      ours.push((performance.now() - start) / 1000);
      // The first of two is its warm-up.
      const answer = askPeer(model, sound, { threads, rounds: 2 });
      theirs.push(answer.seconds.at(-1) ?? NaN);
      peer = answer.text;
    }
    await engine.close();
    closeSync(fd);
    const [a, b] = [median(ours), median(theirs)];
    const errors = [mine, peer].map((text) => wordErrorRate(SPOKEN, text).toFixed(3));
    const seconds = (sound.length / 16_000).toFixed(1);
    console.log(
      `| ${[threads, seconds, a.toFixed(2), b.toFixed(2), (b / a).toFixed(2), ...errors].join(' | ')} |`,
    );
  }
  rmSync(folder, { recursive: true });
}

await main();

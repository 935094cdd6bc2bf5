// pywhispercpp, the peer that transcription is compared with: whisper.cpp for Python, from PyPI with every
// wheel by its hash, in a folder of its own in the cache; espeak-ng, which speaks the texts; and opusenc,
// which makes Opus of them. Tests and the bench use them where they are, and `make audio-peer` puts them
// there.
//   node --import tsx scripts/audio-peer.ts

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { makePinnedVenv } from './pinned-venv.ts';
import { cacheFolder } from './real-models/install.ts';

const FOLDER = join(cacheFolder(), 'audio-peer');
const PYTHON = join(FOLDER, 'bin/python');
const REQUIREMENTS = fileURLToPath(new URL('audio-peer.txt', import.meta.url));

export function havePeer(): boolean {
  return existsSync(PYTHON);
}

export function haveSpeech(): boolean {
  return spawnSync('espeak-ng', ['--version'], { stdio: 'ignore' }).status === 0;
}

export function haveOpus(): boolean {
  return spawnSync('opusenc', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** An Ogg file of the WAV file, as opusenc makes it. */
export function encodedOpus(wav: Uint8Array, options: readonly string[]): Buffer {
  return execFileSync('opusenc', ['--quiet', ...options, '-', '-'], { input: wav, maxBuffer: 32 << 20 });
}

/** A WAV file of 22 050 Hz, as espeak-ng speaks the text. */
export function speak(text: string, voice = 'en-us'): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'assay-speech-'));
  try {
    const wav = join(folder, 'speech.wav');
    execFileSync('espeak-ng', ['-v', voice, '-s', '150', '-w', wav, text]);
    return readFileSync(wav);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface PeerAnswer {
  readonly text: string;
  /** Of the transcription alone, without loading. */
  readonly seconds: readonly number[];
}

const PROGRAM = `
import json, sys, time, numpy
from pywhispercpp.model import Model
model, samples, threads, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
audio = numpy.fromfile(samples, dtype=numpy.float32)
whisper = Model(model, n_threads=threads, print_progress=False, print_realtime=False, redirect_whispercpp_logs_to=None)
seconds = []
for _ in range(rounds):
    start = time.perf_counter()
    segments = whisper.transcribe(audio, language="en")
    seconds.append(time.perf_counter() - start)
text = " ".join(each.text.strip() for each in segments)
print(json.dumps({"text": text, "seconds": seconds}))
`;

/** `samples`: 16 kHz, mono, 32-bit floats. */
export function askPeer(
  model: string,
  samples: Float32Array,
  { threads, rounds = 1 }: { readonly threads: number; readonly rounds?: number },
): PeerAnswer {
  const folder = mkdtempSync(join(tmpdir(), 'assay-peer-'));
  try {
    const [program, sound] = [join(folder, 'peer.py'), join(folder, 'sound.f32')];
    writeFileSync(program, PROGRAM);
    writeFileSync(sound, samples);
    const args = [program, model, sound, `${threads}`, `${rounds}`];
    const said = execFileSync(PYTHON, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return JSON.parse(said.trim().split('\n').at(-1) ?? '') as PeerAnswer;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Words that must be put in, left out or replaced, by the words of the text that was spoken. */
export function wordErrorRate(spoken: string, heard: string): number {
  const [a, b] = [wordsOf(spoken), wordsOf(heard)];
  let row = b.map((_, i) => i + 1);
  for (const [i, word] of a.entries()) {
    let diagonal = i;
    let left = i + 1;
    row = row.map((above, j) => {
      const cost = Math.min(above + 1, left + 1, diagonal + (word === b[j] ? 0 : 1));
      diagonal = above;
      left = cost;
      return cost;
    });
  }
  return (row.at(-1) ?? a.length) / Math.max(1, a.length);
}

function wordsOf(text: string): readonly string[] {
  return text
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}' ]+/gu, ' ')
    .split(' ')
    .filter((word) => word !== '');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href && !havePeer())
  makePinnedVenv('pywhispercpp', FOLDER, REQUIREMENTS);

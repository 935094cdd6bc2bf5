// The queue of a model that hears, with a library that answers when the test lets it: turns between callers,
// cancelled requests, and the bound.

import { beforeEach, expect, test } from 'vitest';
import type { WhisperLibrary } from '../../../../../src/engine/child/audio/library.ts';
import { Transcriber } from '../../../../../src/engine/child/audio/transcriber.ts';
import type { TranscribeEvent } from '../../../../../src/engine/seam/transcription.ts';

/** Ids whose sound was decoded, and what ends the one that is heard. */
let begun: number[];
let finish: (() => void)[];
let told: [number, string][];

/** Its sounds are their ids; it hears no segment. */
const LIBRARY: WhisperLibrary = {
  open: () => 1n,
  decodeOpus: () => Promise.resolve(-1),
  decode: (audio) => {
    begun.push(audio[0] ?? -1);
    return Promise.resolve(16_000);
  },
  transcribe: () => new Promise((resolve) => finish.push(() => resolve(0))),
  isMultilingual: () => true,
  languageId: () => 0,
  languageName: () => 'en',
  foundLanguage: () => 0,
  endOfText: () => 0,
  segments: () => 0,
  segmentTimes: () => [0, 0],
  segmentText: () => '',
  noSpeech: () => 0,
  tokens: () => 0,
  tokenId: () => 0,
  tokenProbability: () => 0,
  tokenBytes: () => Buffer.alloc(0),
  tokenTimes: () => [0, 0],
};

let wake: () => void = () => undefined;
beforeEach(() => {
  [begun, finish, told] = [[], [], []];
});

function started(maxQueued = 10): Transcriber {
  const tell = (id: number, what: string): void => {
    told.push([id, what]);
    wake();
  };
  return new Transcriber({
    library: LIBRARY,
    context: 1n,
    threads: 1,
    maxQueued,
    onEvent: (id, event: TranscribeEvent) => tell(id, event.kind),
    onError: (id, error) => tell(id, String(error)),
  });
}

function add(transcriber: Transcriber, id: number, scope: string): void {
  const request = { translate: false, temperature: 0, fallback: true, words: false };
  transcriber.add({ id, scope, request, audio: Uint8Array.of(id) });
}

async function until(id: number, what: string): Promise<void> {
  while (!told.some(([of, kind]) => of === id && kind === what))
    await new Promise<void>((resolve) => (wake = resolve));
}

/** Lets the one that is heard end. */
async function over(id: number): Promise<void> {
  await until(id, 'start');
  finish.shift()?.();
  await until(id, 'done');
}

test('the sounds of one caller do not hold up the one of another', async () => {
  const transcriber = started();
  for (const id of [1, 2, 3]) add(transcriber, id, 'many');
  add(transcriber, 4, 'one');
  for (const id of [1, 4, 2, 3]) await over(id);
  expect(begun).toEqual([1, 4, 2, 3]);
});

test('a request that is cancelled while it waits is gone at once; one that is heard, when it ended', async () => {
  const transcriber = started();
  for (const id of [1, 2, 3]) add(transcriber, id, 'many');
  await until(1, 'start');
  let dropped = '';
  transcriber.cancel(2, () => (dropped += '2'));
  expect(dropped).toBe('2');
  transcriber.cancel(1, () => (dropped += '1'));
  expect(dropped).toBe('2');
  finish.shift()?.();
  await over(3);
  expect(dropped).toBe('21');
  expect(told.filter(([id]) => id !== 3)).toEqual([[1, 'start']]);
});

test('more than the queue holds is refused, and nothing of it is kept', async () => {
  const transcriber = started(1);
  for (const id of [1, 2]) add(transcriber, id, 'many');
  expect(() => add(transcriber, 3, 'one')).toThrow(expect.objectContaining({ code: 'engine_overloaded' }));
  expect([transcriber.active, transcriber.waiting]).toEqual([1, 1]);
  for (const id of [1, 2]) await over(id);
  expect([transcriber.active, transcriber.waiting]).toEqual([0, 0]);
});

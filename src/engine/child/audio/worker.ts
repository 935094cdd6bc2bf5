// Entry point of the audio child: one process, one whisper model. It reads sound files and weights of
// strangers, so it is confined like the child that writes text: no key, no socket but the server's on fd 3,
// no file and no program from before it reads a byte of the model. It writes no word that was said anywhere
// but to the server.

import { fstatSync } from 'node:fs';
import type { EngineInfo } from '../../seam/engine.ts';
import { nativeLibrary } from '../../../base/native-library.ts';
import { GENERIC_TOOL_FORMAT } from '../../seam/tool-format.ts';
import type { ToChild } from '../../seam/wire.ts';
import { confineProcess } from '../confine.ts';
import { hardenProcess } from '../harden.ts';
import { decodeThreads } from '../llama/cores.ts';
import { loadLlama } from '../llama/library.ts';
import { answering, linkToServer, replyError, wrongType, type Load } from '../replies.ts';
import { growNativeStacks, loadWhisper } from './library.ts';
import { mapFile } from './memory.ts';
import { Transcriber } from './transcriber.ts';

/** Where engine/open puts the model's descriptor. */
const MODEL_FD = 4;

let handle: ((message: ToChild, raw: Uint8Array) => void) | null = null;
const { send, close } = linkToServer((message, raw) => {
  if (handle !== null) handle(message, raw);
  else if (message.kind === 'load') handle = start(message);
});

function start(load: Load): ((message: ToChild, raw: Uint8Array) => void) | null {
  try {
    growNativeStacks();
    hardenProcess(load.parentPid);
    loadLlama();
    const path = nativeLibrary('libwhisper');
    if (path === undefined) throw new Error('libwhisper is not here: make native builds it');
    const library = loadWhisper(path);
    const { size } = fstatSync(MODEL_FD);
    const threads = load.threads ?? decodeThreads(size);
    confineProcess('load');
    const file = mapFile(MODEL_FD, size);
    const context = library.open(file.pointer, size);
    file.unmap();
    if (context === null) throw new Error('whisper.cpp does not take the model');
    const transcriber = new Transcriber({
      library,
      context,
      threads,
      maxQueued: load.maxQueued,
      onEvent: (id, event) => send({ kind: 'transcription', id, event }),
      onError: (id, error) => replyError(send, id, error),
    });
    confineProcess('serve');
    send({ kind: 'ready', info: infoOf(load) });
    return (message, raw) => answer(transcriber, message, raw);
  } catch (error) {
    send({ kind: 'failed', message: error instanceof Error ? error.message : 'unknown failure' });
    close();
    return null;
  }
}

function answer(transcriber: Transcriber, message: ToChild, raw: Uint8Array): void {
  answering(send, message, () => {
    if (message.kind === 'ping') send({ kind: 'pong', id: message.id });
    else if (message.kind === 'transcribe')
      transcriber.add({ ...message, scope: message.request.scope ?? '', audio: raw });
    else if (message.kind === 'cancel')
      transcriber.cancel(message.id, () => send({ kind: 'dropped', id: message.id }));
    else throw wrongType('transcription', 'it hears sound');
  });
}

function infoOf({ contextLength }: Load): EngineInfo {
  return {
    type: 'transcription',
    architecture: 'whisper',
    contextLength: contextLength ?? 0,
    vocabSize: 0,
    embeddingSize: 0,
    hasChatTemplate: false,
    hasFimTokens: false,
    slots: 1,
    bosToken: null,
    eosToken: null,
    toolFormat: GENERIC_TOOL_FORMAT,
    reasoning: null,
    lockedBytes: 0,
  };
}

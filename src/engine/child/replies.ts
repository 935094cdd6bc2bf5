// Shared by the children that serve: their end of the socket to the server, refusals and failures as
// frames, tokens and text.

import { Socket } from 'node:net';
import { ApiError } from '../../base/errors.ts';
import type { EngineInfo, ModelType } from '../seam/engine.ts';
import { assertCountable } from '../seam/context-limits.ts';
import { unframeImages } from '../seam/framed-images.ts';
import { encodeFrame, frameReader, type FromChild, type ToChild } from '../seam/wire.ts';
import type { LlamaContext } from './llama/context.ts';
import { GrammarError, type Grammar } from './llama/grammar.ts';
import type { LoadedModel } from './llama/model.ts';
import { assertMayFit, checkTokens, promptTokens } from './prompt.ts';
import type { ChatTemplate } from './template/template.ts';
import type { ImageRoom } from './vision/images.ts';

export type Load = Extract<ToChild, { kind: 'load' }>;
export type Send = (message: FromChild, raw?: Uint8Array) => void;

/** The one socket, on fd 3; the process ends with it. `close` sends what waits. Call once. */
export function linkToServer(onMessage: (message: ToChild, raw: Uint8Array) => void) {
  const socket = new Socket({ fd: 3, readable: true, writable: true });
  socket.on('close', endProcess);
  socket.on('error', endProcess);
  const read = frameReader<ToChild>(onMessage);
  socket.on('data', (chunk: Buffer) => read(chunk));
  // A supervisor signals every process of its group (systemd's KillMode=control-group). The server decides
  // when the engine ends: it may have answers to drain. SIGUSR1 would open Node's debugger.
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const)
    process.on(signal, () => undefined);
  const send: Send = (message, raw) => void socket.write(encodeFrame(message, raw));
  return { send, close: () => void socket.end() };
}

/** Not process.exit: that waits for destructors of native threads, which may wait for each other. */
export function endProcess(): boolean {
  return process.kill(process.pid, 'SIGKILL');
}

/** Contexts for requests that run alone. */
export interface Lanes {
  readonly most: number;
  readonly open: () => LlamaContext;
}

/** A loaded model with all that its answers need. */
export interface Serving {
  readonly model: LoadedModel;
  readonly context: LlamaContext;
  readonly template: ChatTemplate;
  /** Null: no request can run alone. */
  readonly lanes: Lanes | null;
  /** Null: messages hold no images. */
  readonly images: ImageRoom | null;
  readonly info: EngineInfo;
  readonly load: Load;
  readonly startGrammar: (gbnf: string) => Grammar;
  readonly send: Send;
  /** The context is in an unknown state. */
  readonly fatal: (error: unknown) => void;
}

/** Answers one message by `work`; an error it throws goes back as the error of that request. */
export function answering(send: Send, message: ToChild, work: () => void): void {
  if (!('id' in message)) return;
  try {
    work();
  } catch (error) {
    replyError(send, message.id, error);
  }
}

export function replyError(send: Send, id: number, error: unknown): void {
  if (error instanceof ApiError) {
    const { status, code, message, param, retryAfterSeconds } = error;
    send({ kind: 'error', id, status, code, message, param: param ?? undefined, retryAfterSeconds });
  } else if (error instanceof GrammarError)
    send({ kind: 'error', id, status: 400, code: 'invalid_grammar', message: error.message });
  else if (error instanceof RangeError)
    send({ kind: 'error', id, status: 400, code: 'invalid_request', message: error.message });
  else
    send({
      kind: 'error',
      id,
      status: 500,
      code: 'engine_failed',
      message: 'the engine could not handle the request',
    });
}

export function wrongType(type: ModelType, what: string): ApiError {
  return new ApiError('wrong_model_type', `this model is of type ${type}; ${what}`, { param: 'model' });
}

type TextMessage = Extract<ToChild, { kind: 'tokenize' | 'detokenize' | 'pieces' }>;

export function isText(message: ToChild): message is TextMessage {
  return message.kind === 'tokenize' || message.kind === 'detokenize' || message.kind === 'pieces';
}

/** Tokens and text: a time slice, the only one of its request. */
export function answerText(serving: Serving, message: TextMessage): false {
  const { model, send } = serving;
  if (message.kind === 'tokenize')
    send({ kind: 'reply', id: message.id, value: tokenized(serving, message) });
  else {
    checkTokens(model, message.tokens, 'tokens');
    const value =
      message.kind === 'detokenize'
        ? model.detokenize(message.tokens)
        : message.tokens.map((token) => Buffer.from(model.piece(token, true)).toString('base64'));
    send({ kind: 'reply', id: message.id, value });
  }
  return false;
}

function tokenized(
  { model, template, images: room, info: { contextLength } }: Serving,
  { prompt, images: framed = [], addSpecial, parseSpecial, param }: Extract<ToChild, { kind: 'tokenize' }>,
): readonly number[] {
  if (prompt.kind === 'chat' && framed.length > 0) {
    if (room === null) throw new ApiError('engine_failed', 'the engine takes no images');
    const { messages, images } = unframeImages(prompt.messages, framed, new Uint8Array());
    const { tokens } = promptTokens(model, template, { ...prompt, messages }, contextLength);
    const laid = room.lay(tokens, images);
    assertCountable(laid.length, contextLength, 'messages');
    return room.counted(laid);
  }
  if (prompt.kind !== 'text') {
    const { tokens } = promptTokens(model, template, prompt, contextLength);
    assertCountable(tokens.length, contextLength, 'messages');
    return tokens;
  }
  assertMayFit(model, [prompt.text], { contextLength, param });
  const tokens = model.tokenize(prompt.text, addSpecial, parseSpecial);
  assertCountable(tokens.length, contextLength, param);
  return tokens;
}

// Entry point of the engine child: one process, one model. Reads frames on fd 3, answers on it, and ends when it closes. It
// holds no key and no socket but that one, gives up core dumps, new privileges, files, sockets and programs before it reads
// the model and what only a load needs after, and writes no text of a request anywhere. What the parent sees of its stderr is
// llama.cpp's log of the load, nothing later.

import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { availableParallelism, totalmem } from 'node:os';
import { ApiError } from '../../base/errors.ts';
import { confineProcess } from './confine.ts';
import { createConstraint } from './decode/constraint.ts';
import { decodeThreads, pollLevel, TINY_MODEL_BYTES } from './llama/cores.ts';
import type { EngineInfo, EngineStats, GenerateEvent, ModelType } from '../seam/engine.ts';
import { createContext, type Context } from './llama/context.ts';
import { GrammarError, grammarFactory, type Grammar } from './llama/grammar.ts';
import { growNativeStack, loadLlama } from './llama/library.ts';
import { loadModel, openModelFile, type LoadedModel } from './llama/model.ts';
import { hardenProcess } from './harden.ts';
import { lockingNew, openMappings } from './locked-memory.ts';
import { createPooler, type Pooler } from './decode/pooled.ts';
import { assertMayFit, checkTokens, promptTokens, rankTokens } from './prompt.ts';
import { createSampler, seededRandom } from './decode/sampler.ts';
import { createScheduler, type Scheduler } from './decode/scheduler.ts';
import { createChatTemplate, type ChatTemplate } from './template/template.ts';
import { createTurns } from './time-slices.ts';
import { encodeFrame, frameReader, type FromChild, type ToChild } from '../seam/wire.ts';
import { assertCountable, assertFits } from '../seam/context-limits.ts';

type Load = Extract<ToChild, { t: 'load' }>;

const DEFAULT_CONTEXT_LENGTH = 8192;
const DEFAULT_SLOTS = 8;
const POOLED_SEQUENCES = 64;
/** KV memory up to which a small model gets exact numerics unasked. */
const EXACT_BYTES = 128 * 1024 * 1024;
/** Milliseconds a prompt may hold up running streams per step. */
const STALL_MS = 60;

const socket = new Socket({ fd: 3, readable: true, writable: true });
function send(message: FromChild, raw?: Uint8Array): void {
  return void socket.write(encodeFrame(message, raw));
}
// Not process.exit: that waits for destructors of native threads, which may wait for each other.
function end(): boolean {
  return process.kill(process.pid, 'SIGKILL');
}
socket.on('close', end);
socket.on('error', end);

let handle: ((message: ToChild) => void) | null = null;
const read = frameReader<ToChild>((message) => {
  if (handle !== null) handle(message);
  else if (message.t === 'load') void start(message);
});
socket.on('data', (chunk: Buffer) => read(chunk));

async function start(load: Load): Promise<void> {
  try {
    growNativeStack();
    hardenProcess(load.parentPid);
    const { llama, newThreadpool } = loadLlama();
    // All that is ever opened, and all the machine tells; then nobody who takes llama.cpp over with a model file gets further.
    const mappings = openMappings();
    const machine = { memory: memoryLimit(), threads: decodeThreads(Infinity), cpus: availableParallelism() };
    const file = openModelFile(load.path);
    confineProcess('load');
    let reported = 0;
    const model = await loadModel(llama, file, (fraction) => {
      if (fraction - reported < 0.01 && fraction < 1) return;
      reported = fraction;
      send({ t: 'progress', fraction });
    });
    const type = load.type ?? modelType(model);
    const generating = type === 'chat' || type === 'completion';
    const contextLength = Math.min(
      load.contextLength ?? DEFAULT_CONTEXT_LENGTH,
      model.trainedContext > 0 ? model.trainedContext : Infinity,
    );
    const slots = generating ? (load.slots ?? DEFAULT_SLOTS) : POOLED_SEQUENCES;
    const threads = load.threads ?? (model.size < TINY_MODEL_BYTES ? 1 : machine.threads);
    const { cells, unified } = generating
      ? kvMemory(
          model,
          contextLength,
          slots,
          Math.min(load.maxCells ?? Infinity, Math.floor(machine.memory / 4 / cellBytes(model))),
        )
      : { cells: roundUp(contextLength), unified: true };
    const exact = load.exact ?? (generating && cells * cellBytes(model) * 2 <= EXACT_BYTES);
    const threadpool = newThreadpool(threads, pollLevel(threads, machine.cpus));
    const { value: context, lockedBytes } = lockingNew(mappings, () =>
      createContext(llama, model, {
        sequences: slots,
        cells,
        batchTokens: generating ? Math.min(512, roundUp(contextLength)) : roundUp(contextLength),
        threads,
        threadpool,
        embeddings: type === 'rerank' ? 'rank' : type === 'embedding' ? 'pooled' : 'none',
        exact,
        unified,
      }),
    );
    mappings?.close();
    const template = chatTemplate(model, load.chatTemplate, generating);
    const info: EngineInfo = {
      type,
      architecture: model.architecture,
      contextLength,
      vocabSize: model.vocabSize,
      embeddingSize: generating ? 0 : model.embeddingSize,
      hasChatTemplate: (load.chatTemplate ?? model.chatTemplate) !== null,
      hasFimTokens: model.fim !== null,
      slots: generating ? slots : 0,
      bosToken: model.bos,
      eosToken: model.eos,
      toolFormat: template.toolFormat,
      lockedBytes,
    };
    const startGrammar = grammarFactory(llama, model);
    handle = generating
      ? serveGeneration(model, context, template, info, load, startGrammar)
      : servePooling(model, context, template, info, load);
    confineProcess('serve');
    send({ t: 'ready', info });
  } catch (error) {
    send({ t: 'failed', message: error instanceof Error ? error.message : 'unknown failure' });
    socket.end();
  }
}

/** The override, else the GGUF's own; with tools the GGUF's template for tools, where it has one. */
function chatTemplate(model: LoadedModel, override: string | undefined, generating: boolean): ChatTemplate {
  const vocabulary = {
    specials: model.specials,
    bos: model.bos,
    eos: model.eos,
    addBos: model.addBos,
    tokenize: (text: string) => model.tokenize(text, false, false),
  };
  // Embedders often carry the template of the model they were made from; nobody will render it.
  const plain = createChatTemplate(generating ? (override ?? model.chatTemplate) : null, vocabulary);
  if (!generating || override !== undefined || model.toolTemplate === null) return plain;
  const withTools = createChatTemplate(model.toolTemplate, vocabulary);
  return {
    toolFormat: withTools.toolFormat,
    stops: plain.stops,
    tokens: (messages, tools) => (tools.length > 0 ? withTools : plain).tokens(messages, tools),
  };
}

function modelType(model: LoadedModel): ModelType {
  const pooling = Number(model.meta(`${model.architecture}.pooling_type`) ?? NaN);
  const causal = model.meta(`${model.architecture}.attention.causal`) !== 'false';
  if (pooling === 4) return 'rerank';
  if (pooling > 0 || !causal) return 'embedding';
  return model.chatTemplate !== null ? 'chat' : 'completion';
}

function roundUp(count: number): number {
  return Math.ceil(count / 256) * 256;
}

/** Bytes of keys and values of one token, at two bytes a number. */
function cellBytes(model: LoadedModel): number {
  const meta = (key: string): number => Number(model.meta(`${model.architecture}.${key}`) ?? NaN);
  const heads = meta('attention.head_count') || 1;
  const keyLength = meta('attention.key_length') || meta('embedding_length') / heads || 128;
  const valueLength = meta('attention.value_length') || keyLength;
  const kvHeads = meta('attention.head_count_kv') || heads;
  return model.layers * kvHeads * (keyLength + valueLength) * 2;
}

/**
 * Cells for every slot at full length if as many are affordable (a quarter of the memory); each slot then has its own, and
 * attention never walks over cells of others (measured: a fifth of the prefill). Else one pool of what there is, at least one
 * slot's worth.
 */
function kvMemory(
  model: LoadedModel,
  contextLength: number,
  slots: number,
  affordable: number,
): { readonly cells: number; readonly unified: boolean } {
  const all = slots * roundUp(contextLength);
  return all <= affordable
    ? { cells: all, unified: false }
    : { cells: roundUp(Math.max(contextLength, affordable)) + 256, unified: true };
}

function memoryLimit(): number {
  try {
    const limit = Number(readFileSync('/sys/fs/cgroup/memory.max', 'utf8'));
    return Number.isFinite(limit) ? Math.min(limit, totalmem()) : totalmem();
  } catch {
    return totalmem();
  }
}

/** Answers one message by `work`; what it throws goes back as an error of that request. */
function answering(message: ToChild, work: () => void): void {
  if (message.t === 'load') return;
  try {
    work();
  } catch (error) {
    sendError(message.id, error);
  }
}

function sendError(id: number, error: unknown): void {
  if (error instanceof ApiError) {
    send({
      t: 'error',
      id,
      status: error.status,
      code: error.code,
      message: error.message,
      ...(error.param === null ? {} : { param: error.param }),
      ...(error.retryAfterSeconds === undefined ? {} : { retryAfterSeconds: error.retryAfterSeconds }),
    });
  } else if (error instanceof GrammarError)
    send({ t: 'error', id, status: 400, code: 'invalid_grammar', message: error.message });
  else if (error instanceof RangeError)
    send({ t: 'error', id, status: 400, code: 'invalid_request', message: error.message });
  else
    send({
      t: 'error',
      id,
      status: 500,
      code: 'engine_failed',
      message: 'the engine could not handle the request',
    });
}

function overloaded(): ApiError {
  return new ApiError('engine_overloaded', 'the queue of this model is full', { retryAfterSeconds: 1 });
}

type TextMessage = Extract<ToChild, { t: 'tokenize' | 'detokenize' | 'pieces' }>;

function isText(message: ToChild): message is TextMessage {
  return message.t === 'tokenize' || message.t === 'detokenize' || message.t === 'pieces';
}

/** Requests both kinds of model answer: tokens and text. A slice of `Turns`, the only one. */
function answerText(
  model: LoadedModel,
  template: ChatTemplate,
  contextLength: number,
  message: TextMessage,
): false {
  if (message.t === 'tokenize')
    send({ t: 'reply', id: message.id, value: tokenized(model, template, contextLength, message) });
  else {
    checkTokens(model, message.tokens, 'tokens');
    const value =
      message.t === 'detokenize'
        ? model.detokenize(message.tokens)
        : message.tokens.map((token) => Buffer.from(model.piece(token, true)).toString('base64'));
    send({ t: 'reply', id: message.id, value });
  }
  return false;
}

function tokenized(
  model: LoadedModel,
  template: ChatTemplate,
  contextLength: number,
  { prompt, addSpecial, parseSpecial, param }: Extract<ToChild, { t: 'tokenize' }>,
): readonly number[] {
  if (prompt.kind !== 'text') {
    const tokens = promptTokens(model, template, prompt, contextLength);
    assertCountable(tokens.length, contextLength, 'messages');
    return tokens;
  }
  assertMayFit(model, [prompt.text], contextLength, param);
  const tokens = model.tokenize(prompt.text, addSpecial, parseSpecial);
  assertCountable(tokens.length, contextLength, param);
  return tokens;
}

function serveGeneration(
  model: LoadedModel,
  context: Context,
  template: ChatTemplate,
  info: EngineInfo,
  load: Load,
  startGrammar: (gbnf: string) => Grammar,
): (message: ToChild) => void {
  let events: (readonly [number, GenerateEvent])[] = [];
  const flush = (): void => {
    if (events.length === 0) return;
    send({ t: 'events', events, stats: scheduler.stats() });
    events = [];
  };
  const scheduler: Scheduler = createScheduler(context, {
    slots: info.slots,
    contextLength: info.contextLength,
    maxQueued: load.maxQueued,
    reusePrefixes: load.reusePrefixes && !model.recurrent,
    stallMs: STALL_MS,
    pacing: true,
    ...(load.maxChunk === undefined ? {} : { maxChunk: load.maxChunk }),
    now: () => performance.now(),
    turn: () => new Promise((resolve) => setImmediate(resolve)),
    onStep: flush,
  });
  scheduler.run().catch(fatal);

  const format = info.toolFormat;
  const formatText = format.open + format.callStart + format.callEnd + format.close;
  const shown = new Set(
    model.specials.filter((special) => formatText.includes(special.text)).map((special) => special.token),
  );
  const rawPiece = (token: number): Uint8Array => model.piece(token, true);
  const vocabulary = {
    piece: rawPiece,
    tokenize: (text: string) => model.tokenize(text, false, true),
    isEnd: (token: number) => model.isEnd(token),
  };

  const generate = ({ id, request }: Extract<ToChild, { t: 'generate' }>): void => {
    // A bias on a token there is not would do nothing, and whoever sent it meant a token of another model.
    for (const [token] of request.sampling.logitBias ?? []) checkTokens(model, [token], 'logit_bias');
    const prompt = promptTokens(model, template, request.prompt, info.contextLength);
    assertFits(prompt.length, info.contextLength, request.prompt.kind === 'chat' ? 'messages' : 'prompt');
    const { grammar } = request;
    // Compiled once here, so that a grammar the library refuses is a 400 and not the end of a stream.
    if (grammar !== undefined) startGrammar(grammar.gbnf).free();
    const { logitBias, ...plainSampling } = request.sampling;
    const sampling = {
      ...plainSampling,
      ...(logitBias === undefined ? {} : { logitBias: new Map(logitBias) }),
    };
    const seed = sampling.seed ?? randomInt(2 ** 47);
    const stop = request.prompt.kind === 'chat' ? [...request.stop, ...template.stops] : request.stop;
    const accepted = scheduler.submit({
      id,
      scope: request.cacheScope,
      prompt,
      n: request.n,
      echo: request.echo === true,
      maxTokens: request.maxTokens,
      emit: (event) => events.push([id, event]),
      fail(error) {
        flush();
        sendError(id, error);
      },
      choice: (index) => ({
        sampler: createSampler(sampling, seededRandom(seed, index), prompt),
        constraint:
          grammar === undefined
            ? null
            : createConstraint(vocabulary, () => startGrammar(grammar.gbnf), grammar.triggers),
        stop,
        logprobs: request.logprobs,
        piece: (token) => model.piece(token, shown.has(token)),
        rawPiece,
        isEnd: vocabulary.isEnd,
      }),
    });
    if (!accepted) throw overloaded();
  };

  const turns = createTurns(setImmediate, sendError);
  return (message) =>
    answering(message, () => {
      if (message.t === 'ping') send({ t: 'pong', id: message.id });
      else if (isText(message))
        turns.add(message.id, () => answerText(model, template, info.contextLength, message));
      else if (message.t === 'generate') generate(message);
      else if (message.t === 'cancel') {
        turns.cancel(message.id);
        scheduler.cancel(message.id);
      } else if (message.t === 'pause') scheduler.pause(message.id);
      else if (message.t === 'resume') scheduler.resume(message.id);
      else
        throw new ApiError(
          'wrong_model_type',
          `this model is of type ${info.type}; it makes text, not vectors or scores`,
          {
            param: 'model',
          },
        );
    });
}

function servePooling(
  model: LoadedModel,
  context: Context,
  template: ChatTemplate,
  info: EngineInfo,
  load: Load,
): (message: ToChild) => void {
  const inputLength = Math.min(info.contextLength, context.batchTokens);
  const pooler: Pooler = createPooler(context, { sequences: POOLED_SEQUENCES, maxQueued: load.maxQueued });
  pooler.run().catch(fatal);
  const stats = (): EngineStats => ({
    queued: pooler.queued,
    active: pooler.queued > 0 ? 1 : 0,
    promptTokens: pooler.tokens,
    completionTokens: 0,
    cachedTokens: 0,
    decodeSteps: pooler.steps,
  });

  // One input at a slice.
  function* embed(message: Extract<ToChild, { t: 'embed' }>): Generator<void, void> {
    if (info.type !== 'embedding') throw wrongType(info.type, 'embeddings');
    const inputs: (readonly number[])[] = [];
    for (const input of message.inputs)
      if (typeof input === 'string') assertMayFit(model, [input], inputLength, 'input', 0);
    for (const input of message.inputs) {
      if (typeof input !== 'string') checkTokens(model, input, 'input');
      const tokens = typeof input === 'string' ? model.tokenize(input, true, false) : input;
      if (tokens.length === 0) throw new ApiError('invalid_input', 'an input is empty', { param: 'input' });
      assertFits(tokens.length, inputLength, 'input', 0);
      inputs.push(tokens);
      yield;
    }
    submit(message, inputs, normalised);
  }
  function* rank(message: Extract<ToChild, { t: 'rank' }>): Generator<void, void> {
    if (info.type !== 'rerank') throw wrongType(info.type, 'reranking');
    const { query, documents } = message;
    assertMayFit(model, [query], inputLength, 'query', 0);
    for (const document of documents) assertMayFit(model, [query, document], inputLength, 'documents', 0);
    const join = rankTokens(model, query);
    const inputs: (readonly number[])[] = [];
    for (const document of documents) {
      const tokens = join(document);
      assertFits(tokens.length, inputLength, 'documents', 0);
      inputs.push(tokens);
      yield;
    }
    submit(message, inputs, (vector) => vector.subarray(0, 1));
  }
  const submit = (
    { id, scope }: Extract<ToChild, { t: 'embed' | 'rank' }>,
    inputs: readonly (readonly number[])[],
    shape: (vector: Float32Array) => Float32Array,
  ): void => {
    const tokens = inputs.reduce((sum, input) => sum + input.length, 0);
    const done = (outputs: readonly Float32Array[]): void => {
      const vectors = outputs.map(shape);
      const size = vectors[0]?.length ?? 0;
      const raw = new Float32Array(size * vectors.length);
      vectors.forEach((vector, i) => raw.set(vector, i * size));
      send({ t: 'vectors', id, count: vectors.length, size, tokens }, new Uint8Array(raw.buffer));
      send({ t: 'events', events: [], stats: stats() });
    };
    if (inputs.length === 0) done([]);
    else if (!pooler.submit({ id, scope, inputs, done })) throw overloaded();
  };

  const turns = createTurns(setImmediate, sendError);
  return (message) =>
    answering(message, () => {
      if (message.t === 'ping') send({ t: 'pong', id: message.id });
      else if (isText(message))
        turns.add(message.id, () => answerText(model, template, info.contextLength, message));
      else if (message.t === 'embed') turns.add(message.id, slices(embed(message)));
      else if (message.t === 'rank') turns.add(message.id, slices(rank(message)));
      else if (message.t === 'cancel') {
        turns.cancel(message.id);
        pooler.cancel(message.id);
      } else if (message.t === 'generate') throw wrongType(info.type, 'text generation');
    });
}

/** Up to the next `yield` at a time. */
function slices(work: Generator<void, void>): () => boolean {
  return () => work.next().done !== true;
}

function wrongType(type: ModelType, wanted: string): ApiError {
  return new ApiError('wrong_model_type', `this model is of type ${type}; it cannot do ${wanted}`, {
    param: 'model',
  });
}

/** To length 1; a zero vector stays zero. */
function normalised(vector: Float32Array): Float32Array {
  let sum = 0;
  for (const value of vector) sum += value * value;
  const norm = Math.sqrt(sum);
  return norm > 0 ? vector.map((value) => value / norm) : vector;
}

/** The context is in an unknown state: end, so that the parent reports a crash and the next request loads anew. */
function fatal(error: unknown): void {
  process.stderr.write(`engine: ${error instanceof Error ? error.message : 'failed'}\n`);
  end();
}

// Entry point of the engine child: one process, one model. Reads frames on fd 3, answers on it, and ends when
// it closes. It holds no key and no socket but that one, gives up core dumps, new privileges, files, sockets
// and programs before it reads the model and what only a load needs after, and writes no text of a request
// anywhere. The parent sees of its stderr only llama.cpp's log of the load.

import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import type { Backend } from '../seam/backend.ts';
import { llamaFolder } from '../seam/library-folder.ts';
import { nativeLibrary } from '../../base/native-library.ts';
import { ADAPTER_FD } from '../seam/model-fds.ts';
import type { ToChild } from '../seam/wire.ts';
import type { EngineInfo, EngineNumerics, ModelType } from '../seam/engine.ts';
import { confineProcess } from './confine.ts';
import { planLayers } from './device-plan.ts';
import { hardenProcess } from './harden.ts';
import { loadAdapter, type LoadedAdapter } from './llama/adapters.ts';
import { LlamaContext, type ContextOptions } from './llama/context.ts';
import { decodeThreads, pollLevel, TINY_MODEL_BYTES } from './llama/cores.ts';
import { openDevices } from './llama/devices.ts';
import { grammarFactory } from './llama/grammar.ts';
import type { LlamaLibrary } from './llama/declarations.ts';
import { cpuVariant, growNativeStack, loadLlama } from './llama/library.ts';
import { loadLlamaModel, ModelLoadError, openModelFile, type LoadedModel } from './llama/model.ts';
import { lockingNew, type Mappings, openMappings } from './locked-memory.ts';
import { memoryLimit, planLanes, planMemory } from './memory-plan.ts';
import { endProcess, type Lanes, linkToServer, type Load } from './replies.ts';
import { serveGeneration } from './serve-generation.ts';
import { POOLED_SEQUENCES, servePooling } from './serve-pooling.ts';
import { createChatTemplate, templateProblem, type ChatTemplate } from './template/template.ts';
import { ImageRoom } from './vision/images.ts';
import { loadMtmd, type MtmdLibrary } from './vision/library.ts';
import { Projector, type ProjectorOptions } from './vision/projector.ts';
import { loadWebp, type WebpLibrary } from './vision/webp.ts';

const DEFAULT_CONTEXT_LENGTH = 8192;
const DEFAULT_SLOTS = 8;
/** Native memory for images in preparation, where the machine has eight times as much. */
const MAX_IMAGE_BYTES = 1024 * 1024 * 1024;

let handle: ((message: ToChild, raw: Uint8Array) => void) | null = null;
const { send, close } = linkToServer((message, raw) => {
  if (handle !== null) handle(message, raw);
  else if (message.kind === 'load') void start(message);
  else if (message.kind === 'template') send({ kind: 'template', problem: templateProblem(message.source) });
  else if (message.kind === 'devices') tellDevices(message.backend);
});

/** Answers and ends with the question: this process will load no model. */
function tellDevices(backend: Backend): void {
  try {
    const { ggml } = loadLlama(llamaFolder(backend));
    const devices = openDevices(ggml).map(({ name, description, totalBytes, freeBytes }) => ({
      name,
      description,
      totalBytes,
      freeBytes,
    }));
    send({ kind: 'devices', devices });
  } catch (error) {
    send({ kind: 'failed', message: error instanceof Error ? error.message : 'unknown failure' });
  }
}

async function start(load: Load): Promise<void> {
  try {
    growNativeStack();
    hardenProcess(load.parentPid);
    const { accelerator = { kind: 'cpu' } } = load;
    const { llama, newThreadpool, ggml } = loadLlama(llamaFolder(accelerator.kind));
    // A driver opens its device nodes and files here.
    const devices = accelerator.kind === 'cpu' ? [] : openDevices(ggml);
    const gpuLayers = planLayers(accelerator, devices, load.needs);
    const mtmd = load.projector === undefined ? null : loadMtmd(mtmdPath());
    const webp = mtmd === null ? null : webpLibrary();
    // Open everything needed now; after confinement a compromised llama.cpp can open nothing.
    const mappings = openMappings();
    const variant = cpuVariant();
    const machine = { memory: memoryLimit(), threads: decodeThreads(Infinity), cpus: availableParallelism() };
    const file = openModelFile(load.path);
    const opensMore = load.adapters.length > 0 || mtmd !== null;
    confineProcess(opensMore ? 'load-files' : 'load', accelerator.kind);
    const model = await loadLlamaModel(llama, file, progressReporter(), gpuLayers);
    const adapters = load.adapters.map(({ scale }, i) => adapterOn(ADAPTER_FD + i, { llama, model, scale }));
    const shape = shapeOf(model, load);
    const threads = load.threads ?? (model.size < TINY_MODEL_BYTES ? 1 : machine.threads);
    const grid = load.projector?.grid === true;
    const projector =
      mtmd === null ? null : projectorOn(ADAPTER_FD + adapters.length, { mtmd, webp, model, threads, grid });
    const wholeRun = projector?.wholeRun ?? 0;
    const threadpool = newThreadpool(threads, pollLevel(threads, machine.cpus));
    const { maxCells, exact, kvType } = load;
    const plan = planMemory(model, { ...shape, memory: machine.memory, maxCells, exact, kvType });
    const { value: context, lockedBytes } = lockingNew(
      mappings,
      () =>
        new LlamaContext(llama, model, {
          ...plan,
          batchTokens: Math.max(plan.batchTokens, wholeRun),
          adapters,
          sequences: shape.slots,
          threads,
          threadpool,
          embeddings: outputsOf(shape.type),
          vectors: projector !== null,
          wholeRun,
        }),
    );
    const images = projector === null ? null : imageRoom(projector, load, machine.memory);
    const onCpu = accelerator.kind === 'cpu';
    const lanes = onCpu ? lanesOf(llama, model, { shape, adapters, threads, threadpool, mappings }) : null;
    // A lane that is opened later locks its memory, too.
    if (lanes === null) mappings?.close();
    const alone = lanes !== null;
    // A build for graphics cards may compute there with no layer on them, too.
    const numerics = { cpuVariant: variant, threads, exact: onCpu && plan.exact, alone };
    handle = serve(llama, model, { load, shape, context, lanes, lockedBytes, images, numerics });
  } catch (error) {
    send({ kind: 'failed', message: error instanceof Error ? error.message : 'unknown failure' });
    close();
  }
}

interface LaneParts extends Pick<ContextOptions, 'adapters' | 'threads' | 'threadpool'> {
  readonly shape: Shape;
  readonly mappings: Mappings | null;
}

/** Null for models that do not generate, and where there is no memory. A lane is opened when one is asked for. */
function lanesOf(
  llama: LlamaLibrary,
  model: LoadedModel,
  { shape, mappings, ...common }: LaneParts,
): Lanes | null {
  if (!shape.generating) return null;
  const { lanes, cells, batchTokens } = planLanes(model, {
    contextLength: shape.contextLength,
    memory: memoryLimit(),
  });
  if (lanes === 0) return null;
  const options = { ...common, cells, batchTokens, sequences: 1, unified: true, exact: true } as const;
  const open = (): LlamaContext =>
    new LlamaContext(llama, model, { ...options, embeddings: 'none', fixedThreads: true });
  return { most: lanes, open: () => lockingNew(mappings, open).value };
}

/** Loads an adapter, whose file only the launcher's rules let this process open, and closes it. */
function adapterOn(
  fd: number,
  {
    llama,
    model,
    scale,
  }: { readonly llama: LlamaLibrary; readonly model: LoadedModel; readonly scale: number },
): LoadedAdapter {
  const adapter = loadAdapter(llama, model.handle, { path: `/proc/self/fd/${fd}`, scale });
  closeSync(fd);
  return adapter;
}

function mtmdPath(): string {
  const path = nativeLibrary('libmtmd');
  if (path === undefined) throw new ModelLoadError('there is no libmtmd here (`make native` builds it)');
  return path;
}

/** Null: images in WebP are refused. */
function webpLibrary(): WebpLibrary | null {
  const path = nativeLibrary('libwebpdecoder');
  return path === undefined ? null : loadWebp(path);
}

interface ProjectorParts extends Omit<ProjectorOptions, 'path'> {
  readonly mtmd: MtmdLibrary;
  readonly model: LoadedModel;
}

/** Loads the projector as an adapter is loaded. */
function projectorOn(fd: number, { mtmd, model, ...how }: ProjectorParts): Projector {
  const projector = new Projector(mtmd, model, { path: `/proc/self/fd/${fd}`, ...how });
  closeSync(fd);
  return projector;
}

function imageRoom(projector: Projector, { projector: spec, maxQueued }: Load, memory: number): ImageRoom {
  const budget = Math.min(MAX_IMAGE_BYTES, memory / 8);
  const { vectorPixels = 0 } = spec ?? {};
  return new ImageRoom(projector, { budget, maxWaiting: maxQueued, vectorPixels });
}

/** Reports each loaded hundredth to the parent. */
function progressReporter(): (fraction: number) => void {
  let reported = 0;
  return (fraction) => {
    if (fraction - reported < 0.01 && fraction < 1) return;
    reported = fraction;
    send({ kind: 'progress', fraction });
  };
}

interface Shape {
  readonly type: ModelType;
  readonly generating: boolean;
  readonly contextLength: number;
  /** Sequences decoded together. */
  readonly slots: number;
}

function shapeOf(model: LoadedModel, load: Load): Shape {
  const type = load.type ?? modelType(model);
  const generating = type === 'chat' || type === 'completion';
  const trained = model.trainedContext > 0 ? model.trainedContext : Infinity;
  const contextLength = Math.min(load.contextLength ?? DEFAULT_CONTEXT_LENGTH, trained);
  return {
    type,
    generating,
    contextLength,
    slots: generating ? (load.slots ?? DEFAULT_SLOTS) : POOLED_SEQUENCES,
  };
}

function outputsOf(type: ModelType): ContextOptions['embeddings'] {
  if (type === 'rerank') return 'rank';
  return type === 'embedding' ? 'pooled' : 'none';
}

/** Gives up what only loading needed, reports that the model is ready, and returns its message handler. */
function serve(
  llama: LlamaLibrary,
  model: LoadedModel,
  loaded: {
    readonly load: Load;
    readonly shape: Shape;
    readonly context: LlamaContext;
    readonly lanes: Lanes | null;
    readonly lockedBytes: number;
    readonly images: ImageRoom | null;
    readonly numerics: Pick<EngineNumerics, 'cpuVariant' | 'threads' | 'exact' | 'alone'>;
  },
): (message: ToChild, raw: Uint8Array) => void {
  const { load, shape, context, lanes, lockedBytes, images } = loaded;
  const template = chatTemplate(model, load.chatTemplate, shape.generating);
  const info: EngineInfo = {
    type: shape.type,
    architecture: model.architecture,
    contextLength: shape.contextLength,
    vocabSize: model.vocabSize,
    embeddingSize: shape.generating ? 0 : model.embeddingSize,
    hasChatTemplate: (load.chatTemplate ?? model.chatTemplate) !== null,
    hasFimTokens: model.fim !== null,
    slots: shape.generating ? shape.slots : 0,
    bosToken: model.bos,
    eosToken: model.eos,
    toolFormat: template.toolFormat,
    reasoning: template.reasoning,
    vision: images !== null,
    lockedBytes,
    numerics: {
      ...loaded.numerics,
      templateSha256: shape.generating ? digestOf(template.source) : null,
      toolTemplateSha256: shape.generating ? digestOf(template.toolSource ?? template.source) : null,
    },
  };
  const startGrammar = grammarFactory(llama, model);
  const serving = { model, context, lanes, template, images, info, load, startGrammar, send, fatal };
  const answer = shape.generating ? serveGeneration(serving) : servePooling(serving);
  const { kind: backend } = load.accelerator ?? { kind: 'cpu' };
  // Compiles the driver's programs: one that cannot work confined fails the load, not a request.
  if (backend !== 'cpu' && shape.generating) context.warmUp(Math.max(0, model.bos ?? 0));
  confineProcess('serve', backend);
  send({ kind: 'ready', info });
  return answer;
}

/** Lower-case hex; null where there is no text. */
function digestOf(text: string | undefined): string | null {
  return text === undefined ? null : createHash('sha256').update(text).digest('hex');
}

/** The override, else the GGUF's own; with tools the GGUF's template for tools, where it has one. */
function chatTemplate(
  model: LoadedModel,
  override: string | undefined,
  generating: boolean,
): ChatTemplate & { readonly toolSource?: string | undefined } {
  const vocabulary = {
    specials: model.specials,
    bos: model.bos,
    eos: model.eos,
    addBos: model.addBos,
    tokenize: (text: string) => model.tokenize(text, false, false),
  };
  // Embedders often carry the template of the model they were made from; it is never rendered.
  const plain = createChatTemplate(generating ? (override ?? model.chatTemplate) : null, vocabulary);
  if (!generating || override !== undefined || model.toolTemplate === null) return plain;
  const withTools = createChatTemplate(model.toolTemplate, vocabulary);
  return {
    toolFormat: withTools.toolFormat,
    reasoning: plain.reasoning ?? withTools.reasoning,
    stops: plain.stops,
    source: plain.source,
    toolSource: withTools.source,
    prompt: (messages, tools, variables, how) =>
      (tools.length > 0 ? withTools : plain).prompt(messages, tools, variables, how),
    tokens: (messages, tools, variables) =>
      (tools.length > 0 ? withTools : plain).tokens(messages, tools, variables),
  };
}

function modelType(model: LoadedModel): ModelType {
  const pooling = Number(model.meta(`${model.architecture}.pooling_type`) ?? NaN);
  const causal = model.meta(`${model.architecture}.attention.causal`) !== 'false';
  if (pooling === 4) return 'rerank';
  if (pooling > 0 || !causal) return 'embedding';
  return model.chatTemplate !== null ? 'chat' : 'completion';
}

/**
 * The context is in an unknown state: end, so that the parent reports a crash and the next request loads
 * anew.
 */
function fatal(error: unknown): void {
  process.stderr.write(`engine: ${error instanceof Error ? error.message : 'failed'}\n`);
  endProcess();
}

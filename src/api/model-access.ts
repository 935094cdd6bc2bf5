// From a request to a loaded model: checks that the key may use it and that it is of the right type, and
// holds it while the answer is made. Shared by every route that needs an engine.

import { ApiError } from '../base/errors.ts';
import { isRecord, refuse } from '../base/shape.ts';
import { hostEngine } from '../engine/adapted.ts';
import type { Engine, GenerateRequest, Pooled } from '../engine/seam/engine.ts';
import { checkModelAllowed } from '../http/admission/auth.ts';
import { modelNotFound } from '../http/errors.ts';
import { Recorder } from '../http/recorder.ts';
import type { Call } from '../http/route.ts';
import type { RegisteredModelType } from '../models/model.ts';
import type { ModelStatus } from '../models/seam.ts';
import type { AnswerReceipt } from '../receipts/answer.ts';

/** The registered model of that id, if the caller may use it for this. */
export function findModel(call: Call, id: string, types: readonly RegisteredModelType[]): ModelStatus {
  if (call.exchange.principal !== null) checkModelAllowed(call.exchange.principal, id);
  const model = recordModel(call.exchange, call.deps.models.get(id));
  if (!types.includes(model.type)) {
    throw new ApiError(
      'wrong_model_type',
      `the model is of type ${model.type}, expected ${types.join(' or ')}`,
      { param: 'model' },
    );
  }
  call.connectionPins.check(call.request.raw.socket, model);
  return model;
}

/** Notes the model of the request for log, metrics and audit; 404 when there is no such model. */
export function recordModel<M extends { readonly id: string; readonly sha256: string }>(
  exchange: Call['exchange'],
  model: M | undefined,
): M {
  if (model === undefined) throw modelNotFound();
  exchange.modelId = model.id;
  exchange.modelSha256 = model.sha256;
  return model;
}

/** Runs `work` with the model loaded; it stays loaded until the promise settles. */
export async function withEngine<T>(
  call: Call,
  model: ModelStatus,
  keepAlive: string | number | undefined,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  assertWords(call, model);
  const { config } = call.deps;
  // Unloading is for admins: `keep_alive` must not let a tenant unload a model, or keep it loaded without
  // end.
  const shared = config.auth.keys.length > 0 && call.exchange.principal?.admin !== true;
  // An adapter has the places of its base, whose engine it shares.
  const host = model.parent ?? model.id;
  const lease = await whileWaiting(call, host, () =>
    call.deps.models.acquire(model.id, {
      signal: call.exchange.signal,
      keepAlive,
      keepAliveUpToMs: shared ? config.maxKeepAliveMs : undefined,
    }),
  );
  try {
    // Replaced while this request waited: the checks above were of another model.
    if (lease.model.sha256 !== model.sha256) {
      // The evidence shown is asked for anew; anyone else may try again.
      call.connectionPins.check(call.request.raw.socket, lease.model);
      throw new ApiError('model_replaced', `${model.id} was replaced by another model`, {
        retryAfterSeconds: 1,
      });
    }
    call.watchEngine(host, hostEngine(lease.engine));
    call.exchange.signal.throwIfAborted();
    const { receipt } = call.exchange;
    const recorder = receipt === null ? null : new Recorder(receipt, lease.model, lease.engine);
    return await work(sharedEngine(call, host, { engine: lease.engine, recorder }));
  } finally {
    lease.release();
  }
}

/** Refuses words of `assay-receipts` that do not go with the request. */
function assertWords({ exchange, body }: Call, { type }: ModelStatus): void {
  const { ask } = exchange.receipt ?? {};
  const refusal = (text: string): ApiError =>
    refuse('invalid_value', 'assay-receipts', `assay-receipts asks for ${text}`);
  if (ask?.tokens === true && !(isRecord(body) && body['stream'] === true))
    throw refusal('tokens, which come with streams only');
  if (ask?.alone === true && type !== 'chat' && type !== 'completion')
    throw refusal('alone, which is for answers that a model writes');
}

/** Waits for a model to be loaded, within the caller's share of the places to wait in. */
export async function whileWaiting<T>(
  { modelPermits, exchange }: Pick<Call, 'modelPermits' | 'exchange'>,
  modelId: string,
  load: () => Promise<T>,
): Promise<T> {
  const loaded = modelPermits.load(modelId, callerOf(exchange));
  try {
    return await load();
  } finally {
    loaded();
  }
}

function callerOf({ principal }: Call['exchange']): string {
  return principal?.bucket ?? '';
}

interface Leased {
  readonly engine: Engine;
  /** Of the answer's receipt; null where none is made. */
  readonly recorder: Recorder | null;
}

/** The engine as this request may use it: within the caller's share of the model's queue. */
function sharedEngine(
  { modelPermits, exchange }: Call,
  modelId: string,
  { engine, recorder }: Leased,
): Engine {
  const caller = callerOf(exchange);
  let generating = 0;
  const asked = async <T>(ask: () => Promise<T>): Promise<T> => {
    const answered = modelPermits.call(modelId, caller);
    return released(engine, answered, ask);
  };
  return {
    info: engine.info,
    pid: engine.pid,
    closed: engine.closed,
    generate(request, signal) {
      const own = {
        ...request,
        background: exchange.background ? true : request.background,
        receipt: recorder !== null,
        prompt: dated(request.prompt, exchange.receipt),
        tokens: exchange.receipt?.ask.tokens,
        alone: exchange.receipt?.ask.alone,
      };
      if (own.alone === true && engine.info.numerics?.alone !== true)
        throw new ApiError('alone_unavailable', 'this model cannot run a request alone here', {
          param: 'assay-receipts',
        });
      const events = engine.generate(own, signal)[Symbol.asyncIterator]();
      return accompanied(events, recorder?.generation(request), () => {
        const { slots } = engine.info;
        const along = generating > 0;
        const ended = modelPermits.generation(modelId, caller, { slots, count: request.n, along });
        generating += 1;
        return (whole) => {
          generating -= 1;
          if (whole) ended();
          else void engine.dropped().then(ended);
        };
      });
    },
    transcribe: hearing({ modelPermits, exchange }, modelId, { engine, recorder }),
    tokenize: (...given) => asked(() => engine.tokenize(...given)),
    detokenize: (...given) => asked(() => engine.detokenize(...given)),
    pieces: (...given) => asked(() => engine.pieces(...given)),
    embed: (...given) => asked(() => pooled(recorder, engine.embed(...given))),
    rank: (...given) => asked(() => pooled(recorder, engine.rank(...given))),
    dropped: () => engine.dropped(),
    stats: () => engine.stats(),
    close: () => engine.close(),
  };
}

/** A template tells the time that the receipt says, so that a replay can tell it too. */
function dated(prompt: GenerateRequest['prompt'], receipt: AnswerReceipt | null): GenerateRequest['prompt'] {
  return prompt.kind === 'chat' && receipt !== null ? { ...prompt, now: receipt.receivedAt } : prompt;
}

/** Notes that the work was done, or that the engine ended in it. */
async function pooled<T extends Pooled>(recorder: Recorder | null, work: Promise<T>): Promise<T> {
  try {
    const done = await work;
    recorder?.pooled(done);
    return done;
  } catch (error) {
    if (error instanceof ApiError && error.code === 'engine_crashed') recorder?.pooled(undefined);
    throw error;
  }
}

/** A place of the queue for each sound, within the caller's share. */
function hearing(
  { modelPermits, exchange }: Pick<Call, 'modelPermits' | 'exchange'>,
  modelId: string,
  { engine, recorder }: Leased,
): Engine['transcribe'] {
  const { transcribe } = engine;
  if (transcribe === undefined) return undefined;
  return (request, signal) => {
    const events = transcribe.call(engine, request, signal)[Symbol.asyncIterator]();
    return accompanied(events, recorder?.transcription(), () => {
      const { slots } = engine.info;
      const ended = modelPermits.generation(modelId, callerOf(exchange), { slots, count: 1, along: false });
      return (whole) => {
        if (whole) ended();
        else void engine.dropped().then(ended);
      };
    });
  };
}

/**
 * The same events, each given to `note`, between `begin`, before the first is asked for, and what `begin`
 * returns, called once: when the last was given (`whole`), or at a failure or a reader that stops. Written
 * out because a generator that delegates to another one costs every token three promises.
 */
function accompanied<T>(
  events: AsyncIterator<T>,
  note: ((event: T) => void) | undefined,
  begin: () => (whole: boolean) => void,
): AsyncIterableIterator<T> {
  let phase: 'new' | 'open' | 'over' = 'new';
  let end: (whole: boolean) => void = () => undefined;
  const close = (whole: boolean): void => {
    const open = phase === 'open';
    phase = 'over';
    if (open) end(whole);
  };
  const given = (result: IteratorResult<T>): IteratorResult<T> => {
    if (result.done === true) close(true);
    else note?.(result.value);
    return result;
  };
  const failed = (error: unknown): never => {
    close(false);
    throw error;
  };
  return {
    [Symbol.asyncIterator]() {
      return this;
    },
    async next() {
      if (phase === 'new') {
        end = begin();
        phase = 'open';
      }
      return events.next().then(given, failed);
    },
    async return() {
      await events.return?.();
      close(false);
      return { done: true, value: undefined };
    },
  };
}

/**
 * Releases once the engine is done: aborted work stays in the engine until it is dropped, and a caller could
 * fill the queue beyond her share with it.
 */
async function released<T>(engine: Engine, release: () => void, ask: () => Promise<T>): Promise<T> {
  try {
    const answer = await ask();
    release();
    return answer;
  } catch (error) {
    void engine.dropped().then(release);
    throw error;
  }
}

/**
 * Reserves a caller's tokens from the size of the request (about four bytes make a token) and of its answers.
 * A length that was asked for must be available; without one the answer may fill the context, and the rest of
 * the minute is reserved for it.
 */
export function reserveTokens(
  call: Call,
  answer?: { readonly asked: number | undefined; readonly count: number; readonly context: number },
): void {
  const prompt = Math.ceil(call.exchange.bodyBytes / 4);
  const { asked = 0, count = 0, context = 0 } = answer ?? {};
  const atMost = answer?.asked === undefined ? context : 0;
  call.exchange.admission?.reserveTokens(prompt + Math.min(asked, context) * count, prompt + atMost * count);
}

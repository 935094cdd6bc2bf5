// POST /v1/completions. Several prompts run side by side, as many as the model has slots; if one fails, all
// end.

import { randomInt } from 'node:crypto';
import { ApiError } from '../../base/errors.ts';
import { refuse } from '../../base/shape.ts';
import type { Engine, GenerateEvent, GenerateRequest } from '../../engine/seam/engine.ts';
import { completionAnswer } from '../response-schemas.ts';
import {
  collectCompletion,
  type CompletionAnswerOptions,
  completionFrame,
  streamCompletion,
} from './answer.ts';
import { completionRequest, type CompletionPlan, planCompletion } from './wire.ts';
import type { Exchange } from '../../http/exchange.ts';
import { route } from '../../http/route.ts';
import { admitted } from '../generation/admitted.ts';
import { answerId } from '../generation/answer.ts';
import { streamAnswer } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';

export const completions = route({
  method: 'POST',
  path: '/v1/completions',
  aliases: ['/completions'],
  access: 'key',
  limited: true,
  computes: true,
  summary: 'Continue a text.',
  tag: 'Inference',
  body: completionRequest,
  answer: completionAnswer,
  streams: true,
  errors: [
    'model_not_found',
    'attestation_stale',
    'wrong_model_type',
    'context_length_exceeded',
    'unsupported_parameter',
    'engine_overloaded',
    'engine_crashed',
    'model_load_failed',
  ],
  async handle(call) {
    const { body, exchange } = call;
    const model = findModel(call, body.model, ['chat', 'completion']);
    const plan = planCompletion(body, model.defaults, exchange.principal?.cacheScope ?? '');
    const answer = answerId(call, 'cmpl-', model);
    reserveTokens(call, {
      asked: plan.request('').maxTokens,
      count: plan.n * plan.prompts.length,
      context: model.contextLength,
    });

    return withEngine(call, model, body.keep_alive, async (engine) => {
      if (body.suffix !== undefined && !engine.info.hasFimTokens) {
        throw new ApiError(
          'unsupported_parameter',
          'suffix is not supported: this model has no fill-in-the-middle tokens',
          {
            param: 'suffix',
          },
        );
      }
      const requests = await toRequests(engine, plan, exchange);
      const bos = body.echo === true && plan.logprobs ? await beginText(engine, exchange.signal) : null;
      const stop = new AbortController();
      const signal =
        requests.length === 1 ? exchange.signal : AbortSignal.any([exchange.signal, stop.signal]);
      try {
        const events = await admitted(
          call,
          sideBySide(engine, requests, plan.n, signal),
          body.stream !== true,
        );
        const options: CompletionAnswerOptions = { plan, answer, counts: exchange.usage, bos };
        if (body.stream !== true) return await collectCompletion(events, options);
        const includeUsage = body.stream_options?.include_usage ?? false;
        const baseBytes = Buffer.byteLength(
          completionFrame(answer, includeUsage).choice(0, '', 'null', 'null'),
        );
        await streamAnswer(call, events, {
          padded: body.stream_options?.include_obfuscation,
          baseBytes,
          write: (paced, sink) => streamCompletion(paced, { ...options, includeUsage, sink }),
        });
        return undefined;
      } finally {
        stop.abort();
      }
    });
  },
});

/**
 * With one prompt the engine itself refuses what does not fit, before it starts. Of several, the later ones
 * reach it only after the stream has begun; so all are measured here.
 */
async function toRequests(
  engine: Engine,
  plan: CompletionPlan,
  { signal, held }: Exchange,
): Promise<readonly GenerateRequest[]> {
  const [only] = plan.prompts;
  if (plan.prompts.length === 1 && only !== undefined) return [plan.request(only)];
  const { contextLength, vocabSize } = engine.info;
  const requests: GenerateRequest[] = [];
  for (const [i, prompt] of plan.prompts.entries()) {
    const param = `prompt[${i}]`;
    const tokens =
      typeof prompt === 'string'
        ? await engine.tokenize({ text: prompt, addSpecial: true, param }, signal)
        : prompt;
    if (tokens.length >= contextLength) {
      throw refuse(
        'context_length_exceeded',
        param,
        `this model's maximum context length is ${contextLength} tokens; ${param} has ${tokens.length} tokens, which exceeds the available context size`,
      );
    }
    if (tokens.some((token) => token >= vocabSize))
      throw refuse(
        'invalid_token',
        param,
        `a token id of ${param} is outside the vocabulary of ${vocabSize}`,
      );
    // A character may be a token, which takes eight bytes.
    if (typeof prompt === 'string') held?.add(8 * tokens.length);
    requests.push(plan.request(tokens));
  }
  return seeded(requests);
}

/** Of several prompts the receipt names one seed: drawn here, each prompt's is the next number. */
function seeded(requests: readonly GenerateRequest[]): readonly GenerateRequest[] {
  const drawn = randomInt(2 ** 47);
  return requests.map((request, i) =>
    request.sampling.seed === undefined
      ? { ...request, sampling: { ...request.sampling, seed: drawn + i, seedDrawn: true } }
      : request,
  );
}

async function beginText(engine: Engine, signal: AbortSignal): Promise<string | null> {
  if (engine.info.bosToken === null) return null;
  const [piece] = await engine.pieces([engine.info.bosToken], signal);
  return piece === undefined ? null : Buffer.from(piece).toString();
}

/** Events of all requests as they come; choice k of request i has index i·choices + k. */
function sideBySide(
  engine: Engine,
  requests: readonly GenerateRequest[],
  choices: number,
  signal: AbortSignal,
): AsyncIterable<GenerateEvent> {
  const [only] = requests;
  return requests.length === 1 && only !== undefined
    ? engine.generate(only, signal)
    : merge(engine, requests, choices, signal);
}

async function* merge(
  engine: Engine,
  requests: readonly GenerateRequest[],
  choices: number,
  signal: AbortSignal,
): AsyncIterable<GenerateEvent> {
  interface Running {
    readonly iterator: AsyncIterator<GenerateEvent>;
    readonly base: number;
  }
  type Step = { readonly from: Running; readonly result: IteratorResult<GenerateEvent> };
  const next = new Map<Running, Promise<Step>>();
  const advance = (from: Running): void => {
    const step = from.iterator.next().then((result) => ({ from, result }));
    // Left waiting when another prompt fails or the reader stops; its own failure is then dropped.
    step.catch(() => undefined);
    next.set(from, step);
  };
  let position = 0;
  const fill = (): void => {
    for (; position < requests.length && next.size < Math.max(1, engine.info.slots); position++) {
      const request = requests[position];
      if (request !== undefined)
        advance({
          iterator: engine.generate(request, signal)[Symbol.asyncIterator](),
          base: position * choices,
        });
    }
  };
  try {
    for (fill(); next.size > 0; fill()) {
      const { from, result } = await Promise.race(next.values());
      if (result.done === true) {
        next.delete(from);
        continue;
      }
      yield result.value.kind === 'start'
        ? result.value
        : { ...result.value, index: from.base + result.value.index };
      advance(from);
    }
  } finally {
    for (const { iterator } of next.keys()) iterator.return?.().catch(() => undefined);
  }
}

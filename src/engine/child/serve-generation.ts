// Messages to a model that writes text: prompts go to the scheduler, its events leave once per step.

import { randomInt } from 'node:crypto';
import { ApiError, queueFull } from '../../base/errors.ts';
import { assertFits } from '../seam/context-limits.ts';
import type { GenerateEvent } from '../seam/engine.ts';
import type { ToChild } from '../seam/wire.ts';
import type { Job } from './decode/batch.ts';
import type { ChoiceOptions } from './decode/choice.ts';
import { createConstraint, type Constraint, type ConstraintVocabulary } from './decode/constraint.ts';
import { tokenDigest } from './decode/token-digest.ts';
import { Pictures, type MakeJob } from './vision/pictures.ts';
import { afterReasoning, callsWithin, ReasoningReader } from './decode/reasoning.ts';
import { pickingOf } from './picking.ts';
import { checkTokens, promptField, promptTokens } from './prompt.ts';
import { framingOf } from './template/calls/written.ts';
import { answering, answerText, isText, replyError, wrongType, type Serving } from './replies.ts';
import { notAlone, Schedulers } from './schedulers.ts';
import { createTurns } from './time-slices.ts';

export function serveGeneration(serving: Serving): (message: ToChild, raw: Uint8Array) => void {
  const { info, send } = serving;
  let events: (readonly [number, GenerateEvent])[] = [];
  let told = { queued: 0, active: 0 };
  /** Cancelled, and not yet dropped by the scheduler. */
  const leaving = new Set<number>();
  const flush = (): void => {
    const stats = scheduler.stats();
    // Also without events: a step may only have dropped requests.
    if (events.length === 0 && stats.queued === told.queued && stats.active === told.active) return;
    send({ kind: 'events', events, stats });
    events = [];
    told = stats;
  };
  const tellDropped = (): void => {
    for (const id of leaving) {
      if (scheduler.holds(id)) continue;
      leaving.delete(id);
      send({ kind: 'dropped', id });
    }
  };
  const scheduler = new Schedulers(serving, () => {
    flush();
    tellDropped();
  });

  const toJob = jobMaker(serving);
  const submit = (id: number, job: Omit<Job, 'id' | 'emit' | 'fail'>): void => {
    const submitted: Job = {
      ...job,
      id,
      emit: (event) => events.push([id, event]),
      fail(error) {
        flush();
        replyError(send, id, error);
      },
    };
    let accepted = false;
    try {
      accepted = scheduler.submit(submitted);
    } finally {
      if (!accepted) job.release?.();
    }
    if (!accepted) throw queueFull();
  };
  const pictures = new Pictures(serving.images, submit, (id, error) => replyError(send, id, error));
  const generate = (
    { id, request, images = [] }: Extract<ToChild, { kind: 'generate' }>,
    raw: Uint8Array,
  ): void => {
    if (images.length > 0 && request.alone === true) throw notAlone('a request with images cannot run alone');
    if (images.length === 0)
      submit(
        id,
        toJob(request, (tokens) => ({ tokens, length: tokens.length })),
      );
    else pictures.add(id, { request, images, raw }, toJob);
  };

  const turns = createTurns(setImmediate, (id, error) => replyError(send, id, error));
  return (message, raw) =>
    answering(send, message, () => {
      if (message.kind === 'ping') send({ kind: 'pong', id: message.id });
      else if (isText(message)) turns.add(message.id, () => answerText(serving, message));
      else if (message.kind === 'generate') generate(message, raw);
      else if (message.kind === 'cancel') {
        turns.cancel(message.id);
        pictures.cancel(message.id);
        scheduler.cancel(message.id);
        leaving.add(message.id);
        flush();
        tellDropped();
      } else if (message.kind === 'pause') scheduler.pause(message.id);
      else if (message.kind === 'resume') scheduler.resume(message.id);
      else throw wrongType(info.type, 'it makes text, not vectors or scores');
    });
}

/** Counted from 1. The server asks only for those it had loaded. */
function adapterNumber(adapters: ReadonlyMap<string, number>, key: string): number {
  const number = adapters.get(key);
  if (number === undefined) throw new ApiError('engine_failed', 'the engine has no such adapter');
  return number;
}

/** Turns a request into a job for the scheduler, with every refusal it can meet before it is queued. */
function jobMaker({ model, template, info, load, startGrammar }: Serving): MakeJob {
  const adapters = new Map(load.adapters.map(({ key }, i) => [key, i + 1]));
  const framing = framingOf(info.toolFormat);
  const shown = new Set(
    model.specials.filter((special) => framing.includes(special.text)).map((special) => special.token),
  );
  const vocabulary: ConstraintVocabulary = {
    piece: (token) => model.piece(token, true),
    tokenize: (text) => model.tokenize(text, false, true),
    isEnd: (token) => model.isEnd(token),
  };
  return (request, laid) => {
    // A bias on a missing token would have no effect: the caller meant a token of another model.
    for (const [token] of request.sampling.logitBias ?? []) checkTokens(model, [token], 'logit_bias');
    const { tokens, phase } = promptTokens(model, template, request.prompt, info.contextLength);
    const room = { contextLength: info.contextLength, param: promptField(request.prompt) };
    assertFits(laid(tokens).length, room);
    // Of an image no token is repeated.
    const words = tokens.filter((token) => token >= 0);
    const { grammar } = request;
    // Compiled once here, so that a grammar the library refuses is a 400 and not the end of a stream.
    if (grammar !== undefined) startGrammar(grammar.gbnf).free();
    const { logitBias: biases, ...plain } = request.sampling;
    const sampling = { ...plain, logitBias: biases === undefined ? undefined : new Map(biases) };
    const seed = sampling.seed ?? randomInt(2 ** 47);
    const stop = request.prompt.kind === 'chat' ? [...request.stop, ...template.stops] : request.stop;
    const constrain = (gbnf: string, triggers?: readonly string[]): Constraint =>
      createConstraint(vocabulary, () => startGrammar(gbnf), triggers);
    const whole = (): Constraint | null =>
      grammar === undefined ? null : constrain(grammar.gbnf, grammar.triggers);
    const lazy = (grammar?.triggers ?? []).length > 0;
    const { calls, prompt: asked } = request;
    // Without calls the marks of a format are no text of the answer; a raw prompt gets what it asks for.
    const visible = (token: number): boolean =>
      shown.has(token) && (calls !== undefined || asked.kind !== 'chat');
    /** The constraint of a choice, and what splits off its reasoning. */
    const written = (): Pick<ChoiceOptions, 'constraint' | 'reasoning'> => {
      const own = template.reasoning;
      // Marks within an answer are the tool reader's where calls may come, and none where it has a form.
      const plain = calls === undefined && grammar === undefined && asked.kind === 'chat';
      const inside = plain ? own?.inside : undefined;
      if (own === null || (phase === 'answer' && inside === undefined)) return { constraint: whole() };
      // A call may follow the answer's end, or stand in the place of the answer, without its framing.
      const ending = calls === undefined ? own.ending : undefined;
      const answer = calls === undefined ? own.answer : [...own.answer, ...(own.preamble ?? [])];
      const preamble = plain ? own.preamble : undefined;
      const unframed = { ...own, answer, ending, inside, preamble };
      const format = calls?.only === true ? { ...unframed, answer: [], close: own.end } : unframed;
      const { inReasoning } = info.toolFormat;
      const marks = inReasoning ? callsWithin((lazy ? grammar?.triggers : calls?.starts) ?? []) : [];
      const reader = new ReasoningReader(format, phase === 'answer' ? 'framed' : phase, marks);
      const after =
        grammar === undefined || (lazy && inReasoning)
          ? null
          : afterReasoning(
              reader,
              {
                start: () => constrain(grammar.gbnf, grammar.triggers),
                within: () => (marks.length === 0 ? null : constrain(grammar.gbnf, marks)),
              },
              vocabulary,
            );
      return {
        constraint: after ?? whole(),
        reasoning: {
          reader,
          budget: request.reasoningBudget ?? Infinity,
          close: vocabulary.tokenize(format.close),
          moved: () => after?.moved(),
        },
      };
    };
    const { alone, recorded } = request;
    return {
      scope: request.cacheScope,
      background: request.background,
      adapter: request.adapter === undefined ? 0 : adapterNumber(adapters, request.adapter),
      prompt: tokens,
      n: request.n,
      receipt: request.receipt === true ? { promptSha256: tokenDigest(tokens), seed, alone } : undefined,
      alone,
      echo: request.echo === true,
      maxTokens: request.maxTokens,
      choice: (index) => ({
        ...pickingOf(written(), { sampling, seed, index, words, recorded }),
        stop,
        calls,
        logprobs: request.logprobs,
        receipt: request.receipt,
        tellTokens: request.tokens,
        piece: (token) => model.piece(token, visible(token)),
        rawPiece: vocabulary.piece,
        isEnd: vocabulary.isEnd,
      }),
    };
  };
}

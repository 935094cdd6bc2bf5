// POST /v1/messages and /v1/messages/count_tokens: a conversation in the form of Anthropic's API.

import { refuseAddresses, withFiles } from '../chat/fetched-images.ts';
import { tellLoosened } from '../chat/loosened.ts';
import { assertSees } from '../chat/images.ts';
import { ReasoningSeal } from '../chat/sealed-reasoning.ts';
import { route, type Route } from '../../http/route.ts';
import { admitted } from '../generation/admitted.ts';
import { answerId } from '../generation/answer.ts';
import { streamAnswer } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import { MessageAnswer } from './answer.ts';
import { countAnswer, messageAnswer } from './answer-schema.ts';
import { countRequest, messageRequest, planMessage } from './wire.ts';

const TYPES = ['chat', 'completion'] as const;
const ERRORS = [
  'model_not_found',
  'attestation_stale',
  'wrong_model_type',
  'context_length_exceeded',
  'unsupported_parameter',
  'invalid_encrypted_content',
  'engine_overloaded',
  'engine_crashed',
  'model_load_failed',
] as const;

/** Reasoning that they seal can be opened as long as the routes live. */
export function messageRoutes(): readonly Route[] {
  const seal = new ReasoningSeal();
  return [messages(seal), countTokens(seal)];
}

function messages(seal: ReasoningSeal): Route {
  return route({
    method: 'POST',
    path: '/v1/messages',
    access: 'key',
    limited: true,
    computes: true,
    summary: "Answer a conversation, in the form of Anthropic's Messages API.",
    tag: 'Inference',
    body: messageRequest,
    answer: messageAnswer,
    streams: true,
    errors: [...ERRORS, 'invalid_grammar', 'invalid_image', 'image_not_fetched'],
    async handle(call) {
      const { body, deps, exchange } = call;
      const model = findModel(call, body.model, TYPES);
      const { principal } = exchange;
      const sealed = seal.of(principal, model);
      const plan = planMessage(body, model, { scope: principal?.cacheScope ?? '', seal: sealed });
      reserveTokens(call, { asked: plan.chat.maxTokens, count: 1, context: model.contextLength });
      const { plan: chat } = await withFiles(call, model, plan.chat);

      return withEngine(call, model, body.keep_alive, async (engine) => {
        const newReader = chat.reader(engine.info);
        const request = chat.request(engine.info, (loosened) => tellLoosened(call, loosened));
        // A stream keeps its reasoning until it is sealed.
        const events = await admitted(call, engine.generate(request, exchange.signal), true);
        const answer = new MessageAnswer({
          plan,
          newReader,
          answer: answerId(call, 'msg_', model),
          counts: exchange.usage,
          newCallId: () => `toolu_${deps.randomHex(12)}`,
          seal: sealed.seal,
          requestId: exchange.id,
        });
        if (body.stream !== true) return answer.collect(events);
        await streamAnswer(call, events, {
          padded: body.stream_options?.include_obfuscation,
          baseBytes: answer.baseBytes,
          write: (paced, sink) => answer.stream(paced, sink),
          last: (error) => answer.last(error),
        });
        return undefined;
      });
    },
  });
}

function countTokens(seal: ReasoningSeal): Route {
  return route({
    method: 'POST',
    path: '/v1/messages/count_tokens',
    access: 'key',
    limited: true,
    summary: 'Tokens of the prompt that the same request to /v1/messages has.',
    tag: 'Inference',
    body: countRequest,
    answer: countAnswer,
    errors: ERRORS,
    async handle(call) {
      const { body, exchange } = call;
      const model = findModel(call, body.model, TYPES);
      const { principal } = exchange;
      const { chat } = planMessage(body, model, {
        scope: principal?.cacheScope ?? '',
        seal: seal.of(principal, model),
      });
      refuseAddresses(chat.messages);
      reserveTokens(call);
      return withEngine(call, model, body.keep_alive, async (engine) => {
        assertSees(chat.messages, engine.info.vision);
        const tokens = await engine.tokenize(chat.prompt, exchange.signal);
        exchange.usage.promptTokens = tokens.length;
        return { input_tokens: tokens.length };
      });
    },
  });
}

// POST /v1/responses, stateless: the other dialect of a conversation.

import { tellLoosened } from '../chat/loosened.ts';
import { route, type Route } from '../../http/route.ts';
import { admitted } from '../generation/admitted.ts';
import { answerId } from '../generation/answer.ts';
import { streamAnswer } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import { ResponseAnswer } from './answer.ts';
import { responseAnswer } from './answer-schema.ts';
import { ReasoningSeal } from '../chat/sealed-reasoning.ts';
import { planResponse, responseRequest } from './wire.ts';

/** Reasoning that it seals can be opened as long as the route lives. */
export function responses(): Route {
  const seal = new ReasoningSeal();
  return route({
    method: 'POST',
    path: '/v1/responses',
    aliases: ['/responses'],
    access: 'key',
    limited: true,
    summary: 'Answer a conversation, in the form of the Responses API. Nothing is stored.',
    tag: 'Inference',
    body: responseRequest,
    answer: responseAnswer,
    streams: true,
    errors: [
      'model_not_found',
      'attestation_stale',
      'wrong_model_type',
      'context_length_exceeded',
      'unsupported_parameter',
      'invalid_encrypted_content',
      'invalid_grammar',
      'engine_overloaded',
      'engine_crashed',
      'model_load_failed',
    ],
    async handle(call) {
      const { body, deps, exchange } = call;
      const model = findModel(call, body.model, ['chat', 'completion']);
      const owner = { scope: exchange.principal?.cacheScope ?? '', modelSha256: model.sha256 };
      const plan = planResponse(body, model, { scope: owner.scope, seal });
      const { chat, toolbox } = plan;
      reserveTokens(call, { asked: chat.maxTokens, count: 1, context: model.contextLength });

      return withEngine(call, model, body.keep_alive, async (engine) => {
        const newReader = chat.reader(engine.info);
        const request = chat.request(engine.info, (loosened) =>
          tellLoosened(call, new Map([...loosened, ...toolbox.loosened])),
        );
        // A stream ends with its whole text, so it is kept, too.
        const events = await admitted(call, engine.generate(request, exchange.signal), true);
        const answer = new ResponseAnswer({
          plan,
          newReader,
          answer: answerId(call, 'resp_', model),
          counts: exchange.usage,
          newId: (prefix) => `${prefix}_${deps.randomHex(prefix === 'call' ? 12 : 16)}`,
          now: () => Math.floor(deps.now() / 1000),
          seal: plan.sealed ? (text) => seal.seal(text, owner) : null,
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

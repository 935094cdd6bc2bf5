// POST /v1/chat/completions.

import {
  chatRequest,
  chunkFrame,
  collectChat,
  planChat,
  streamChat,
  type AnswerId,
  type Counts,
} from './wire.ts';
import { tellLoosened } from './loosened.ts';
import { chatAnswer } from '../response-schemas.ts';
import { route, type Call } from '../../http/route.ts';
import { admitted, streamAnswer } from '../generation/admitted.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import type { ModelStatus } from '../../models/seam.ts';

export const chat = route({
  method: 'POST',
  path: '/v1/chat/completions',
  access: 'key',
  limited: true,
  summary: 'Answer a conversation.',
  tag: 'Inference',
  body: chatRequest,
  answer: chatAnswer,
  streams: true,
  errors: [
    'model_not_found',
    'attestation_stale',
    'wrong_model_type',
    'context_length_exceeded',
    'unsupported_parameter',
    'invalid_grammar',
    'engine_overloaded',
    'engine_crashed',
    'model_load_failed',
  ],
  async handle(call) {
    const { body, deps, exchange } = call;
    const model = findModel(call, body.model, ['chat', 'completion']);
    const plan = planChat(body, model.defaults, exchange.principal?.cacheScope ?? '');
    reserveTokens(call, { asked: plan.maxTokens, count: plan.n, context: model.contextLength });
    const answer = answerId(call, 'chatcmpl', model);
    const counts: Counts = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };
    const newCallId = (): string => `call_${deps.randomHex(12)}`;

    return withEngine(call, model, body.keep_alive, async (engine) => {
      const newReader = plan.reader(engine.info);
      const events = await admitted(
        call,
        engine.generate(
          plan.request(engine.info, (loosened) => tellLoosened(call, loosened)),
          exchange.signal,
        ),
        counts,
        body.stream !== true,
      );
      if (body.stream !== true) return collectChat(events, plan, newReader, answer, counts, newCallId);
      const includeUsage = body.stream_options?.include_usage ?? false;
      const baseBytes = Buffer.byteLength(
        chunkFrame(answer, includeUsage).choice(0, '{"content":""}', 'null', 'null'),
      );
      await streamAnswer(
        call,
        events,
        { wanted: body.stream_options?.include_obfuscation, baseBytes },
        (paced, sink) =>
          streamChat(paced, { plan, newReader, answer, counts, includeUsage, newCallId, sink }),
      );
      return undefined;
    });
  },
});

export function answerId(call: Call, prefix: string, model: ModelStatus): AnswerId {
  const { deps } = call;
  return {
    id: `${prefix}-${deps.randomHex(16)}`,
    created: Math.floor(deps.now() / 1000),
    model: model.id,
    fingerprint: `fp_${model.sha256.slice(0, 12)}`,
  };
}

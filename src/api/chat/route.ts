// POST /v1/chat/completions.

import { tellLoosened } from './loosened.ts';
import { type ChatAnswerOptions, chunkFrame, collectChat, streamChat } from './answer.ts';
import { withFiles } from './fetched-images.ts';
import { chatRequest, planChat } from './wire.ts';
import { chatAnswer } from '../response-schemas.ts';
import { route } from '../../http/route.ts';
import { admitted } from '../generation/admitted.ts';
import { answerId } from '../generation/answer.ts';
import { streamAnswer } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';

export const chat = route({
  method: 'POST',
  path: '/v1/chat/completions',
  aliases: ['/chat/completions'],
  access: 'key',
  limited: true,
  computes: true,
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
    'invalid_image',
    'image_not_fetched',
    'invalid_grammar',
    'engine_overloaded',
    'engine_crashed',
    'model_load_failed',
  ],
  async handle(call) {
    const { body, deps, exchange } = call;
    const model = findModel(call, body.model, ['chat', 'completion']);
    const read = planChat(body, model.defaults, exchange.principal?.cacheScope ?? '');
    reserveTokens(call, { asked: read.maxTokens, count: read.n, context: model.contextLength });
    const { plan } = await withFiles(call, model, read);
    const answer = answerId(call, 'chatcmpl-', model);
    const newCallId = (): string => `call_${deps.randomHex(12)}`;

    return withEngine(call, model, body.keep_alive, async (engine) => {
      const newReader = plan.reader(engine.info);
      const events = await admitted(
        call,
        engine.generate(
          plan.request(engine.info, (loosened) => tellLoosened(call, loosened)),
          exchange.signal,
        ),
        body.stream !== true,
      );
      const options: ChatAnswerOptions = { plan, newReader, answer, counts: exchange.usage, newCallId };
      if (body.stream !== true) return collectChat(events, options);
      const includeUsage = body.stream_options?.include_usage ?? false;
      const baseBytes = Buffer.byteLength(
        chunkFrame(answer, includeUsage).choice(0, '{"content":""}', 'null', 'null'),
      );
      await streamAnswer(call, events, {
        padded: body.stream_options?.include_obfuscation,
        baseBytes,
        write: (paced, sink) => streamChat(paced, { ...options, includeUsage, sink }),
      });
      return undefined;
    });
  },
});

// POST /v1/embeddings and /v1/rerank (also /rerank and /v1/reranking).

import { ApiError } from '../../base/errors.ts';
import { embeddingAnswer, rerankAnswer } from '../response-schemas.ts';
import { checkInputs, embeddingAnswerText, embeddingRequest, rerankAnswerOf, rerankRequest } from './wire.ts';
import { route } from '../../http/route.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';

const ERRORS = [
  'model_not_found',
  'attestation_stale',
  'wrong_model_type',
  'context_length_exceeded',
  'engine_overloaded',
  'engine_crashed',
  'model_load_failed',
] as const;

export const embeddings = route({
  method: 'POST',
  path: '/v1/embeddings',
  aliases: ['/embeddings'],
  access: 'key',
  limited: true,
  computes: true,
  summary: 'Vectors of texts.',
  tag: 'Inference',
  body: embeddingRequest,
  answer: embeddingAnswer,
  errors: ERRORS,
  async handle(call) {
    const { body, exchange, reply } = call;
    checkInputs(body);
    const model = findModel(call, body.model, ['embedding']);
    reserveTokens(call);
    return withEngine(call, model, body.keep_alive, async (engine) => {
      const dimensions = body.dimensions ?? model.defaults.dimensions;
      if (dimensions !== undefined && dimensions > engine.info.embeddingSize) {
        throw new ApiError(
          'invalid_value',
          `dimensions is too large, expected at most ${engine.info.embeddingSize}`,
          {
            param: 'dimensions',
          },
        );
      }
      // The heap is known before the work: the numbers, and the text they are written as.
      const base64 = body.encoding_format === 'base64';
      exchange.held?.grow(body.input.length * engine.info.embeddingSize * (base64 ? 16 : 32));
      const { vectors, tokens } = await engine.embed(
        body.input,
        exchange.signal,
        exchange.principal?.cacheScope,
      );
      exchange.usage.promptTokens = tokens;
      reply.type('application/json; charset=utf-8');
      return embeddingAnswerText({ vectors, tokens, model: model.id, dimensions, base64 });
    });
  },
});

export const rerank = route({
  method: 'POST',
  path: '/v1/rerank',
  aliases: ['/rerank', '/v1/reranking'],
  access: 'key',
  limited: true,
  computes: true,
  summary: 'Order documents by how well they answer a query.',
  tag: 'Inference',
  body: rerankRequest,
  answer: rerankAnswer,
  errors: ERRORS,
  async handle(call) {
    const { body, exchange, deps } = call;
    const model = findModel(call, body.model, ['rerank']);
    reserveTokens(call);
    return withEngine(call, model, body.keep_alive, async (engine) => {
      const { scores, tokens } = await engine.rank(
        body.query,
        body.documents,
        exchange.signal,
        exchange.principal?.cacheScope,
      );
      exchange.usage.promptTokens = tokens;
      return rerankAnswerOf({ id: `rerank-${deps.randomHex(16)}`, model: model.id, body, scores, tokens });
    });
  },
});

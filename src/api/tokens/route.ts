// POST /v1/tokenize and /v1/detokenize (also without /v1).

import { detokenizeAnswer, tokenizeAnswer } from '../response-schemas.ts';
import { refuseAddresses } from '../chat/fetched-images.ts';
import { assertSees } from '../chat/images.ts';
import { toChatMessages } from '../chat/messages.ts';
import { refuse } from '../../base/shape.ts';
import { detokenizeRequest, textFieldOf, textToTokenize, tokenizeRequest, wirePiece } from './wire.ts';
import type { Engine } from '../../engine/seam/engine.ts';
import { type Call, route } from '../../http/route.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import type { ModelStatus } from '../../models/seam.ts';

const ERRORS = [
  'model_not_found',
  'attestation_stale',
  'context_length_exceeded',
  'engine_overloaded',
  'engine_crashed',
  'model_load_failed',
] as const;
const ANY = ['chat', 'completion', 'embedding', 'rerank'] as const;

export const tokenize = route({
  method: 'POST',
  path: '/v1/tokenize',
  aliases: ['/tokenize'],
  access: 'key',
  limited: true,
  summary: 'Tokens of a text or of a conversation; −1 stands for each vector of an image.',
  tag: 'Inference',
  body: tokenizeRequest,
  answer: tokenizeAnswer,
  errors: ERRORS,
  async handle(call) {
    const { body, exchange } = call;
    const given = textToTokenize(body);
    const model = chooseModel(call, body.model);
    reserveTokens(call);
    return withEngine(call, model, body.keep_alive, async (engine) => {
      const { signal } = exchange;
      const messages = toChatMessages(body.messages ?? []);
      assertSees(refuseAddresses(messages), engine.info.vision);
      const tokens = await engine.tokenize(
        given === undefined
          ? { messages, tools: body.tools }
          : {
              text: given,
              addSpecial: body.add_special ?? body.add_special_tokens ?? false,
              parseSpecial: body.parse_special ?? false,
              param: textFieldOf(body),
            },
        signal,
      );
      exchange.usage.promptTokens = tokens.length;
      // A character may be a token: a number, or an object with its piece.
      exchange.held?.grow(tokens.length * (body.with_pieces === true ? 64 : 8));
      const pieces = body.with_pieces === true ? await piecesOf(engine, tokens, signal) : null;
      return {
        tokens: pieces === null ? tokens : tokens.map((id) => ({ id, piece: pieces.get(id) ?? '' })),
        count: tokens.length,
        max_model_len: engine.info.contextLength,
      };
    });
  },
});

export const detokenize = route({
  method: 'POST',
  path: '/v1/detokenize',
  aliases: ['/detokenize'],
  access: 'key',
  limited: true,
  summary: 'The text of tokens.',
  tag: 'Inference',
  body: detokenizeRequest,
  answer: detokenizeAnswer,
  errors: ERRORS,
  async handle(call) {
    const { body, exchange } = call;
    const model = chooseModel(call, body.model);
    reserveTokens(call);
    return withEngine(call, model, body.keep_alive, async (engine) => {
      const beyond = body.tokens.findIndex((token) => token >= engine.info.vocabSize);
      if (beyond >= 0)
        throw refuse(
          'invalid_value',
          `tokens[${beyond}]`,
          `tokens[${beyond}] is not below the vocabulary's ${engine.info.vocabSize}`,
        );
      const content = await engine.detokenize(body.tokens, exchange.signal);
      exchange.usage.promptTokens = body.tokens.length;
      return { content, count: body.tokens.length };
    });
  },
});

/** The piece of each distinct token, asked for and written once. */
async function piecesOf(
  engine: Engine,
  tokens: readonly number[],
  signal: AbortSignal,
): Promise<Map<number, ReturnType<typeof wirePiece>>> {
  // A vector of an image has no text.
  const ids = [...new Set(tokens)].filter((id) => id >= 0);
  const pieces = await engine.pieces(ids, signal);
  return new Map(ids.map((id, i) => [id, wirePiece(pieces[i] ?? new Uint8Array())]));
}

/** Without a model in the request: the only one loaded, or else the only one registered. */
function chooseModel(call: Call, id: string | undefined): ModelStatus {
  if (id !== undefined) return findModel(call, id, ANY);
  const allowed = call.exchange.principal?.models ?? null;
  const all = call.deps.models.list().filter((model) => allowed === null || allowed.has(model.id));
  const loaded = all.filter((model) => model.loaded);
  const candidates = loaded.length > 0 ? loaded : all;
  const [only] = candidates;
  if (only === undefined || candidates.length > 1)
    throw refuse(
      'missing_required_parameter',
      'model',
      `model is missing, and there are ${candidates.length} to choose from`,
    );
  return findModel(call, only.id, ANY);
}

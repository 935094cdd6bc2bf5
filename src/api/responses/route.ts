// POST /v1/responses, the other dialect of a conversation. It is stateless but for responses that the request
// asks to store, where the configuration has it (responses.store): those are durable before the answer ends.

import { refuse } from '../../base/shape.ts';
import { withFiles } from '../chat/fetched-images.ts';
import { tellLoosened } from '../chat/loosened.ts';
import { type Call, route, type Route } from '../../http/route.ts';
import { admitted } from '../generation/admitted.ts';
import { answerId } from '../generation/answer.ts';
import { streamAnswer } from '../generation/stream.ts';
import { findModel, reserveTokens, withEngine } from '../model-access.ts';
import { ResponseAnswer, type ResponseObject } from './answer.ts';
import { responseAnswer } from './answer-schema.ts';
import { ReasoningSeal } from '../chat/sealed-reasoning.ts';
import type { ResponseStore } from '../../files/response-store.ts';
import { itemIds, resolveReferences } from './references.ts';
import { readItem, type KeptItem, type ResolvedInput, storedInput, storedOutput } from './stored-items.ts';
import { storedFor } from './stored-routes.ts';
import { planResponse, type ResponseRequest, responseRequest } from './wire.ts';

/** Reasoning that it seals can be opened as long as the route lives. `store` null: no response is stored. */
export function responses(store: ResponseStore | null): Route {
  const seal = new ReasoningSeal();
  return route({
    method: 'POST',
    path: '/v1/responses',
    aliases: ['/responses'],
    access: 'key',
    limited: true,
    computes: true,
    summary: 'Answer a conversation, in the form of the Responses API. Nothing is stored unless asked for.',
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
      'invalid_image',
      'image_not_fetched',
      'invalid_encrypted_content',
      'response_not_found',
      'item_not_found',
      'file_damaged',
      'storage_full',
      'invalid_grammar',
      'engine_overloaded',
      'engine_crashed',
      'model_load_failed',
    ],
    async handle(call) {
      const { body, deps, exchange } = call;
      const model = findModel(call, body.model, ['chat', 'completion']);
      const { principal } = exchange;
      const own = seal.of(principal, model);
      const keep = keeperOf(call, store);
      const before = await keep.previous();
      const previous = before.map((each) => readItem(each, 'previous_response_id'));
      const input = await keep.resolved();
      const scope = principal?.cacheScope ?? '';
      const plan = planResponse(body, model, { scope, seal: own, previous, input: input.items });
      const { toolbox } = plan;
      reserveTokens(call, { asked: plan.chat.maxTokens, count: 1, context: model.contextLength });
      const { plan: chat, fileOf } = await withFiles(call, model, plan.chat);

      return withEngine(call, model, body.keep_alive, async (engine) => {
        const newReader = chat.reader(engine.info);
        const request = chat.request(engine.info, (loosened) =>
          tellLoosened(call, new Map([...loosened, ...toolbox.loosened])),
        );
        // A stream ends with its whole text, so it is kept, too.
        const events = await admitted(call, engine.generate(request, exchange.signal), true);
        const about = answerId(call, 'resp_', model);
        const itemId = itemIds(about.id);
        const newId = (prefix: string): string =>
          prefix === 'call' ? `call_${deps.randomHex(12)}` : itemId(prefix);
        const answer = new ResponseAnswer({
          plan,
          newReader,
          answer: about,
          counts: exchange.usage,
          newId,
          now: () => Math.floor(deps.now() / 1000),
          seal: plan.sealed ? own.seal : null,
        });
        const save = (): Promise<void> =>
          keep.save(answer.response, () => [
            ...before,
            ...storedInput(input, { open: own.open, newId, fileOf }),
          ]);
        if (body.stream !== true) {
          const whole = await answer.collect(events);
          await save();
          return whole;
        }
        await streamAnswer(call, events, {
          padded: body.stream_options?.include_obfuscation,
          baseBytes: answer.baseBytes,
          async write(paced, sink) {
            await answer.stream(paced, sink);
            await save();
          },
          last: (error) => answer.last(error),
        });
        return undefined;
      });
    },
  });
}

interface Keeper {
  /** The items of the response that this one continues. */
  previous(): Promise<readonly KeptItem[]>;
  /** The input with the items that it refers to. */
  resolved(): Promise<ResolvedInput>;
  /** Stores the answer where the request asks for it. */
  save(answer: ResponseObject, input: () => readonly KeptItem[]): Promise<void>;
}

/** Storing and continuing for one request. Refuses: unsupported_parameter where no response is stored. */
function keeperOf({ body, deps, exchange }: Call<ResponseRequest>, store: ResponseStore | null): Keeper {
  const { store: wanted = false, previous_response_id: id } = body;
  const caller = storedFor(exchange.principal);
  const resolved = (): Promise<ResolvedInput> =>
    resolveReferences(body.input, {
      store,
      caller,
      maxBytes: deps.config.limits.maxBodyBytes,
      onBytes: (bytes) => exchange.held?.grow(bytes),
    });
  if (store === null) {
    for (const [param, asked] of [
      ['store', wanted],
      ['previous_response_id', id !== undefined],
    ] as const)
      if (asked)
        throw refuse(
          'unsupported_parameter',
          param,
          `${param} is not supported: this server stores no responses`,
        );
    return { previous: () => Promise.resolve([]), resolved, save: () => Promise.resolve() };
  }
  return {
    resolved,
    async previous() {
      if (id === undefined) return [];
      const { input, response, bytes } = await store.get(caller, id, 'previous_response_id');
      // Held like a body: a short request brings a long conversation.
      exchange.held?.grow(bytes);
      const output = response['output'] as readonly KeptItem[];
      return [...input, ...storedOutput(output)];
    },
    async save(answer, input) {
      if (!wanted) return;
      const { id: own, created_at: created } = answer;
      await store.save(caller, { id: own, created }, { input: input(), response: answer });
    },
  };
}

// GET and DELETE /v1/responses/:id and GET /v1/responses/:id/input_items: the stored responses of the key
// that asks, and no other. Refuses: response_not_found, for other keys' too, and where none is stored.

import { ApiError } from '../../base/errors.ts';
import { choice, either, list, object, optional, refuse, text } from '../../base/shape.ts';
import type { Principal } from '../../http/admission/auth.ts';
import { route, type Call, type Route } from '../../http/route.ts';
import { queryInteger } from '../../file-routes/stored.ts';
import { inert, supportedAs, unsupportedParameter } from '../unsupported.ts';
import { deletedResponse, inputItems, responseAnswer } from './answer-schema.ts';
import type { ResponseStore, StoredFor, StoredResponse } from '../../files/response-store.ts';
import { includable } from './wire.ts';

/** Callers without a known key have their own responses, by the key they sent, and one share of the room. */
export function storedFor(principal: Principal | null): StoredFor {
  const owner = principal?.owner ?? ANONYMOUS;
  return { owner, share: (principal?.name ?? null) === null ? ANONYMOUS : owner };
}

const ANONYMOUS = 'anonymous';

const include = inert(
  either({ string: includable, array: list(includable, { max: 16 }) }, 'parts of items'),
  'an item is given as it was stored.',
);
/** A list in a query is spelled either way; the SDKs write the brackets. */
const INCLUDED = { include, 'include[]': include };

/** `store` null: no response is stored. */
export function storedResponseRoutes(store: ResponseStore | null): readonly Route[] {
  const of = (
    call: Pick<Call, 'exchange' | 'params'>,
  ): [store: ResponseStore, caller: StoredFor, id: string] => {
    if (store === null)
      throw new ApiError('response_not_found', 'this server stores no responses (responses.store)');
    return [store, storedFor(call.exchange.principal), call.params['id'] ?? ''];
  };
  /** Held like a body until the answer is over. */
  const found = async (call: Pick<Call, 'exchange' | 'params'>): Promise<StoredResponse> => {
    const [stored, caller, id] = of(call);
    const response = await stored.get(caller, id);
    call.exchange.held?.grow(response.bytes);
    return response;
  };
  const getResponse = route({
    method: 'GET',
    path: '/v1/responses/:id',
    access: 'key',
    limited: true,
    summary: 'A stored response of this key.',
    tag: 'Inference',
    query: object({
      ...INCLUDED,
      stream: supportedAs(['false'], 'A stored response is given whole.'),
      starting_after: unsupportedParameter('a stored response is given whole'),
      include_obfuscation: inert(choice(['true', 'false']), 'there is no stream.'),
    }),
    answer: responseAnswer,
    errors: ['response_not_found', 'file_damaged'],
    async handle(call) {
      return (await found(call)).response;
    },
  });
  const deleteResponse = route({
    method: 'DELETE',
    path: '/v1/responses/:id',
    access: 'key',
    limited: true,
    summary: 'Delete a stored response of this key.',
    tag: 'Inference',
    answer: deletedResponse,
    errors: ['response_not_found', 'file_damaged'],
    async handle(call) {
      const [stored, caller, id] = of(call);
      await stored.delete(caller, id);
      return { id, object: 'response', deleted: true };
    },
  });
  const getInputItems = route({
    method: 'GET',
    path: '/v1/responses/:id/input_items',
    access: 'key',
    limited: true,
    summary: 'The items that a stored response of this key answered.',
    tag: 'Inference',
    query: object({
      ...INCLUDED,
      limit: optional(queryInteger({ min: 1, max: 100 })),
      order: optional(choice(['asc', 'desc'])),
      after: optional(text({ max: 1024, about: 'Id of the item before the first one wanted.' })),
    }),
    answer: inputItems,
    errors: ['response_not_found', 'file_damaged'],
    async handle(call) {
      const { limit = 20, order = 'desc', after } = call.query;
      const { input } = await found(call);
      const ordered = order === 'asc' ? input : input.toReversed();
      const at = after === undefined ? -1 : ordered.findIndex((item) => item['id'] === after);
      if (after !== undefined && at < 0)
        throw refuse('invalid_value', 'after', 'after is the id of no item of that response');
      const data = ordered.slice(at + 1, at + 1 + limit);
      return {
        object: 'list',
        data,
        first_id: data[0]?.['id'] ?? null,
        last_id: data.at(-1)?.['id'] ?? null,
        has_more: at + 1 + data.length < ordered.length,
      };
    },
  });
  return [getResponse, deleteResponse, getInputItems];
}

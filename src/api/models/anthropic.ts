// GET /v1/models as clients of Anthropic's API read it ("List Models", "Get a Model"): the models that
// /v1/messages answers, the newest first, in pages.

import {
  flag,
  type Infer,
  integer,
  isRecord,
  list,
  literal,
  nullable,
  object,
  openObject,
  optional,
  refuse,
  type Shape,
  text,
} from '../../base/shape.ts';
import type { ModelStatus } from '../../models/seam.ts';
import { queryInteger } from '../../file-routes/stored.ts';

const words = text({ max: 1024 });
const count = integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const never: Shape<null> = {
  schema: { type: 'null' },
  read(value, path) {
    if (value !== null) throw refuse('invalid_type', path, `${path} is a value, expected null`);
    return null;
  },
};

export const messagesModelAnswer = object({
  type: literal('model'),
  id: words,
  display_name: words,
  /** RFC 3339: when it was registered. */
  created_at: words,
  max_input_tokens: count,
  max_tokens: count,
  capabilities: never,
  lifecycle: literal('active'),
  line: never,
  deprecated_at: never,
  retires_at: never,
});

const MAX_PAGE = 1000;
const DEFAULT_PAGE = 20;

export const messagesModelPage = object({
  data: list(messagesModelAnswer, { max: MAX_PAGE }),
  has_more: flag(),
  first_id: nullable(words),
  last_id: nullable(words),
});

function cursor(about: string): Shape<string | undefined> {
  return optional(text({ max: 1024, about }));
}
const WHERE = 'With the header `anthropic-version`: ';

/** Other fields are ignored, as they are for clients of the other API. */
export const messagesModelQuery = openObject({
  limit: optional(queryInteger({ min: 1, max: MAX_PAGE })),
  after_id: cursor(`${WHERE}the id before the first wanted.`),
  before_id: cursor(`${WHERE}the id behind the last wanted.`),
});

/** The answer of either API. */
export function ofEither<A, B>(openai: Shape<A>, anthropic: Shape<B>): Shape<A | B> {
  return {
    schema: { anyOf: [openai.schema, anthropic.schema] },
    read: (value, path) =>
      isRecord(value) && value['object'] !== undefined
        ? openai.read(value, path)
        : anthropic.read(value, path),
  };
}

export function isAnsweredByMessages({ type }: ModelStatus): boolean {
  return type === 'chat' || type === 'completion';
}

export function messagesModel({
  id,
  created,
  contextLength,
}: ModelStatus): Infer<typeof messagesModelAnswer> {
  return {
    type: 'model',
    id,
    display_name: id,
    created_at: new Date(created * 1000).toISOString(),
    max_input_tokens: contextLength,
    max_tokens: contextLength,
    capabilities: null,
    lifecycle: 'active',
    line: null,
    deprecated_at: null,
    retires_at: null,
  };
}

/** One page of `models`. Refuses: invalid_value for a cursor that is none of them. */
export function pageOfModels(
  models: readonly ModelStatus[],
  { limit = DEFAULT_PAGE, after_id: after, before_id: before }: Infer<typeof messagesModelQuery>,
): Infer<typeof messagesModelPage> {
  if (after !== undefined && before !== undefined)
    throw refuse('invalid_value', 'before_id', 'before_id is given beside after_id, expected one of them');
  const all = models.filter(isAnsweredByMessages).toSorted((a, b) => b.created - a.created);
  const placeOf = (id: string, name: string): number => {
    const at = all.findIndex((model) => model.id === id);
    if (at < 0) throw refuse('invalid_value', name, `${name} is the id of no model in this list`);
    return at;
  };
  const end = before === undefined ? undefined : placeOf(before, 'before_id');
  const from = end === undefined ? startOf(after, placeOf) : Math.max(0, end - limit);
  const page = all.slice(from, end ?? from + limit).map(messagesModel);
  return {
    data: page,
    // On the side the pages go on to.
    has_more: end === undefined ? from + page.length < all.length : from > 0,
    first_id: page[0]?.id ?? null,
    last_id: page.at(-1)?.id ?? null,
  };
}

function startOf(after: string | undefined, placeOf: (id: string, name: string) => number): number {
  return after === undefined ? 0 : placeOf(after, 'after_id') + 1;
}

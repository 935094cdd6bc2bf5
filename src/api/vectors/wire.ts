// POST /v1/embeddings and /v1/rerank on the wire. The OpenAI SDKs ask for base64 (little-endian float32) unless told
// otherwise; a plain request gets numbers.

import { setImmediate } from 'node:timers/promises';
import { textsOrTokens } from '../completions/wire.ts';
import { inertFields, keepAlive, modelId } from '../generation/sampling.ts';
import {
  choice,
  either,
  flag,
  inert,
  integer,
  list,
  map,
  object,
  optional,
  refuse,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';

export const embeddingRequest = object({
  model: modelId,
  input: textsOrTokens,
  encoding_format: optional(choice(['float', 'base64'], 'Default: float.')),
  dimensions: optional(
    integer({ min: 1, max: 65_536, about: 'Only the first so many numbers, normalised again.' }),
  ),
  keep_alive: keepAlive,
  user: inert(text({ max: 1024 }), 'nothing is kept per end user.'),
});

export type EmbeddingRequest = Infer<typeof embeddingRequest>;

/** Texts must not be empty: there is nothing to embed. */
export function checkInputs(body: EmbeddingRequest): void {
  const empty = body.input.indexOf('');
  if (empty >= 0)
    throw refuse(
      'empty_string',
      'input',
      `input ${body.input.length > 1 ? `has an empty string at ${empty}` : 'is empty'}`,
    );
}

/** Numbers written in one turn of the event loop: some five milliseconds. */
const NUMBERS_A_TURN = 8192;

/** The answer as JSON text: millions of numbers, which must not hold up the others while they are written. */
export async function embeddingAnswerText(o: {
  readonly vectors: readonly Float32Array[];
  readonly tokens: number;
  readonly model: string;
  readonly dimensions: number | undefined;
  readonly base64: boolean;
}): Promise<string> {
  const data: string[] = [];
  let written = 0;
  for (const [index, vector] of o.vectors.entries()) {
    const cut =
      o.dimensions === undefined || o.dimensions >= vector.length ? vector : shorten(vector, o.dimensions);
    data.push(
      JSON.stringify({
        object: 'embedding',
        index,
        embedding: o.base64 ? toBase64(cut) : Array.from(cut, shortest),
      }),
    );
    written += cut.length;
    if (written < NUMBERS_A_TURN) continue;
    written = 0;
    await setImmediate();
  }
  const usage = { prompt_tokens: o.tokens, total_tokens: o.tokens };
  return `{"object":"list","data":[${data.join(',')}],"model":${JSON.stringify(o.model)},"usage":${JSON.stringify(usage)}}`;
}

/** The first numbers of a vector are a vector of their own only at length 1 (Matryoshka representations). */
function shorten(vector: Float32Array, dimensions: number): Float32Array {
  const cut = vector.slice(0, dimensions);
  const norm = Math.hypot(...cut);
  return norm === 0 ? cut : cut.map((x) => x / norm);
}

/** Nine digits name every float32; the seventeen of its double say nothing more. */
function shortest(x: number): number {
  return Number(x.toPrecision(9));
}

/** Little-endian, as every machine this runs on has them. */
function toBase64({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64');
}

const document = map(
  either(
    { string: text({ max: 16 * 1024 * 1024 }), object: object({ text: text({ max: 16 * 1024 * 1024 }) }) },
    'a string or { text }',
  ),
  (value) => (typeof value === 'string' ? value : value.text),
);

export const rerankRequest = object({
  model: modelId,
  query: text({ min: 1, max: 1024 * 1024 }),
  documents: list(document, { min: 1, max: 2048 }),
  top_n: optional(integer({ min: 1, max: 2048, about: 'Only the best so many. Default: all.' })),
  return_documents: optional(flag('Give the documents back with the results; default false.')),
  keep_alive: keepAlive,
  user: inertFields.safety_identifier,
});

export type RerankRequest = Infer<typeof rerankRequest>;

/** Logits → scores from 0 to 1 by the logistic function, best first; equals keep the order they were given in. */
export function rerankAnswerOf(o: {
  readonly id: string;
  readonly model: string;
  readonly body: RerankRequest;
  readonly scores: readonly number[];
  readonly tokens: number;
}): object {
  const { body } = o;
  const ranked = o.scores
    .map((logit, index) => ({ index, logit }))
    .sort((a, b) => b.logit - a.logit || a.index - b.index);
  return {
    id: o.id,
    object: 'list',
    model: o.model,
    results: ranked.slice(0, body.top_n ?? ranked.length).map(({ index, logit }) => ({
      index,
      relevance_score: 1 / (1 + Math.exp(-logit)),
      ...(body.return_documents === true && { document: { text: body.documents[index] ?? '' } }),
    })),
    usage: { prompt_tokens: o.tokens, total_tokens: o.tokens },
  };
}

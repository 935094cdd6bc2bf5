// POST /v1/embeddings and /v1/rerank on the wire. The OpenAI SDKs ask for base64 (little-endian float32)
// unless told otherwise; a plain request gets numbers.

import { setImmediate } from 'node:timers/promises';
import type { ApiError } from '../../base/errors.ts';
import { textsOrTokens } from '../generation/inputs.ts';
import { inertFields, keepAlive, modelId } from '../generation/sampling.ts';
import {
  choice,
  either,
  flag,
  integer,
  list,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
  text,
} from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { inert } from '../unsupported.ts';

/** Clients that cannot leave a number out write 0 for a limit they do not set. */
function zeroIsAbsent(value: number): number | undefined {
  return value === 0 ? undefined : value;
}

export const embeddingRequest = object({
  model: modelId,
  input: textsOrTokens,
  encoding_format: optionalOrEmpty(choice(['float', 'base64'], 'Default: float.')),
  dimensions: optional(
    map(
      integer({ min: 0, max: 65_536, about: 'Only the first so many numbers, normalised again; 0: all.' }),
      zeroIsAbsent,
    ),
  ),
  keep_alive: keepAlive,
  user: inert(text({ max: 1024 }), 'nothing is kept per end user.'),
});

export type EmbeddingRequest = Infer<typeof embeddingRequest>;

/** Texts must not be empty: an empty text has no embedding. */
export function checkInputs(body: EmbeddingRequest): void {
  const empty = body.input.indexOf('');
  if (empty < 0) return;
  const param = inputParam(empty, body.input.length);
  throw refuse('empty_string', param, `${param} is empty`);
}

/** The name of one of the inputs in refusals. */
function inputParam(index: number, count: number): string {
  return count === 1 ? 'input' : `input[${index}]`;
}

/** Numbers written in one turn of the event loop: about five milliseconds. */
const NUMBERS_A_TURN = 8192;

/** The answer as JSON text: millions of numbers, written in slices so that other requests are not held up. */
export async function embeddingAnswerText(answer: {
  readonly vectors: readonly Float32Array[];
  readonly tokens: number;
  readonly model: string;
  readonly dimensions: number | undefined;
  readonly base64: boolean;
}): Promise<string> {
  const data: string[] = [];
  let written = 0;
  for (const [index, vector] of answer.vectors.entries()) {
    const cut =
      answer.dimensions === undefined || answer.dimensions >= vector.length
        ? vector
        : vector.slice(0, answer.dimensions);
    const length = lengthOf(cut);
    if (!(length > 0)) throw noDirection(inputParam(index, answer.vectors.length), cut !== vector);
    // The first numbers of a vector are a vector of their own only at length 1 (Matryoshka representations).
    if (cut !== vector) for (const i of cut.keys()) cut[i] = (cut[i] ?? 0) / length;
    data.push(
      JSON.stringify({
        object: 'embedding',
        index,
        embedding: answer.base64 ? toBase64(cut) : Array.from(cut, shortest),
      }),
    );
    written += cut.length;
    if (written < NUMBERS_A_TURN) continue;
    written = 0;
    await setImmediate();
  }
  const usage = { prompt_tokens: answer.tokens, total_tokens: answer.tokens };
  return `{"object":"list","data":[${data.join(',')}],"model":${JSON.stringify(answer.model)},"usage":${JSON.stringify(usage)}}`;
}

function lengthOf(vector: Float32Array): number {
  return Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
}

/** All numbers are zero, or one is NaN: no multiple of the vector has length 1. */
function noDirection(input: string, shortened: boolean): ApiError {
  return shortened
    ? refuse('invalid_value', 'dimensions', `dimensions leaves nothing of the vector of ${input}`)
    : refuse('invalid_input', input, `the model gives no vector for ${input}`);
}

/** Nine digits name every float32; the seventeen of its double add no information. */
function shortest(value: number): number {
  return Number(value.toPrecision(9));
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
  top_n: optional(
    map(integer({ min: 0, max: 2048, about: 'Only the best so many; 0: all. Default: all.' }), zeroIsAbsent),
  ),
  return_documents: optional(flag('Give the documents back with the results; default false.')),
  keep_alive: keepAlive,
  user: inertFields.safety_identifier,
});

export type RerankRequest = Infer<typeof rerankRequest>;

/**
 * Logits → scores from 0 to 1 by the logistic function, best first; equal scores keep the order of the
 * documents.
 */
export function rerankAnswerOf(answer: {
  readonly id: string;
  readonly model: string;
  readonly body: RerankRequest;
  readonly scores: readonly number[];
  readonly tokens: number;
}): object {
  const { body } = answer;
  const ranked = answer.scores
    .map((logit, index) => ({ index, logit }))
    .sort((a, b) => b.logit - a.logit || a.index - b.index);
  return {
    id: answer.id,
    object: 'list',
    model: answer.model,
    results: ranked.slice(0, body.top_n ?? ranked.length).map(({ index, logit }) => ({
      index,
      relevance_score: 1 / (1 + Math.exp(-logit)),
      ...(body.return_documents === true && { document: { text: body.documents[index] ?? '' } }),
    })),
    usage: { prompt_tokens: answer.tokens, total_tokens: answer.tokens },
  };
}

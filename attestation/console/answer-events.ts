// The events of a streamed chat answer (HTML standard, "Server-sent events"; OpenAI API, chat completion
// chunks): the text of the first choice, and the error of a stream that ends with one.

export type AnswerEvent =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'thought'; readonly text: string }
  | { readonly kind: 'finish'; readonly reason: string }
  | { readonly kind: 'error'; readonly message: string };

/** Most characters of one event: an answer is shown as it comes, and no line of it is longer. */
const MAX_LINE = 4 * 1024 * 1024;

/** Throws where a line is over its bound. Bytes may be cut anywhere. */
export async function* answerEvents(body: AsyncIterable<Uint8Array>): AsyncGenerator<AnswerEvent> {
  const decoder = new TextDecoder();
  let held: string[] = [];
  let length = 0;
  for await (const bytes of body) {
    const text = decoder.decode(bytes, { stream: true });
    held.push(text);
    length += text.length;
    if (text.includes('\n')) {
      const lines = held.join('').split(/\r\n|\n/);
      const rest = lines.pop() ?? '';
      held = [rest];
      length = rest.length;
      for (const line of lines) yield* eventsOf(line);
    }
    if (length > MAX_LINE) throw new RangeError('an event of the answer is too long');
  }
  yield* eventsOf(held.join('') + decoder.decode());
}

function* eventsOf(line: string): Generator<AnswerEvent> {
  if (!line.startsWith('data:')) return;
  let event: unknown;
  try {
    event = JSON.parse(line.slice(5));
  } catch {
    // `[DONE]`.
    return;
  }
  const error = member(event, 'error');
  if (error !== undefined)
    yield { kind: 'error', message: textOf(member(error, 'message')) ?? 'the answer ended with an error' };
  const choices = member(event, 'choices');
  const first: unknown = Array.isArray(choices) ? choices[0] : undefined;
  const delta = member(first, 'delta');
  const thought = textOf(member(delta, 'reasoning_content'));
  if (thought !== undefined && thought !== '') yield { kind: 'thought', text: thought };
  const text = textOf(member(delta, 'content'));
  if (text !== undefined && text !== '') yield { kind: 'text', text };
  const reason = textOf(member(first, 'finish_reason'));
  if (reason !== undefined) yield { kind: 'finish', reason };
}

/** The message of a JSON error, in the envelope of OpenAI's API; undefined where there is none. */
export function errorMessage(text: string): { readonly message: string; readonly code: string } | undefined {
  try {
    const error = member(JSON.parse(text), 'error');
    const message = textOf(member(error, 'message'));
    return message === undefined ? undefined : { message, code: textOf(member(error, 'code')) ?? '' };
  } catch {
    return undefined;
  }
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

// The calls of a conversation as a family's templates take them: with ids of the family's form, and one a
// turn where the template writes no more.

import type { ChatMessage } from '../../../seam/engine.ts';
import type { CallSyntax } from '../../../seam/tool-format.ts';

type Call = NonNullable<ChatMessage['toolCalls']>[number];

/**
 * Ids of another form are replaced, in calls and in their results alike; the same history gives the same
 * ids.
 */
export function withFormIds(messages: readonly ChatMessage[], syntax: CallSyntax): readonly ChatMessage[] {
  if ((syntax.kind !== 'object' && syntax.kind !== 'named') || syntax.id === null) return messages;
  const { id: form } = syntax;
  const renamed = new Map<string, string>();
  let count = 0;
  const idOf = (call: Call): string => {
    const number = count;
    count += 1;
    if (form.at === 'around') {
      const own = `${form.prefix}${call.name}${form.mark}`;
      return call.id.startsWith(own) && /^\d+$/.test(call.id.slice(own.length))
        ? call.id
        : own + String(number);
    }
    if (form.form === 'number') return String(number);
    if (form.form === 'nine')
      return /^[a-zA-Z0-9]{9}$/.test(call.id) ? call.id : String(number + 1).padStart(9, '0');
    return /^[\w-]{1,64}$/.test(call.id) ? call.id : `call_${number}`;
  };
  return messages.map((message) => {
    if (message.toolCallId !== undefined)
      return { ...message, toolCallId: renamed.get(message.toolCallId) ?? message.toolCallId };
    const toolCalls = message.toolCalls?.map((call) => {
      const id = idOf(call);
      renamed.set(call.id, id);
      return { ...call, id };
    });
    return toolCalls === undefined ? message : { ...message, toolCalls };
  });
}

/** Words before calls become a turn of their own. */
export function wordsBefore(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  return messages.flatMap((message) => {
    const { toolCalls = [], content } = message;
    if (toolCalls.length === 0 || content === '') return [message];
    const calls: ChatMessage = { role: message.role, content: '', toolCalls };
    return [{ ...message, toolCalls: undefined }, calls];
  });
}

/** A turn of several calls becomes several turns, each followed by the results of its call. */
export function oneCallATurn(messages: readonly ChatMessage[]): readonly ChatMessage[] {
  const turns: ChatMessage[] = [];
  let at = 0;
  while (at < messages.length) {
    const message = messages[at];
    at += 1;
    if (message === undefined) break;
    const calls = message.toolCalls ?? [];
    if (calls.length < 2) {
      turns.push(message);
      continue;
    }
    const results: ChatMessage[] = [];
    for (let next = messages[at]; next?.role === 'tool'; next = messages[at]) {
      results.push(next);
      at += 1;
    }
    const ids = calls.map((call) => call.id);
    for (const [i, call] of calls.entries()) {
      const first = i === 0;
      turns.push(
        {
          ...message,
          content: first ? message.content : '',
          reasoning: first ? message.reasoning : undefined,
          toolCalls: [call],
        },
        ...results.filter(({ toolCallId = '' }) => toolCallId === call.id),
      );
    }
    turns.push(...results.filter(({ toolCallId = '' }) => !ids.includes(toolCallId)));
  }
  return turns;
}

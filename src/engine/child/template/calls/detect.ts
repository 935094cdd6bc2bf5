// How a template writes tool calls, found by having it render one: of the formats its source may stand for, the
// first in which a call of a history comes out. Nothing confirmed is the generic format.

import type { ChatMessage, ToolSpec } from '../../../seam/engine.ts';
import { GENERIC_TOOL_FORMAT, type ToolFormat } from '../../../seam/tool-format.ts';
import { candidateFormats } from './candidates.ts';
import { oneCallATurn, withFormIds } from './history.ts';
import { holdsCall, holdsCalls } from './written.ts';

/** A template's format of calls, and what it takes to have it write one. */
export interface CallWriting {
  readonly format: ToolFormat;
  /** It tells the model what tools there are. */
  readonly tellsTools: boolean;
  /** It takes arguments as JSON text, not as a mapping. */
  readonly textArguments: boolean;
  /** It writes one call a turn, and refuses or drops others. */
  readonly oneCall: boolean;
}

/** Renders a conversation with tools; throws where the template does. */
export type RenderProbe = (
  messages: readonly ChatMessage[],
  tools: readonly ToolSpec[],
  textArguments: boolean,
) => string;

/**
 * Letters and digits only (nine in the ids: Mistral's templates insist), so that the
 * disguise does not change them.
 */
const CALL = { id: 'call00001', name: 'probetool', arguments: '{"probekey":"probevalue"}' };
const OTHER = { ...CALL, id: 'call00002', arguments: '{"probekey":"othervalue"}' };
const TOOL: ToolSpec = {
  name: CALL.name,
  description: 'probepurpose',
  parameters: {
    type: 'object',
    properties: { probekey: { type: 'string', description: 'Key' } },
    required: ['probekey'],
  },
};

export const GENERIC_WRITING: CallWriting = {
  format: GENERIC_TOOL_FORMAT,
  tellsTools: false,
  textArguments: false,
  oneCall: false,
};

export function detectCallWriting(source: string | null, render: RenderProbe): CallWriting {
  const attempt = (messages: readonly ChatMessage[], textArguments: boolean): string | null => {
    try {
      return render(messages, [TOOL], textArguments);
    } catch {
      return null;
    }
  };
  /** A format whose call comes out, but not with another beside it as the format has it. */
  let likely: CallWriting | null = null;
  for (const format of candidateFormats(source)) {
    for (const textArguments of [false, true]) {
      const asked = history([CALL], format);
      const written = attempt(asked, textArguments);
      if (written?.includes('proberesult') !== true) continue;
      const [call = CALL] = asked[1]?.toolCalls ?? [];
      if (!holdsCall(format, written, call)) continue;
      const calls = history([CALL, OTHER], format);
      const two = attempt(calls, textArguments);
      const oneCall = two === null || !two.includes('probevalue') || !two.includes('othervalue');
      const writing = { format, tellsTools: written.includes('probepurpose'), textArguments, oneCall };
      if (oneCall || holdsCalls(format, two, calls[1]?.toolCalls ?? [])) return writing;
      likely ??= writing;
    }
  }
  return likely ?? GENERIC_WRITING;
}

/** The conversation as it is handed to a template that writes calls so. */
export function shapeCalls(
  messages: readonly ChatMessage[],
  { format, oneCall }: CallWriting,
): readonly ChatMessage[] {
  const named = withFormIds(messages, format.syntax);
  return oneCall ? oneCallATurn(named) : named;
}

function history(calls: readonly (typeof CALL)[], format: ToolFormat): readonly ChatMessage[] {
  const messages: readonly ChatMessage[] = [
    { role: 'user', content: 'question' },
    { role: 'assistant', content: '', toolCalls: calls },
    ...calls.map(({ id, name }): ChatMessage => ({
      role: 'tool',
      content: 'proberesult',
      toolCallId: id,
      name,
    })),
  ];
  return withFormIds(messages, format.syntax);
}

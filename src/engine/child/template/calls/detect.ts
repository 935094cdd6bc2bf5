// How a template writes tool calls, found by having it render one: of the formats its source may stand for,
// the first in which a call of a history comes out, and the generic one where none does.

import type { ChatMessage, ToolSpec } from '../../../seam/engine.ts';
import { GENERIC_TOOL_FORMAT, type ToolFormat } from '../../../seam/tool-format.ts';
import { candidateFamilies } from './candidates.ts';
import { oneCallATurn, withFormIds, wordsBefore } from './history.ts';
import { holdsCall, holdsCalls } from './written.ts';

/** A template's format of calls, and what it takes to have it write one. */
export interface CallWriting {
  readonly format: ToolFormat;
  /** Where it reads what tools there are. */
  readonly told: 'variable' | 'system-field' | 'nowhere';
  /** It takes arguments as JSON text, not as a mapping. */
  readonly textArguments: boolean;
  /** A turn of calls without words has no content, not an empty one. */
  readonly noContent: boolean;
  /** Words beside calls are a turn before them: in one turn it would drop these or those. */
  readonly wordsApart: boolean;
  /** It writes one call a turn, and refuses or drops others. */
  readonly oneCall: boolean;
}

/** Renders a conversation with tools; throws where the template does. */
export type RenderProbe = (
  messages: readonly ChatMessage[],
  tools: readonly ToolSpec[],
  writing: CallWriting,
) => string;

/**
 * Letters and digits only (nine in the ids: Mistral's templates insist), so that the
 * disguise does not change them.
 */
const CALL = { id: 'call00001', name: 'probetool', arguments: '{"probekey":"probevalue"}' };
const WORDS = 'probewords';
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
  told: 'nowhere',
  textArguments: false,
  noContent: false,
  wordsApart: false,
  oneCall: false,
};

export function detectCallWriting(source: string | null, render: RenderProbe): CallWriting {
  const attempt = (calls: readonly (typeof CALL)[], writing: CallWriting, words = ''): string | null => {
    try {
      return render(history(calls, words), [TOOL], writing);
    } catch {
      return null;
    }
  };
  /** The rendering, where it holds the call and its result. */
  const holding = (writing: CallWriting, words = ''): string | null => {
    const written = attempt([CALL], writing, words);
    if (written?.includes(words) !== true) return null;
    const [call = CALL] = withFormIds(history([CALL]), writing.format.syntax)[1]?.toolCalls ?? [];
    return written.includes('proberesult') && holdsCall(writing.format, written, call) ? written : null;
  };
  /** A format whose call comes out, but not with another beside it as the format has it. */
  let likely: CallWriting | null = null;
  for (const { format, systemField = false } of candidateFamilies(source)) {
    const told = systemField ? 'system-field' : 'variable';
    for (const textArguments of [false, true]) {
      const usual: CallWriting = { ...GENERIC_WRITING, format, told, textArguments };
      const bare = { ...usual, noContent: true };
      const [written, shorter] = [holding(usual), holding(bare)];
      const plain = shorter === null || (written !== null && written.length <= shorter.length);
      const text = plain ? written : shorter;
      const tells = text?.includes('probepurpose') === true;
      if (text === null || (systemField && !tells)) continue;
      const writing = plain ? usual : bare;
      const two = attempt([CALL, OTHER], writing);
      const oneCall = two === null || !two.includes('probevalue') || !two.includes('othervalue');
      const apart = { ...writing, wordsApart: true };
      const together = !writing.noContent && holding(writing, WORDS) !== null;
      const wordsApart = !together && holding(apart, WORDS) !== null;
      const found: CallWriting = { ...writing, told: tells ? told : 'nowhere', oneCall, wordsApart };
      const both = withFormIds(history([CALL, OTHER]), format.syntax)[1]?.toolCalls ?? [];
      if (oneCall || holdsCalls(format, two, both)) return found;
      likely ??= found;
    }
  }
  return likely ?? GENERIC_WRITING;
}

/** The conversation as it is handed to a template that writes calls so. */
export function shapeCalls(
  messages: readonly ChatMessage[],
  { format, oneCall, wordsApart }: CallWriting,
): readonly ChatMessage[] {
  const identified = withFormIds(messages, format.syntax);
  const named = wordsApart ? wordsBefore(identified) : identified;
  return oneCall ? oneCallATurn(named) : named;
}

function history(calls: readonly (typeof CALL)[], words = ''): readonly ChatMessage[] {
  return [
    { role: 'user', content: 'question' },
    { role: 'assistant', content: words, toolCalls: calls },
    ...calls.map(({ id, name }): ChatMessage => ({
      role: 'tool',
      content: 'proberesult',
      toolCallId: id,
      name,
    })),
  ];
}

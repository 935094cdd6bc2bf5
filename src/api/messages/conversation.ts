// The messages of /v1/messages → those for the engine's template. Neighbours of one role are one turn; each
// tool result is a message of its own. A broken history (results without a call) is passed on as it is.
// Refuses sealed reasoning that this server did not seal.

import type { ChatMessage } from '../../engine/seam/engine.ts';
import { choice, list, literal, openObject, optional, tagged } from '../../base/shape.ts';
import type { Infer } from '../../base/shape.ts';
import { History } from '../chat/history.ts';
import { assertImageCount, spokenOf } from '../chat/images.ts';
import { MAX_MESSAGES } from '../chat/messages.ts';
import { unsupportedParameter } from '../unsupported.ts';
import { assistantBlocks, type MessagePart, systemBlocks, type systemPrompt, userBlocks } from './blocks.ts';

export { systemPrompt } from './blocks.ts';

const system = openObject({
  role: literal('system'),
  content: optional(systemBlocks),
  clear_at: optional(
    choice(
      ['never', 'next_user_message'],
      '`next_user_message`: left out once a later message of the user is there.',
    ),
  ),
  output_config: unsupportedParameter('it is taken for the whole request'),
});
const user = openObject({ role: literal('user'), content: userBlocks });
const assistant = openObject({ role: literal('assistant'), content: assistantBlocks });

export const conversation = list(tagged('role', { user, assistant, system }), {
  min: 1,
  max: MAX_MESSAGES,
  about: 'The conversation so far. An answer continues a last message of the assistant.',
});

export interface ToldConversation {
  readonly messages: readonly ChatMessage[];
  /** Whether a tool is offered, by name, where the conversation says so. */
  readonly offered: ReadonlyMap<string, boolean>;
}

/** `open`: the text of sealed reasoning, and where it is in the request. */
export function toConversation(
  prompt: Infer<typeof systemPrompt> | undefined,
  given: Infer<typeof conversation>,
  open: (sealed: string, param: string) => string,
): ToldConversation {
  const reader = new Reader(
    open,
    given.findLastIndex(({ role }) => role === 'user'),
  );
  if (prompt !== undefined) reader.tell(prompt.map(({ part }) => part));
  for (const [i, message] of given.entries()) reader.read(message, i);
  return reader.end();
}

class Reader {
  readonly #history = new History();
  readonly #offered = new Map<string, boolean>();
  readonly #open: (sealed: string, param: string) => string;
  readonly #lastUser: number;
  /** The words of the user since another spoke. */
  #said: MessagePart[] = [];

  constructor(open: (sealed: string, param: string) => string, lastUser: number) {
    this.#open = open;
    this.#lastUser = lastUser;
  }

  /** A system message; one without words is none. */
  tell(parts: readonly MessagePart[]): void {
    this.#ask();
    const said = spokenOf(parts);
    if (said.content !== '') this.#history.add({ role: 'system', ...said });
  }

  read(message: Infer<typeof conversation>[number], i: number): void {
    switch (message.role) {
      case 'user':
        this.#user(message.content);
        break;
      case 'assistant':
        this.#ask();
        this.#assistant(message.content, `messages[${i}].content`);
        break;
      case 'system':
        this.#system(message, i);
    }
  }

  end(): ToldConversation {
    this.#ask();
    return { messages: assertImageCount(this.#history.messages()), offered: this.#offered };
  }

  #user(content: Infer<typeof userBlocks>): void {
    for (const block of content) {
      if (block?.kind === 'part') this.#said.push(block.part);
      if (block?.kind !== 'result') continue;
      this.#ask();
      this.#history.add({ role: 'tool', ...spokenOf(block.parts), toolCallId: block.id });
      for (const name of block.tools) this.#offered.set(name, true);
    }
  }

  #assistant(content: Infer<typeof assistantBlocks>, path: string): void {
    for (const [i, block] of content.entries()) {
      if (block?.kind === 'said') this.#history.say(block.text);
      if (block?.kind === 'thought') {
        const { plain, sealed, field } = block;
        // Plain reasoning stands for itself: a caller may put any words into the mouth of the model.
        const hidden = plain === '' && sealed !== '';
        this.#history.think(hidden ? this.#open(sealed, `${path}[${i}].${field}`) : plain);
      }
      if (block?.kind !== 'call') continue;
      const { id = `call_${path}_${i}`, name, input } = block;
      this.#history.call({ id, name, arguments: JSON.stringify(input) });
    }
  }

  #system({ content = [], clear_at: until }: Infer<typeof system>, i: number): void {
    const parts: MessagePart[] = [];
    for (const block of content) {
      if (block.kind === 'part') parts.push(block.part);
      else this.#offered.set(block.name, block.offered);
    }
    if (until !== 'next_user_message' || i > this.#lastUser) this.tell(parts);
  }

  /** Ends what the user says. */
  #ask(): void {
    if (this.#said.length > 0) this.#history.add({ role: 'user', ...spokenOf(this.#said) });
    this.#said = [];
  }
}

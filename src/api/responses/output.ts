// The items of a response while they are written: each announces itself, its pieces and its end as events of
// the OpenAI API ("Streaming events"), and becomes an item of the answer. Without a writer only the items are
// made.

import { CustomInput } from './custom-input.ts';
import type { Called } from './tools.ts';

/**
 * Writes one event: the fields beside its type and number as JSON members. `whole`: it repeats a whole text.
 */
export type WriteEvent = (type: string, members: string, whole?: boolean) => void;

export type ItemStatus = 'in_progress' | 'completed' | 'incomplete';

export interface OutputItem {
  /** More of its text, of its arguments or of its input. */
  add(text: string, logprobs: readonly object[]): void;
  /** Its last events; the item as the answer has it. */
  end(status: ItemStatus): object;
}

/** The place of an item in the answer. */
export interface ItemPlace {
  readonly id: string;
  readonly index: number;
  /** Null: the answer is gathered. */
  readonly write: WriteEvent | null;
}

function added({ index, write }: ItemPlace, item: object): void {
  write?.('response.output_item.added', `"output_index":${index},"item":${JSON.stringify(item)}`);
}

function done({ index, write }: ItemPlace, item: object): object {
  write?.('response.output_item.done', `"output_index":${index},"item":${JSON.stringify(item)}`, true);
  return item;
}

function partPlace({ id, index }: ItemPlace): string {
  return `"item_id":${JSON.stringify(id)},"output_index":${index},"content_index":0`;
}

interface OutputText {
  readonly type: 'output_text';
  readonly text: string;
  readonly annotations: readonly object[];
  readonly logprobs: readonly object[];
}

export class MessageItem implements OutputItem {
  readonly #place: ItemPlace;
  readonly #at: string;
  readonly #logprobs: object[] = [];
  #text = '';

  constructor(place: ItemPlace) {
    this.#place = place;
    this.#at = partPlace(place);
    added(place, this.#item('in_progress', []));
    place.write?.('response.content_part.added', `${this.#at},"part":${JSON.stringify(this.#part())}`);
  }

  add(text: string, logprobs: readonly object[]): void {
    this.#text += text;
    for (const each of logprobs) this.#logprobs.push(each);
    const { write } = this.#place;
    if (write === null) return;
    const told = logprobs.length === 0 ? '[]' : JSON.stringify(logprobs);
    write('response.output_text.delta', `${this.#at},"delta":${JSON.stringify(text)},"logprobs":${told}`);
  }

  end(status: ItemStatus): object {
    const { write } = this.#place;
    const part = this.#part();
    const { text, logprobs } = part;
    const told = JSON.stringify(logprobs);
    write?.(
      'response.output_text.done',
      `${this.#at},"text":${JSON.stringify(text)},"logprobs":${told}`,
      true,
    );
    write?.('response.content_part.done', `${this.#at},"part":${JSON.stringify(part)}`, true);
    return done(this.#place, this.#item(status, [part]));
  }

  #part(): OutputText {
    return { type: 'output_text', annotations: [], logprobs: this.#logprobs, text: this.#text };
  }

  #item(status: ItemStatus, content: readonly object[]): object {
    return { id: this.#place.id, type: 'message', status, role: 'assistant', content };
  }
}

export class ReasoningItem implements OutputItem {
  readonly #place: ItemPlace;
  readonly #at: string;
  readonly #seal: ((text: string) => string) | null;
  #text = '';

  /** `seal`: makes the encrypted content; null: it was not asked for. */
  constructor(place: ItemPlace, seal: ((text: string) => string) | null) {
    this.#place = place;
    this.#at = partPlace(place);
    this.#seal = seal;
    added(place, this.#item('in_progress', []));
    place.write?.('response.content_part.added', `${this.#at},"part":${JSON.stringify(this.#part())}`);
  }

  add(text: string): void {
    this.#text += text;
    this.#place.write?.('response.reasoning_text.delta', `${this.#at},"delta":${JSON.stringify(text)}`);
  }

  end(status: ItemStatus): object {
    const { write } = this.#place;
    const part = this.#part();
    write?.('response.reasoning_text.done', `${this.#at},"text":${JSON.stringify(this.#text)}`, true);
    write?.('response.content_part.done', `${this.#at},"part":${JSON.stringify(part)}`, true);
    const item = this.#item(status, [part]);
    return done(
      this.#place,
      this.#seal === null ? item : { ...item, encrypted_content: this.#seal(this.#text) },
    );
  }

  #part(): object {
    return { type: 'reasoning_text', text: this.#text };
  }

  #item(status: ItemStatus, content: readonly object[]): object {
    return { id: this.#place.id, type: 'reasoning', summary: [], content, status };
  }
}

/** A call of a tool: `id` is the model's, or made for it. */
interface Call extends Called {
  readonly callId: string;
}

function callFields({ callId, name, namespace }: Call): object {
  return { call_id: callId, name, namespace };
}

export class FunctionItem implements OutputItem {
  readonly #place: ItemPlace;
  readonly #call: Call;
  readonly #at: string;
  #arguments = '';

  constructor(place: ItemPlace, call: Call) {
    this.#place = place;
    this.#call = call;
    this.#at = `"item_id":${JSON.stringify(place.id)},"output_index":${place.index}`;
    added(place, this.#item('in_progress'));
  }

  add(text: string): void {
    this.#arguments += text;
    const delta = JSON.stringify(text);
    this.#place.write?.('response.function_call_arguments.delta', `${this.#at},"delta":${delta}`);
  }

  end(status: ItemStatus): object {
    const { name } = this.#call;
    this.#place.write?.(
      'response.function_call_arguments.done',
      `${this.#at},"name":${JSON.stringify(name)},"arguments":${JSON.stringify(this.#arguments)}`,
      true,
    );
    return done(this.#place, this.#item(status));
  }

  #item(status: ItemStatus): object {
    const given = { arguments: this.#arguments };
    return { id: this.#place.id, type: 'function_call', status, ...callFields(this.#call), ...given };
  }
}

export class CustomItem implements OutputItem {
  readonly #place: ItemPlace;
  readonly #call: Call;
  readonly #at: string;
  readonly #input = new CustomInput();

  constructor(place: ItemPlace, call: Call) {
    this.#place = place;
    this.#call = call;
    this.#at = `"item_id":${JSON.stringify(place.id)},"output_index":${place.index}`;
    added(place, this.#item('in_progress'));
  }

  add(text: string): void {
    this.#tell(this.#input.push(text));
  }

  end(status: ItemStatus): object {
    this.#tell(this.#input.end());
    this.#place.write?.(
      'response.custom_tool_call_input.done',
      `${this.#at},"input":${JSON.stringify(this.#input.text)}`,
      true,
    );
    return done(this.#place, this.#item(status));
  }

  #tell(text: string): void {
    if (text === '') return;
    const delta = JSON.stringify(text);
    this.#place.write?.('response.custom_tool_call_input.delta', `${this.#at},"delta":${delta}`);
  }

  #item(status: ItemStatus): object {
    const given = { input: this.#input.text };
    return { id: this.#place.id, type: 'custom_tool_call', status, ...callFields(this.#call), ...given };
  }
}

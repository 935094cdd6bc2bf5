// The content blocks of an answer while they are written: each tells its start, its pieces and its end as
// events of Anthropic's API ("Streaming Messages"), and becomes a block of the answer. Without a writer only
// the blocks are made.

import { isRecord } from '../../base/shape.ts';

/** Writes one event: the fields beside its type as JSON members. `whole`: it repeats a whole text. */
export type WriteBlockEvent = (type: string, members: string, whole?: boolean) => void;

/** Where a block is written. */
export interface BlockPlace {
  readonly index: number;
  /** Null: the answer is gathered. */
  readonly write: WriteBlockEvent | null;
}

export interface OutputBlock {
  add(text: string): void;
  /** Its last events; the block as the answer has it. */
  end(): object;
}

function started({ index, write }: BlockPlace, block: object): void {
  write?.('content_block_start', `"index":${index},"content_block":${JSON.stringify(block)}`);
}

function piece({ index, write }: BlockPlace, delta: string, whole = false): void {
  write?.('content_block_delta', `"index":${index},"delta":{${delta}}`, whole);
}

function ended({ index, write }: BlockPlace, block: object): object {
  write?.('content_block_stop', `"index":${index}`);
  return block;
}

export function textDelta(text: string): string {
  return `"type":"text_delta","text":${JSON.stringify(text)}`;
}

export class TextBlock implements OutputBlock {
  readonly #place: BlockPlace;
  #text = '';

  constructor(place: BlockPlace) {
    this.#place = place;
    started(place, { type: 'text', text: '', citations: null });
  }

  add(text: string): void {
    // A stream never repeats it.
    if (this.#place.write === null) this.#text += text;
    else piece(this.#place, textDelta(text));
  }

  end(): object {
    return ended(this.#place, { type: 'text', text: this.#text, citations: null });
  }
}

export class ThinkingBlock implements OutputBlock {
  readonly #place: BlockPlace;
  readonly #seal: (text: string) => string;
  readonly #shown: boolean;
  #text = '';

  /** `seal`: makes its signature; `shown` false: only that is told. */
  constructor(place: BlockPlace, seal: (text: string) => string, shown: boolean) {
    this.#place = place;
    this.#seal = seal;
    this.#shown = shown;
    started(place, { type: 'thinking', thinking: '', signature: '' });
  }

  add(text: string): void {
    this.#text += text;
    if (this.#shown) piece(this.#place, `"type":"thinking_delta","thinking":${JSON.stringify(text)}`);
  }

  end(): object {
    const signature = this.#seal(this.#text);
    piece(this.#place, `"type":"signature_delta","signature":${JSON.stringify(signature)}`, true);
    const thinking = this.#shown ? this.#text : '';
    return ended(this.#place, { type: 'thinking', thinking, signature });
  }
}

export class ToolUseBlock implements OutputBlock {
  readonly #place: BlockPlace;
  readonly #call: { readonly id: string; readonly name: string };
  #json = '';

  constructor(place: BlockPlace, call: { readonly id: string; readonly name: string }) {
    this.#place = place;
    this.#call = call;
    started(place, this.#block({}));
  }

  add(text: string): void {
    if (this.#place.write === null) this.#json += text;
    else piece(this.#place, `"type":"input_json_delta","partial_json":${JSON.stringify(text)}`);
  }

  end(): object {
    return ended(this.#place, this.#block(inputOf(this.#json)));
  }

  #block(input: object): object {
    return { type: 'tool_use', ...this.#call, input, caller: { type: 'direct' } };
  }
}

/** An input that a limit cut off has no value: the stop reason says so. */
function inputOf(json: string): object {
  try {
    const value: unknown = JSON.parse(json);
    return isRecord(value) ? value : {};
  } catch {
    return {};
  }
}

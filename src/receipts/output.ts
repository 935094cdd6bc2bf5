// The output of an answer as its receipt commits to it: of each choice the text the engine gave, in order,
// and the digest of its tokens. Above 16 choices there is one entry for all.

import { createHash } from 'node:crypto';
import {
  digestOfParts,
  MAX_RECEIPT_CHOICES,
  type ReceiptChoice,
  tokenRunBytes,
} from '@assay/attestation/receipt';
import type { Commitments } from './commitments.ts';
import { TextHash } from './text-hash.ts';

interface Written {
  text: TextHash | null;
  textDigest: Uint8Array;
  finishReason: string | null;
  tokens: number;
  tokensDigest: Uint8Array;
}

/** SHA-256 of an empty list of tokens: its length alone. */
const NO_TOKENS = digest(new Uint8Array(4));
const NO_TEXT = digest(new Uint8Array(0));

export class AnswerOutput {
  readonly #choices: Written[] = [];
  /** Ids of tokens that no comment has carried yet, by choice. */
  #untold = new Map<number, number[]>();

  text(index: number, text: string): void {
    const choice = this.#at(index);
    choice.text ??= new TextHash();
    choice.text.update(text);
  }

  tokens(index: number, ids: readonly number[]): void {
    const untold = this.#untold.get(index);
    if (untold === undefined) this.#untold.set(index, [...ids]);
    else for (const id of ids) untold.push(id);
  }

  /** The tokens since the last call, in the form of `assay-tokens`; undefined: none. */
  takeTokens(): Uint8Array | undefined {
    if (this.#untold.size === 0) return undefined;
    const told = tokenRunBytes([...this.#untold]);
    this.#untold = new Map();
    return told;
  }

  /** `tokensDigest`: absent of an engine that gives none. */
  finish(
    index: number,
    finish: {
      readonly reason: string;
      readonly tokens: number;
      readonly tokensDigest?: Uint8Array | undefined;
    },
  ): void {
    const choice = this.#at(index);
    choice.textDigest = choice.text === null ? NO_TEXT : choice.text.digest();
    choice.text = null;
    choice.finishReason = finish.reason;
    choice.tokens = finish.tokens;
    choice.tokensDigest = finish.tokensDigest ?? NO_TOKENS;
  }

  /** As far as it was written. */
  choices(commitments: Commitments): readonly ReceiptChoice[] {
    if (this.#choices.length <= MAX_RECEIPT_CHOICES)
      return this.#choices.map((choice, index) => ({
        index,
        finishReason: choice.finishReason,
        tokens: choice.tokens,
        outputTokens: commitments.of('outputTokens', choice.tokensDigest, index),
        outputText: commitments.of('outputText', textOf(choice), index),
      }));
    const all = (of: (choice: Written) => Uint8Array): Uint8Array => digestOfParts(this.#choices.map(of));
    return [
      {
        index: 0,
        finishReason: null,
        tokens: this.#choices.reduce((sum, { tokens }) => sum + tokens, 0),
        outputTokens: commitments.of(
          'outputTokens',
          all(({ tokensDigest }) => tokensDigest),
        ),
        outputText: commitments.of('outputText', all(textOf)),
      },
    ];
  }

  #at(index: number): Written {
    while (this.#choices.length <= index)
      this.#choices.push({
        text: null,
        textDigest: NO_TEXT,
        finishReason: null,
        tokens: 0,
        tokensDigest: NO_TOKENS,
      });
    // The loop before has filled it.
    return this.#choices[index] as Written;
  }
}

function textOf({ text, textDigest }: Written): Uint8Array {
  return text === null ? textDigest : text.soFar();
}

function digest(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

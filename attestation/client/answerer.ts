// Whose an answer is (docs/sealed.md §8). A request for several replicas can be answered by each of them;
// only a receipt shows which one did.

import type { SealedResult } from '../appraise/appraise.ts';
import { toHex } from '../encoding/bytes.ts';
import type { AnsweringGuest } from './call.ts';

/** `one`: this guest gave the answer. `set`: one of these did, and which one is not shown. */
export interface AnsweredBy {
  readonly kind: 'one' | 'set';
  readonly guests: readonly { readonly origin: string; readonly result: SealedResult }[];
}

/** The guests that can have given an answer, until a receipt shows which one. */
export class Answerer {
  #guests: readonly AnsweringGuest[];

  constructor(guests: readonly AnsweringGuest[]) {
    this.#guests = guests;
  }

  get shown(): AnsweredBy {
    const kind = this.#guests.length === 1 ? 'one' : 'set';
    return { kind, guests: this.#guests.map(({ origin, result }) => ({ origin, result })) };
  }

  /** A receipt that holds is signed by that key. */
  signed(receiptKey: Uint8Array): AnsweringGuest | undefined {
    const hex = toHex(receiptKey);
    const signer = this.#guests.find(({ result }) => result.receiptKey === hex);
    if (signer !== undefined) this.#guests = [signer];
    return signer;
  }
}

const answerers = new WeakMap<Response, Answerer>();

export function noteAnswerer(response: Response, answerer: Answerer): void {
  if (answerer.shown.guests.length > 0) answerers.set(response, answerer);
}

/**
 * Whose the answer is, as far as it is shown: of a stream only its end shows it. Undefined for an answer of
 * the client's own.
 * @example if (answererOf(response)?.kind === 'one') console.log(answererOf(response)?.guests[0]?.origin);
 */
export function answererOf(response: Response): AnsweredBy | undefined {
  return answerers.get(response)?.shown;
}

// The ids of output tokens beside a stream (docs/receipts.md §3): comments `assay-tokens`, each with runs of
// tokens that choices have written since the one before. Together they open the receipt's commitments to the
// output tokens.

import { sha256 } from '@noble/hashes/sha2.js';
import { equalBytes, viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { MAX_RECEIPT_CHOICES, type ReceiptOutcome } from './body.ts';
import { commitment, commitmentBy, fieldSalt, tokenListBytes } from './commit.ts';

/** Tokens that a choice has written since the run before. */
export type TokenRun = readonly [choice: number, ids: readonly number[]];

/** Prompts × choices of one request. */
const MOST_CHOICES = 2048 * 8;
/** Choices without tokens at the end of more than sixteen; more are refused, for the work it takes. */
const MOST_EMPTY = 256;

/**
 * Runs of tokens as `assay-tokens` carries them: of each the choice, the number of ids, the ids, u32
 * big-endian.
 * @example const runs = tokenRunBytes([[0, [1, 15043]]]);
 */
export function tokenRunBytes(runs: readonly TokenRun[]): Uint8Array {
  const bytes = new Uint8Array(4 * runs.reduce((sum, [, ids]) => sum + 2 + ids.length, 0));
  const view = viewOf(bytes);
  let at = 0;
  for (const [choice, ids] of runs)
    for (const value of [choice, ids.length, ...ids]) {
      view.setUint32(at, value);
      at += 4;
    }
  return bytes;
}

/** The runs of one comment. @throws AttestationError receipt_malformed */
export function tokenRunsIn(bytes: Uint8Array): readonly TokenRun[] {
  const view = viewOf(bytes);
  const runs: TokenRun[] = [];
  const broken = (): Error => malformed('receipt_malformed', 'a comment of tokens is of another form');
  if (bytes.length % 4 !== 0) throw broken();
  for (let at = 0; at < bytes.length;) {
    if (at + 8 > bytes.length) throw broken();
    const [choice, count] = [view.getUint32(at), view.getUint32(at + 4)];
    at += 8;
    if (choice >= MOST_CHOICES || count === 0 || count > (bytes.length - at) / 4) throw broken();
    const from = at;
    runs.push([choice, Array.from({ length: count }, (_, i) => view.getUint32(from + 4 * i))]);
    at += 4 * count;
  }
  return runs;
}

/** The tokens of each choice, gathered from the comments of a stream. */
export class TokenLists {
  readonly lists: number[][] = [];

  /** @throws AttestationError receipt_malformed */
  add(comment: Uint8Array): void {
    for (const [choice, ids] of tokenRunsIn(comment)) {
      while (this.lists.length <= choice) this.lists.push([]);
      for (const id of ids) this.lists[choice]?.push(id);
    }
  }
}

/**
 * Whether these are the output tokens that a receipt commits to, one list for each choice; the last ones may
 * be missing where they are empty.
 * @example const opens = opensTokens(receipt.outcome, salt, [[1, 15043]]);
 */
export function opensTokens(
  { choices }: Pick<ReceiptOutcome, 'choices'>,
  salt: Uint8Array,
  lists: readonly (readonly number[])[],
): boolean {
  const digests = lists.map((ids) => sha256(tokenListBytes(ids)));
  const empty = sha256(tokenListBytes([]));
  const each =
    lists.length <= choices.length &&
    choices.every(({ index, outputTokens }) =>
      equalBytes(outputTokens, commitment(salt, 'outputTokens', digests[index] ?? empty, index)),
    );
  const [only, ...more] = choices;
  if (each || only === undefined || more.length > 0) return each;
  // One entry for more choices than it tells: as many as are given, and empty ones behind them.
  const opening = fieldSalt(salt, 'outputTokens');
  const parts = sha256.create();
  const most = Math.max(lists.length, MAX_RECEIPT_CHOICES) + MOST_EMPTY;
  for (let count = 1; count <= most; count += 1) {
    parts.update(digests[count - 1] ?? empty);
    if (count < lists.length || count <= MAX_RECEIPT_CHOICES) continue;
    const committed = commitmentBy(opening, 'outputTokens', parts.clone().digest());
    if (equalBytes(only.outputTokens, committed)) return true;
  }
  return false;
}

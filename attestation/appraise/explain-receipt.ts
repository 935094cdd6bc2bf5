// A receipt's verdict in plain words, and what it does not prove.

import { toHex } from '../encoding/bytes.ts';
import type { ReceiptJudgement } from './receipt-verdict.ts';

/** One line each. */
export function explainReceipt(judged: ReceiptJudgement): readonly string[] {
  const { receipt, compared } = judged;
  const attested = judged.kind === 'attested';
  return [
    'The signature of the receipt holds: not a bit of it was changed since it was signed.',
    attested
      ? `The key that signed it was made inside the machine of this evidence${judged.result.simulated ? ', which is simulated and proves nothing about hardware' : ''}.`
      : 'Whose key signed it is not known: there is no evidence beside it, so it proves nothing about a machine.',
    ...(attested
      ? [
          `The evidence was judged as of ${isoTime(judged.at)}; all certificates, revocation lists and other endorsements were valid from ${isoTime(judged.result.window.from)} to ${isoTime(judged.result.window.until)}. Revocations that came later were not looked at.`,
        ]
      : []),
    `The model that answered is ${receipt.model.id}, with the SHA-256 ${toHex(receipt.model.sha256)}.`,
    compared.includes('request')
      ? 'The request given is the one that was answered, byte for byte.'
      : 'Which request was answered was not compared.',
    compared.includes('response')
      ? 'The answer given is the one that was sent, byte for byte.'
      : 'Which answer was sent was not compared.',
    '',
    'Not proven: that the answer is true; that no one else read it; who asked; when (the host sets the clock);',
    'that no other answers were made; that the weights are what their name says. Nonce and connection are the',
    "word of the file's maker.",
  ];
}

function isoTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString();
}

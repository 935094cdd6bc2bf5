// The output of an answer as its receipt holds it: an entry for each choice up to 16, one for all above, and
// a receipt that is never too long (docs/receipts.md [R8]).

import { expect, test } from 'vitest';
import { commitment, digestOfParts, MAX_RECEIPT_BYTES, openReceipt } from '@assay/attestation/receipt';
import { Commitments } from '../../../src/receipts/commitments.ts';
import { AnswerOutput } from '../../../src/receipts/output.ts';
import { issuer, sha256 } from '../../fixtures/receipts/issued.ts';

const SALT = new Uint8Array(32).fill(3);

/** Written side by side, in pieces, as engines do. */
function write(output: AnswerOutput, count: number): void {
  for (let i = 0; i < count; i++) output.text(i, `of `);
  for (let i = count - 1; i >= 0; i--) output.text(i, `${i}`);
  for (let i = 0; i < count; i++)
    output.finish(i, { reason: 'length', tokens: i, tokensDigest: sha256(`tokens ${i}`) });
}

test('[R8] 16 choices have an entry each', () => {
  const output = new AnswerOutput();
  write(output, 16);
  expect(output.choices(new Commitments(SALT))).toEqual(
    Array.from({ length: 16 }, (_, i) => ({
      index: i,
      finishReason: 'length',
      tokens: i,
      outputTokens: commitment(SALT, 'outputTokens', sha256(`tokens ${i}`), i),
      outputText: commitment(SALT, 'outputText', sha256(`of ${i}`), i),
    })),
  );
});

test('[R8] 17 choices have one entry for all, which any change of one changes', () => {
  const output = new AnswerOutput();
  write(output, 17);
  const parts = (name: string): Uint8Array =>
    digestOfParts(Array.from({ length: 17 }, (_, i) => sha256(`${name} ${i}`)));
  const entry = {
    index: 0,
    finishReason: null,
    tokens: (16 * 17) / 2,
    outputTokens: commitment(SALT, 'outputTokens', parts('tokens')),
    outputText: commitment(SALT, 'outputText', parts('of')),
  };
  expect(output.choices(new Commitments(SALT))).toEqual([entry]);
  output.text(16, '!');
  expect(output.choices(new Commitments(SALT))).not.toEqual([entry]);
});

test('[R8] 2048 prompts of eight choices with the longest names fit in a receipt', async () => {
  const signer = issuer({ auditHead: () => new Uint8Array(32).fill(9) });
  const receipt = signer.open({
    ask: { mode: 'final', nonce: new Uint8Array(32).fill(1) },
    caller: 'one',
    channel: { kind: 'attested', claims: new Uint8Array(32).fill(1), report: new Uint8Array(32).fill(2) },
    method: 'POST',
    path: `/v1/completions?${'q'.repeat(512 - 16)}`,
  });
  const sha = new Uint8Array(32).fill(5);
  const adapters = Array.from({ length: 8 }, () => ({ sha256: sha, scale: 0.1 }));
  receipt.begin({
    model: { id: 'm'.repeat(128), form: 'manifest', sha256: sha, adapters, template: sha },
    engine: { cpuVariant: 'libggml-cpu-sapphirerapids', threads: 1, replayClass: 0, context: 2, batch: 1 },
  });
  for (let i = 0; i < 2048; i++) receipt.prompt(i, sha256(`${i}`), i);
  write(receipt.output, 2048 * 8);
  const usage = { promptTokens: 2 ** 40, completionTokens: 2 ** 40, cachedTokens: 2 ** 40 };
  const { bytes } = receipt.seal({ status: 200, end: 'complete', body: 'x', usage });
  expect(bytes.length).toBeLessThanOrEqual(MAX_RECEIPT_BYTES);
  expect((await openReceipt(bytes)).outcome.choices).toMatchObject([{ tokens: (16_384 * 16_383) / 2 }]);
});

// GET /v1/receipts/{id}: the receipt of an answer of the last minutes, for the caller it was made for.

import { ApiError } from '../base/errors.ts';
import { object, text } from '../base/shape.ts';
import { unknownUrl } from '../http/errors.ts';
import { route } from '../http/route.ts';

const answer = object({
  receipt: text({ max: 8192, about: 'The receipt (docs/receipts.md §1), base64.' }),
  salt: text({ max: 8192, about: 'The 32 bytes that open its commitments, base64.' }),
});

export const receiptRoute = route({
  method: 'GET',
  path: '/v1/receipts/:id',
  access: 'key',
  limited: true,
  summary: 'The signed receipt of one of the last answers to this key.',
  tag: 'Attestation',
  answer,
  errors: ['no_such_receipt'],
  async handle({ deps, exchange, params }) {
    const { receipts = null, config } = deps;
    // A server that keeps none has no such route.
    if (receipts === null) throw unknownUrl();
    // Without keys every caller is one: the id, which only the answer's reader got, is the secret.
    const owner = config.auth.keys.length === 0 ? undefined : (exchange.principal?.owner ?? '');
    const kept = receipts.kept(params['id'] ?? '', owner);
    if (kept === undefined)
      throw new ApiError('no_such_receipt', 'there is no such receipt, or it is not of this API key');
    const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
    return { receipt: base64(kept.receipt), salt: base64(kept.salt) };
  },
});

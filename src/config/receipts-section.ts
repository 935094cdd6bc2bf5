// Settings of receipts.

import { measured, oneOf } from './fields.ts';

export const receiptsSection = {
  mode: measured(
    oneOf(['on', 'off'], 'whether every answer that computes gets a signed receipt; off: none is made', {
      default: 'on',
    }),
  ),
} as const;

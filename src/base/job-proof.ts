// Bounds of what a registration brings to show which job made its files (docs/workshop.md, "Admission").

import { choice, object, text } from './shape.ts';

/** Characters of a job's record in base64. */
export const MAX_RECORD = 700_000;
/** Characters of its evidence. */
export const MAX_EVIDENCE = 1024 * 1024;

const words = text({ max: 64 });

/** Which job made a registered model. */
export const jobOriginAnswer = object({
  id: words,
  kind: words,
  record_sha256: words,
  receipt_key: words,
  by: choice(['key', 'evidence']),
});

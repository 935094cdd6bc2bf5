// A registration's proof of which job made its files, and its bounds (docs/workshop.md, "Admission").

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

/** The proof a registration brings of which job made its files. */
export interface JobProof {
  /** The record, base64. */
  readonly record: string;
  /** An archive of evidence, JSON. */
  readonly evidence?: string | undefined;
}

/** The files of a folder that a model or an adapter was made of here, by the names they have in it. */
export interface FolderFiles {
  readonly kind: FolderKind;
  readonly files: readonly { readonly name: string; readonly sha256: string }[];
}

/** Which files of a folder are read: of a model, of one that sees, of a PEFT adapter. */
export type FolderKind = 'model' | 'vision' | 'adapter';

// Typed, coded errors of the verifier. One closed list of codes: every rule that can refuse evidence has
// exactly one. `kind` says on which side the fault is and which exit code the command line uses: refused 10,
// unsupported 20, malformed 30, internal 1. Messages are lower case, name the field as the vendor's
// specification does, give expected and actual values, and never carry a secret or a prompt.

import type { Check } from './checks.ts';

/**
 * `refused`: the evidence is bad; `unsupported`: this verifier cannot judge it;
 * `malformed`: it does not parse; `internal`: our fault.
 */
export type AttestationErrorKind = 'refused' | 'unsupported' | 'malformed' | 'internal';

/** A rule's or parser's code: lower snake case, stable once released. The closed list is `codes.ts`. */
export type { AttestationCode } from './codes.ts';
import type { AttestationCode } from './codes.ts';

export interface AttestationErrorDetail {
  /** Id of the check that failed (`S14`, `T10`, `D3` …), when one did. */
  readonly check?: string | undefined;
  readonly expected?: string | undefined;
  readonly actual?: string | undefined;
  /** What the reader can do about it. */
  readonly hint?: string | undefined;
  /** Every check made so far, in order; complete when verification could run to its end. */
  readonly transcript?: readonly Check[] | undefined;
  readonly cause?: unknown;
}

/** Evidence, a document or a connection was not accepted. */
export class AttestationError extends Error {
  override readonly name = 'AttestationError';
  readonly kind: AttestationErrorKind;
  readonly code: AttestationCode;
  readonly check: string | undefined;
  readonly expected: string | undefined;
  readonly actual: string | undefined;
  readonly hint: string | undefined;
  readonly transcript: readonly Check[];

  constructor(
    kind: AttestationErrorKind,
    code: AttestationCode,
    message: string,
    detail: AttestationErrorDetail = {},
  ) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.kind = kind;
    this.code = code;
    this.check = detail.check;
    this.expected = detail.expected;
    this.actual = detail.actual;
    this.hint = detail.hint;
    this.transcript = detail.transcript ?? [];
  }
}

/** The same error with the checks made before it; one that has a transcript of its own keeps that. */
export function withTranscript(error: AttestationError, transcript: readonly Check[]): AttestationError {
  if (error.transcript.length > 0 || transcript.length === 0) return error;
  const { kind, code, message, check, expected, actual, hint } = error;
  return new AttestationError(kind, code, message, {
    check,
    expected,
    actual,
    hint,
    transcript,
    cause: error,
  });
}

/** Bytes that are not what their format says. The caller cannot fix them by changing a policy. */
export function malformed(
  code: AttestationCode,
  message: string,
  detail: AttestationErrorDetail = {},
): AttestationError {
  return new AttestationError('malformed', code, message, detail);
}

/**
 * Well-formed, but of a version, product or algorithm this verifier does not know. Never treated as a pass.
 */
export function unsupported(
  code: AttestationCode,
  message: string,
  detail: AttestationErrorDetail = {},
): AttestationError {
  return new AttestationError('unsupported', code, message, detail);
}

export function refused(
  code: AttestationCode,
  message: string,
  detail: AttestationErrorDetail = {},
): AttestationError {
  return new AttestationError('refused', code, message, detail);
}

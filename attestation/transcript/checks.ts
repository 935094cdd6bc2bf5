// The transcript of a verification: every rule, in order, with what was found. A skip is never a pass.
// Checks of values without an authentic signature are labelled `authenticated: false`.
// A rule is declared once (id, code, source, title); failing it always yields the rule's one code.

import type { AttestationCode } from './codes.ts';

/** `skip`: the rule does not apply or could not be judged; `detail` says why. */
export type CheckStatus = 'pass' | 'fail' | 'skip';

/** One rule of the verifier, declared once as data; docs and tests enumerate these tables. */
export interface Rule {
  /**
   * Stable id: S1–S32 SNP, T1–T28 TDX, E1–E3 event logs, D… document and claims, C…
   * channel and client, P… policy.
   */
  readonly id: string;
  readonly code: AttestationCode;
  /** Where the rule comes from: specification, revision, section. */
  readonly spec: string;
  /** The check in one line that a person can read. */
  readonly title: string;
}

/** One row of a rule table. */
export function rule(id: string, code: AttestationCode, spec: string, title: string): Rule {
  return { id, code, spec, title };
}

/** One rule as it came out for one piece of evidence: an entry of the transcript. */
export interface Check {
  readonly id: string;
  readonly spec: string;
  readonly title: string;
  readonly status: CheckStatus;
  /** The finding; for a failure, expected and actual; for a skip, why it was not made. Never secret. */
  readonly detail: string;
  /** Present on failures only: the rule's code. */
  readonly code?: AttestationCode | undefined;
  readonly expected?: string | undefined;
  readonly actual?: string | undefined;
  /**
   * Present on checks of values that no trusted signature vouches for: whatever the outcome,
   * anyone can have written them.
   */
  readonly authenticated?: false | undefined;
}

/**
 * Rules whose failure follows from that of others. The key of another VEK verifies no signature (S1):
 * where a rule shows that it is of another kind, product, TCB or chip (S8, S10, S14, S16), that
 * failure names the verdict.
 */
const EXPLAINED_BY: ReadonlyMap<string, ReadonlySet<string>> = new Map([
  ['S1', new Set(['S8', 'S10', 'S14', 'S16'])],
]);

/** Collects checks in order. Lives for one verification. */
export class Transcript {
  readonly checks: Check[] = [];

  pass(rule: Rule, detail: string): true {
    this.checks.push({ id: rule.id, spec: rule.spec, title: rule.title, status: 'pass', detail });
    return true;
  }

  /** Records that a rule was not applied, and why. Required rules must `fail` instead. */
  skip(rule: Rule, detail: string): void {
    this.checks.push({ id: rule.id, spec: rule.spec, title: rule.title, status: 'skip', detail });
  }

  fail(
    rule: Rule,
    detail: string,
    values: { expected?: string | undefined; actual?: string | undefined } = {},
  ): false {
    this.checks.push({
      id: rule.id,
      spec: rule.spec,
      title: rule.title,
      status: 'fail',
      detail,
      code: rule.code,
      ...values,
    });
    return false;
  }

  /** Records pass or fail and returns the outcome. */
  expect(
    rule: Rule,
    ok: boolean,
    detail: string,
    values: { expected?: string | undefined; actual?: string | undefined } = {},
  ): boolean {
    return ok ? this.pass(rule, detail) : this.fail(rule, detail, values);
  }

  /**
   * Labels what was recorded from `from` on as read from evidence that is not authentic, but
   * for the rows that found it.
   */
  unauthenticated(provenance: ReadonlySet<string>, from = 0): void {
    for (const [i, check] of this.checks.entries())
      if (i >= from && !provenance.has(check.id)) this.checks[i] = { ...check, authenticated: false };
  }

  /** The failure that names the verdict: the first in order, or the one that explains it. */
  get firstFailure(): Check | undefined {
    const failures = this.checks.filter((check) => check.status === 'fail');
    const [first] = failures;
    const reasons = EXPLAINED_BY.get(first?.id ?? '');
    return failures.find(({ id }) => reasons?.has(id) === true) ?? first;
  }

  get failed(): boolean {
    return this.firstFailure !== undefined;
  }
}

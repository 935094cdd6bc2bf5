// Hints are loaded when something was refused: an application that splits its bundle does not carry advice
// for evidence that is accepted. A refusal is never lost for want of advice: where it cannot be loaded,
// the refusal comes without.

import type { AttestationCode } from '../transcript/codes.ts';

export type HintOf = (code: AttestationCode | undefined) => string | undefined;

export async function hintsOnDemand(): Promise<HintOf> {
  try {
    return (await import('./hints.ts')).hintOf;
  } catch {
    return noHint;
  }
}

export function noHint(): undefined {
  return undefined;
}

// Rewrites hints of the library, which name code, into flags of the command line.

import { AttestationError } from '../../transcript/errors.ts';

const FLAGS: Readonly<Record<string, string>> = {
  allowSimulated: '--allow-simulated',
  allowAnyModel: '--any-model',
};

export function inFlags(text: string): string {
  return text
    .replaceAll(/,? or \[(?:allowSimulated|allowAnyModel)\] in code/g, '')
    .replaceAll(/\(`(\w+)` in code\)/g, (whole, name: string) => (name in FLAGS ? `(${FLAGS[name]})` : whole))
    .replaceAll(/(?:in code, )?\[(\w+)\](?:: true)?/g, (whole, name: string) => FLAGS[name] ?? whole);
}

/** The same error for the command line. */
export function errorInFlags(error: AttestationError): AttestationError {
  if (error.hint === undefined || inFlags(error.hint) === error.hint) return error;
  const { kind, code, message } = error;
  return new AttestationError(kind, code, message, { ...error, hint: inFlags(error.hint), cause: error });
}

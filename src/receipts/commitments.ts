// The commitments of one answer: the salt of each field is derived once, however many checkpoints say it.

import { commitmentBy, type CommittedField, fieldSalt } from '@assay/attestation/receipt';

export class Commitments {
  readonly #salt: Uint8Array;
  readonly #fieldSalts = new Map<string, Uint8Array>();

  constructor(salt: Uint8Array) {
    this.#salt = salt;
  }

  of(field: CommittedField, digest: Uint8Array, choice = 0): Uint8Array {
    const name = `${field} ${choice}`;
    const known = this.#fieldSalts.get(name);
    const fieldSalted = known ?? fieldSalt(this.#salt, field, choice);
    if (known === undefined) this.#fieldSalts.set(name, fieldSalted);
    return commitmentBy(fieldSalted, field, digest, choice);
  }
}

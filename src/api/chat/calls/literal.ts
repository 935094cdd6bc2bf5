// Arguments as one literal that is not JSON.

import type { LiteralCall } from '../../../engine/seam/tool-format.ts';
import type { ArgumentReader } from './argument-reader.ts';
import { LiteralScan } from './literal-scan.ts';

export class LiteralReader implements ArgumentReader {
  readonly #scan: LiteralScan;

  constructor({ form }: LiteralCall) {
    this.#scan =
      form.kind === 'bare' ? new LiteralScan({ quote: form.quote }) : new LiteralScan({ call: true });
  }

  get done(): boolean {
    return this.#scan.done;
  }

  get rest(): string {
    return this.#scan.rest;
  }

  read(text: string): string {
    return this.#scan.read(text);
  }

  /** A word that was held back is left out: how it goes on is not known. */
  cut(): string {
    return '';
  }
}

// `assay-route`: what a balancer may know of a request to choose a replica (docs/sealed.md §8). It is sent in
// the clear, so it is off unless asked for. Equal prefixes show within one client only: their key is its own.

import { hmac } from '@noble/hashes/hmac.js';
import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, toBase64, utf8 } from '../encoding/bytes.ts';
import { paddedLength } from '../sealed/padding.ts';

const PREFIX_BYTES = 1024;
const SHOWN_BYTES = 8;
/** The text of a string in a structured field (RFC 8941 §3.3.3) that needs no escape. */
const PLAIN = /^[\x20\x21\x23-\x5b\x5d-\x7e]{1,200}$/;

export interface HintedRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly model: string | undefined;
  readonly content: Uint8Array;
}

/** Makes the hints of one client. */
export function routeHints(key: Uint8Array = crypto.getRandomValues(new Uint8Array(32))) {
  return ({ method, path, model, content }: HintedRequest): Readonly<Record<string, string>> => {
    const scope = utf8(`${method} ${path} ${model ?? ''}\n`);
    const prefix = hmac(sha256, key, concatBytes(scope, content.subarray(0, PREFIX_BYTES)));
    const parts = [
      `size=${Math.ceil(Math.log2(paddedLength(content.length)))}`,
      `prefix=:${toBase64(prefix.subarray(0, SHOWN_BYTES))}:`,
    ];
    if (model !== undefined && PLAIN.test(model)) parts.unshift(`model="${model}"`);
    return { 'assay-route': parts.join(', ') };
  };
}

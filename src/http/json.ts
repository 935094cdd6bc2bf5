// Request bodies: bytes → JSON value, in bounds. Refuses bytes that are not UTF-8, values that json-scan
// finds too deep or too many, and any `__proto__` key (a spread or assignment of it further in would replace
// a prototype). No part of the body is ever quoted.

import { ApiError } from '../base/errors.ts';
import { openJsonScan } from '../base/json-scan.ts';

const decoder = new TextDecoder('utf-8', { fatal: true });

/** `scanned`: the bytes went through a JsonScan already. */
export function parseBody(bytes: Uint8Array, scanned = false): unknown {
  if (!scanned) openJsonScan().push(bytes);
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new ApiError('invalid_json', 'the request body is not valid UTF-8');
  }
  if ((text.includes('__proto__') || text.includes('\\u')) && PROTO_KEY.test(text)) {
    throw new ApiError('invalid_json', 'the request body has a key named __proto__');
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError('invalid_json', 'the request body is not valid JSON');
  }
}

/**
 * The key `__proto__`, any of its letters spelled out or escaped. No other part of valid JSON looks like it:
 * within a string a quote has a backslash before it, and what follows the quote that ends one is no letter.
 */
const PROTO_KEY = new RegExp(
  `(?<!\\\\)"${[...'__proto__']
    .map(
      (letter) =>
        `(?:${letter}|\\\\u00${letter
          .charCodeAt(0)
          .toString(16)
          .replace(/[a-f]/g, (digit) => `[${digit}${digit.toUpperCase()}]`)})`,
    )
    .join('')}"[ \\t\\n\\r]*:`,
);

// The part that an event plays in the end of its stream (docs/receipts.md §3). Readers differ: some go by the
// name of an event, some by the type in its data, some by how the data begins. An event that one of them takes
// for an end and another for a part, or that says more than an end has to say, could show an end that no
// receipt covers, or text behind the last receipt.

import { recordOf } from './check.ts';

export type EventRole =
  | { readonly role: 'part' }
  /** The last of Responses, covered by the receipt behind it. */
  | { readonly role: 'covered'; readonly failed: boolean }
  /** The one event that may follow the last receipt; the code of an error, undefined of any other end. */
  | { readonly role: 'last'; readonly errorCode: string | undefined }
  /** An end for one reader only, or with more in it than an end. */
  | { readonly role: 'doubtful' };

const PART: EventRole = { role: 'part' };
const DOUBTFUL: EventRole = { role: 'doubtful' };
const DONE = '[DONE]';
const RESPONSES_ENDS = new Set(['response.completed', 'response.incomplete', 'response.failed']);
/** The filler of a padded event stands beside its type. */
const STOP_KEYS = new Set(['type', 'obfuscation']);

export function roleOf(name: string, data: string): EventRole {
  if (data.startsWith(DONE))
    return data === DONE && name === '' ? { role: 'last', errorCode: undefined } : DOUBTFUL;
  const json = recordOf(jsonOf(data));
  const type = typeof json?.['type'] === 'string' ? json['type'] : '';
  if (RESPONSES_ENDS.has(name) || RESPONSES_ENDS.has(type))
    return name === type ? { role: 'covered', failed: name === 'response.failed' } : DOUBTFUL;
  const keys = Object.keys(json ?? {});
  if (name === 'message_stop' || type === 'message_stop') {
    const bare = name === type && keys.every((key) => STOP_KEYS.has(key) && typeof json?.[key] === 'string');
    return bare ? { role: 'last', errorCode: undefined } : DOUBTFUL;
  }
  const error = recordOf(json?.['error']);
  if (name !== 'error' && type !== 'error' && error === undefined) return PART;
  const whole = name === '' ? keys.length === 1 : name === 'error' && type === 'error';
  return whole && error !== undefined ? { role: 'last', errorCode: codeOf(error) } : DOUBTFUL;
}

/** In the words of either API. */
function codeOf(error: Readonly<Record<string, unknown>>): string {
  const code = error['code'] ?? recordOf(error['details'])?.['error_code'];
  return typeof code === 'string' ? code : '';
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// dstack event logs: a JSON list of `{imr, event_type, digest, event, event_payload}` where imr 0–3 are
// RTMR0–RTMR3 and runtime events (type 0x08000001, RTMR3) have the digest SHA-384(type as u32 LE ‖ ":"
// ‖ name ‖ ":" ‖ payload). "Lite" logs leave runtime digests blank: they are computed here, never taken
// on trust. Refuses: anything not of that shape, digests of another size, a blank digest where the
// content does not define it.

import { concatBytes, equalBytes, fromHex, fromUtf8, utf8 } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { type Json, parseJson, shapeReaders } from '../encoding/json.ts';
import { MAX_EVENT_LOG_BYTES, MAX_EVENTS, sha384 } from './tcg.ts';

export const DSTACK_RUNTIME_EVENT = 0x08000001;

const read = shapeReaders('malformed_event_log', { check: 'E3' });

export interface RuntimeEvent {
  readonly index: number;
  /** 0–3: RTMR0–RTMR3. */
  readonly rtmr: number;
  readonly type: number;
  readonly name: string;
  readonly payload: Uint8Array;
  /** As logged; undefined when blank. */
  readonly digest: Uint8Array | undefined;
}

/**
 * Parses a dstack event log (UTF-8 JSON). Throws `malformed_event_log`, `malformed_json` or
 * `input_too_large`.
 */
export function parseRuntimeLog(bytes: Uint8Array): readonly RuntimeEvent[] {
  if (bytes.length > MAX_EVENT_LOG_BYTES) {
    throw malformed('input_too_large', `event log is ${bytes.length} bytes, limit ${MAX_EVENT_LOG_BYTES}`, {
      check: 'E3',
    });
  }
  const list = parseJson(
    fromUtf8(bytes, 'event log', 'malformed_event_log'),
    'event log',
    MAX_EVENT_LOG_BYTES,
  );
  if (Array.isArray(list) && list.length > MAX_EVENTS)
    throw malformed('input_too_large', `event log has ${list.length} events, limit ${MAX_EVENTS}`, {
      check: 'E3',
    });
  return read.list(list, 'event log', 0, MAX_EVENTS).map(runtimeEvent);
}

/** The digest a runtime event must have. */
export async function runtimeDigest(type: number, name: string, payload: Uint8Array): Promise<Uint8Array> {
  const le = Uint8Array.of(type & 0xff, (type >> 8) & 0xff, (type >> 16) & 0xff, (type >>> 24) & 0xff);
  return sha384(concatBytes(le, utf8(':'), utf8(name), utf8(':'), payload));
}

/** Replays the log; `contradicted` lists runtime events whose logged digest is not that of their content. */
export async function replayRuntimeLog(events: readonly RuntimeEvent[]): Promise<{
  readonly registers: readonly Uint8Array[];
  readonly contradicted: readonly RuntimeEvent[];
  readonly hashed: number;
}> {
  const registers = Array.from({ length: 4 }, () => new Uint8Array(48));
  const contradicted: RuntimeEvent[] = [];
  let hashed = 0;
  for (const event of events) {
    const computed =
      event.type === DSTACK_RUNTIME_EVENT
        ? await runtimeDigest(event.type, event.name, event.payload)
        : undefined;
    const digest = computed ?? event.digest;
    if (digest === undefined) throw broken(`event ${event.index} has no digest and is not a runtime event`);
    if (computed !== undefined) hashed += 1;
    if (computed !== undefined && event.digest !== undefined && !equalBytes(computed, event.digest))
      contradicted.push(event);
    registers[event.rtmr] = await sha384(concatBytes(registers[event.rtmr] ?? new Uint8Array(48), digest));
  }
  return { registers, contradicted, hashed };
}

function runtimeEvent(item: Json, index: number): RuntimeEvent {
  const at = `event ${index}`;
  // Other keys are allowed: a log may carry more than the registers need.
  const event = read.record(item, at);
  const text = (key: string): string => read.string(event[key], `${at}: ${key}`, MAX_EVENT_LOG_BYTES);
  const digest = text('digest');
  if (digest.length !== 0 && digest.length !== 96)
    throw broken(`${at}: digest is ${digest.length} digits, expected 96`);
  return {
    index,
    rtmr: read.integer(event['imr'], `${at}: imr`, 0, 3),
    type: read.integer(event['event_type'], `${at}: event_type`, 0, 0xffffffff),
    name: text('event'),
    payload: fromHex(text('event_payload'), `${at}: event_payload`),
    digest: digest === '' ? undefined : fromHex(digest, `${at}: digest`),
  };
}

function broken(message: string): Error {
  return malformed('malformed_event_log', message, { check: 'E3' });
}

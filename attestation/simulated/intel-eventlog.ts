// Writes simulated event logs, CCEL and dstack JSON, together with the RTMRs that replaying them gives.

import { concatBytes, fromHex, toHex, utf8, viewOf } from '../encoding/bytes.ts';
import { DSTACK_RUNTIME_EVENT, runtimeDigest } from '../eventlog/dstack.ts';
import { sha384 } from '../eventlog/tcg.ts';

/**
 * One event of a CCEL log (TCG PC Client Platform Firmware Profile, Event Logging), as
 * {@link buildEventLog} writes it.
 */
export interface SimulatedEvent {
  /** 0–3: RTMR0–RTMR3. */
  readonly rtmr: number;
  readonly type: number;
  readonly data: Uint8Array;
  /** The bytes that are hashed; default the data itself. */
  readonly hashed?: Uint8Array | undefined;
  /** Written instead of the hash. */
  readonly digest?: Uint8Array | undefined;
}

/** An event log and RTMR0 to RTMR3 that it replays to, 48 bytes each. */
export interface SimulatedLog {
  readonly log: Uint8Array;
  readonly rtmrs: readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
}

/**
 * A boot as a strict verifier likes it: a variable, an action, a separator, a GRUB command, a loaded image.
 */
export const SIMULATED_BOOT: readonly SimulatedEvent[] = [
  { rtmr: 0, type: 0x80000001, data: variable('SecureBoot', Uint8Array.of(1)) },
  { rtmr: 0, type: 0x00000004, data: new Uint8Array(4) },
  { rtmr: 1, type: 0x80000007, data: utf8('Calling EFI Application from Boot Option') },
  { rtmr: 1, type: 0x80000003, data: utf8('image'), hashed: utf8('the image itself') },
  { rtmr: 2, type: 0x0000000d, data: utf8('kernel_cmdline: quiet\0'), hashed: utf8('quiet') },
];

/**
 * CCEL bytes with `padding` bytes of 0xff after the last event.
 * @example const { log, rtmrs } = await buildEventLog([{ rtmr: 1, type: 0x80000003, data: bytes }]);
 */
export async function buildEventLog(
  events: readonly SimulatedEvent[] = SIMULATED_BOOT,
  padding = 64,
): Promise<SimulatedLog> {
  const spec = concatBytes(
    utf8('Spec ID Event03\0'),
    fromHex('0000000000020002'),
    le32(1),
    fromHex('0c003000'),
    Uint8Array.of(0),
  );
  const parts = [le32(1), le32(3), new Uint8Array(20), le32(spec.length), spec];
  const rtmrs = registers();
  for (const { rtmr, type, data, hashed = data, digest } of events) {
    const extended = digest ?? (await sha384(hashed));
    parts.push(le32(rtmr + 1), le32(type), le32(1), fromHex('0c00'), extended, le32(data.length), data);
    if (type !== 3) rtmrs[rtmr] = await sha384(concatBytes(rtmrs[rtmr] ?? new Uint8Array(48), extended));
  }
  parts.push(new Uint8Array(padding).fill(0xff));
  return { log: concatBytes(...parts), rtmrs };
}

/** One runtime event of dstack, extended into RTMR3. */
export interface SimulatedRuntimeEvent {
  readonly name: string;
  readonly payload: Uint8Array;
  /** Written instead of the digest of the content; `''` leaves it blank, as "lite" logs do. */
  readonly digest?: string | undefined;
}

/**
 * A dstack JSON log of runtime events in RTMR3.
 * @example const { log, rtmrs } = await buildRuntimeLog([{ name: 'app-id', payload: bytes }]);
 */
export async function buildRuntimeLog(events: readonly SimulatedRuntimeEvent[]): Promise<SimulatedLog> {
  const rtmrs = registers();
  const items: unknown[] = [];
  for (const { name, payload, digest } of events) {
    const computed = await runtimeDigest(DSTACK_RUNTIME_EVENT, name, payload);
    rtmrs[3] = await sha384(concatBytes(rtmrs[3], computed));
    items.push({
      imr: 3,
      event_type: DSTACK_RUNTIME_EVENT,
      digest: digest ?? toHex(computed),
      event: name,
      event_payload: toHex(payload),
    });
  }
  return { log: utf8(JSON.stringify(items)), rtmrs };
}

/** UEFI_VARIABLE_DATA with a zero GUID. */
function variable(name: string, data: Uint8Array): Uint8Array {
  const units = Uint8Array.from({ length: 2 * name.length }, (_, i) =>
    i % 2 === 0 ? name.charCodeAt(i / 2) : 0,
  );
  const lengths = new Uint8Array(16);
  viewOf(lengths).setBigUint64(0, BigInt(name.length), true);
  viewOf(lengths).setBigUint64(8, BigInt(data.length), true);
  return concatBytes(new Uint8Array(16), lengths, units, data);
}

function registers(): [Uint8Array, Uint8Array, Uint8Array, Uint8Array] {
  return [new Uint8Array(48), new Uint8Array(48), new Uint8Array(48), new Uint8Array(48)];
}

function le32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

// The confidential-computing event log (CCEL): TCG PC Client Platform Firmware Profile 1.06 §10 crypto-agile
// format, with the PCR field holding the CC measurement register index of UEFI 2.10 §38.4 (0 MRTD, 1–4
// RTMR0–3). A log is no proof by itself: it is believed only where its SHA-384 replay equals the registers of
// a verified quote, and an event's *text* only where its digest is the hash of that text (a digest does not
// vouch for the words beside it). Refuses: a log without the specification header or SHA-384 bank, unknown
// digest algorithms, lengths past the end.

import { concatBytes, equalBytes, fromUtf8, toHex, utf8, viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';

/** A CCEL is at most this long; firmware reserves 64 or 256 KiB. */
export const MAX_EVENT_LOG_BYTES = 1024 * 1024;
/** More events than any boot makes (those on record have 20 to 45); each costs two or three hashes. */
export const MAX_EVENTS = 1024;

const EV_NO_ACTION = 3;
const SHA_384 = 0x000c;
/** Digest sizes of TCG algorithm ids: SHA-1, SHA-256, SHA-384, SHA-512, SM3. */
const DIGEST_BYTES: ReadonlyMap<number, number> = new Map([
  [0x0004, 20],
  [0x000b, 32],
  [SHA_384, 48],
  [0x000d, 64],
  [0x0012, 32],
]);
const BANK_NAMES: ReadonlyMap<number, string> = new Map([
  [0x000b, 'SHA-256'],
  [SHA_384, 'SHA-384'],
]);
const SIGNATURE = utf8('Spec ID Event03\0');

export interface CcEvent {
  readonly index: number;
  /** CC measurement register: 0 MRTD, 1–4 RTMR0–RTMR3. */
  readonly register: number;
  readonly type: number;
  /** SHA-384 digest extended into the register. */
  readonly digest: Uint8Array;
  readonly data: Uint8Array;
}

/**
 * `hashed`: the digest is the hash of (the named part of) the data. `described`: the data only
 * describes what was hashed.
 */
export type EventContent = 'hashed' | 'described' | 'contradicted';

/**
 * Parses a CCEL. Sub-views share memory with `bytes`; padding after the last event has to be 0xff or 0x00.
 */
export function parseEventLog(bytes: Uint8Array): readonly CcEvent[] {
  return parseTcgLog(bytes, { bank: SHA_384, last: 4 });
}

/** Which digest of each event is read, by TCG algorithm id, and the last register there is. */
export interface LogForm {
  readonly bank: number;
  readonly last: number;
}

/** As `parseEventLog`, for the registers and the bank of a form: a TPM's log has 24 PCRs. */
export function parseTcgLog(bytes: Uint8Array, form: LogForm): readonly CcEvent[] {
  if (bytes.length > MAX_EVENT_LOG_BYTES) {
    throw malformed('input_too_large', `event log is ${bytes.length} bytes, limit ${MAX_EVENT_LOG_BYTES}`, {
      check: 'E1',
    });
  }
  const reader = { ...form, bytes, view: viewOf(bytes), at: 0 };
  specification(reader);
  const events: CcEvent[] = [];
  while (reader.at < bytes.length) {
    if (bytes.length - reader.at < 4 || reader.view.getUint32(reader.at, true) === 0xffffffff) break;
    if (reader.view.getUint32(reader.at, true) === 0 && bytes.subarray(reader.at).every((byte) => byte === 0))
      return events;
    if (events.length === MAX_EVENTS)
      throw malformed('input_too_large', `event log has more than ${MAX_EVENTS} events`, { check: 'E1' });
    events.push(event(reader, events.length));
  }
  const rest = bytes.subarray(reader.at).findIndex((byte) => byte !== 0xff);
  if (rest >= 0) throw broken(`event log has data at ${reader.at + rest}, after its last event`);
  return events;
}

/**
 * Extends every event into its register, as the TDX module does; `[MRTD extensions, RTMR0, RTMR1, RTMR2,
 * RTMR3]`.
 */
export async function replayEventLog(events: readonly CcEvent[]): Promise<readonly Uint8Array[]> {
  const registers = Array.from({ length: 5 }, () => new Uint8Array(48));
  for (const { register, type, digest } of events) {
    if (type === EV_NO_ACTION) continue;
    registers[register] = await sha384(concatBytes(registers[register] ?? new Uint8Array(48), digest));
  }
  return registers;
}

/**
 * Whether the data of an event can be believed once its digest is: see `HASHED_WHOLE` and the exceptions
 * below.
 */
export async function eventContent(event: CcEvent, hash: EventHash = sha384): Promise<EventContent> {
  if (event.type === EV_NO_ACTION) return 'described';
  if (equalBytes(await hash(event.data), event.digest)) return 'hashed';
  const part = hashedPart(event);
  if (part !== undefined && equalBytes(await hash(part), event.digest)) return 'hashed';
  return HASHED_WHOLE.has(event.type) || part !== undefined ? 'contradicted' : 'described';
}

/** A register index and the type's name, for transcripts: `#7 RTMR2 EV_IPL`. */
export function eventName(event: CcEvent): string {
  const type = EVENT_TYPES.get(event.type) ?? `0x${event.type.toString(16)}`;
  return `#${event.index} ${event.register === 0 ? 'MRTD' : `RTMR${event.register - 1}`} ${type}`;
}

/**
 * The event's data as text where it is text, else its first bytes in hex. Only meaningful for `hashed`
 * events.
 */
export function eventText(event: CcEvent): string {
  const end = event.data.length > 0 && event.data.at(-1) === 0 ? event.data.length - 1 : event.data.length;
  const text = event.data.subarray(0, Math.min(end, 256));
  return text.every((byte) => byte >= 0x20 && byte < 0x7f) ? fromUtf8(text) : toHex(text.subarray(0, 32));
}

const EVENT_TYPES: ReadonlyMap<number, string> = new Map([
  [0x00000001, 'EV_POST_CODE'],
  [0x00000003, 'EV_NO_ACTION'],
  [0x00000004, 'EV_SEPARATOR'],
  [0x00000005, 'EV_ACTION'],
  [0x00000006, 'EV_EVENT_TAG'],
  [0x00000008, 'EV_S_CRTM_VERSION'],
  [0x0000000a, 'EV_PLATFORM_CONFIG_FLAGS'],
  [0x0000000d, 'EV_IPL'],
  [0x80000001, 'EV_EFI_VARIABLE_DRIVER_CONFIG'],
  [0x80000002, 'EV_EFI_VARIABLE_BOOT'],
  [0x80000003, 'EV_EFI_BOOT_SERVICES_APPLICATION'],
  [0x80000004, 'EV_EFI_BOOT_SERVICES_DRIVER'],
  [0x80000006, 'EV_EFI_GPT_EVENT'],
  [0x80000007, 'EV_EFI_ACTION'],
  [0x8000000a, 'EV_EFI_PLATFORM_FIRMWARE_BLOB2'],
  [0x8000000b, 'EV_EFI_HANDOFF_TABLES2'],
  [0x8000000c, 'EV_EFI_VARIABLE_BOOT2'],
  [0x800000e0, 'EV_EFI_VARIABLE_AUTHORITY'],
]);

/**
 * Types whose digest the profile defines as the hash of the whole event data (§10.4.1): anything
 * else is a contradiction.
 */
const HASHED_WHOLE: ReadonlySet<number> = new Set([
  0x00000004, 0x00000005, 0x80000001, 0x80000006, 0x80000007, 0x800000e0,
]);
const BOOT_VARIABLES: ReadonlySet<number> = new Set([0x80000002, 0x8000000c]);
/** GRUB logs its commands under these prefixes and hashes what follows, without the final NUL. */
const GRUB_PREFIXES = ['grub_cmd: ', 'kernel_cmdline: ', 'module_cmdline: '].map(utf8);

/** The part of the data that is hashed instead of the whole, where the type or its writer defines one. */
function hashedPart({ type, data }: CcEvent): Uint8Array | undefined {
  if (BOOT_VARIABLES.has(type)) return variableData(data);
  if (type !== 0x0d) return undefined;
  const prefix = GRUB_PREFIXES.find((text) => equalBytes(data.subarray(0, text.length), text));
  if (prefix === undefined) return undefined;
  return data.subarray(prefix.length, data.at(-1) === 0 ? data.length - 1 : data.length);
}

/**
 * VariableData of UEFI_VARIABLE_DATA: GUID 16, name length u64 (UTF-16 units), data length u64, name, data.
 */
function variableData(data: Uint8Array): Uint8Array | undefined {
  if (data.length < 32) return undefined;
  const view = viewOf(data);
  const from = 32n + 2n * view.getBigUint64(16, true);
  if (from + view.getBigUint64(24, true) !== BigInt(data.length)) return undefined;
  return data.subarray(Number(from));
}

/** The digest of a bank. */
export type EventHash = (bytes: Uint8Array) => Uint8Array | Promise<Uint8Array>;

interface Reader extends LogForm {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  at: number;
}

/** The first record is in the old format (SHA-1 digest) and names the digest algorithms of the rest. */
function specification(reader: Reader): void {
  const { bytes, view } = reader;
  need(reader, 32);
  const size = view.getUint32(28, true);
  if (view.getUint32(4, true) !== EV_NO_ACTION)
    throw broken('event log does not start with an EV_NO_ACTION event');
  reader.at = 32;
  need(reader, size);
  const spec = bytes.subarray(32, 32 + size);
  if (spec.length < 29 || !equalBytes(spec.subarray(0, 16), SIGNATURE))
    throw broken('event log does not start with "Spec ID Event03"');
  const algorithms = view.getUint32(32 + 24, true);
  const vendorAt = 28 + 4 * algorithms;
  if (algorithms > 16 || spec.length < vendorAt + 1 || spec.length !== vendorAt + 1 + (spec[vendorAt] ?? 0)) {
    throw broken('event log specification header has the wrong length');
  }
  let listed = false;
  for (let i = 0; i < algorithms; i++) {
    const id = view.getUint16(32 + 28 + 4 * i, true);
    const bytesOf = view.getUint16(32 + 30 + 4 * i, true);
    if (DIGEST_BYTES.get(id) !== bytesOf)
      throw broken(`event log digest algorithm 0x${id.toString(16)} of ${bytesOf} bytes is not known`);
    listed ||= id === reader.bank;
  }
  if (!listed) throw broken(`event log has no ${BANK_NAMES.get(reader.bank)} bank`);
  reader.at = 32 + size;
}

/**
 * TCG_PCR_EVENT2: register u32, type u32, digest count u32, (algorithm u16, digest)…, data length u32, data.
 */
function event(reader: Reader, index: number): CcEvent {
  const { bytes, view } = reader;
  need(reader, 12);
  const register = view.getUint32(reader.at, true);
  const type = view.getUint32(reader.at + 4, true);
  const digests = view.getUint32(reader.at + 8, true);
  if (register > reader.last)
    throw broken(`event ${index} is for register ${register}, expected 0 to ${reader.last}`);
  if (digests > DIGEST_BYTES.size) throw broken(`event ${index} has ${digests} digests`);
  reader.at += 12;
  let digest: Uint8Array | undefined;
  for (let i = 0; i < digests; i++) {
    need(reader, 2);
    const id = view.getUint16(reader.at, true);
    const size = DIGEST_BYTES.get(id);
    if (size === undefined)
      throw broken(`event ${index} has a digest of unknown algorithm 0x${id.toString(16)}`);
    reader.at += 2;
    need(reader, size);
    if (id === reader.bank) {
      if (digest !== undefined) throw broken(`event ${index} has two ${BANK_NAMES.get(id)} digests`);
      digest = bytes.subarray(reader.at, reader.at + size);
    }
    reader.at += size;
  }
  if (digest === undefined) throw broken(`event ${index} has no ${BANK_NAMES.get(reader.bank)} digest`);
  need(reader, 4);
  const size = view.getUint32(reader.at, true);
  reader.at += 4;
  need(reader, size);
  const data = bytes.subarray(reader.at, reader.at + size);
  reader.at += size;
  return { index, register, type, digest, data };
}

function need(reader: Reader, size: number): void {
  const left = reader.bytes.length - reader.at;
  if (left < size) throw broken(`event log ends early: ${size} bytes needed at ${reader.at}, ${left} left`);
}

function broken(message: string): Error {
  return malformed('malformed_event_log', message, { check: 'E1' });
}

/** By WebCrypto: of SHA-2 the verifier carries SHA-256 alone. */
export async function sha384(bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await globalThis.crypto.subtle.digest('SHA-384', bytes as Uint8Array<ArrayBuffer>));
}

// The event log of a TPM (TCG PC Client Platform Firmware Profile 1.06 §10), which is the CCEL's format with
// 24 PCRs. No proof by itself: it explains quoted PCRs that it replays to. Events that are never extended can
// say where the firmware's reference values are (SP800-155 Event3); they are a place to look, and no claim.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes, fromUtf8, isZero, toHex, utf8, viewOf } from '../encoding/bytes.ts';
import { malformed } from '../transcript/errors.ts';
import { type CcEvent, eventContent, type EventContent, type EventHash, parseTcgLog, sha384 } from './tcg.ts';

/** Bank of a PCR, as quotes name it. */
export type PcrBank = 'SHA-256' | 'SHA-384';

const EV_NO_ACTION = 3;
const LAST_PCR = 23;
const BANKS: Readonly<
  Record<PcrBank, { readonly id: number; readonly size: number; readonly hash: EventHash }>
> = {
  'SHA-256': { id: 0x000b, size: 32, hash: sha256 },
  'SHA-384': { id: 0x000c, size: 48, hash: sha384 },
};
const STARTUP_LOCALITY = utf8('StartupLocality\0');
const SP800_155 = utf8('SP800-155 Event3');

/** `register` is the PCR. @throws malformed_event_log, input_too_large */
export function parseTpmLog(bytes: Uint8Array, bank: PcrBank): readonly CcEvent[] {
  return parseTcgLog(bytes, { bank: BANKS[bank].id, last: LAST_PCR });
}

/** Extends every event; values of the PCRs that have events, by index. */
export async function replayTpmLog(
  events: readonly CcEvent[],
  bank: PcrBank,
): Promise<ReadonlyMap<number, Uint8Array>> {
  const { size, hash } = BANKS[bank];
  const pcrs = new Map<number, Uint8Array>();
  let locality = 0;
  for (const { register, type, digest, data } of events) {
    if (type === EV_NO_ACTION) {
      // PCR0 begins with the locality its TPM was started from (§10.4.5.3).
      if (equalBytes(data.subarray(0, 16), STARTUP_LOCALITY)) locality = data[16] ?? 0;
      continue;
    }
    // oxlint-disable-next-line no-await-in-loop -- each extension is over the one before
    pcrs.set(
      register,
      await hash(concatBytes(pcrs.get(register) ?? initial(register, size, locality), digest)),
    );
  }
  return pcrs;
}

/** PCRs 17 to 22 begin with ones, PCR0 ends with the locality, the others are zero. */
function initial(register: number, size: number, locality: number): Uint8Array {
  const value = new Uint8Array(size).fill(register >= 17 && register <= 22 ? 0xff : 0);
  if (register === 0) value[size - 1] = locality;
  return value;
}

/** As `eventContent`, for the bank. */
export function tpmEventContent(event: CcEvent, bank: PcrBank): Promise<EventContent> {
  return eventContent(event, BANKS[bank].hash);
}

/** Where an SP800-155 Event3 says the firmware's reference manifest is. */
export interface ManifestLocator {
  /** Maker and version of the platform's firmware, as it names itself. */
  readonly firmwareMaker: string;
  readonly firmwareVersion: string;
  /** A URI, or the UEFI variable `GUID-name`. */
  readonly locator: { readonly kind: 'uri' | 'variable'; readonly text: string };
}

/** Locators that a log announces: never extended, so never vouched for. @throws malformed_event_log */
export function manifestLocators(events: readonly CcEvent[]): readonly ManifestLocator[] {
  return events
    .filter(({ type, data }) => type === EV_NO_ACTION && equalBytes(data.subarray(0, 16), SP800_155))
    .map(({ data }) => readLocator(data));
}

/** signature 16, vendor u32, GUID 16, four texts, vendor u32, text, locator type u32, length u32, locator. */
function readLocator(data: Uint8Array): ManifestLocator {
  let at = 16 + 4 + 16;
  const take = (size: number): Uint8Array => {
    if (data.length - at < size) throw broken('ends early');
    at += size;
    return data.subarray(at - size, at);
  };
  const number = (): number => viewOf(take(4)).getUint32(0, true);
  const text = (): string => {
    const bytes = take(take(1)[0] ?? 0);
    return fromUtf8(bytes.at(-1) === 0 ? bytes.subarray(0, -1) : bytes, 'text', 'malformed_event_log');
  };
  const [, , , firmwareMaker] = [text(), text(), text(), text()];
  number();
  const firmwareVersion = text();
  const kind = number();
  const place = take(number());
  // The locator of a platform certificate follows; Google's names none.
  if (!isZero(data.subarray(at))) throw broken('has bytes after its locator that are not zero');
  if (kind === 1) {
    const uri = fromUtf8(place.at(-1) === 0 ? place.subarray(0, -1) : place, 'URI', 'malformed_event_log');
    return { firmwareMaker, firmwareVersion, locator: { kind: 'uri', text: uri } };
  }
  if (kind === 3 && place.length >= 16) {
    const guid = guidText(place.subarray(0, 16));
    const name = new TextDecoder('utf-16le').decode(place.subarray(16)).replace(/\0$/, '');
    return { firmwareMaker, firmwareVersion, locator: { kind: 'variable', text: `${guid}-${name}` } };
  }
  throw broken(`has a locator of type ${kind}`);
}

/** Mixed-endian, as UEFI writes it. */
function guidText(bytes: Uint8Array): string {
  const part = (from: number, to: number): string => toHex(bytes.subarray(from, to));
  const reversed = (from: number, to: number): string => toHex(bytes.slice(from, to).toReversed());
  return [reversed(0, 4), reversed(4, 6), reversed(6, 8), part(8, 10), part(10, 16)].join('-');
}

function broken(what: string): Error {
  return malformed('malformed_event_log', `SP800-155 event ${what}`, { check: 'V8' });
}

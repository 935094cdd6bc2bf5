// Google's launch endorsement of the firmware its confidential VMs start with: protobuf
// `{1 serialized_uefi_golden, 2 signature}` around the golden measurement. The signature is over the bytes as
// received, so that they are never encoded again. Refused: a field twice, an unknown field outside the
// signature, groups, varints of more than ten bytes or not the shortest, lengths past the end. Unknown fields
// under the signature are Google's own and change no known one: they are counted.

import { type AttestationError, malformed } from '../transcript/errors.ts';
import { fromUtf8, toHex } from '../encoding/bytes.ts';

export const LAUNCH_ENDORSEMENT_MAX = 64 * 1024;
const LIST_MAX = 1024;

export interface TdxEndorsedLaunch {
  /** Memory of the machine in GiB. */
  readonly ramGib: number;
  readonly earlyAccept: boolean;
  readonly mrTd: Uint8Array;
}

/** The golden measurement: signed only where the signature held. */
export interface LaunchEndorsement {
  /** The signed bytes as received. */
  readonly golden: Uint8Array;
  readonly signature: Uint8Array;
  /** DER certificate of the signing key. */
  readonly certificate: Uint8Array;
  /** SHA-384 of the firmware file. */
  readonly digest: Uint8Array;
  /** PEM; may carry the root, which counts by its digest alone. */
  readonly caBundle: string;
  readonly tdx: { readonly svn: number; readonly launches: readonly TdxEndorsedLaunch[] } | undefined;
  /** Number of vCPUs → MEASUREMENT. */
  readonly snp: { readonly svn: number; readonly measurements: ReadonlyMap<number, Uint8Array> } | undefined;
  /** Fields under the signature that are not known here. */
  readonly unknownFields: number;
}

/** @throws AttestationError malformed `gce_endorsement_form` */
export function parseLaunchEndorsement(bytes: Uint8Array): LaunchEndorsement {
  if (bytes.length > LAUNCH_ENDORSEMENT_MAX) throw broken(`is ${bytes.length} bytes`);
  const outer = readMessage(new Uint8Array(bytes), 'endorsement');
  const golden = outer.bytes(1);
  const signature = outer.bytes(2);
  outer.nothingElse();
  const fields = readMessage(golden, 'golden measurement');
  const [certificate, digest] = [fields.bytes(4), fields.bytes(5)];
  if (digest.length !== 48) throw broken(`has a firmware digest of ${digest.length} bytes`);
  const caBundle = fields.optionalBytes(6);
  const [snp, tdx] = [fields.optionalBytes(7), fields.optionalBytes(8)];
  fields.optionalBytes(1);
  fields.optionalNumber(2);
  fields.optionalBytes(3);
  return {
    golden,
    signature,
    certificate,
    digest,
    caBundle: caBundle === undefined ? '' : fromUtf8(caBundle, 'ca_bundle', 'gce_endorsement_form'),
    snp: snp && readSnp(snp),
    tdx: tdx && readTdx(tdx),
    unknownFields: fields.unknown(),
  };
}

function readTdx(bytes: Uint8Array): LaunchEndorsement['tdx'] {
  const message = readMessage(bytes, 'tdx');
  const launches = message.repeated(2).map((item) => {
    const launch = readMessage(item, 'tdx measurement');
    const ramGib = launch.optionalNumber(1) ?? 0;
    const earlyAccept = launch.optionalNumber(2) === 1;
    const mrTd = launch.bytes(3);
    if (mrTd.length !== 48) throw broken(`has an MRTD of ${mrTd.length} bytes`);
    return { ramGib, earlyAccept, mrTd };
  });
  return { svn: message.optionalNumber(1) ?? 0, launches };
}

function readSnp(bytes: Uint8Array): LaunchEndorsement['snp'] {
  const message = readMessage(bytes, 'sev_snp');
  const measurements = new Map<number, Uint8Array>();
  for (const item of message.repeated(2)) {
    const entry = readMessage(item, 'sev_snp measurement');
    const vcpus = entry.optionalNumber(1) ?? 0;
    const measurement = entry.bytes(2);
    if (measurement.length !== 48) throw broken(`has a MEASUREMENT of ${measurement.length} bytes`);
    if (measurements.has(vcpus)) throw broken(`has a MEASUREMENT for ${vcpus} vCPUs twice`);
    measurements.set(vcpus, measurement);
  }
  return { svn: message.optionalNumber(1) ?? 0, measurements };
}

interface Message {
  bytes(field: number): Uint8Array;
  optionalBytes(field: number): Uint8Array | undefined;
  optionalNumber(field: number): number | undefined;
  repeated(field: number): readonly Uint8Array[];
  /** Fields none of the above has asked for. */
  unknown(): number;
  nothingElse(): void;
}

/** All fields of a message; each is then asked for by its number and type. */
function readMessage(bytes: Uint8Array, name: string): Message {
  const fields = readFields(bytes, name);
  const asked = new Set<number>();
  const only = (field: number): Uint8Array | number | undefined => {
    asked.add(field);
    const values = fields.get(field) ?? [];
    if (values.length > 1) throw broken(`has field ${field} of ${name} ${values.length} times`);
    return values[0];
  };
  const message: Message = {
    optionalBytes(field) {
      const value = only(field);
      if (typeof value === 'number') throw broken(`has a number as field ${field} of ${name}`);
      return value;
    },
    bytes(field) {
      const value = message.optionalBytes(field);
      if (value === undefined || value.length === 0) throw broken(`lacks field ${field} of ${name}`);
      return value;
    },
    optionalNumber(field) {
      const value = only(field);
      if (value instanceof Uint8Array) throw broken(`has bytes as field ${field} of ${name}`);
      return value;
    },
    repeated(field) {
      asked.add(field);
      return (fields.get(field) ?? []).map((value) => {
        if (value instanceof Uint8Array) return value;
        throw broken(`has a number as field ${field} of ${name}`);
      });
    },
    unknown: () => [...fields.keys()].filter((field) => !asked.has(field)).length,
    nothingElse() {
      if (message.unknown() > 0) throw broken(`has an unknown field in ${name}`);
    },
  };
  return message;
}

function readFields(bytes: Uint8Array, name: string): Map<number, (Uint8Array | number)[]> {
  const fields = new Map<number, (Uint8Array | number)[]>();
  const place = { bytes, at: 0, name };
  for (let count = 0; place.at < bytes.length; count++) {
    if (count === LIST_MAX) throw broken(`has more than ${LIST_MAX} fields in ${name}`);
    const tag = varint(place);
    const field = Math.floor(tag / 8);
    if (field === 0) throw broken(`has a field 0 in ${name}`);
    const list = fields.get(field) ?? [];
    list.push(readField(place, tag % 8));
    fields.set(field, list);
  }
  return fields;
}

interface Place {
  readonly bytes: Uint8Array;
  readonly name: string;
  at: number;
}

function readField(place: Place, type: number): Uint8Array | number {
  switch (type) {
    case 0:
      return varint(place);
    case 1:
      return take(place, 8);
    case 2:
      return take(place, varint(place));
    case 5:
      return take(place, 4);
    default:
      throw broken(`has wire type ${type} in ${place.name}`);
  }
}

function take(place: Place, size: number): Uint8Array {
  if (place.bytes.length - place.at < size) throw broken(`ends early in ${place.name}`);
  place.at += size;
  return place.bytes.subarray(place.at - size, place.at);
}

/** Base 128, least first; values past 2^53 − 1 are in no field that is read. */
function varint(place: Place): number {
  let value = 0;
  for (let i = 0; i < 10; i++) {
    const byte = place.bytes[place.at];
    if (byte === undefined) throw broken(`ends early in ${place.name}`);
    place.at += 1;
    value += (byte & 0x7f) * 128 ** i;
    if (byte >= 0x80) continue;
    if ((byte === 0 && i > 0) || !Number.isSafeInteger(value))
      throw broken(`has a wrong varint in ${place.name}`);
    return value;
  }
  throw broken(`has a varint of more than ten bytes in ${place.name}`);
}

function broken(what: string): AttestationError {
  return malformed('gce_endorsement_form', `launch endorsement ${what}`, { check: 'G1' });
}

/** For claims. */
export function endorsementClaims(endorsement: LaunchEndorsement): Readonly<Record<string, unknown>> {
  const { digest, tdx, snp } = endorsement;
  return { firmwareDigest: toHex(digest), firmwareSvn: (tdx ?? snp)?.svn ?? 0 };
}

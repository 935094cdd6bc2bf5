// The report of Azure's paravisor (HCL report, NV index 0x01400001): a header, the CPU's own report, and the
// runtime JSON whose hash that report signs. Refused: any length but 2600 bytes, lengths that do not agree,
// bytes after the JSON that are not zero, kinds not known, JSON with repeated keys or two HCLAkPub. The JSON
// is hashed as it lies there, never written anew.

import { fromUtf8, isZero, toHex } from '../encoding/bytes.ts';
import { parseJson, shapeReaders, type JsonObject } from '../encoding/json.ts';
import { decodeLayout, raw, u32 } from '../encoding/layout.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import type { PublicKeyInfo } from '../x509/public-key.ts';
import { base64Either } from './base64-either.ts';
import { rsaPublicKey } from './quote.ts';

export const HCL_REPORT_BYTES = 2600;

/** Header, CPU report and the header of the runtime data. */
export const HCL_REPORT = {
  signature: raw(0, 4), // "HCLA"
  version: u32(4), // 1 or 2
  reportSize: u32(8), // bytes used: 32 + 1184 + 20 + length of the JSON
  requestType: u32(12), // 2
  status: u32(16), // 0
  reserved: raw(20, 12), // zero
  hwReport: raw(32, 1184), // SNP report, or TDREPORT (1024 bytes) and zeros
  dataSize: u32(1216), // 20 + length of the JSON
  dataVersion: u32(1220), // 1
  reportType: u32(1224), // 2 = SEV-SNP, 4 = TDX
  hashType: u32(1228), // of the JSON: 1 = SHA-256, 2 = SHA-384, 3 = SHA-512
  jsonLength: u32(1232), // bytes of JSON from 1236 on; zeros follow to the end
} as const;
export const HCL_HEADER_BYTES = 1236;

/** The parts of a TDREPORT that the TD quote repeats (Intel TDX Module ABI, TDREPORT_STRUCT). */
export const TD_REPORT = {
  reportData: raw(128, 64), // REPORTDATA
  tdAttributes: raw(512, 8), // ATTRIBUTES
  mrTd: raw(528, 48), // MRTD
  rtmrs: raw(720, 192), // RTMR0 to RTMR3
} as const;
export const TD_REPORT_BYTES = 1024;

export interface HclReport {
  readonly kind: 'snp' | 'tdx';
  /** SNP report of 1184 bytes, or TDREPORT of 1024. */
  readonly hwReport: Uint8Array;
  readonly hash: 'SHA-256' | 'SHA-384' | 'SHA-512';
  readonly json: Uint8Array;
}

const HASHES = { 1: 'SHA-256', 2: 'SHA-384', 3: 'SHA-512' } as const;

/** @throws AttestationError malformed `hcl_length` or `hcl_format` */
export function parseHclReport(bytes: Uint8Array): HclReport {
  if (bytes.length !== HCL_REPORT_BYTES)
    throw wrongLength(`is ${bytes.length} bytes`, HCL_REPORT_BYTES, bytes.length);
  const header = decodeLayout(HCL_REPORT, bytes.subarray(0, HCL_HEADER_BYTES), HCL_HEADER_BYTES, 'HCL');
  const { version, requestType, status, dataVersion, reportType, hashType, jsonLength } = header;
  if (toHex(header.signature) !== '48434c41') throw wrongForm(`begins with ${toHex(header.signature)}`);
  if (version !== 1 && version !== 2) throw wrongForm(`is of version ${version}`);
  if (requestType !== 2 || status !== 0) throw wrongForm(`has request type ${requestType}, status ${status}`);
  if (!isZero(header.reserved)) throw wrongForm('has reserved bytes that are not zero');
  if (dataVersion !== 1) throw wrongForm(`has runtime data of version ${dataVersion}`);
  if (reportType !== 2 && reportType !== 4) throw wrongForm(`has a CPU report of type ${reportType}`);
  if (hashType !== 1 && hashType !== 2 && hashType !== 3) throw wrongForm(`has hash type ${hashType}`);
  const end = HCL_HEADER_BYTES + jsonLength;
  if (jsonLength === 0 || end > bytes.length) throw wrongLength('has a JSON past its end', 1364, jsonLength);
  if (header.dataSize !== 20 + jsonLength)
    throw wrongLength('has another size of runtime data', 20 + jsonLength, header.dataSize);
  if (header.reportSize !== end) throw wrongLength('has another used length', end, header.reportSize);
  if (!isZero(bytes.subarray(end))) throw wrongLength('has bytes after its JSON', 0, bytes.length - end);
  const kind = reportType === 2 ? 'snp' : 'tdx';
  if (kind === 'tdx' && !isZero(header.hwReport.subarray(TD_REPORT_BYTES)))
    throw wrongForm('has bytes after its TDREPORT');
  const hwReport = kind === 'snp' ? header.hwReport : header.hwReport.subarray(0, TD_REPORT_BYTES);
  return { kind, hwReport, hash: HASHES[hashType], json: bytes.subarray(HCL_HEADER_BYTES, end) };
}

/** Hash of the JSON, zero-padded to 64 bytes: what the CPU's REPORT_DATA must be. */
export async function hclReportData({ hash, json }: HclReport): Promise<Uint8Array> {
  const padded = new Uint8Array(64);
  padded.set(new Uint8Array(await crypto.subtle.digest(hash, json as BufferSource)));
  return padded;
}

/** The paravisor's word about the VM; believed only once the CPU signed its hash. */
export interface HclRuntime {
  readonly attestationKey: PublicKeyInfo;
  readonly secureBoot: boolean;
  readonly consoleEnabled: boolean;
  readonly tpmEnabled: boolean;
  /** Undefined where the paravisor does not say. */
  readonly tpmPersisted: boolean | undefined;
  readonly vmUniqueId: string;
  /** 64 bytes the guest wrote to NV index 0x01400002, as bytes: captures differ in case. */
  readonly userData: Uint8Array;
}

const read = shapeReaders('hcl_json', { check: 'Z4' });

/** @throws AttestationError malformed `hcl_json` or `hcl_ak` */
export function readHclRuntime(json: Uint8Array): HclRuntime {
  const object = read.record(parseStrict(json), 'runtime JSON');
  const named = read
    .list(object['keys'], 'keys', 1, 8)
    .map((item, i) => read.record(item, `keys[${i}]`))
    .filter((key) => key['kid'] === 'HCLAkPub');
  const [key] = named;
  if (key === undefined || named.length !== 1)
    throw malformed('hcl_ak', `runtime JSON has ${named.length} keys named HCLAkPub, expected one`, {
      check: 'Z5',
    });
  const configuration = read.record(object['vm-configuration'], 'vm-configuration');
  const flag = (name: string): boolean => read.boolean(configuration[name], `vm-configuration ${name}`);
  const userData = read.string(object['user-data'], 'user-data', 128);
  if (!/^[0-9a-fA-F]{128}$/.test(userData))
    throw malformed('hcl_json', 'user-data is not 64 bytes in hex', { check: 'Z4' });
  return {
    attestationKey: readKey(key),
    secureBoot: flag('secure-boot'),
    consoleEnabled: flag('console-enabled'),
    tpmEnabled: flag('tpm-enabled'),
    tpmPersisted: configuration['tpm-persisted'] === undefined ? undefined : flag('tpm-persisted'),
    vmUniqueId: read.string(configuration['vmUniqueId'], 'vmUniqueId', 64),
    userData: Uint8Array.from(userData.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16)),
  };
}

function parseStrict(json: Uint8Array): unknown {
  try {
    return parseJson(fromUtf8(json, 'runtime JSON'), 'runtime JSON');
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    throw malformed('hcl_json', error.message, { check: 'Z4', cause: error });
  }
}

/** A JSON Web Key (RFC 7517): RSA of 2048 bits or more with the exponent 65537. */
function readKey(key: JsonObject): PublicKeyInfo {
  const text = (name: string): string => {
    const value = key[name];
    if (typeof value === 'string' && value.length <= 2048) return value;
    throw malformed('hcl_ak', `HCLAkPub has no ${name}`, { check: 'Z5' });
  };
  if (text('kty') !== 'RSA' || text('e') !== 'AQAB')
    throw malformed('hcl_ak', 'HCLAkPub is no RSA key with the exponent 65537', { check: 'Z5' });
  const modulus = base64Either(text('n'), 'HCLAkPub n', 'hcl_ak');
  if (modulus.length < 256 || modulus.length > 512)
    throw malformed('hcl_ak', `HCLAkPub has a modulus of ${modulus.length} bytes`, { check: 'Z5' });
  return rsaPublicKey(modulus, Uint8Array.of(1, 0, 1));
}

function wrongForm(what: string): Error {
  return malformed('hcl_format', `HCL report ${what}`, { check: 'Z1' });
}

function wrongLength(what: string, expected: number, actual: number): Error {
  const detail = { check: 'Z2', expected: String(expected), actual: String(actual) };
  return malformed('hcl_length', `HCL report ${what}, expected ${expected}`, detail);
}

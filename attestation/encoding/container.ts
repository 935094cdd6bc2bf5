// Names what a file is when it is not the raw report or quote that was expected: the containers of clouds
// and drivers around one, evidence of another kind, text. The verdict does not depend on it: its sentence
// stands in the refusal, so that the reader knows what to cut out of the file. Layouts: Azure's HCL
// report, AMD's MSG_REPORT_RSP and certificate table, Intel's TDREPORT and quote header, TPMS_ATTEST,
// COSE_Sign1 of AWS Nitro.

import { equalBytes, fromHex, isZero, toHex, viewOf } from './bytes.ts';

const SNP_REPORT_BYTES = 0x4a0;
const HCL_HEADER_BYTES = 32;
const MSG_REPORT_RSP_HEADER_BYTES = 32;
const QUOTE_START = /^(04|05)00020081000000/;
/** Of the VCEK's entry in AMD's certificate table, in the byte order of the wire. */
const VCEK_ENTRY = fromHex('63da758de6644564adc5f4b93be8accd');
/** Inputs are bounded before they come here; a report that is searched for starts within this. */
const MAX_SEARCH_BYTES = 64 * 1024;

/** A sentence that begins with `this is`, or undefined where the file is not recognised. */
export function describeContainer(bytes: Uint8Array): string | undefined {
  return describeText(bytes) ?? describeBinary(bytes) ?? describeInside(bytes);
}

/** The text forms in which evidence travels. */
function describeText(bytes: Uint8Array): string | undefined {
  const start = new TextDecoder('latin1').decode(bytes.subarray(0, 256)).trimStart();
  if (start.startsWith('-----BEGIN')) return 'this is PEM, and the raw bytes are expected';
  if (start.startsWith('{')) return 'this is JSON, and the raw bytes are expected';
  if (start.startsWith('eyJ')) return 'this is a JSON Web Token, as attestation services issue them';
  if (start.length < 64) return undefined;
  if (/^[0-9a-fA-F\r\n]+$/.test(start)) return 'this is hex text: encode the bytes it stands for';
  if (/^[A-Za-z0-9+/_\r\n-]+$/.test(start)) return 'this is base64 text, encoded a second time';
  return undefined;
}

function describeBinary(bytes: Uint8Array): string | undefined {
  const hex = startOf(bytes);
  if (hex.startsWith('48434c41')) return describeHcl(bytes);
  if (hex.startsWith('84') && /^84(58..|4.)a1013822/.test(hex))
    return 'this is a document of AWS Nitro (COSE_Sign1), not evidence of the processor itself';
  if (hex.startsWith('ff544347'))
    return 'this is a TPM quote (TPMS_ATTEST), not evidence of the processor itself';
  if (hex.startsWith('1f8b')) return 'this is compressed with gzip';
  if (equalBytes(bytes.subarray(0, 16), VCEK_ENTRY))
    return "this is AMD's certificate table, which comes beside a report";
  if (bytes.length === 1024 && hex.startsWith('81'))
    return 'this is a TDREPORT, which only the machine that made it can check: have it made into a quote';
  if (hex.startsWith('0300')) return 'this is an SGX quote of version 3';
  if (QUOTE_START.test(hex)) return `this is a TDX quote of version ${hex[1]}`;
  return undefined;
}

/** Azure, NV index 0x01400001: header, report (or TDREPORT), the JSON it vouches for, zeros to its end. */
function describeHcl(bytes: Uint8Array): string {
  const kind = bytes.length >= 1228 ? viewOf(bytes).getUint32(1224, true) : 0;
  const inside: Readonly<Record<number, string>> = {
    2: `its SEV-SNP report is at bytes ${HCL_HEADER_BYTES} to ${HCL_HEADER_BYTES + SNP_REPORT_BYTES}`,
    4: 'it holds a TDREPORT, and the quote made from that is needed',
  };
  return `this is an Azure HCL report (${bytes.length} bytes, "HCLA"): ${inside[kind] ?? 'it names no technology that is known'}`;
}

/** The expected report or quote with other bytes around it. */
function describeInside(bytes: Uint8Array): string | undefined {
  if (bytes.length >= 40 && bytes.length < SNP_REPORT_BYTES && isReportStart(bytes, 0))
    return `this is the beginning of a SEV-SNP report: ${SNP_REPORT_BYTES - bytes.length} bytes are missing`;
  if (bytes.length === SNP_REPORT_BYTES && isReportStart(bytes, 0)) return 'this is a SEV-SNP report';
  const at = reportAt(bytes);
  if (at !== undefined) return describeReportInside(bytes, at);
  const quote = quoteAt(bytes);
  return quote === undefined
    ? undefined
    : `this is a container that is not known: a TDX quote seems to start at byte ${quote}`;
}

function describeReportInside(bytes: Uint8Array, at: number): string {
  const end = at + SNP_REPORT_BYTES;
  const rest = bytes.subarray(end);
  if (at === 0 && isZero(rest))
    return `this is a SEV-SNP report padded with ${rest.length} zero bytes: cut them off`;
  if (at === 0) return `this is a SEV-SNP report followed by ${rest.length} other bytes: cut them off`;
  if (at === MSG_REPORT_RSP_HEADER_BYTES && viewOf(bytes).getUint32(4, true) === SNP_REPORT_BYTES)
    return `this is the firmware's answer MSG_REPORT_RSP (as /dev/sev-guest gives it): its report is at bytes ${at} to ${end}`;
  return `this is a container that is not known: a SEV-SNP report seems to be at bytes ${at} to ${end}`;
}

function reportAt(bytes: Uint8Array): number | undefined {
  const last = Math.min(bytes.length, MAX_SEARCH_BYTES) - SNP_REPORT_BYTES;
  for (let at = 0; at <= last; at++) if (isReportStart(bytes, at) && isReportEnd(bytes, at)) return at;
  return undefined;
}

/** VERSION 2 to 5, and further a VMPL or the host's mark, SIGNATURE_ALGO 1. */
function isReportStart(bytes: Uint8Array, at: number): boolean {
  const version = bytes[at] ?? 0;
  if (version < 2 || version > 5 || bytes.length < at + 0x38) return false;
  const view = viewOf(bytes);
  const vmpl = view.getUint32(at + 0x30, true);
  return (
    view.getUint32(at, true) === version &&
    (vmpl <= 3 || vmpl === 0xffff_ffff) &&
    view.getUint32(at + 0x34, true) === 1
  );
}

/** The bytes after R and S are zero. */
function isReportEnd(bytes: Uint8Array, at: number): boolean {
  return isZero(bytes.subarray(at + 0x330, at + SNP_REPORT_BYTES));
}

function quoteAt(bytes: Uint8Array): number | undefined {
  const last = Math.min(bytes.length, MAX_SEARCH_BYTES) - 48;
  for (let at = 1; at <= last; at++) {
    if ((bytes[at] === 4 || bytes[at] === 5) && QUOTE_START.test(startOf(bytes.subarray(at)))) return at;
  }
  return undefined;
}

function startOf(bytes: Uint8Array): string {
  return toHex(bytes.subarray(0, 16));
}

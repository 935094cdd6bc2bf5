// Intel TDX quotes, version 4 and 5 (Intel TDX DCAP Quoting Library API, Appendix A: header, TD quote body
// 1.0 and 1.5, ECDSA-256 quote signature data, certification data). Each structure is declared once as a
// table of offsets. Refuses: other versions, other attestation key types, SGX quotes, certification data it
// has no use for, and any inner length that does not consume exactly what the length around it gives. Bytes
// after the signature data are handed on.

import { isZero, toHex, viewOf } from '../encoding/bytes.ts';
import { describeContainer } from '../encoding/container.ts';
import { malformed, unsupported } from '../transcript/errors.ts';
import { decodeLayout, raw, u16, u32, type Decoded } from '../encoding/layout.ts';

/** A quote longer than this is refused before anything else: real ones are 5 to 8 kB. */
const MAX_QUOTE_BYTES = 64 * 1024;

export const QUOTE_HEADER = {
  version: u16(0), // quote format version, 4 or 5
  attestationKeyType: u16(2), // 2 = ECDSA-256 with P-256
  teeType: u32(4), // 0x81 = TDX
  reserved: raw(8, 4), // zero for TDX
  qeVendorId: raw(12, 16), // 939a7233f79c4ca9940a0db3957f0607 = Intel
  userData: raw(28, 20), // chosen by the quoting enclave
} as const;
export const QUOTE_HEADER_BYTES = 48;

const TD_10 = {
  teeTcbSvn: raw(0, 16), // TEE_TCB_SVN when the TD was launched: module svn, module version, microcode …
  mrSeam: raw(16, 48), // measurement of the TDX module
  mrSignerSeam: raw(64, 48), // signer of the TDX module; zero for Intel
  seamAttributes: raw(112, 8), // attributes of the TDX module; zero
  tdAttributes: raw(120, 8), // TD attributes, little-endian bit field
  xfam: raw(128, 8), // extended features available to the TD, little-endian bit field
  mrTd: raw(136, 48), // measurement of the initial contents of the TD
  mrConfigId: raw(184, 48), // software-defined, non-owner configuration
  mrOwner: raw(232, 48), // software-defined owner
  mrOwnerConfig: raw(280, 48), // software-defined owner configuration
  rtmr0: raw(328, 48), // run-time measurement register 0: firmware configuration
  rtmr1: raw(376, 48), // run-time measurement register 1: boot loader and kernel
  rtmr2: raw(424, 48), // run-time measurement register 2: operating system
  rtmr3: raw(472, 48), // run-time measurement register 3: application
  reportData: raw(520, 64), // REPORTDATA
} as const;

const TD_BODY_10 = TD_10;
export const TD_BODY_10_BYTES = 584;
export const TD_BODY_15 = {
  ...TD_10,
  teeTcbSvn2: raw(584, 16), // TEE_TCB_SVN of the module now running (TD-preserving update)
  mrServiceTd: raw(600, 48), // measurement of the service TDs bound to this TD
} as const;
export const TD_BODY_15_BYTES = 648;

/** The quoting enclave's own SGX report. */
export const QE_REPORT = {
  cpuSvn: raw(0, 16), // CPUSVN
  miscSelect: u32(16), // MISCSELECT
  attributes: raw(48, 16), // ATTRIBUTES
  mrEnclave: raw(64, 32), // MRENCLAVE
  mrSigner: raw(128, 32), // MRSIGNER
  isvProdId: u16(256), // ISVPRODID
  isvSvn: u16(258), // ISVSVN
  reportData: raw(320, 64), // SHA-256(attestation key ‖ QE authentication data) ‖ zero
} as const;
export const QE_REPORT_BYTES = 384;

type QuoteHeader = Decoded<typeof QUOTE_HEADER>;
type TdBody10 = Decoded<typeof TD_BODY_10>;
export type TdBody = TdBody10 & Partial<Decoded<typeof TD_BODY_15>>;
export type QeReport = Decoded<typeof QE_REPORT>;

export interface TdxQuote {
  readonly version: 4 | 5;
  /** 2 = TD 1.0 body, 3 = TD 1.5 body (version 4 quotes always have the former). */
  readonly bodyType: 2 | 3;
  readonly header: QuoteHeader;
  readonly body: TdBody;
  /** The raw bytes the attestation key signs: header, body descriptor (version 5) and body. */
  readonly signed: Uint8Array;
  /** r ‖ s, 64 bytes. */
  readonly signature: Uint8Array;
  /** x ‖ y, 64 bytes. */
  readonly attestationKey: Uint8Array;
  readonly qeReport: QeReport;
  /** The 384 bytes the PCK signs. */
  readonly qeReportBytes: Uint8Array;
  readonly qeReportSignature: Uint8Array;
  readonly qeAuthData: Uint8Array;
  /**
   * 5: `certificationData` is the PCK chain in PEM, leaf first. 1–4 identify a PCK the verifier must be
   * given.
   */
  readonly certificationType: number;
  readonly certificationData: Uint8Array;
  /** Bytes after the signature data: unauthenticated, never read. */
  readonly trailing: Uint8Array;
}

/**
 * Parses a raw TDX quote. Sub-views share memory with `bytes`. Throws `malformed` or
 * `unsupported` errors only.
 */
export function parseTdxQuote(bytes: Uint8Array): TdxQuote {
  if (bytes.length > MAX_QUOTE_BYTES) {
    throw malformed('input_too_large', `quote is ${bytes.length} bytes, limit ${MAX_QUOTE_BYTES}`);
  }
  const header = decodeLayout(
    QUOTE_HEADER,
    take(bytes, 0, QUOTE_HEADER_BYTES, 'quote header'),
    QUOTE_HEADER_BYTES,
    'quote header',
  );
  const version = header.version;
  if (version !== 4 && version !== 5)
    throw unsupportedQuote(bytes, `quote version is ${version}`, '4 or 5', version);
  if (header.teeType !== 0x81)
    throw unsupportedQuote(bytes, `TEE type is 0x${header.teeType.toString(16)}`, '0x81', header.teeType);
  if (header.attestationKeyType !== 2) {
    const what = `attestation key type is ${header.attestationKeyType}`;
    throw unsupportedQuote(bytes, what, '2 (ECDSA P-256)', header.attestationKeyType);
  }
  const { bodyType, bodyAt, bodyBytes } =
    version === 4
      ? ({ bodyType: 2, bodyAt: 48, bodyBytes: TD_BODY_10_BYTES } as const)
      : bodyDescriptor(bytes);
  const bodyRaw = take(bytes, bodyAt, bodyBytes, 'TD quote body');
  const body: TdBody =
    bodyType === 2
      ? decodeLayout(TD_BODY_10, bodyRaw, TD_BODY_10_BYTES, 'TD quote body')
      : decodeLayout(TD_BODY_15, bodyRaw, TD_BODY_15_BYTES, 'TD quote body');
  const authAt = bodyAt + bodyBytes;
  const authBytes = viewOf(take(bytes, authAt, 4, 'quote signature data length')).getUint32(0, true);
  if (authBytes > bytes.length - authAt - 4) {
    throw malformed(
      'tdx_signature_data',
      `quote signature data length is ${authBytes}, ${bytes.length - authAt - 4} bytes remain`,
      {
        check: 'T3',
        expected: `at most ${bytes.length - authAt - 4}`,
        actual: String(authBytes),
      },
    );
  }
  return {
    version,
    bodyType,
    header,
    body,
    signed: bytes.subarray(0, authAt),
    ...signatureData(bytes.subarray(authAt + 4, authAt + 4 + authBytes)),
    trailing: bytes.subarray(authAt + 4 + authBytes),
  };
}

/**
 * The fields of a quote that are safe to print, in hex: the TD's measurements and registers
 * as the quote gives them.
 */
export function quoteClaims(quote: TdxQuote): Record<string, unknown> {
  const { body } = quote;
  return {
    quoteVersion: quote.version,
    bodyType: quote.bodyType,
    teeTcbSvn: toHex(body.teeTcbSvn),
    mrSeam: toHex(body.mrSeam),
    mrSignerSeam: toHex(body.mrSignerSeam),
    seamAttributes: toHex(body.seamAttributes),
    tdAttributes: toHex(body.tdAttributes),
    xfam: toHex(body.xfam),
    mrTd: toHex(body.mrTd),
    mrConfigId: toHex(body.mrConfigId),
    mrOwner: toHex(body.mrOwner),
    mrOwnerConfig: toHex(body.mrOwnerConfig),
    rtmr0: toHex(body.rtmr0),
    rtmr1: toHex(body.rtmr1),
    rtmr2: toHex(body.rtmr2),
    rtmr3: toHex(body.rtmr3),
    reportData: toHex(body.reportData),
    ...(body.teeTcbSvn2 === undefined ? {} : { teeTcbSvn2: toHex(body.teeTcbSvn2) }),
    ...(body.mrServiceTd === undefined ? {} : { mrServiceTd: toHex(body.mrServiceTd) }),
    trailingBytes: quote.trailing.length,
    trailingBytesZero: isZero(quote.trailing),
  };
}

/** Version 5 puts a type and a size before the body; the two have to agree (T2). */
function bodyDescriptor(bytes: Uint8Array): {
  readonly bodyType: 2 | 3;
  readonly bodyAt: number;
  readonly bodyBytes: number;
} {
  const view = viewOf(take(bytes, QUOTE_HEADER_BYTES, 6, 'quote body descriptor'));
  const bodyType = view.getUint16(0, true);
  const size = view.getUint32(2, true);
  if (bodyType !== 2 && bodyType !== 3) {
    throw unsupported(
      'tdx_body_descriptor',
      `quote body type is ${bodyType}, expected 2 (TD 1.0) or 3 (TD 1.5)`,
      {
        check: 'T2',
        expected: '2 or 3',
        actual: String(bodyType),
      },
    );
  }
  const expected = bodyType === 2 ? TD_BODY_10_BYTES : TD_BODY_15_BYTES;
  if (size !== expected) {
    throw malformed(
      'tdx_body_descriptor',
      `quote body size is ${size}, expected ${expected} for body type ${bodyType}`,
      {
        check: 'T2',
        expected: String(expected),
        actual: String(size),
      },
    );
  }
  return { bodyType, bodyAt: QUOTE_HEADER_BYTES + 6, bodyBytes: expected };
}

type SignatureData = Omit<TdxQuote, 'version' | 'bodyType' | 'header' | 'body' | 'signed' | 'trailing'>;

/**
 * ECDSA-256 quote signature data of version 4: signature, key, then certification data of type
 * 6 around everything else.
 */
function signatureData(bytes: Uint8Array): SignatureData {
  const outer = certification(bytes, 128, 'certification data');
  if (outer.type !== 6) {
    throw unsupported(
      'tdx_certification_data',
      `certification data type is ${outer.type}, expected 6 (QE report)`,
      {
        check: 'T6',
        expected: '6',
        actual: String(outer.type),
      },
    );
  }
  const inside = outer.data;
  const qeReportBytes = take(inside, 0, QE_REPORT_BYTES, 'QE report');
  const authBytes = viewOf(take(inside, 448, 2, 'QE authentication data length')).getUint16(0, true);
  const qeAuthData = take(inside, 450, authBytes, 'QE authentication data');
  const inner = certification(inside, 450 + authBytes, 'QE certification data');
  if (inner.type < 1 || inner.type > 5) {
    throw unsupported(
      'tdx_certification_data',
      `QE certification data type is ${inner.type}, expected 5 (PCK certificate chain)`,
      {
        check: 'T6',
        expected: '5',
        actual: String(inner.type),
      },
    );
  }
  return {
    signature: take(bytes, 0, 64, 'quote signature'),
    attestationKey: take(bytes, 64, 64, 'attestation key'),
    qeReport: decodeLayout(QE_REPORT, qeReportBytes, QE_REPORT_BYTES, 'QE report'),
    qeReportBytes,
    qeReportSignature: take(inside, 384, 64, 'QE report signature'),
    qeAuthData,
    certificationType: inner.type,
    certificationData: inner.data,
  };
}

/** A type, a length and data that has to end exactly where `bytes` ends (T3). */
function certification(
  bytes: Uint8Array,
  at: number,
  name: string,
): { readonly type: number; readonly data: Uint8Array } {
  const view = viewOf(take(bytes, at, 6, `${name} header`));
  const size = view.getUint32(2, true);
  if (size !== bytes.length - at - 6) {
    throw malformed(
      'tdx_signature_data',
      `${name} size is ${size}, ${bytes.length - at - 6} bytes are left for it`,
      {
        check: 'T3',
        expected: String(bytes.length - at - 6),
        actual: String(size),
      },
    );
  }
  return { type: view.getUint16(0, true), data: bytes.subarray(at + 6) };
}

function take(bytes: Uint8Array, at: number, size: number, name: string): Uint8Array {
  if (bytes.length - at < size) {
    throw malformed(
      'malformed_length',
      `quote ends inside the ${name}: ${Math.max(0, bytes.length - at)} of ${size} bytes`,
      {
        check: 'T3',
      },
    );
  }
  return bytes.subarray(at, at + size);
}

/** Another thing than a quote is named for what it is. */
function unsupportedQuote(bytes: Uint8Array, what: string, expected: string, actual: number): Error {
  const container = describeContainer(bytes);
  const message = `${what}, expected ${expected}${container === undefined ? '' : `: ${container}`}`;
  return unsupported('tdx_quote_unsupported', message, { check: 'T1', expected, actual: String(actual) });
}

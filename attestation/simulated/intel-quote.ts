// Writes and signs simulated TDX quotes, version 4 and 5, TD 1.0 and 1.5 bodies, with any field: re-signed
// by default, so that a wrong value is met by the rule for that value and not by a signature; `damage`
// breaks bytes after signing.

import { concatBytes, fromHex, utf8, viewOf } from '../encoding/bytes.ts';
import { encodeLayout, type Decoded } from '../encoding/layout.ts';
import {
  QE_REPORT,
  QE_REPORT_BYTES,
  QUOTE_HEADER,
  QUOTE_HEADER_BYTES,
  TD_BODY_15,
  TD_BODY_10_BYTES,
  TD_BODY_15_BYTES,
} from '../tdx/quote.ts';
import { signRaw, type IssuerKey } from './issue.ts';

/** Fields of a quote; an absent one has its regular value. */
export interface SimulatedQuote extends Partial<Decoded<typeof TD_BODY_15>> {
  /** Default 4; anything else is written with the layout of 5. */
  readonly version?: number | undefined;
  /** Default 2 for version 4, 3 for version 5. */
  readonly bodyType?: number | undefined;
  /** The size in the descriptor of version 5; default the true one. */
  readonly bodySize?: number | undefined;
  readonly header?: Partial<Decoded<typeof QUOTE_HEADER>> | undefined;
  readonly qeReport?: Partial<Decoded<typeof QE_REPORT>> | undefined;
  readonly qeAuthData?: Uint8Array | undefined;
  /** Default 6. */
  readonly outerCertificationType?: number | undefined;
  /** Default 5, with the PCK chain in PEM and a final NUL. */
  readonly certificationType?: number | undefined;
  readonly certificationData?: Uint8Array | undefined;
  /** Default none. */
  readonly trailing?: Uint8Array | undefined;
  /** Signs header and body; default the attestation key the QE vouches for. */
  readonly signer?: IssuerKey | undefined;
  /** Signs the QE report; default the PCK. */
  readonly qeSigner?: IssuerKey | undefined;
  /** The key placed in the quote and hashed by the QE; 64 bytes. Default that of the attestation key. */
  readonly attestationKey?: Uint8Array | undefined;
  /** Called on header, descriptor and body before they are signed. */
  readonly change?: ((signed: Uint8Array) => void) | undefined;
  /** Called on the whole quote after everything is signed. */
  readonly damage?: ((quote: Uint8Array) => void) | undefined;
}

/** The keys that sign a quote: the attestation key its body, the PCK the QE report. */
export interface QuoteKeys {
  readonly attestation: IssuerKey;
  readonly pck: IssuerKey;
}

/** The fields of a quote unless others are given. */
export interface QuoteDefaults {
  readonly teeTcbSvn: Uint8Array;
  readonly qe: Partial<Decoded<typeof QE_REPORT>>;
  readonly chainPem: string;
}

/** XFAM of a simulated TD: 8 bytes, little-endian. */
export const SIMULATED_XFAM = fromHex('e702060000000000');
/** SEPT_VE_DISABLE. */
export const SIMULATED_TD_ATTRIBUTES = fromHex('0000001000000000');

/**
 * A TD quote of version 4 or 5, signed as Intel's quoting enclave signs (Intel TDX DCAP quote format, A.3).
 * @example const quote = await signSimulatedQuote({ reportData: bytes }, defaults, { attestation: key, pck: key });
 */
export async function signSimulatedQuote(
  fields: SimulatedQuote,
  defaults: QuoteDefaults,
  keys: QuoteKeys,
): Promise<Uint8Array> {
  const version = fields.version ?? 4;
  const bodyType = fields.bodyType ?? (version === 4 ? 2 : 3);
  const header = encodeLayout(
    QUOTE_HEADER,
    {
      version,
      attestationKeyType: 2,
      teeType: 0x81,
      qeVendorId: fromHex('939a7233f79c4ca9940a0db3957f0607'),
      ...fields.header,
    },
    QUOTE_HEADER_BYTES,
  );
  const { version: _v, bodyType: _b, bodySize, header: _h, qeReport: _q, ...rest } = fields;
  const values = {
    teeTcbSvn: defaults.teeTcbSvn,
    teeTcbSvn2: defaults.teeTcbSvn,
    tdAttributes: SIMULATED_TD_ATTRIBUTES,
    xfam: SIMULATED_XFAM,
    ...rest,
  };
  const body = encodeLayout(TD_BODY_15, values, TD_BODY_15_BYTES).subarray(
    0,
    bodyType === 2 ? TD_BODY_10_BYTES : TD_BODY_15_BYTES,
  );
  const descriptor =
    version === 4 ? new Uint8Array() : concatBytes(le16(bodyType), le32(bodySize ?? body.length));
  const signed = concatBytes(header, descriptor, body);
  fields.change?.(signed);

  const attestationKey = fields.attestationKey ?? point(keys.attestation);
  const qeAuthData = fields.qeAuthData ?? Uint8Array.from({ length: 32 }, (_, i) => i);
  const bound = new Uint8Array(
    await crypto.subtle.digest('SHA-256', concatBytes(attestationKey, qeAuthData) as BufferSource),
  );
  const qeReport = encodeLayout(
    QE_REPORT,
    { ...defaults.qe, reportData: concatBytes(bound, new Uint8Array(32)), ...fields.qeReport },
    QE_REPORT_BYTES,
  );
  const certificationData = fields.certificationData ?? utf8(`${defaults.chainPem}\0`);
  const inner = concatBytes(
    qeReport,
    await signRaw(fields.qeSigner ?? keys.pck, qeReport),
    le16(qeAuthData.length),
    qeAuthData,
    le16(fields.certificationType ?? 5),
    le32(certificationData.length),
    certificationData,
  );
  const auth = concatBytes(
    await signRaw(fields.signer ?? keys.attestation, signed),
    attestationKey,
    le16(fields.outerCertificationType ?? 6),
    le32(inner.length),
    inner,
  );
  const quote = concatBytes(signed, le32(auth.length), auth, fields.trailing ?? new Uint8Array());
  fields.damage?.(quote);
  return quote;
}

/**
 * x ‖ y of an EC key: what follows the 04 at the end of its SubjectPublicKeyInfo.
 * @example const xy = point(await generateEcKey('P-256'));
 */
export function point(key: IssuerKey): Uint8Array {
  return key.spki.subarray(key.spki.length - 64);
}

function le16(value: number): Uint8Array {
  const bytes = new Uint8Array(2);
  viewOf(bytes).setUint16(0, value, true);
  return bytes;
}

function le32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value, true);
  return bytes;
}

// Rules on the quote itself and on the certificate of its platform: T1 to T6 and T11. Checks of the parser
// are recorded; checks it left open are made here.

import { sha256 } from '@noble/hashes/sha2.js';
import { concatBytes, equalBytes, isZero, toHex } from '../encoding/bytes.ts';
import type { Transcript } from '../transcript/checks.ts';
import { AttestationError } from '../transcript/errors.ts';
import { parsePckExtensions, SGX_EXTENSIONS_OID, type PckExtensions } from './pck.ts';
import type { TdxQuote } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';

/**
 * T1 to T6: whether the quote is signed by a key that a QE report vouches for, and that report by the PCK.
 */
export function checkQuoteForm({ quote, signatures }: TdxSubject, transcript: Transcript): boolean {
  checkShape(quote, transcript);
  const quoteHolds = transcript.expect(
    TDX_RULES.quoteSignature,
    signatures.quote,
    signatureText('header and body', signatures.quote, 'the attestation key'),
  );
  const keyHolds = checkAttestationKey(quote, transcript);
  const qeHolds = transcript.expect(
    TDX_RULES.qeSignature,
    signatures.qeReport,
    signatureText('QE report', signatures.qeReport, 'the PCK'),
  );
  return quoteHolds && keyHolds && qeHolds;
}

const INTEL_QE_VENDOR = '939a7233f79c4ca9940a0db3957f0607';

/** T1 to T3. */
function checkShape(quote: TdxQuote, transcript: Transcript): void {
  const vendor = toHex(quote.header.qeVendorId);
  const headerOk = vendor === INTEL_QE_VENDOR && isZero(quote.header.reserved);
  transcript.expect(
    TDX_RULES.header,
    headerOk,
    `version ${quote.version}, ECDSA P-256, TDX, QE vendor ${vendor}, reserved ${toHex(quote.header.reserved)}`,
    {
      expected: INTEL_QE_VENDOR,
      actual: vendor,
    },
  );
  transcript.pass(TDX_RULES.body, `body type ${quote.bodyType} (TD ${quote.bodyType === 2 ? '1.0' : '1.5'})`);
  transcript.pass(TDX_RULES.signatureData, 'all lengths consume exactly their bytes');
  const zero = isZero(quote.trailing);
  transcript.expect(
    TDX_RULES.trailing,
    zero,
    quote.trailing.length === 0
      ? 'none'
      : `${quote.trailing.length} bytes, ${zero ? 'all zero' : 'not all zero'}`,
  );
}

/** T5. The hash covers exactly the 64 key bytes and the authentication data; the second half is zero. */
function checkAttestationKey(quote: TdxQuote, transcript: Transcript): boolean {
  const { reportData } = quote.qeReport;
  const bound = sha256(concatBytes(quote.attestationKey, quote.qeAuthData));
  return transcript.expect(
    TDX_RULES.attestationKey,
    equalBytes(reportData.subarray(0, 32), bound) && isZero(reportData.subarray(32)),
    'QE REPORTDATA against SHA-256(attestation key, authentication data)',
    { expected: toHex(bound), actual: toHex(reportData) },
  );
}

/** T11. `chainHolds` says whether the PCK may be relied on. */
export function checkPck(
  { certificates }: TdxSubject,
  transcript: Transcript,
  chainHolds: boolean,
): PckExtensions | undefined {
  if (!chainHolds) {
    transcript.skip(TDX_RULES.pckExtensions, 'not read: the PCK certificate could not be relied on');
    return undefined;
  }
  const extension = certificates.pck.extensions.get(SGX_EXTENSIONS_OID);
  if (extension === undefined) {
    transcript.fail(TDX_RULES.pckExtensions, 'PCK has no SGX extensions');
    return undefined;
  }
  try {
    const pck = parsePckExtensions(extension.value);
    const platform = certificates.pckCa.subject.commonName === 'Intel SGX PCK Platform CA';
    if (platform !== (pck.platformInstanceId !== undefined)) {
      transcript.fail(
        TDX_RULES.pckExtensions,
        `platform instance id is ${platform ? 'missing in a PCK of the Platform CA' : 'there in a PCK of the Processor CA'}`,
      );
      return undefined;
    }
    transcript.pass(
      TDX_RULES.pckExtensions,
      `FMSPC ${toHex(pck.fmspc)}, PCEID ${toHex(pck.pceId)}, PCESVN ${pck.pceSvn}, CPUSVN ${toHex(pck.cpuSvn)}`,
    );
    return pck;
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    transcript.fail(TDX_RULES.pckExtensions, error.message);
    return undefined;
  }
}

export function signatureText(what: string, holds: boolean, key: string): string {
  return holds ? `${what} signed by ${key}` : `the signature over the ${what} is not by ${key}`;
}

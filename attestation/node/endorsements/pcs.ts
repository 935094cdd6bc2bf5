// Intel's Provisioning Certification Service, version 4, and PCCS caches that speak the same: TCB info by
// FMSPC, the TD_QE identity, the CRLs of the PCK CA and of the root, with issuer chains from URL-encoded
// response headers — and the checks that make what comes back usable. Refused: anything not signed up to the
// pinned root by a certificate of the right name, out of its window, or of another FMSPC.

import { equalBytes, fromHex, fromUtf8, toHex, utf8 } from '../../encoding/bytes.ts';
import type { TdxEndorsements } from '../../protocol/document.ts';
import { refused, unsupported } from '../../transcript/errors.ts';
import { cutSigned, parseQeIdentity, parseTcbInfo } from '../../tdx/collateral.ts';
import { trustedRoots } from '../../tdx/chain-rules.ts';
import { parsePckExtensions, SGX_EXTENSIONS_OID } from '../../tdx/pck.ts';
import { parseTdxQuote } from '../../tdx/quote.ts';
import { spkiSha256 } from '../../tdx/roots.ts';
import { caProblem, crlProblem, issuanceProblem, validityProblem } from '../../x509/path.ts';
import { crlDer, parsePem } from '../../x509/pem.ts';
import { verifyEcdsaRaw, verifySignedBy } from '../../x509/signature.ts';
import { parseCertificate, parseCrl, type Certificate } from '../../x509/certificate.ts';
import type { GetAnswer, GetRequest } from './http.ts';
import type { EndorsementItem, Obtain } from './item.ts';

export const INTEL_PCS_URL = 'https://api.trustedservices.intel.com';
/** PCS leaves the root's CRL to this host; a PCCS has it under its own paths. */
export const INTEL_ROOT_CRL_URL = 'https://certificates.trustedservices.intel.com/IntelSGXRootCA.der';

export interface PcsOptions {
  /** PCS or a PCCS. */
  readonly baseUrl: string;
  readonly rootCrlUrl: string;
  /** Which set of TCB info to ask for: `standard` leaves operators more time to update. */
  readonly update: 'standard' | 'early';
  /** DER certificates in place of Intel's pinned root. */
  readonly roots?: readonly Uint8Array[] | undefined;
}

type Parts = Readonly<Record<string, Uint8Array>>;
const DAY_MS = 24 * 3_600_000;

/**
 * Everything a verification of this quote needs, obtained item by item. The quote says only what to ask for.
 */
export async function obtainIntel(
  quoteBytes: Uint8Array,
  options: PcsOptions,
  obtain: Obtain,
): Promise<TdxEndorsements> {
  const quote = parseTdxQuote(quoteBytes);
  if (quote.certificationType !== 5) {
    throw unsupported(
      'endorsements_unavailable',
      'quote does not carry its PCK chain, and PCK certificates are handed out to owners of platforms only',
    );
  }
  const pem = fromUtf8(quote.certificationData, 'PCK certificate chain', 'malformed_certificate').replace(
    /\0+$/,
    '',
  );
  const [pckDer] = parsePem(pem, 'CERTIFICATE', 4, 'PCK certificate chain');
  const pck = parseCertificate(pckDer ?? new Uint8Array(), 'PCK');
  const extension = pck.extensions.get(SGX_EXTENSIONS_OID);
  if (extension === undefined)
    throw refused('tdx_pck_extensions', 'PCK has no SGX extensions', { check: 'T11' });
  const fmspc = toHex(parsePckExtensions(extension.value).fmspc);
  const ca = pck.issuer.commonName === 'Intel SGX PCK Processor CA' ? 'processor' : 'platform';
  const qe = await obtain(qeIdentityItem(options));
  const [tcb, pckCrl, rootCrl] = await Promise.all([
    obtain(tcbInfoItem(options, fmspc)),
    obtain(pckCrlItem(options, ca)),
    obtain(rootCrlItem(options, bytes(qe, 'chain'))),
  ]);
  return {
    tcbInfo: text(tcb, 'body'),
    tcbInfoIssuerChain: text(tcb, 'chain'),
    qeIdentity: text(qe, 'body'),
    qeIdentityIssuerChain: text(qe, 'chain'),
    pckCrl: bytes(pckCrl, 'body'),
    pckCrlIssuerChain: text(pckCrl, 'chain'),
    rootCaCrl: bytes(rootCrl, 'body'),
  };
}

/** The item a key of a store stands for, to check what claims to be it; undefined for what is not Intel's. */
export function intelItemOf(key: string, options: Pick<PcsOptions, 'roots'>): EndorsementItem | undefined {
  const [, update, fmspc] =
    /^pcs\/(?:tcb|qe-identity)\/(standard|early)(?:\/([0-9a-f]{12}))?$/.exec(key) ?? [];
  const all = {
    baseUrl: '',
    rootCrlUrl: '',
    update: update === 'early' ? update : 'standard',
    roots: options.roots,
  } as const;
  const candidates = [
    ...(fmspc === undefined ? [] : [tcbInfoItem(all, fmspc)]),
    qeIdentityItem(all),
    pckCrlItem(all, 'platform'),
    pckCrlItem(all, 'processor'),
    rootCrlItem(all, new Uint8Array()),
  ];
  return candidates.find((item) => item.key === key);
}

function tcbInfoItem(options: PcsOptions, fmspc: string): EndorsementItem {
  const what = `TCB info of ${fmspc}`;
  const request = get(options, `/tdx/certification/v4/tcb?fmspc=${fmspc}&update=${options.update}`, {
    what,
    maxBytes: 256 * 1024,
    accept: JSON_TYPES,
  });
  return {
    key: `pcs/tcb/${options.update}/${fmspc}`,
    what,
    refreshMs: DAY_MS,
    requests: { answer: request },
    read: (answers) => withChain(answers['answer'], 'tcb-info-issuer-chain', what),
    check: async (parts, now) => {
      const body = await signedText(parts, 'tcbInfo', { options, now, what });
      const info = parseTcbInfo(body);
      if (!equalBytes(info.fmspc, fromHex(fmspc))) throw invalid(what, `it is of ${toHex(info.fmspc)}`);
      if (info.id !== 'TDX') throw invalid(what, `its id is ${info.id}`);
      return window(info, now, what);
    },
  };
}

function qeIdentityItem(options: PcsOptions): EndorsementItem {
  const what = 'TD_QE identity';
  return {
    key: `pcs/qe-identity/${options.update}`,
    what,
    refreshMs: DAY_MS,
    requests: {
      answer: get(options, `/tdx/certification/v4/qe/identity?update=${options.update}`, {
        what,
        maxBytes: 64 * 1024,
        accept: JSON_TYPES,
      }),
    },
    read: (answers) => withChain(answers['answer'], 'sgx-enclave-identity-issuer-chain', what),
    check: async (parts, now) => {
      const identity = parseQeIdentity(await signedText(parts, 'enclaveIdentity', { options, now, what }));
      if (identity.id !== 'TD_QE') throw invalid(what, `its id is ${identity.id}`);
      return window(identity, now, what);
    },
  };
}

function pckCrlItem(options: PcsOptions, ca: 'platform' | 'processor'): EndorsementItem {
  const what = `PCK CRL (${ca})`;
  return {
    key: `pcs/pckcrl/${ca}`,
    what,
    refreshMs: DAY_MS,
    requests: {
      answer: get(options, `/sgx/certification/v4/pckcrl?ca=${ca}&encoding=der`, {
        what,
        maxBytes: 1 << 20,
        accept: DER_TYPES,
      }),
    },
    read: (answers) => {
      const { body, chain } = withChain(answers['answer'], 'sgx-pck-crl-issuer-chain', what);
      return { body: crlDer(body, what), chain };
    },
    check: async (parts, now) => {
      const [issuer, root] = chainOf(parts, what);
      const name = `Intel SGX PCK ${ca === 'platform' ? 'Platform' : 'Processor'} CA`;
      const problem =
        (await rootProblem(root, options, now)) ??
        (await childProblem(issuer, root, name, now)) ??
        caProblem(issuer, { certificates: true, crls: true });
      if (problem !== undefined) throw invalid(what, problem);
      return checkCrl(bytes(parts, 'body'), issuer, now, what);
    },
  };
}

/** The root's own CRL comes without a chain: it is checked with the root that signs the QE identity. */
function rootCrlItem(options: PcsOptions, chain: Uint8Array): EndorsementItem {
  const what = 'root CA CRL';
  return {
    key: 'pcs/rootcacrl',
    what,
    refreshMs: DAY_MS,
    requests: { answer: { url: options.rootCrlUrl, what, maxBytes: 1 << 20, accept: DER_TYPES } },
    read: (answers) => ({ body: crlDer(bodyOf(answers['answer'], what), what), chain }),
    check: async (parts, now) => {
      const [, root] = chainOf(parts, what);
      const problem = await rootProblem(root, options, now);
      if (problem !== undefined) throw invalid(what, problem);
      return checkCrl(bytes(parts, 'body'), root, now, what);
    },
  };
}

/** Verifies the issuer chain and the signature over the raw inner text, and returns that text. */
async function signedText(
  parts: Parts,
  member: 'tcbInfo' | 'enclaveIdentity',
  { options, now, what }: { readonly options: PcsOptions; readonly now: Date; readonly what: string },
): Promise<string> {
  const [signer, root] = chainOf(parts, what);
  const problem =
    (await rootProblem(root, options, now)) ??
    (await childProblem(signer, root, 'Intel SGX TCB Signing', now));
  if (problem !== undefined) throw invalid(what, problem);
  const cut = cutSigned(text(parts, 'body'), member);
  if (!(await verifyEcdsaRaw(signer.publicKey, 'SHA-256', cut)))
    throw invalid(what, 'it is not signed by its issuer');
  return cut.text;
}

async function rootProblem(root: Certificate, options: PcsOptions, now: Date): Promise<string | undefined> {
  if (!trustedRoots(options.roots).includes(spkiSha256(root.publicKey.raw)))
    return 'its root is not a trusted Intel SGX root';
  const problem =
    issuanceProblem(root, root) ??
    caProblem(root, { certificates: true, crls: true }, 1) ??
    validityProblem(root, now);
  return (
    problem ?? ((await verifySignedBy(root, root.publicKey)) ? undefined : 'the root is not signed by itself')
  );
}

async function childProblem(
  child: Certificate,
  root: Certificate,
  name: string,
  now: Date,
): Promise<string | undefined> {
  if (child.subject.commonName !== name) return `its issuer is not named ${name}`;
  const problem = issuanceProblem(child, root) ?? validityProblem(child, now);
  return (
    problem ??
    ((await verifySignedBy(child, root.publicKey)) ? undefined : `${name} is not signed by the root`)
  );
}

async function checkCrl(
  der: Uint8Array,
  issuer: Certificate,
  now: Date,
  what: string,
): Promise<{ readonly order: number }> {
  const crl = parseCrl(der, what);
  const problem =
    crlProblem(crl, issuer, now) ??
    ((await verifySignedBy(crl, issuer.publicKey)) ? undefined : 'it is not signed by its issuer');
  if (problem !== undefined) throw invalid(what, problem);
  return { order: crl.thisUpdate.getTime() };
}

function window(
  { issueDate, nextUpdate }: { readonly issueDate: Date; readonly nextUpdate: Date },
  now: Date,
  what: string,
): { readonly order: number } {
  if (!(issueDate <= now && now < nextUpdate))
    throw invalid(what, `it is for ${issueDate.toISOString()} to ${nextUpdate.toISOString()}`);
  return { order: issueDate.getTime() };
}

const JSON_TYPES = 'application/json';
const DER_TYPES = 'application/pkix-crl, application/octet-stream, */*;q=0.1';

function get({ baseUrl }: PcsOptions, path: string, rest: Omit<GetRequest, 'url'>): GetRequest {
  return { ...rest, url: `${baseUrl.replace(/\/+$/, '')}${path}` };
}

function bodyOf(answer: GetAnswer | undefined, what: string): Uint8Array {
  if (answer === undefined) throw invalid(what, 'there is no answer');
  return answer.body;
}

/** Body and issuer chain of an answer; the header holds the PEM with its line ends percent-encoded. */
function withChain(
  answer: GetAnswer | undefined,
  header: string,
  what: string,
): { readonly body: Uint8Array; readonly chain: Uint8Array } {
  const body = bodyOf(answer, what);
  const value = answer?.headers[header];
  if (value === undefined) throw invalid(what, `there is no ${header} header`);
  let pem: string;
  try {
    pem = decodeURIComponent(value.replaceAll('+', '%2B'));
  } catch {
    throw invalid(what, `${header} is not percent-encoded`);
  }
  return { body, chain: utf8(pem) };
}

function chainOf(parts: Parts, what: string): readonly [Certificate, Certificate] {
  const [child, root, ...more] = parsePem(text(parts, 'chain'), 'CERTIFICATE', 4, `${what} issuer chain`).map(
    (der) => parseCertificate(der, `${what} issuer chain`),
  );
  if (child === undefined || root === undefined || more.length > 0)
    throw invalid(what, 'its issuer chain has not two certificates');
  return [child, root];
}

function bytes(parts: Parts, name: string): Uint8Array {
  const found = parts[name];
  if (found === undefined) throw refused('endorsements_invalid', `stored endorsement lacks ${name}`);
  return found;
}

function text(parts: Parts, name: string): string {
  return fromUtf8(bytes(parts, name), name);
}

function invalid(what: string, problem: string): Error {
  return refused('endorsements_invalid', `${what}: ${problem}`);
}

// AMD's Key Distribution Service (AMD 57230, "VCEK Certificate and KDS Interface Specification", chapter 4):
// which URLs hold the VCEK of a chip at a TCB, the ASK or ASVK with the ARK, and the CRL — and the checks
// that make what comes back usable. VLEKs cannot be fetched: the provider hands them to its guests. Refused:
// anything not signed up to a pinned ARK, a VCEK of another chip or TCB, a CRL out of its window.

import { fromHex, fromUtf8, isZero, toHex } from '../../encoding/bytes.ts';
import type { SnpEndorsements } from '../../protocol/document.ts';
import { AttestationError, refused, unsupported } from '../../transcript/errors.ts';
import { parseReport, signingKey, type SnpReport } from '../../snp/report.ts';
import { isReplacedRoot, pinnedRoot } from '../../snp/roots.ts';
import { decodeTcb, productOfCpuid, tcbComponents, tcbText, type Product, type Tcb } from '../../snp/tcb.ts';
import { caRole, hwidProblem, parseVek, readVekExtensions, type VekKind } from '../../snp/vek.ts';
import { caProblem, crlProblem, issuanceProblem, validityProblem } from '../../x509/path.ts';
import { parsePem } from '../../x509/pem.ts';
import { verifySignedBy } from '../../x509/signature.ts';
import { parseCertificate, parseCrl, type Certificate } from '../../x509/certificate.ts';
import type { GetRequest } from './http.ts';
import type { StoredItem } from './store.ts';
import type { EndorsementItem, Obtain } from './item.ts';

export const AMD_KDS_URL = 'https://kdsintf.amd.com';

export interface KdsOptions {
  readonly baseUrl: string;
  /** DER ARKs in place of the pinned ones. */
  readonly roots?: readonly Uint8Array[] | undefined;
}

interface Wanted {
  readonly product: Product;
  readonly kind: VekKind;
  readonly report: Pick<SnpReport, 'chipId' | 'reportedTcb'>;
  readonly tcb: Tcb;
}

/** Everything a verification of this report needs, obtained item by item. */
export async function obtainAmd(
  reportBytes: Uint8Array,
  options: KdsOptions,
  obtain: Obtain,
): Promise<SnpEndorsements> {
  const report = parseReport(reportBytes);
  const kind = signingKey(report.keyInfo);
  if (kind !== 'vcek') {
    throw unsupported(
      'endorsements_unavailable',
      `report is signed by a ${kind.toUpperCase()}, which only its provider hands out`,
      {
        hint: 'have the server staple its endorsements',
      },
    );
  }
  if (isZero(report.chipId))
    throw unsupported('endorsements_unavailable', 'CHIP_ID is masked: there is no VCEK to ask for');
  let problem: unknown;
  for (const product of productsOf(report)) {
    const wanted = { product, kind, report, tcb: decodeTcb(report.reportedTcb, product) } as const;
    try {
      const chain = await obtainChain(options, wanted.product, 'vcek', obtain);
      const [intermediate, ark] = chain;
      // One after the other: KDS counts requests.
      const vek = await obtain(vcekItem(options, wanted, intermediate));
      const crl = await obtain(crlItem(options, product, 'vcek', ark));
      return { vek: part(vek, 'vek'), chain: [intermediate.raw, ark.raw], crl: part(crl, 'crl') };
    } catch (error) {
      if (!(error instanceof AttestationError)) throw error;
      problem ??= error;
    }
  }
  throw problem;
}

/** ASK (or ASVK, for VLEKs) and ARK of a product, DER, verified. */
async function obtainChain(
  options: KdsOptions,
  product: Product,
  kind: VekKind,
  obtain: Obtain,
): Promise<readonly [Certificate, Certificate]> {
  return readChain(await obtain(chainItem(options, product, kind)));
}

const KEY =
  /^kds\/(vcek|vlek)\/(Milan|Genoa|Turin)\/(?:cert_chain|(crl)|((?:[0-9a-f]{16}){1,8})\/([0-9a-f]{16}))$/;

/**
 * The item a key of a store stands for, to check what claims to be it; undefined for what is not AMD's, or
 * has no chain to be checked with. `verified` gives the verified parts of another item of the store.
 */
export async function amdItemOf(
  key: string,
  options: KdsOptions,
  verified: (item: EndorsementItem) => Promise<StoredItem['parts'] | undefined>,
): Promise<EndorsementItem | undefined> {
  const [, kind, product, crl, hwid, reportedTcb] = (KEY.exec(key) ?? []) as unknown as readonly [
    string,
    VekKind?,
    Product?,
    ...string[],
  ];
  if (kind === undefined || product === undefined) return undefined;
  const chain = chainItem(options, product, kind);
  if (key === chain.key) return chain;
  const parts = await verified(chain);
  if (parts === undefined) return undefined;
  const [intermediate, ark] = readChain(parts);
  if (crl !== undefined) return crlItem(options, product, kind, ark);
  if (hwid === undefined || reportedTcb === undefined || kind !== 'vcek') return undefined;
  const chipId = new Uint8Array(64);
  chipId.set(fromHex(hwid));
  const report = { chipId, reportedTcb: fromHex(reportedTcb) };
  const item = vcekItem(
    options,
    { product, kind, report, tcb: decodeTcb(report.reportedTcb, product) },
    intermediate,
  );
  return item.key === key ? item : undefined;
}

/** Version 2 reports do not say what they run on; their products share one TCB layout. */
function productsOf(report: SnpReport): readonly Product[] {
  if (report.cpuidFamily === undefined) return ['Milan', 'Genoa'];
  const product = productOfCpuid(report.cpuidFamily, report.cpuidModel ?? 0);
  if (product === undefined || product === 'Venice')
    throw unsupported('snp_product', `no root is pinned for ${product ?? 'this CPUID'}`);
  return [product];
}

const PEM_TYPES = 'application/x-pem-file, application/pem-certificate-chain, text/plain, */*;q=0.1';
const DER_TYPES = 'application/octet-stream, application/pkix-cert, application/pkix-crl, */*;q=0.1';

function request(options: KdsOptions, path: string, rest: Omit<GetRequest, 'url'>): GetRequest {
  return { ...rest, url: `${options.baseUrl.replace(/\/+$/, '')}${path}` };
}

function chainItem(options: KdsOptions, product: Product, kind: VekKind): EndorsementItem {
  const what = `${kind === 'vcek' ? 'ASK' : 'ASVK'} and ARK of ${product}`;
  return {
    key: `kds/${kind}/${product}/cert_chain`,
    what,
    refreshMs: Number.POSITIVE_INFINITY,
    requests: {
      chain: request(options, `/${kind}/v1/${product}/cert_chain`, {
        what,
        maxBytes: 64 * 1024,
        accept: PEM_TYPES,
      }),
    },
    read: (answers) => {
      const [intermediate, ark, ...more] = parsePem(
        fromUtf8(part(answers, 'chain', 'body'), what, 'malformed_certificate'),
        'CERTIFICATE',
        2,
        what,
      );
      if (intermediate === undefined || ark === undefined || more.length > 0)
        throw refused('endorsements_invalid', `${what}: not two certificates`);
      return { intermediate, ark };
    },
    check: async (parts, now) => {
      const [intermediate, ark] = readChain(parts);
      const problem =
        (await chainProblem(intermediate, ark, { product, kind }, options)) ??
        validityProblem(intermediate, now) ??
        validityProblem(ark, now);
      if (problem !== undefined) throw refused('endorsements_invalid', `${what}: ${problem}`);
      return { order: 0 };
    },
  };
}

async function chainProblem(
  intermediate: Certificate,
  ark: Certificate,
  { product, kind }: { readonly product: Product; readonly kind: VekKind },
  options: KdsOptions,
): Promise<string | undefined> {
  const trusted =
    options.roots === undefined ? pinnedRoot(ark)?.product === product : isReplacedRoot(ark, options.roots);
  if (!trusted) return 'its root is not a trusted ARK';
  const role = caRole(intermediate.subject.commonName);
  if (role?.role !== (kind === 'vcek' ? 'ask' : 'asvk') || role.line !== product)
    return `the certificate above the ${kind.toUpperCase()} is of another role or product`;
  const problem =
    issuanceProblem(intermediate, ark) ??
    caProblem(ark, { certificates: true, crls: true }, 1) ??
    caProblem(intermediate, { certificates: true });
  if (problem !== undefined) return problem;
  const [ownSigned, signed] = await Promise.all([
    verifySignedBy(ark, ark.publicKey),
    verifySignedBy(intermediate, ark.publicKey),
  ]);
  return ownSigned && signed ? undefined : 'a signature does not verify';
}

function vcekItem(options: KdsOptions, { product, report, tcb }: Wanted, ask: Certificate): EndorsementItem {
  const hwid = toHex(product === 'Turin' ? report.chipId.subarray(0, 8) : report.chipId);
  const what = `VCEK of chip ${hwid.slice(0, 16)}… at ${tcbText(tcb)}`;
  const spl = {
    fmc: 'fmcSPL',
    bootloader: 'blSPL',
    tee: 'teeSPL',
    snp: 'snpSPL',
    microcode: 'ucodeSPL',
  } as const;
  const query = tcbComponents(product).map(
    (component) => `${spl[component]}=${String(tcb[component] ?? 0).padStart(2, '0')}`,
  );
  return {
    key: `kds/vcek/${product}/${hwid}/${toHex(report.reportedTcb)}`,
    what,
    refreshMs: Number.POSITIVE_INFINITY,
    requests: {
      vek: request(options, `/vcek/v1/${product}/${hwid}?${query.join('&')}`, {
        what,
        maxBytes: 16 * 1024,
        accept: DER_TYPES,
      }),
    },
    read: (answers) => ({ vek: part(answers, 'vek', 'body') }),
    check: async (parts, now) => {
      const { certificate, namedKind } = parseVek(part(parts, 'vek'));
      const extensions = readVekExtensions(certificate, product, 'vcek');
      const otherTcb = tcbComponents(product).some(
        (component) => extensions.tcb[component] !== (tcb[component] ?? 0),
      );
      const problem =
        (namedKind === 'vcek' ? undefined : 'it is not named a VCEK') ??
        extensions.problems[0] ??
        (otherTcb ? `it is for another TCB (${JSON.stringify(extensions.tcb)})` : undefined) ??
        (extensions.hwid === undefined
          ? 'it has no HWID'
          : hwidProblem(extensions.hwid, report.chipId, product)) ??
        issuanceProblem(certificate, ask) ??
        validityProblem(certificate, now) ??
        ((await verifySignedBy(certificate, ask.publicKey)) ? undefined : 'it is not signed by the ASK');
      if (problem !== undefined) throw refused('endorsements_invalid', `${what}: ${problem}`);
      return { order: 0 };
    },
  };
}

function crlItem(options: KdsOptions, product: Product, kind: VekKind, ark: Certificate): EndorsementItem {
  const what = `CRL of ${product}`;
  return {
    key: `kds/${kind}/${product}/crl`,
    what,
    refreshMs: 24 * 3_600_000,
    requests: {
      crl: request(options, `/${kind}/v1/${product}/crl`, { what, maxBytes: 1 << 20, accept: DER_TYPES }),
    },
    read: (answers) => ({ crl: part(answers, 'crl', 'body') }),
    check: async (parts, now) => {
      const crl = parseCrl(part(parts, 'crl'), what);
      const problem =
        crlProblem(crl, ark, now) ??
        ((await verifySignedBy(crl, ark.publicKey)) ? undefined : 'it is not signed by the ARK');
      if (problem !== undefined) throw refused('endorsements_invalid', `${what}: ${problem}`);
      return { order: crl.thisUpdate.getTime() };
    },
  };
}

function readChain(parts: Readonly<Record<string, Uint8Array>>): readonly [Certificate, Certificate] {
  return [
    parseCertificate(part(parts, 'intermediate'), 'ASK or ASVK'),
    parseCertificate(part(parts, 'ark'), 'ARK'),
  ];
}

/** A part by name; of answers, its body. */
function part(parts: Readonly<Record<string, Uint8Array>>, name: string): Uint8Array;
function part(
  parts: Readonly<Record<string, { readonly body: Uint8Array }>>,
  name: string,
  field: 'body',
): Uint8Array;
function part(
  parts: Readonly<Record<string, Uint8Array | { readonly body: Uint8Array }>>,
  name: string,
): Uint8Array {
  const found = parts[name];
  if (found === undefined) throw refused('endorsements_invalid', `${name} is missing`);
  return found instanceof Uint8Array ? found : found.body;
}

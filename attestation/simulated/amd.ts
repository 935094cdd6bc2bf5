// A fake AMD: ARK, ASK, ASVK, VCEK or VLEK, CRL and SEV-SNP reports in the real wire formats (AMD 57230 ch.
// 3, AMD 56860 rev 1.58 §7.3), with real algorithms and locally made keys. For laptops, CI and users' tests
// of their failure paths. Common names are AMD's so that a verifier runs its own code unchanged; organisation
// and unit say what it is. It is refused by every verifier whose roots are not replaced by this ARK. Wrong
// values are written as given.

import { equalBytes, fromBase64, toBase64 } from '../encoding/bytes.ts';
import { TAG, encodeDer, encodeInteger, encodeText } from '../x509/der.ts';
import { tcbComponents, type Product, type Tcb } from '../snp/tcb.ts';
import type { VekKind } from '../snp/vek.ts';
import { regularFields, signReport, type SimulatedReport } from './amd-report.ts';
import {
  type CrlChanges,
  authorityKeyIdentifier,
  basicConstraints,
  crlNumber,
  encodeName,
  exportKey,
  generateEcKey,
  generateRsaKey,
  importKey,
  issueCertificate,
  issueCrl,
  keyUsage,
  subjectKeyIdentifier,
  type ExportedKey,
  type IssueCertificate,
  type IssueExtension,
  type IssuerKey,
} from './issue.ts';

/** Settings of {@link createSimulatedAmd}. */
export interface SimulatedAmdOptions {
  /** Default Genoa. */
  readonly product?: Product | undefined;
  /** From `exportKeys`: the same roots again, as long as the product is the same. */
  readonly keys?: SimulatedAmdKeys | undefined;
  /** When certificates and the CRL are issued; default the system clock. */
  readonly now?: Date | undefined;
  /** AMD's are 4096 bits, which take seconds to generate. 2048 for tests that make many. */
  readonly rsaBits?: 2048 | 4096 | undefined;
  /** Which key signs reports; default `vcek`. */
  readonly vekKind?: VekKind | undefined;
  readonly tcb?: Tcb | undefined;
  /** 64 bytes; Turin: only the first 8 may be non-zero. */
  readonly chipId?: Uint8Array | undefined;
}

/** JSON-able. Test keys, without any protection. */
export interface SimulatedAmdKeys {
  readonly version: 1;
  readonly product: Product;
  readonly keys: Readonly<Record<KeyName, ExportedKey>>;
  /** Base64 DER, so that the root stays the same byte for byte. */
  readonly certificates: { readonly ark: string; readonly ask: string; readonly asvk: string };
  readonly chipId: string;
}

type KeyName = 'ark' | 'ask' | 'asvk' | 'vcek' | 'vlek';

/** Changes to a regular certificate of AMD's hierarchy. */
export type CertificateChanges = Partial<Omit<IssueCertificate, 'extensions'>> & {
  /** Rewrites the regular extension list. */
  readonly extensions?: ((regular: readonly IssueExtension[]) => readonly IssueExtension[]) | undefined;
};

/** Changes to a regular VCEK or VLEK. */
export interface VekChanges extends CertificateChanges {
  readonly kind?: VekKind | undefined;
  readonly tcb?: Tcb | undefined;
  readonly chipId?: Uint8Array | undefined;
  /** AMD writes HWID bare; some certificates wrap it in an OCTET STRING. */
  readonly hwidForm?: 'raw' | 'octetString' | undefined;
  readonly productName?: string | undefined;
  readonly structVersion?: number | undefined;
  readonly cspId?: string | undefined;
}

/**
 * A fake AMD: its certificates, its CRL, one chip that signs reports, and whatever else
 * its keys are made to sign.
 */
export interface SimulatedAmd {
  readonly product: Product;
  readonly vekKind: VekKind;
  readonly tcb: Tcb;
  readonly chipId: Uint8Array;
  /** DER. `intermediate` is the one above the VEK: ASK, or ASVK for a VLEK. */
  readonly ark: Uint8Array;
  readonly ask: Uint8Array;
  readonly asvk: Uint8Array;
  readonly intermediate: Uint8Array;
  readonly vek: Uint8Array;
  readonly crl: Uint8Array;
  /** Private keys, to sign wrong things with. */
  readonly keys: Readonly<Record<KeyName, IssuerKey>>;
  /** A report of 1184 bytes signed by the VEK. */
  signReport(fields?: SimulatedReport): Promise<Uint8Array>;
  issueVek(changes?: VekChanges): Promise<Uint8Array>;
  /** ARK, ASK or ASVK again, with changes. */
  issueCa(which: 'ark' | 'ask' | 'asvk', changes?: CertificateChanges): Promise<Uint8Array>;
  issueCrl(changes?: CrlChanges): Promise<Uint8Array>;
  exportKeys(): Promise<SimulatedAmdKeys>;
}

/** Serials as AMD numbers them: 0x10000 for ARK-Milan, +1 ASK, +0x101 ASVK, and so on per product. */
export const SIMULATED_SERIALS: Readonly<
  Record<Product, { readonly ark: number; readonly ask: number; readonly asvk: number }>
> = {
  Milan: { ark: 0x10000, ask: 0x10001, asvk: 0x10101 },
  Genoa: { ark: 0x20000, ask: 0x20001, asvk: 0x20101 },
  Turin: { ark: 0x30000, ask: 0x30001, asvk: 0x30101 },
};

const DEFAULT_TCB: Readonly<Record<Product, Tcb>> = {
  Milan: { bootloader: 4, tee: 0, snp: 27, microcode: 222 },
  Genoa: { bootloader: 11, tee: 0, snp: 28, microcode: 90 },
  Turin: { fmc: 1, bootloader: 2, tee: 1, snp: 5, microcode: 82 },
};

const CA_FROM = new Date('2020-10-22T00:00:00Z');
const CA_TO = new Date('2049-10-22T00:00:00Z');
const DAY_MS = 86_400_000;

function amdName(commonName: string): Uint8Array {
  return encodeName([
    ['OU', 'SIMULATED hierarchy, not AMD hardware'],
    ['C', 'US'],
    ['L', 'Nowhere'],
    ['O', 'Assay simulated TEE'],
    ['CN', commonName],
  ]);
}

/**
 * Makes (or restores) a hierarchy. Generating RSA-4096 keys takes seconds: keep
 * `exportKeys()` and pass it back.
 * @example
 * const amd = await createSimulatedAmd({ product: 'Turin', rsaBits: 2048 });
 * const report = await amd.signReport();
 */
export async function createSimulatedAmd(options: SimulatedAmdOptions = {}): Promise<SimulatedAmd> {
  const product = options.product ?? 'Genoa';
  const now = options.now ?? new Date();
  const vekKind = options.vekKind ?? 'vcek';
  const tcb = options.tcb ?? DEFAULT_TCB[product];
  const keys =
    options.keys === undefined ? await generateKeys(options.rsaBits ?? 4096) : await importKeys(options.keys);
  const chipId =
    options.chipId ??
    (options.keys?.product === product ? fromBase64(options.keys.chipId) : randomChipId(product));

  const issueCa: SimulatedAmd['issueCa'] = async (which, changes = {}) => {
    const regular = await caExtensions(which, product, keys);
    const name = caName(which, product);
    return issueCertificate({
      issuer: amdName(caName('ark', product)),
      subject: amdName(name),
      serial: SIMULATED_SERIALS[product][which],
      notBefore: CA_FROM,
      notAfter: CA_TO,
      spki: keys[which].spki,
      signer: keys.ark,
      explicitTrailerField: true,
      ...changes,
      extensions: changes.extensions?.(regular) ?? regular,
    });
  };

  const issueVek: SimulatedAmd['issueVek'] = async (changes = {}) => {
    const {
      kind = vekKind,
      extensions,
      tcb: vekTcb,
      chipId: vekChip,
      hwidForm,
      productName,
      structVersion,
      cspId,
      ...certificate
    } = changes;
    const regular = vekExtensions({
      kind,
      product,
      tcb: vekTcb ?? tcb,
      chipId: vekChip ?? chipId,
      hwidForm: hwidForm ?? 'raw',
      productName: productName ?? (product === 'Milan' && kind === 'vcek' ? 'Milan-B0' : product),
      structVersion: structVersion ?? (product === 'Turin' ? 1 : 0),
      cspId: cspId ?? 'CN=simulated.invalid',
    });
    return issueCertificate({
      issuer: amdName(caName(kind === 'vcek' ? 'ask' : 'asvk', product)),
      subject: amdName(kind === 'vcek' ? 'SEV-VCEK' : 'SEV-VLEK'),
      serial: 0,
      notBefore: new Date(now.getTime() - DAY_MS),
      notAfter: new Date(now.getTime() + (kind === 'vcek' ? 7 : 1) * 365 * DAY_MS),
      spki: keys[kind].spki,
      signer: kind === 'vcek' ? keys.ask : keys.asvk,
      ...certificate,
      extensions: extensions?.(regular) ?? regular,
    });
  };

  const issueList: SimulatedAmd['issueCrl'] = async (changes = {}) => {
    const regular = [await authorityKeyIdentifier(keys.ark.spki), crlNumber(changes.number ?? 1)];
    return issueCrl({
      issuer: changes.issuer ?? amdName(caName('ark', product)),
      thisUpdate: changes.thisUpdate ?? new Date(now.getTime() - DAY_MS),
      nextUpdate: 'nextUpdate' in changes ? changes.nextUpdate : new Date(now.getTime() + 365 * DAY_MS),
      revoked: changes.revoked ?? [],
      signer: changes.signer ?? keys.ark,
      extensions: changes.extensions?.(regular) ?? regular,
    });
  };

  const saved = options.keys?.product === product ? options.keys.certificates : undefined;
  const ca = (which: 'ark' | 'ask' | 'asvk'): Promise<Uint8Array> =>
    saved === undefined ? issueCa(which) : Promise.resolve(fromBase64(saved[which]));
  const [ark, ask, asvk, vek, crl] = await Promise.all([
    ca('ark'),
    ca('ask'),
    ca('asvk'),
    issueVek(),
    issueList(),
  ]);

  return {
    product,
    vekKind,
    tcb,
    chipId,
    ark,
    ask,
    asvk,
    intermediate: vekKind === 'vcek' ? ask : asvk,
    vek,
    crl,
    keys,
    signReport: (fields = {}) =>
      signReport(
        fields,
        regularFields(
          { product, tcb, chipId: vekKind === 'vlek' ? new Uint8Array(64) : chipId, vekKind },
          fields.guestPolicy,
        ),
        keys[vekKind],
      ),
    issueVek,
    issueCa,
    issueCrl: issueList,
    exportKeys: async () => ({
      version: 1,
      product,
      keys: {
        ark: await exportKey(keys.ark),
        ask: await exportKey(keys.ask),
        asvk: await exportKey(keys.asvk),
        vcek: await exportKey(keys.vcek),
        vlek: await exportKey(keys.vlek),
      },
      certificates: { ark: toBase64(ark), ask: toBase64(ask), asvk: toBase64(asvk) },
      chipId: toBase64(chipId),
    }),
  };
}

/**
 * Whether a DER certificate is this hierarchy's ARK.
 * @example const fake = isSimulatedRoot(amd, der);
 */
export function isSimulatedRoot(simulated: Pick<SimulatedAmd, 'ark'>, der: Uint8Array): boolean {
  return equalBytes(simulated.ark, der);
}

async function generateKeys(rsaBits: number): Promise<Record<KeyName, IssuerKey>> {
  const [ark, ask, asvk, vcek, vlek] = await Promise.all([
    generateRsaKey(rsaBits),
    generateRsaKey(rsaBits),
    generateRsaKey(rsaBits),
    generateEcKey('P-384'),
    generateEcKey('P-384'),
  ]);
  return { ark, ask, asvk, vcek, vlek };
}

async function importKeys(saved: SimulatedAmdKeys): Promise<Record<KeyName, IssuerKey>> {
  const { keys } = saved;
  const [ark, ask, asvk, vcek, vlek] = await Promise.all([
    importKey(keys.ark),
    importKey(keys.ask),
    importKey(keys.asvk),
    importKey(keys.vcek),
    importKey(keys.vlek),
  ]);
  return { ark, ask, asvk, vcek, vlek };
}

/** Turin chips have eight bytes of identity (AMD 57230 §3.1). */
function randomChipId(product: Product): Uint8Array {
  const chipId = new Uint8Array(64);
  crypto.getRandomValues(chipId.subarray(0, product === 'Turin' ? 8 : 64));
  return chipId;
}

function caName(which: 'ark' | 'ask' | 'asvk', product: Product): string {
  const prefix = { ark: 'ARK', ask: 'SEV', asvk: 'SEV-VLEK' }[which];
  return `${prefix}-${product}`;
}

async function caExtensions(
  which: 'ark' | 'ask' | 'asvk',
  product: Product,
  keys: Readonly<Record<KeyName, IssuerKey>>,
): Promise<IssueExtension[]> {
  const identifier = await subjectKeyIdentifier(keys[which].spki);
  if (which === 'ark')
    return [
      keyUsage(['keyCertSign', 'crlSign']),
      identifier,
      basicConstraints(true),
      distributionPoint(product),
    ];
  return [
    identifier,
    await authorityKeyIdentifier(keys.ark.spki),
    basicConstraints(true, 0),
    keyUsage(['keyCertSign']),
    distributionPoint(product),
  ];
}

function distributionPoint(product: Product): IssueExtension {
  const uri = encodeText(`https://kds.invalid/vcek/v1/${product}/crl`, 0x86);
  return {
    oid: '2.5.29.31',
    value: encodeDer(TAG.sequence, encodeDer(TAG.sequence, encodeDer(0xa0, encodeDer(0xa0, uri)))),
  };
}

interface VekFields {
  readonly kind: VekKind;
  readonly product: Product;
  readonly tcb: Tcb;
  readonly chipId: Uint8Array;
  readonly hwidForm: 'raw' | 'octetString';
  readonly productName: string;
  readonly structVersion: number;
  readonly cspId: string;
}

const AMD = '1.3.6.1.4.1.3704.1';
const SPL: Readonly<Record<keyof Tcb, string>> = {
  bootloader: '3.1',
  tee: '3.2',
  snp: '3.3',
  microcode: '3.8',
  fmc: '3.9',
};

/** AMD 57230 §3.1, table of custom extensions, in the order AMD writes them. */
function vekExtensions(fields: VekFields): IssueExtension[] {
  const number = (oid: string, value: number): IssueExtension => ({
    oid: `${AMD}.${oid}`,
    value: encodeInteger(value),
  });
  // Turin uses .3.4 no longer; .3.5–.3.7 stay reserved.
  const reserved = fields.product === 'Turin' ? ['3.5', '3.6', '3.7'] : ['3.4', '3.5', '3.6', '3.7'];
  const hwid = fields.product === 'Turin' ? fields.chipId.subarray(0, 8) : fields.chipId;
  return [
    number('1', fields.structVersion),
    { oid: `${AMD}.2`, value: encodeText(fields.productName, TAG.ia5String) },
    ...tcbComponents(fields.product).map((component) => number(SPL[component], fields.tcb[component] ?? 0)),
    ...reserved.map((oid) => number(oid, 0)),
    fields.kind === 'vcek'
      ? { oid: `${AMD}.4`, value: fields.hwidForm === 'raw' ? hwid : encodeDer(TAG.octetString, hwid) }
      : { oid: `${AMD}.5`, value: encodeText(fields.cspId, TAG.ia5String) },
  ];
}

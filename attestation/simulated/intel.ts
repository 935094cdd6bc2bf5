// A fake Intel: Root, PCK Platform and Processor CAs, PCK, TCB signing, CRLs, TCB info, TD_QE identity and
// TDX quotes in the real wire formats (see intel-quote.ts, intel-pck.ts, intel-collateral.ts), with real
// P-256 keys made locally. For laptops, CI and users' tests of their failure paths. Common names are Intel's
// so that a verifier runs its own code unchanged; organisation and unit say what it is. It is refused by
// every verifier whose roots are not replaced by this root.

import { fromBase64, fromHex, toBase64 } from '../encoding/bytes.ts';
import type { TdxCollateral } from '../tdx/collateral.ts';
import type { TdxEvidence } from '../tdx/subject.ts';
import {
  qeIdentityResponse,
  SIMULATED_QE,
  tcbInfoResponse,
  type SignedTextChanges,
  type TcbInfoChanges,
} from './intel-collateral.ts';
import { sgxExtension, sgxMembers, type SgxExtensionValues, type SgxMember } from './intel-pck.ts';
import { signSimulatedQuote, type SimulatedQuote } from './intel-quote.ts';
import {
  type CrlChanges,
  authorityKeyIdentifier,
  basicConstraints,
  crlNumber,
  encodeName,
  encodePem,
  exportKey,
  generateEcKey,
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

/** The name of a private key of the simulated Intel hierarchy. */
export type IntelKeyName = 'root' | 'platform' | 'processor' | 'pck' | 'tcbSigning' | 'attestation';
/** A CA of Intel's hierarchy: the SGX root, or the platform or processor CA below it. */
export type IntelCa = 'root' | 'platform' | 'processor';

/** Settings of {@link createSimulatedIntel}. */
export interface SimulatedIntelOptions {
  /** When collateral and CRLs are issued; default the system clock. */
  readonly now?: Date | undefined;
  /** From `exportKeys`: the same root again. */
  readonly keys?: SimulatedIntelKeys | undefined;
  /** Which CA issues the PCK; default `platform`. */
  readonly ca?: 'platform' | 'processor' | undefined;
  readonly fmspc?: Uint8Array | undefined;
  readonly pceId?: Uint8Array | undefined;
  /** SGX TCB components of the platform, 16 values. */
  readonly components?: readonly number[] | undefined;
  readonly pceSvn?: number | undefined;
  /** TEE_TCB_SVN of the TD, 16 bytes: module svn, module version, microcode … */
  readonly teeTcbSvn?: Uint8Array | undefined;
  readonly ppid?: Uint8Array | undefined;
}

/** JSON-able. Test keys, without any protection. */
export interface SimulatedIntelKeys {
  readonly version: 1;
  readonly keys: Readonly<Record<IntelKeyName, ExportedKey>>;
  /** Base64 DER, so that the root stays the same byte for byte. */
  readonly root: string;
}

/** Changes to a regular certificate of Intel's hierarchy. */
export type IntelCertificateChanges = Partial<Omit<IssueCertificate, 'extensions'>> & {
  /** Rewrites the regular extension list. */
  readonly extensions?: ((regular: readonly IssueExtension[]) => readonly IssueExtension[]) | undefined;
};

/** Changes to a regular PCK certificate. */
export interface PckChanges extends IntelCertificateChanges {
  readonly ca?: 'platform' | 'processor' | undefined;
  readonly sgx?: Partial<SgxExtensionValues> | undefined;
  /** Rewrites the members of the SGX extension. */
  readonly members?: ((regular: readonly SgxMember[]) => readonly SgxMember[]) | undefined;
}

/** A fake Intel: its certificates, CRLs and collateral, and one platform that signs quotes. */
export interface SimulatedIntel {
  readonly keys: Readonly<Record<IntelKeyName, IssuerKey>>;
  /** DER. `pckCa` is the one above the PCK. */
  readonly root: Uint8Array;
  readonly pckCa: Uint8Array;
  readonly pck: Uint8Array;
  readonly tcbSigning: Uint8Array;
  readonly fmspc: Uint8Array;
  readonly pceId: Uint8Array;
  readonly ppid: Uint8Array;
  /** PEM of PCK, its CA and the root, as a quote carries it. */
  readonly pckChainPem: string;
  /** PEM of the TCB signing certificate and the root. */
  readonly signingChainPem: string;
  signQuote(fields?: SimulatedQuote): Promise<Uint8Array>;
  issueCa(which: IntelCa, changes?: IntelCertificateChanges): Promise<Uint8Array>;
  issuePck(changes?: PckChanges): Promise<Uint8Array>;
  issueTcbSigning(changes?: IntelCertificateChanges): Promise<Uint8Array>;
  /** The CRL of the root (for CAs and signers) or of a PCK CA (for PCKs). */
  issueCrl(which: IntelCa, changes?: CrlChanges): Promise<Uint8Array>;
  tcbInfo(changes?: TcbInfoChanges): Promise<string>;
  qeIdentity(changes?: SignedTextChanges): Promise<string>;
  /** Everything a verification needs besides the quote. */
  readonly endorsements: TdxCollateral;
  /** The same, with any part replaced. */
  collateral(changes?: Partial<TdxCollateral>): Promise<TdxCollateral>;
  evidence(quote?: SimulatedQuote, collateral?: Partial<TdxCollateral>): Promise<TdxEvidence>;
  exportKeys(): Promise<SimulatedIntelKeys>;
}

/** Serial numbers, to revoke by. */
export const SIMULATED_INTEL_SERIALS = {
  root: 0x510000,
  platform: 0x510001,
  processor: 0x510002,
  tcbSigning: 0x510003,
  pck: 0x51f00d,
} as const;

const NAMES = {
  root: 'Intel SGX Root CA',
  platform: 'Intel SGX PCK Platform CA',
  processor: 'Intel SGX PCK Processor CA',
  tcbSigning: 'Intel SGX TCB Signing',
  pck: 'Intel SGX PCK Certificate',
} as const;

const CA_FROM = new Date('2020-01-01T00:00:00Z');
const CA_TO = new Date('2049-12-31T23:59:59Z');
const DAY_MS = 86_400_000;
const KEY_NAMES: readonly IntelKeyName[] = [
  'root',
  'platform',
  'processor',
  'pck',
  'tcbSigning',
  'attestation',
];

/**
 * DER Name of an Intel certificate with this common name.
 * @example const subject = intelName('Intel SGX PCK Certificate');
 */
export function intelName(commonName: string): Uint8Array {
  return encodeName([
    ['CN', commonName],
    ['O', 'Assay simulated TEE'],
    ['OU', 'SIMULATED hierarchy, not Intel hardware'],
    ['C', 'US'],
  ]);
}

/**
 * Makes (or restores) a hierarchy: six P-256 keys, a few milliseconds.
 * @example
 * const intel = await createSimulatedIntel();
 * const quote = await intel.signQuote();
 */
export async function createSimulatedIntel(options: SimulatedIntelOptions = {}): Promise<SimulatedIntel> {
  const now = options.now ?? new Date();
  const keys = await makeKeys(options.keys);
  const pckCaName = options.ca ?? 'platform';
  const fmspc = options.fmspc ?? fromHex('51f0b0000000');
  const pceId = options.pceId ?? new Uint8Array(2);
  const ppid = options.ppid ?? crypto.getRandomValues(new Uint8Array(16));
  const components = options.components ?? [5, 5, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
  const pceSvn = options.pceSvn ?? 13;
  const teeTcbSvn = options.teeTcbSvn ?? fromHex('06010500000000000000000000000000');
  const dates = {
    issueDate: new Date(now.getTime() - DAY_MS),
    nextUpdate: new Date(now.getTime() + 29 * DAY_MS),
  };

  const issue = async (
    name: keyof typeof NAMES,
    issuer: IntelCa,
    regular: readonly IssueExtension[],
    changes: IntelCertificateChanges,
  ): Promise<Uint8Array> =>
    issueCertificate({
      issuer: intelName(NAMES[issuer]),
      subject: intelName(NAMES[name]),
      serial: SIMULATED_INTEL_SERIALS[name],
      notBefore: name === 'pck' ? new Date(now.getTime() - 30 * DAY_MS) : CA_FROM,
      notAfter: name === 'pck' ? new Date(now.getTime() + 7 * 365 * DAY_MS) : CA_TO,
      spki: keys[name].spki,
      signer: keys[issuer],
      ...changes,
      extensions: changes.extensions?.(regular) ?? regular,
    });
  const issueCa: SimulatedIntel['issueCa'] = async (which, changes = {}) =>
    issue(
      which,
      'root',
      [
        ...(await common(keys[which], keys.root)),
        keyUsage(['keyCertSign', 'crlSign']),
        basicConstraints(true, which === 'root' ? 1 : 0),
      ],
      changes,
    );
  const issueTcbSigning: SimulatedIntel['issueTcbSigning'] = async (changes = {}) =>
    issue(
      'tcbSigning',
      'root',
      [
        ...(await common(keys.tcbSigning, keys.root)),
        keyUsage(['digitalSignature']),
        basicConstraints(false),
      ],
      changes,
    );
  const issuePck: SimulatedIntel['issuePck'] = async ({
    ca = pckCaName,
    sgx = {},
    members,
    ...changes
  } = {}) => {
    const platformInstanceId = ca === 'platform' ? new Uint8Array(16).fill(0x51) : undefined;
    const regular = sgxMembers({
      ppid,
      components,
      pceSvn,
      pceId,
      fmspc,
      sgxType: ca === 'platform' ? 1 : 0,
      platformInstanceId,
      ...sgx,
    });
    const extensions = [
      ...(await common(keys.pck, keys[ca])),
      keyUsage(['digitalSignature']),
      basicConstraints(false),
      sgxExtension(members?.(regular) ?? regular),
    ];
    return issue('pck', ca, extensions, changes);
  };
  const issueList: SimulatedIntel['issueCrl'] = async (which, changes = {}) => {
    const regular = [crlNumber(changes.number ?? 1), await authorityKeyIdentifier(keys[which].spki)];
    return issueCrl({
      issuer: changes.issuer ?? intelName(NAMES[which]),
      thisUpdate: changes.thisUpdate ?? dates.issueDate,
      nextUpdate: 'nextUpdate' in changes ? changes.nextUpdate : dates.nextUpdate,
      revoked: changes.revoked ?? [],
      signer: changes.signer ?? keys[which],
      extensions: changes.extensions?.(regular) ?? regular,
    });
  };

  const [root, pckCa, pck, tcbSigning, rootCaCrl, pckCrl] = await Promise.all([
    options.keys === undefined ? issueCa('root') : Promise.resolve(fromBase64(options.keys.root)),
    issueCa(pckCaName),
    issuePck(),
    issueTcbSigning(),
    issueList('root'),
    issueList(pckCaName),
  ]);
  const pckChainPem = encodePem(pck) + encodePem(pckCa) + encodePem(root);
  const signingChainPem = encodePem(tcbSigning) + encodePem(root);
  const tcbInfo: SimulatedIntel['tcbInfo'] = (changes = {}) =>
    tcbInfoResponse({ fmspc, pceId, components, pceSvn, teeTcbSvn }, changes, dates, keys.tcbSigning);
  const qeIdentity: SimulatedIntel['qeIdentity'] = (changes = {}) =>
    qeIdentityResponse(changes, dates, keys.tcbSigning);
  const signQuote: SimulatedIntel['signQuote'] = (fields = {}) =>
    signSimulatedQuote(fields, { teeTcbSvn, qe: SIMULATED_QE, chainPem: pckChainPem }, keys);
  const collateral: SimulatedIntel['collateral'] = async (changes = {}) => ({
    tcbInfo: changes.tcbInfo ?? (await tcbInfo()),
    tcbInfoIssuerChain: signingChainPem,
    qeIdentity: changes.qeIdentity ?? (await qeIdentity()),
    qeIdentityIssuerChain: signingChainPem,
    pckCrl,
    pckCrlIssuerChain: encodePem(pckCa) + encodePem(root),
    rootCaCrl,
    ...changes,
  });
  return {
    endorsements: await collateral(),
    keys,
    root,
    pckCa,
    pck,
    tcbSigning,
    fmspc,
    pceId,
    ppid,
    pckChainPem,
    signingChainPem,
    signQuote,
    issueCa,
    issuePck,
    issueTcbSigning,
    issueCrl: issueList,
    tcbInfo,
    qeIdentity,
    collateral,
    evidence: async (quote = {}, changes = {}) => ({
      quote: await signQuote(quote),
      collateral: await collateral(changes),
    }),
    exportKeys: async () => {
      const entries = await Promise.all(
        KEY_NAMES.map(async (name) => [name, await exportKey(keys[name])] as const),
      );
      return {
        version: 1,
        keys: Object.fromEntries(entries) as Record<IntelKeyName, ExportedKey>,
        root: toBase64(root),
      };
    },
  };
}

async function makeKeys(saved: SimulatedIntelKeys | undefined): Promise<Record<IntelKeyName, IssuerKey>> {
  const entries = await Promise.all(
    KEY_NAMES.map(
      async (name) =>
        [
          name,
          saved === undefined ? await generateEcKey('P-256') : await importKey(saved.keys[name]),
        ] as const,
    ),
  );
  return Object.fromEntries(entries) as Record<IntelKeyName, IssuerKey>;
}

async function common(own: IssuerKey, issuer: IssuerKey): Promise<IssueExtension[]> {
  return [await authorityKeyIdentifier(issuer.spki), await subjectKeyIdentifier(own.spki)];
}

// A fake NVIDIA: device and manifest roots, GPUs and switches that sign reports, reference manifests and OCSP
// answers in the real wire formats, with real P-384 keys made locally. For laptops, CI and users' tests of
// their failure paths. Names are NVIDIA's so that a verifier runs its own code unchanged; the unit says what
// it is. Refused by every verifier whose roots are not replaced.

import { sha384 } from '@noble/hashes/sha2.js';
import { concatBytes, fromHex, toHex, utf8 } from '../encoding/bytes.ts';
import type { GpuArchitecture } from '../gpu/family.ts';
import type { GpuEvidence, ManifestEvidence } from '../gpu/subject.ts';
import { parseCertificate } from '../x509/certificate.ts';
import { contextTag, encodeDer, encodeInteger, encodeOid, TAG } from '../x509/der.ts';
import { namesOcsp } from '../x509/ocsp.ts';
import {
  basicConstraints,
  encodeName,
  generateEcKey,
  type IssueCertificate,
  issueCertificate,
  type IssueExtension,
  type IssuerKey,
  keyUsage,
} from './issue.ts';
import {
  type ManifestChanges,
  type ManifestParts,
  signManifest,
  type SimulatedEntry,
} from './nvidia-manifest.ts';
import {
  blockCount,
  type NvidiaReportChanges,
  regularOpaque,
  signNvidiaReport,
  SIMULATED_NVIDIA,
  simulatedMeasurement,
} from './nvidia-report.ts';
import { issueOcsp, type OcspChanges, ocspService } from './ocsp.ts';

/** A simulated device and its certificates. */
export interface SimulatedDevice {
  readonly arch: GpuArchitecture;
  /** DER, leaf first. */
  readonly chain: readonly Uint8Array[];
  readonly leaf: IssuerKey;
  /** 8 bytes in the device's own spelling: its id on NVLink. */
  readonly pdi: Uint8Array;
  report(nonce: Uint8Array, changes?: NvidiaReportChanges): Promise<Uint8Array>;
}

/** Settings of a simulated device. */
export interface SimulatedDeviceOptions {
  readonly arch?: GpuArchitecture | undefined;
  /** Distinguishes devices of one hierarchy; default 0. */
  readonly number?: number | undefined;
  /** Changes the certificate at a place of the chain, 0 the leaf, before it is signed. */
  readonly certificate?: ((place: number, regular: IssueCertificate) => IssueCertificate) | undefined;
}

/** The keys of the CAs. */
export type NvidiaKeyName =
  'root' | 'identity' | 'provisioner' | 'manifestRoot' | 'manifestCa' | 'manifestSigner';

/** A fake NVIDIA. */
export interface SimulatedNvidia {
  readonly keys: Readonly<Record<NvidiaKeyName, IssuerKey>>;
  /** DER. */
  readonly root: Uint8Array;
  readonly manifestRoot: Uint8Array;
  /** DER of the manifest signer, its CA and the root. */
  readonly manifestChain: readonly Uint8Array[];
  device(options?: SimulatedDeviceOptions): Promise<SimulatedDevice>;
  /** The manifest a regular device needs, by what it is of. */
  manifest(of: 'driver' | 'vbios' | 'switch', changes?: ManifestChanges): Promise<ManifestEvidence>;
  /** The answer about `chain[place]`, signed by its issuer unless changed. */
  ocsp(chain: readonly Uint8Array[], place: number, changes?: OcspChanges): Promise<Uint8Array>;
  /** Evidence of these devices: reports for the nonce, every manifest and OCSP answer they need. */
  evidence(nonce: Uint8Array, devices?: readonly SimulatedDevice[]): Promise<GpuEvidence>;
  /** GPUs and switches of one PPCIE machine, that name each other. */
  system(gpus: number, switches: number): Promise<readonly SimulatedDevice[]>;
  issue(changes: Partial<IssueCertificate>, by?: NvidiaKeyName): Promise<Uint8Array>;
}

const FROM = new Date('2021-11-05T00:00:00Z');
const FOREVER = new Date('9999-12-31T23:59:59Z');
const SIGNER_MS = 2 * 365 * 86_400_000;
const CHIPS = { HOPPER: 'GH100', BLACKWELL: 'GB100', LS10: 'LS_10' } as const;
const NAMES = {
  root: 'NVIDIA Device Identity CA',
  identity: 'NVIDIA GH100 Identity',
  manifestRoot: 'NVIDIA CoRIM signing Root CA',
  manifestCa: 'NVIDIA Reference Value GH100 CA',
  manifestSigner: 'HCC RIM L4 Signer',
} as const;
const KEY_NAMES: readonly NvidiaKeyName[] = ['root', 'identity', 'provisioner', 'manifestRoot', 'manifestCa', 'manifestSigner']; // prettier-ignore
const DRIVER_ENTRIES = [7, ...Array.from({ length: 21 }, (_, i) => 21 + i)];
const VBIOS_ENTRIES = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12];

/**
 * DER Name of a simulated NVIDIA certificate.
 * @example const subject = nvidiaName('NVIDIA GH100 Identity');
 */
export function nvidiaName(commonName: string): Uint8Array {
  return encodeName([
    ['CN', commonName],
    ['O', 'Assay simulated TEE'],
    ['OU', 'SIMULATED hierarchy, not NVIDIA hardware'],
  ]);
}

/**
 * Makes a hierarchy: six P-384 keys, and two for each device.
 * @example
 * const nvidia = await createSimulatedNvidia();
 * const evidence = await nvidia.evidence(nonce);
 */
export async function createSimulatedNvidia(
  options: { readonly now?: Date | undefined } = {},
): Promise<SimulatedNvidia> {
  const now = options.now ?? new Date();
  const made = await Promise.all(
    KEY_NAMES.map(async (name) => [name, await generateEcKey('P-384')] as const),
  );
  const keys = Object.fromEntries(made) as Record<NvidiaKeyName, IssuerKey>;
  const issuer = new Issuer(keys, now);
  const root = await issuer.ca(NAMES.root, 'root', 'root');
  const identity = await issuer.ca(NAMES.identity, 'identity', 'root');
  const manifestRoot = await issuer.ca(NAMES.manifestRoot, 'manifestRoot', 'manifestRoot');
  const manifestCa = await issuer.ca(NAMES.manifestCa, 'manifestCa', 'manifestRoot');
  const manifestSigner = await issueCertificate(issuer.manifestSigner());
  const manifestChain = [manifestSigner, manifestCa, manifestRoot];
  const above = { identity, root, issuer };
  const signers = new Map(KEY_NAMES.map((name) => [toHex(keys[name].spki), keys[name]]));
  const device = async (wanted: SimulatedDeviceOptions = {}): Promise<SimulatedDevice> => {
    const { made: each, brom } = await makeDevice(wanted, above, loneLinks(wanted));
    signers.set(toHex(brom.spki), brom);
    return each;
  };
  const manifest: SimulatedNvidia['manifest'] = async (of, changes = {}) => {
    const regular = regularManifest(of);
    const parts: ManifestParts = {
      version: changes.version ?? regular.version,
      product: changes.product ?? regular.product,
      edition: changes.edition ?? regular.edition,
      entries: changes.entries ?? regular.entries,
      signer: changes.signer ?? keys.manifestSigner,
      chain: changes.chain ?? manifestChain,
      write: changes.write,
      damage: changes.damage,
    };
    return { id: changes.id ?? regular.id, xml: await signManifest(parts) };
  };
  const ocsp: SimulatedNvidia['ocsp'] = (chain, place, changes = {}) => {
    const [certificate, by] = chain.slice(place).map((der) => parseCertificate(der));
    if (certificate === undefined || by === undefined) throw new RangeError(`no issuer of place ${place}`);
    const signer = signers.get(toHex(by.publicKey.raw));
    const nextUpdate = new Date(now.getTime() + 86_400_000);
    return issueOcsp(certificate, by, { thisUpdate: now, nextUpdate, signer, ...changes });
  };
  return {
    keys,
    root,
    manifestRoot,
    manifestChain,
    device,
    manifest,
    ocsp,
    issue: (changes, by = 'root') =>
      issueCertificate({ ...issuer.regular(NAMES.root, 'root', by), ...changes }),
    system: async (gpus, switches) => {
      const pdis = { gpus: pdisOf('gpu', gpus), switches: pdisOf('switch', switches) };
      const kinds = [...pdis.gpus.map(() => 'HOPPER' as const), ...pdis.switches.map(() => 'LS10' as const)];
      return Promise.all(
        kinds.map(async (arch, number) => {
          const own = arch === 'LS10' ? pdis.switches[number - gpus] : undefined;
          const { made: each, brom } = await makeDevice({ arch, number }, above, linksOf(pdis, own));
          signers.set(toHex(brom.spki), brom);
          return each;
        }),
      );
    },
    evidence: async (nonce, devices) => {
      const all = devices ?? [await device()];
      const archs = [...new Set(all.map(({ arch }) => arch))];
      return {
        devices: await Promise.all(
          all.map(async ({ arch, chain, report }) => ({
            arch,
            report: await report(nonce),
            certificates: chain,
          })),
        ),
        manifests: (await Promise.all(archs.map((arch) => manifestsOf(arch, manifest)))).flat(),
        ocsp: await answersFor([...all.map(({ chain }) => chain), manifestChain], ocsp),
      };
    },
  };
}

async function manifestsOf(
  arch: GpuArchitecture,
  manifest: SimulatedNvidia['manifest'],
): Promise<readonly ManifestEvidence[]> {
  if (arch === 'LS10') return [await manifest('switch')];
  if (arch === 'HOPPER') return Promise.all([manifest('driver'), manifest('vbios')]);
  const id = `NV_GPU_CC_DRIVER_GB100_${SIMULATED_NVIDIA.driver}`;
  return Promise.all([manifest('driver', { id, product: 'GB100' }), manifest('vbios', { product: 'GB100' })]);
}

async function answersFor(
  chains: readonly (readonly Uint8Array[])[],
  ocsp: SimulatedNvidia['ocsp'],
): Promise<readonly Uint8Array[]> {
  const wanted = new Map<string, readonly [readonly Uint8Array[], number]>();
  for (const chain of chains) {
    for (const [place, der] of chain.slice(0, -1).entries())
      if (namesOcsp(parseCertificate(der))) wanted.set(toHex(der), [chain, place]);
  }
  return Promise.all([...wanted.values()].map(([chain, place]) => ocsp(chain, place)));
}

/** Certificates of the CAs, with the values that all have in common. */
class Issuer {
  readonly #keys: Readonly<Record<NvidiaKeyName, IssuerKey>>;
  readonly #now: Date;
  #serial = 0x600000;

  constructor(keys: Readonly<Record<NvidiaKeyName, IssuerKey>>, now: Date) {
    this.#keys = keys;
    this.#now = now;
  }

  key(name: NvidiaKeyName): IssuerKey {
    return this.#keys[name];
  }

  regular(commonName: string, key: NvidiaKeyName, by: NvidiaKeyName): IssueCertificate {
    const service = key === by ? [] : [ocspService()];
    this.#serial += 1;
    return {
      issuer: nvidiaName(by === 'provisioner' ? 'NVIDIA GH100 Provisioner ICA 1' : NAMES[by]),
      subject: nvidiaName(commonName),
      serial: this.#serial,
      notBefore: FROM,
      notAfter: FOREVER,
      spki: this.#keys[key].spki,
      extensions: [basicConstraints(true), keyUsage(['keyCertSign', 'crlSign']), ...service],
      signer: this.#keys[by],
    };
  }

  ca(commonName: string, key: NvidiaKeyName, by: NvidiaKeyName): Promise<Uint8Array> {
    return issueCertificate(this.regular(commonName, key, by));
  }

  manifestSigner(): IssueCertificate {
    return {
      ...this.regular(NAMES.manifestSigner, 'manifestSigner', 'manifestCa'),
      notBefore: new Date(this.#now.getTime() - 86_400_000),
      notAfter: new Date(this.#now.getTime() + SIGNER_MS),
      extensions: [basicConstraints(false), keyUsage(['digitalSignature']), ocspService()],
    };
  }
}

interface Above {
  readonly identity: Uint8Array;
  readonly root: Uint8Array;
  readonly issuer: Issuer;
}

async function makeDevice(
  { arch = 'HOPPER', number = 0, certificate = (_place, regular) => regular }: SimulatedDeviceOptions,
  { identity, root, issuer }: Above,
  links: ReadonlyMap<number, Uint8Array>,
): Promise<{ readonly made: SimulatedDevice; readonly brom: IssuerKey }> {
  const [leaf, brom] = await Promise.all([generateEcKey('P-384'), generateEcKey('P-384')]);
  const chip = CHIPS[arch];
  const part = arch === 'LS10' ? 'FSP' : 'GSP';
  const names = [
    `${chip} A01 ${part} FMC LF`,
    `${chip} A01 ${part} BROM`,
    `NVIDIA ${chip} Provisioner ICA 1`,
  ];
  const fwid = sha384(utf8(`assay simulated firmware ${arch}`));
  const ca = issuer.regular(names[2] ?? '', 'provisioner', 'identity');
  const bromAll: IssueCertificate = {
    ...ca,
    issuer: ca.subject,
    subject: nvidiaName(names[1] ?? ''),
    serial: 0xb0_0000 + number,
    spki: brom.spki,
    extensions: [basicConstraints(true), keyUsage(['keyCertSign'])],
    signer: issuer.key('provisioner'),
  };
  const leafAll: IssueCertificate = {
    ...bromAll,
    issuer: bromAll.subject,
    subject: nvidiaName(names[0] ?? ''),
    serial: 0x1ea_f0000 + number,
    spki: leaf.spki,
    extensions: [keyUsage(['digitalSignature']), firmwareId(arch, fwid, leaf.spki)],
    signer: brom,
  };
  const issued = [leafAll, bromAll, ca].map((each, place) => issueCertificate(certificate(place, each)));
  const opaque = new Map([...regularOpaque(arch, fwid), ...links]);
  const signing = { arch, opaque, leaf };
  const made: SimulatedDevice = {
    arch,
    chain: [...(await Promise.all(issued)), identity, root],
    leaf,
    pdi: opaque.get(22)?.slice(0, 8) ?? new Uint8Array(8),
    report: (nonce, changes) => signNvidiaReport(nonce, signing, changes),
  };
  return { made, brom };
}

/** The two forms of a firmware id in a leaf: Hopper and switches, and Blackwell's TcbInfo. */
function firmwareId(arch: GpuArchitecture, fwid: Uint8Array, spki: Uint8Array): IssueExtension {
  const digest = (value: Uint8Array): readonly Uint8Array[] => [
    encodeOid('2.16.840.1.101.3.4.2.2'),
    encodeDer(TAG.octetString, value),
  ];
  if (arch !== 'BLACKWELL') {
    const value = encodeDer(TAG.sequence, encodeInteger(1), spki, encodeDer(TAG.sequence, ...digest(fwid)));
    return { oid: '2.23.133.5.4.1', value };
  }
  const both = [fwid, new Uint8Array(48)].map((value) => encodeDer(TAG.sequence, ...digest(value)));
  const value = encodeDer(TAG.sequence, encodeDer(contextTag(0, false), utf8('NVIDIA')), encodeDer(contextTag(6), ...both)); // prettier-ignore
  return { oid: '2.23.133.5.4.1.1', value };
}

function regularManifest(of: 'driver' | 'vbios' | 'switch'): {
  readonly id: string;
  readonly version: string;
  readonly product: string;
  readonly edition: string;
  readonly entries: readonly SimulatedEntry[];
} {
  const { driver, vbios, switchBios, project, projectSku, chipSku } = SIMULATED_NVIDIA;
  const compact = (version: string): string => version.replaceAll('.', '');
  const gpu = { product: 'GH100', edition: 'GPU' };
  if (of === 'driver')
    return {
      ...gpu,
      id: `NV_GPU_DRIVER_GH100_${driver}`,
      version: driver,
      entries: entriesOf(64, DRIVER_ENTRIES),
    };
  if (of === 'vbios')
    return { ...gpu, id: `NV_GPU_VBIOS_${project}_${projectSku}_${chipSku}_${compact(vbios)}`, version: vbios, entries: entriesOf(64, VBIOS_ENTRIES) }; // prettier-ignore
  const all = Array.from({ length: blockCount('LS10') }, (_, i) => i);
  return { id: `NV_SWITCH_BIOS_5612_0002_890_${compact(switchBios)}`, version: switchBios, product: 'LS10', edition: 'SWITCH', entries: entriesOf(64, all) }; // prettier-ignore
}

function entriesOf(count: number, active: readonly number[]): readonly SimulatedEntry[] {
  return Array.from({ length: count }, (_, index) => ({
    index,
    active: active.includes(index),
    alternatives: [active.includes(index) ? toHex(simulatedMeasurement(index)) : '0'.repeat(96)],
  }));
}

interface Pdis {
  readonly gpus: readonly Uint8Array[];
  readonly switches: readonly Uint8Array[];
}

function pdisOf(kind: string, count: number): readonly Uint8Array[] {
  return Array.from({ length: count }, (_, i) => sha384(utf8(`assay simulated ${kind} ${i}`)).slice(0, 8));
}

/** A switch alone names itself, and no GPU. */
function loneLinks({ arch, number = 0 }: SimulatedDeviceOptions): ReadonlyMap<number, Uint8Array> {
  if (arch !== 'LS10') return new Map();
  return linksOf({ gpus: [], switches: [] }, pdisOf('switch', number + 1)[number]);
}

/** Fields 22 and 26 of a switch, or 21, 22 and 36 of a GPU, which spells switches backwards. */
function linksOf({ gpus, switches }: Pdis, own: Uint8Array | undefined): ReadonlyMap<number, Uint8Array> {
  if (own !== undefined) {
    const ports = new Uint8Array(128);
    for (const [i, pdi] of gpus.entries()) ports.set(pdi, 8 * i);
    return new Map([
      [22, own],
      [26, ports],
    ]);
  }
  const links = Array.from({ length: 18 }, (_, i) =>
    switches[i % Math.max(1, switches.length)]?.toReversed(),
  );
  return new Map([
    [21, fromHex('aa')],
    [22, concatBytes(...links.map((pdi) => pdi ?? new Uint8Array(8)))],
    [36, Uint8Array.of(2, 0)],
  ]);
}

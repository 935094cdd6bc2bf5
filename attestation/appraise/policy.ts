// The appraisal policy (docs/protocol.md §7): what a relying party accepts, as a closed object. Unknown keys,
// empty lists and wrong types are refused; what is absent takes the strict default written here. What weakens
// a policy is not in its JSON at all: it takes one of the exported symbols, in code, or a flag on the command
// line. A debug guest is never accepted.

import { TEE_TYPES, type TeeType } from '../protocol/document.ts';
import { malformed } from '../transcript/errors.ts';
import { type Json, type JsonObject, parseJson, shapeReaders } from '../encoding/json.ts';
import {
  hex,
  readReferences,
  type Reference,
  type ReleaseReference,
  type Releases,
} from './policy-references.ts';
import { readMinimumTcb, readModels } from './policy-fields.ts';
import {
  guestPolicyToJson,
  readGuestPolicy,
  type DecidedGuestPolicy,
  type GuestPolicyGrade,
  type GuestPolicyRules,
} from '../snp/guest-policy.ts';
import {
  decideSnpPolicy,
  readSnpSection,
  type DecidedSnpPolicy,
  type MinimumTcbs,
  type SnpPolicy,
  type SnpSection,
} from '../snp/policy.ts';
import type { GpuPolicy } from '../gpu/policy.ts';
import { type Product, PRODUCTS } from '../snp/tcb.ts';
import type { VtpmSection } from '../vtpm/policy.ts';
import { SOFTWARE_ROOTS, type SoftwareRoot } from './software-root.ts';
import { TCB_STATUSES as INTEL_TCB_STATUSES, type TcbStatus } from '../tdx/collateral.ts';
import {
  decideTdxPolicy,
  readTdxSection,
  type DecidedTdxPolicy,
  type TdxPolicy,
  type TdxSection,
} from '../tdx/policy.ts';

/**
 * Accept the simulated TEE: `true` for any simulated root, or only the one whose DER
 * certificate has this SHA-256 (hex).
 */
export const allowSimulated: unique symbol = Symbol('assay: accept simulated evidence');
/** Accept whatever models the server serves: P3 is not proven. */
export const allowAnyModel: unique symbol = Symbol('assay: accept any model');
/** Accept evidence from the certificate alone: neither freshness nor this connection is proven. */
export const allowCertificateChannel: unique symbol = Symbol('assay: accept certificate evidence');

/** A TEE that a policy can list. */
export type RealTee = Exclude<TeeType, 'simulated'>;

/** Statuses that Intel gives a platform and a policy can accept. */
export type AcceptableTcbStatus = Exclude<TcbStatus, 'Revoked'>;
const TCB_STATUSES = INTEL_TCB_STATUSES.filter(
  (status): status is AcceptableTcbStatus => status !== 'Revoked',
);

/** The policy as a relying party writes it, in JSON or in code. Hex in either case. */
export interface AppraisalPolicy {
  /** Launch measurements of accepted builds; a plain string is an SNP MEASUREMENT. */
  readonly measurements: readonly (string | Reference | ReleaseReference)[];
  /**
   * Model id → SHA-256: each must be served, with exactly these bytes; requests for any
   * other model are not sent.
   */
  readonly models?: Readonly<Record<string, string>> | undefined;
  /** Default: sev-snp and tdx. */
  readonly tee?: readonly RealTee[] | undefined;
  /** Whose word "known software" may be. Default: cpu alone. */
  readonly softwareRoot?: readonly SoftwareRoot[] | undefined;
  /** Default: Genoa and Turin. Milan's VCEK seed has been extracted in software (arXiv 2605.12990). */
  readonly products?: readonly Product[] | undefined;
  readonly minimumTcb?: MinimumTcbs | undefined;
  /** Default: UpToDate only. */
  readonly tcbStatus?: readonly AcceptableTcbStatus[] | undefined;
  readonly minimumTcbEvaluationDataNumber?: number | undefined;
  /** Default: `baseline`, what KVM of today can launch. `strict`, or single bits over a grade. */
  readonly guestPolicy?: GuestPolicyGrade | GuestPolicyRules | undefined;
  /** Default: 0. */
  readonly vmpl?: number | undefined;
  /**
   * Allow-list of machines: SNP chip ids (64 bytes) and TDX PPIDs (16 bytes). The answer to
   * physical attacks elsewhere.
   */
  readonly chips?: readonly string[] | undefined;
  readonly hostData?: readonly string[] | undefined;
  readonly idKeyDigests?: readonly string[] | undefined;
  readonly authorKeyDigests?: readonly string[] | undefined;
  readonly mrSeam?: readonly string[] | undefined;
  /** Further demands on SEV-SNP evidence; an absent key is not asked. */
  readonly snp?: SnpSection | undefined;
  /** Further demands on a TDX guest; an absent key is not asked, or has the strict value its type says. */
  readonly tdx?: TdxSection | undefined;
  /** Further demands on evidence of the clouds; read by the verifier of `@assay/attestation/vtpm`. */
  readonly vtpm?: VtpmSection | undefined;
  /** Demands on NVIDIA GPUs; read by the verifier of `@assay/attestation/gpu`. */
  readonly gpu?: GpuPolicy | undefined;
  /** Allow-list for claims.config, the digest of the server's effective configuration. */
  readonly configs?: readonly string[] | undefined;
  /** Seconds; evidence older than this is renewed before the next request. Default 3600. */
  readonly maxEvidenceAge?: number | undefined;
  /** Default `exporter`. `sealed`: evidence for sealed bodies is taken, too (docs/sealed.md §2). */
  readonly channel?: 'exporter' | 'sealed' | undefined;
  /**
   * Where endorsements come from. Default `stapled`. `fetch`: stapled ones first, the vendors' services when
   * the stapled ones are not accepted.
   */
  readonly endorsements?: 'stapled' | 'fetch' | 'offline' | undefined;
  readonly [allowSimulated]?: true | { readonly root: string } | undefined;
  readonly [allowAnyModel]?: true | undefined;
  readonly [allowCertificateChannel]?: true | undefined;
}

/** A policy with every field decided. Only `parsePolicy` and `observingPolicy` make one. */
export interface Policy {
  readonly measurements: readonly Reference[];
  /** Undefined: any model (by symbol only). */
  readonly models: ReadonlyMap<string, string> | undefined;
  readonly tee: readonly RealTee[];
  readonly softwareRoot: readonly SoftwareRoot[];
  readonly products: readonly Product[];
  readonly minimumTcb: MinimumTcbs;
  readonly tcbStatus: readonly AcceptableTcbStatus[];
  readonly minimumTcbEvaluationDataNumber: number | undefined;
  readonly guestPolicy: DecidedGuestPolicy;
  readonly vmpl: number;
  readonly chips: readonly string[] | undefined;
  readonly hostData: readonly string[] | undefined;
  readonly idKeyDigests: readonly string[] | undefined;
  readonly authorKeyDigests: readonly string[] | undefined;
  readonly mrSeam: readonly string[] | undefined;
  readonly snp: SnpSection | undefined;
  readonly tdx: TdxSection | undefined;
  readonly vtpm: VtpmSection | undefined;
  readonly gpu: JsonObject | undefined;
  readonly configs: readonly string[] | undefined;
  readonly maxEvidenceAge: number;
  readonly channel: 'exporter' | 'sealed';
  readonly endorsements: 'stapled' | 'fetch' | 'offline';
  /** All of the above that a vendor's verifier judges, in bytes. */
  readonly decided: { readonly snp: DecidedSnpPolicy; readonly tdx: DecidedTdxPolicy };
  /** From the symbols; never from JSON. */
  readonly danger: {
    /** `true`, or the SHA-256 of the one simulated root accepted. */
    readonly simulated: boolean | string;
    readonly anyModel: boolean;
    readonly certificateChannel: boolean;
  };
}

export interface Dangers {
  readonly [allowSimulated]?: true | { readonly root: string } | undefined;
  readonly [allowAnyModel]?: true | undefined;
  readonly [allowCertificateChannel]?: true | undefined;
}

const made = new WeakSet<object>();
const read = shapeReaders('malformed_policy');

const DEFAULT_MAX_EVIDENCE_AGE = 3600;
const LIST_MAX = 1024;

const OPTIONAL = 'models tee softwareRoot products minimumTcb tcbStatus minimumTcbEvaluationDataNumber guestPolicy vmpl chips hostData idKeyDigests authorKeyDigests mrSeam snp tdx vtpm gpu configs maxEvidenceAge channel endorsements'.split(' '); // prettier-ignore

/**
 * JSON text or an object → policy; `releases` resolves `{ release }`. Throws `malformed_policy`. Dangers are
 * read from symbols only. A parsed policy passes through.
 * @example const policy = parsePolicy(text);
 */
export function parsePolicy(
  input: string | AppraisalPolicy | Policy,
  dangers: Dangers = {},
  releases: Releases = new Map(),
): Policy {
  if (isPolicy(input)) return input;
  const json = typeof input === 'string' ? parseJson(input, 'policy') : (input as unknown as Json);
  const object = read.object(json, 'policy', ['measurements'], OPTIONAL);
  const own = typeof input === 'string' ? undefined : symbolsOf(input);
  return decide(object, { ...own, ...dangers }, releases);
}

/**
 * A policy with empty lists, which accepts no server: for looking at a server and seeing what
 * would have to be listed.
 * @example const policy = observingPolicy({ [allowSimulated]: true });
 */
export function observingPolicy(dangers: Dangers = {}): Policy {
  const policy = decide({ measurements: ['00'.repeat(48)] }, { ...dangers, [allowAnyModel]: true });
  return keep({
    ...policy,
    measurements: [],
    models: new Map(),
    danger: { ...policy.danger, anyModel: false },
  });
}

export function isPolicy(value: unknown): value is Policy {
  return typeof value === 'object' && value !== null && made.has(value);
}

/** The same policy for evidence on the other channel. */
export function onChannel(policy: Policy, channel: Policy['channel']): Policy {
  return keep({ ...policy, channel });
}

/**
 * The policy with every default written out, as JSON a file can hold, so without its dangers.
 * @example const text = JSON.stringify(policyToJson(policy), null, 2);
 */
export function policyToJson(policy: Policy): JsonObject {
  const minimumTcb = Object.entries(policy.minimumTcb).map(([name, least]) => [name, written(least)]);
  return written({
    measurements: policy.measurements.map(written),
    models: policy.models && Object.fromEntries(policy.models),
    tee: policy.tee,
    softwareRoot: policy.softwareRoot,
    products: policy.products,
    minimumTcb: minimumTcb.length === 0 ? undefined : Object.fromEntries(minimumTcb),
    tcbStatus: policy.tcbStatus,
    guestPolicy: guestPolicyToJson(policy.guestPolicy),
    vmpl: policy.vmpl,
    maxEvidenceAge: policy.maxEvidenceAge,
    channel: policy.channel,
    endorsements: policy.endorsements,
    minimumTcbEvaluationDataNumber: policy.minimumTcbEvaluationDataNumber,
    chips: policy.chips,
    hostData: policy.hostData,
    idKeyDigests: policy.idKeyDigests,
    authorKeyDigests: policy.authorKeyDigests,
    mrSeam: policy.mrSeam,
    configs: policy.configs,
    snp: policy.snp && written(policy.snp),
    tdx: policy.tdx && written(policy.tdx),
    vtpm: policy.vtpm && written(policy.vtpm),
    gpu: policy.gpu,
  });
}

/** Without what is undefined, which JSON cannot say. */
function written(members: object): JsonObject {
  return Object.fromEntries(Object.entries(members).filter(([, value]) => value !== undefined));
}

// --- reading -----------------------------------------------------------------------------------------------

function decide(object: JsonObject, dangers: Dangers, releases: Releases = new Map()): Policy {
  const danger = readDangers(dangers);
  const has = (key: string): boolean => object[key] !== undefined;
  if (!has('models') && !danger.anyModel) {
    throw malformed('malformed_policy', 'policy lacks models', { hint: 'list each model as "id": "sha256"; in code, [allowAnyModel]: true gives up proving which model answers' }); // prettier-ignore
  }
  if (has('models') && danger.anyModel)
    throw malformed('malformed_policy', 'policy lists models and allows any model: only one can hold');
  const hexes = (key: string, ...sizes: number[]): readonly string[] | undefined =>
    has(key)
      ? read.list(object[key], key, 1, LIST_MAX).map((item, i) => hex(item, `${key}[${i}]`, ...sizes))
      : undefined;
  return keep({
    measurements: read
      .list(object['measurements'], 'measurements', 1, LIST_MAX)
      .flatMap((item, i) => readReferences(item, `measurements[${i}]`, releases)),
    models: has('models') ? readModels(object['models']) : undefined,
    tee: has('tee') ? readTees(object['tee']) : ['sev-snp', 'tdx'],
    softwareRoot: has('softwareRoot')
      ? readChoices(object['softwareRoot'], 'softwareRoot', SOFTWARE_ROOTS)
      : ['cpu'],
    products: has('products') ? readChoices(object['products'], 'products', PRODUCTS) : ['Genoa', 'Turin'],
    minimumTcb: has('minimumTcb') ? readMinimumTcb(object['minimumTcb']) : {},
    tcbStatus: has('tcbStatus') ? readChoices(object['tcbStatus'], 'tcbStatus', TCB_STATUSES) : ['UpToDate'],
    minimumTcbEvaluationDataNumber: has('minimumTcbEvaluationDataNumber') ? read.integer(object['minimumTcbEvaluationDataNumber'], 'minimumTcbEvaluationDataNumber') : undefined, // prettier-ignore
    guestPolicy: readGuestPolicy(object['guestPolicy']),
    vmpl: has('vmpl') ? read.integer(object['vmpl'], 'vmpl', 0, 3) : 0,
    chips: hexes('chips', 64, 16),
    hostData: hexes('hostData', 32),
    idKeyDigests: hexes('idKeyDigests', 48),
    authorKeyDigests: hexes('authorKeyDigests', 48),
    mrSeam: hexes('mrSeam', 48),
    snp: has('snp') ? notEmpty('snp', readSnpSection(object['snp'])) : undefined,
    tdx: has('tdx') ? notEmpty('tdx', readTdxSection(object['tdx'])) : undefined,
    // Their verifiers, which alone act on them, read what is in them.
    vtpm: has('vtpm') ? unread('vtpm', object) : undefined,
    gpu: has('gpu') ? unread('gpu', object) : undefined,
    configs: hexes('configs', 32),
    maxEvidenceAge: has('maxEvidenceAge') ? read.integer(object['maxEvidenceAge'], 'maxEvidenceAge', 1, 31_536_000) : DEFAULT_MAX_EVIDENCE_AGE, // prettier-ignore
    channel: has('channel') ? readChannel(object['channel']) : 'exporter',
    endorsements: has('endorsements') ? read.oneOf(object['endorsements'], 'endorsements', ['stapled', 'fetch', 'offline']) : 'stapled', // prettier-ignore
    danger,
  });
}

function keep(policy: Omit<Policy, 'decided'>): Policy {
  const frozen: Policy = Object.freeze({
    ...policy,
    decided: Object.freeze({ snp: decideSnp(policy), tdx: decideTdx(policy) }),
  });
  made.add(frozen);
  return frozen;
}

/** The policy in the terms of SNP, but for launch measurements, which a cloud's firmware has of its own. */
export function snpTermsOf(policy: Omit<Policy, 'decided'>): SnpPolicy {
  const { hostData, guestPolicy, vmpl, products } = policy;
  const { idKeyDigests: idKeyDigest, authorKeyDigests: authorKeyDigest } = policy;
  const chipIds = unlessEmpty(policy.chips?.filter((chip) => chip.length === 2 * 64));
  return { ...policy.snp, chipIds, hostData, idKeyDigest, authorKeyDigest, guestPolicy, vmpl, products };
}

/** As {@link snpTermsOf}, of TDX. */
export function tdxTermsOf(policy: Omit<Policy, 'decided'>): TdxPolicy {
  return {
    ...policy.tdx,
    ppid: unlessEmpty(policy.chips?.filter((chip) => chip.length === 2 * 16)),
    mrSeam: policy.mrSeam,
    minimumTcbEvaluationDataNumber: policy.minimumTcbEvaluationDataNumber,
    tcbStatus: policy.tcbStatus,
  };
}

/** A list without a value for this vendor is not asked here: the appraisal as a whole judges it. */
function unlessEmpty(list: readonly string[] | undefined): readonly string[] | undefined {
  return list === undefined || list.length === 0 ? undefined : list;
}

function decideSnp(policy: Omit<Policy, 'decided'>): DecidedSnpPolicy {
  const measurement = policy.measurements.flatMap((build) =>
    'measurement' in build ? build.measurement : [],
  );
  const terms = { ...snpTermsOf(policy), measurement: unlessEmpty(measurement) };
  return decideSnpPolicy(terms, { minimums: policy.minimumTcb });
}

function decideTdx(policy: Omit<Policy, 'decided'>): DecidedTdxPolicy {
  const mrTd = policy.measurements.flatMap((build) => ('mrTd' in build ? [build.mrTd] : []));
  return decideTdxPolicy({ ...tdxTermsOf(policy), mrTd: unlessEmpty(mrTd) });
}

function symbolsOf(input: AppraisalPolicy | Policy): Dangers {
  // Own properties only: a prototype may have been tampered with.
  const given = { ...(input as AppraisalPolicy) };
  return {
    [allowSimulated]: given[allowSimulated],
    [allowAnyModel]: given[allowAnyModel],
    [allowCertificateChannel]: given[allowCertificateChannel],
  };
}

function readDangers(dangers: Dangers): Policy['danger'] {
  const simulated = dangers[allowSimulated] ?? false;
  return {
    simulated: typeof simulated === 'boolean' ? simulated : hex(simulated.root, 'allowSimulated.root', 32),
    anyModel: dangers[allowAnyModel] === true,
    certificateChannel: dangers[allowCertificateChannel] === true,
  };
}

function readChannel(value: unknown): Policy['channel'] {
  if (value === 'certificate')
    throw malformed('malformed_policy', 'channel "certificate" cannot be chosen in a policy', { hint: 'it is weaker, and takes [allowCertificateChannel] in code' }); // prettier-ignore
  return read.oneOf(value, 'channel', ['exporter', 'sealed']);
}

function readTees(value: unknown): readonly RealTee[] {
  if (Array.isArray(value) && value.includes('simulated')) {
    throw malformed('malformed_policy', 'tee lists simulated, which no policy can accept', {
      hint: 'use --allow-simulated on the command line, or [allowSimulated] in code',
    });
  }
  const real = TEE_TYPES.filter((tee): tee is RealTee => tee !== 'simulated');
  return readChoices(value, 'tee', real);
}

function unread(name: string, object: JsonObject): JsonObject {
  return notEmpty(name, structuredClone({ ...read.record(object[name], name) }));
}

/** An empty section is a mistake: its author meant to ask for something. */
function notEmpty<T extends object>(name: string, section: T): T {
  if (Object.keys(section).length === 0) throw malformed('malformed_policy', `${name} is empty`);
  return section;
}

function readChoices<const T extends string>(
  value: unknown,
  name: string,
  allowed: readonly T[],
): readonly T[] {
  const items = read
    .list(value, name, 1, allowed.length)
    .map((item, i) => read.oneOf<T>(item, `${name}[${i}]`, allowed));
  if (new Set(items).size !== items.length) throw malformed('malformed_policy', `${name} has an entry twice`);
  return items;
}

// The appraisal policy (docs/protocol.md §7): what a relying party accepts, as a closed object. Unknown keys, empty lists
// and wrong types are refused; what is absent takes the strict default written here. What weakens a policy is not in its
// JSON at all: it takes one of the exported symbols, in code, or a flag on the command line. A debug guest is never accepted.

import { fromHex, toHex } from '../encoding/bytes.ts';
import { TEE_TYPES, type TeeType } from '../protocol/document.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import { type Json, type JsonObject, parseJson, shapeReaders } from '../encoding/json.ts';
import {
  guestPolicyToJson,
  lintGuestPolicy,
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
import { type Product, PRODUCTS } from '../snp/tcb.ts';
import { TCB_STATUSES as INTEL_TCB_STATUSES, type TcbStatus as IntelTcbStatus } from '../tdx/collateral.ts';
import { lintPinnedBits, TD_ATTRIBUTES, XFAM_BITS } from '../tdx/attributes.ts';
import {
  decideTdxPolicy,
  readTdxSection,
  type DecidedTdxPolicy,
  type TdxPolicy,
  type TdxSection,
} from '../tdx/policy.ts';

/** Accept the simulated TEE: `true` for any simulated root, or only the one whose DER certificate has this SHA-256 (hex). */
export const allowSimulated: unique symbol = Symbol('assay: accept simulated evidence');
/** Accept whatever models the server serves: P3 is not proven. */
export const allowAnyModel: unique symbol = Symbol('assay: accept any model');
/** Accept evidence from the certificate alone: neither freshness nor this connection is proven. */
export const allowCertificateChannel: unique symbol = Symbol('assay: accept certificate evidence');

/** What Intel can say of a platform, and a policy can accept. */
export type TcbStatus = Exclude<IntelTcbStatus, 'Revoked'>;
const TCB_STATUSES = INTEL_TCB_STATUSES.filter((status): status is TcbStatus => status !== 'Revoked');

/** One accepted build. SNP: MEASUREMENT covers everything. TDX: MRTD covers the firmware only, so the RTMRs are needed too. */
export interface SnpReference {
  readonly measurement: string;
  /** What a person calls this build; printed in the verdict. */
  readonly name?: string | undefined;
}
export interface TdxReference {
  readonly mrTd: string;
  readonly rtmr0?: string | undefined;
  readonly rtmr1: string;
  readonly rtmr2: string;
  readonly rtmr3?: string | undefined;
  readonly name?: string | undefined;
}
export type Reference = SnpReference | TdxReference;
/** Every shape of a published release; resolved by the reference values that go with the policy. */
export interface ReleaseReference {
  readonly release: string;
}
/** Release name → its builds, as `parseReferenceValues` reads them. */
export type Releases = ReadonlyMap<string, readonly Reference[]>;

/** What a relying party writes, in JSON or in code. Hex in either case. */
export interface AppraisalPolicy {
  /** Launch measurements of accepted builds; a plain string is an SNP MEASUREMENT. */
  readonly measurements: readonly (string | Reference | ReleaseReference)[];
  /** Model id → SHA-256: each must be served, with exactly these bytes; requests for any other model are not sent. */
  readonly models?: Readonly<Record<string, string>> | undefined;
  /** Default: sev-snp and tdx. */
  readonly tee?: readonly ('sev-snp' | 'tdx')[] | undefined;
  /** Default: Genoa and Turin. Milan's VCEK seed has been extracted in software (arXiv 2605.12990). */
  readonly products?: readonly Product[] | undefined;
  readonly minimumTcb?: MinimumTcbs | undefined;
  /** Default: UpToDate only. */
  readonly tcbStatus?: readonly TcbStatus[] | undefined;
  readonly minimumTcbEvaluationDataNumber?: number | undefined;
  /** Default: `baseline`, what KVM of today can launch. `strict`, or single bits over a grade. */
  readonly guestPolicy?: GuestPolicyGrade | GuestPolicyRules | undefined;
  /** Default: 0. */
  readonly vmpl?: number | undefined;
  /** Allow-list of machines: SNP chip ids (64 bytes) and TDX PPIDs (16 bytes). The answer to physical attacks elsewhere. */
  readonly chips?: readonly string[] | undefined;
  readonly hostData?: readonly string[] | undefined;
  readonly idKeyDigests?: readonly string[] | undefined;
  readonly authorKeyDigests?: readonly string[] | undefined;
  readonly mrSeam?: readonly string[] | undefined;
  /** What else may be asked of SEV-SNP evidence; an absent key is not asked. */
  readonly snp?: SnpSection | undefined;
  /** What else may be asked of a TDX guest; an absent key is not asked, or has the strict value its type says. */
  readonly tdx?: TdxSection | undefined;
  /** Allow-list for claims.config, the digest of the server's effective configuration. */
  readonly configs?: readonly string[] | undefined;
  /** Seconds; evidence older than this is renewed before the next request. Default 3600. */
  readonly maxEvidenceAge?: number | undefined;
  readonly channel?: 'exporter' | undefined;
  /** Where endorsements come from. Default `stapled`. `fetch`: stapled ones first, the vendors' services when they do not do. */
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
  readonly tee: readonly ('sev-snp' | 'tdx')[];
  readonly products: readonly Product[];
  readonly minimumTcb: MinimumTcbs;
  readonly tcbStatus: readonly TcbStatus[];
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
  readonly configs: readonly string[] | undefined;
  readonly maxEvidenceAge: number;
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

const OPTIONAL =
  'models tee products minimumTcb tcbStatus minimumTcbEvaluationDataNumber guestPolicy vmpl chips hostData idKeyDigests authorKeyDigests mrSeam snp tdx configs maxEvidenceAge channel endorsements'.split(
    ' ',
  );

/** JSON text or an object → policy; `releases` resolves `{ release }`. Throws `malformed_policy`. Dangers are read from symbols only. A parsed policy passes through. */
export function parsePolicy(
  input: string | AppraisalPolicy | Policy,
  dangers: Dangers = {},
  releases: Releases = new Map(),
): Policy {
  if (isPolicy(input)) return input;
  const json = typeof input === 'string' ? parseJson(input, 'policy') : (input as unknown as Json);
  const object = read.object(json, 'policy', ['measurements'], OPTIONAL);
  return decide(object, { ...(typeof input === 'string' ? {} : symbolsOf(input)), ...dangers }, releases);
}

/** A policy that lists nothing and so accepts nothing: for looking at a server and seeing what would have to be listed. */
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

/** What a careful reader would ask about a policy; empty when there is nothing to ask. */
export function lintPolicy(policy: Policy): string[] {
  const remarks: string[] = [];
  const { danger } = policy;
  if (danger.simulated !== false)
    remarks.push('danger: simulated evidence is accepted; nothing about hardware is proven');
  if (danger.anyModel) remarks.push('danger: any model is accepted; which one answers is not proven');
  if (danger.certificateChannel)
    remarks.push('danger: certificate evidence is accepted; freshness and connection are not proven');
  if (policy.tee.includes('sev-snp')) {
    if (policy.products.includes('Milan'))
      remarks.push('products lists Milan, whose VCEK seed has been extracted in software (arXiv 2605.12990)');
    remarks.push(...lintGuestPolicy(policy.guestPolicy));
    for (const product of policy.products) {
      if (policy.minimumTcb[product] === undefined)
        remarks.push(
          `minimumTcb has no entry for ${product}: any firmware AMD ever signed for it is accepted`,
        );
    }
  }
  if (policy.tee.includes('tdx')) {
    const open = policy.tcbStatus.filter((status) => status !== 'UpToDate');
    if (open.length > 0)
      remarks.push(`tcbStatus accepts ${open.join(', ')}: platforms with published, unfixed weaknesses`);
  }
  remarks.push(...lintSections(policy));
  if (policy.tee.length === 1) {
    const other =
      policy.tee[0] === 'tdx'
        ? policy.measurements.some((m) => 'measurement' in m)
        : policy.measurements.some((m) => 'mrTd' in m);
    if (other) remarks.push('measurements has entries for a tee that is not accepted');
  } else {
    if (!policy.measurements.some((m) => 'measurement' in m))
      remarks.push('tee accepts sev-snp but no measurement is listed for it: it will always be refused');
    if (!policy.measurements.some((m) => 'mrTd' in m))
      remarks.push('tee accepts tdx but no mrTd is listed for it: it will always be refused');
  }
  if (policy.chips === undefined)
    remarks.push(
      'chips is absent: any genuine machine will do, also one whose owner has physical access to it',
    );
  if (policy.maxEvidenceAge > 86_400)
    remarks.push(`maxEvidenceAge is ${policy.maxEvidenceAge} s, more than a day`);
  return remarks;
}

function lintSections({ tee, snp, tdx }: Policy): string[] {
  const remarks: string[] = [];
  if (snp !== undefined && !tee.includes('sev-snp')) remarks.push('snp speaks of a tee that is not accepted');
  if (tdx === undefined) return remarks;
  if (!tee.includes('tdx')) remarks.push('tdx speaks of a tee that is not accepted');
  if (tdx.allowMigratable === true)
    remarks.push('tdx.allowMigratable: a migration TD nobody judged here may move the guest elsewhere');
  if ((tdx.tcbGraceDays ?? 0) > 0)
    remarks.push(
      `tdx.tcbGraceDays accepts platforms with published, unfixed weaknesses for ${tdx.tcbGraceDays} days`,
    );
  for (const [key, table] of [
    ['tdAttributes', TD_ATTRIBUTES],
    ['xfam', XFAM_BITS],
  ] as const)
    for (const value of [tdx[key] ?? []].flat()) remarks.push(...lintPinnedBits(`tdx.${key}`, value, table));
  for (const key of ['seamAttributes', 'mrServiceTd'] as const) {
    const listed = tdx[key] ?? [];
    if ((typeof listed === 'string' ? [listed] : listed).some((value) => !/^0+$/.test(value)))
      remarks.push(
        `tdx.${key} accepts a value that is not zero: ${key === 'mrServiceTd' ? 'another TD serves the guest' : 'the TDX module may be a debug one'}`,
      );
  }
  return remarks;
}

/** The policy with every default written out, as JSON a file can hold. Dangers are not in it: no file can carry them. */
export function policyToJson(policy: Policy): JsonObject {
  const optional = Object.fromEntries(
    (
      [
        'minimumTcbEvaluationDataNumber',
        'chips',
        'hostData',
        'idKeyDigests',
        'authorKeyDigests',
        'mrSeam',
        'configs',
      ] as const
    )
      .map((key) => [key, policy[key]] as const)
      .filter((entry): entry is [(typeof entry)[0], number | readonly string[]] => entry[1] !== undefined),
  );
  const minimumTcb = Object.fromEntries(
    Object.entries(policy.minimumTcb).map(([product, minimum]) => [
      product,
      { ...minimum } as unknown as JsonObject,
    ]),
  );
  return {
    measurements: policy.measurements.map((reference) => ({ ...reference }) as unknown as JsonObject),
    ...(policy.models === undefined ? {} : { models: Object.fromEntries(policy.models) }),
    tee: policy.tee,
    products: policy.products,
    ...(Object.keys(minimumTcb).length === 0 ? {} : { minimumTcb }),
    tcbStatus: policy.tcbStatus,
    guestPolicy: guestPolicyToJson(policy.guestPolicy),
    vmpl: policy.vmpl,
    maxEvidenceAge: policy.maxEvidenceAge,
    channel: 'exporter',
    endorsements: policy.endorsements,
    ...optional,
    ...(policy.snp === undefined ? {} : { snp: { ...policy.snp } as unknown as JsonObject }),
    ...(policy.tdx === undefined ? {} : { tdx: { ...policy.tdx } as unknown as JsonObject }),
  };
}

// --- reading -------------------------------------------------------------------------------------------------------

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
  if (has('channel')) {
    if (object['channel'] === 'certificate') {
      throw malformed('malformed_policy', 'channel "certificate" cannot be chosen in a policy', {
        hint: 'it is weaker, and takes [allowCertificateChannel] in code',
      });
    }
    read.oneOf(object['channel'], 'channel', ['exporter']);
  }
  return keep({
    measurements: read
      .list(object['measurements'], 'measurements', 1, LIST_MAX)
      .flatMap((item, i) => readReferences(item, `measurements[${i}]`, releases)),
    models: has('models') ? readModels(object['models']) : undefined,
    tee: has('tee') ? readTees(object['tee']) : ['sev-snp', 'tdx'],
    products: has('products') ? readChoices(object['products'], 'products', PRODUCTS) : ['Genoa', 'Turin'],
    minimumTcb: has('minimumTcb') ? readMinimumTcb(object['minimumTcb']) : {},
    tcbStatus: has('tcbStatus') ? readChoices(object['tcbStatus'], 'tcbStatus', TCB_STATUSES) : ['UpToDate'],
    minimumTcbEvaluationDataNumber: has('minimumTcbEvaluationDataNumber')
      ? read.integer(object['minimumTcbEvaluationDataNumber'], 'minimumTcbEvaluationDataNumber')
      : undefined,
    guestPolicy: readGuestPolicy(object['guestPolicy']),
    vmpl: has('vmpl') ? read.integer(object['vmpl'], 'vmpl', 0, 3) : 0,
    chips: hexes('chips', 64, 16),
    hostData: hexes('hostData', 32),
    idKeyDigests: hexes('idKeyDigests', 48),
    authorKeyDigests: hexes('authorKeyDigests', 48),
    mrSeam: hexes('mrSeam', 48),
    snp: has('snp') ? notEmpty('snp', readSnpSection(object['snp'])) : undefined,
    tdx: has('tdx') ? notEmpty('tdx', readTdxSection(object['tdx'])) : undefined,
    configs: hexes('configs', 32),
    maxEvidenceAge: has('maxEvidenceAge')
      ? read.integer(object['maxEvidenceAge'], 'maxEvidenceAge', 1, 31_536_000)
      : DEFAULT_MAX_EVIDENCE_AGE,
    endorsements: has('endorsements')
      ? read.oneOf(object['endorsements'], 'endorsements', ['stapled', 'fetch', 'offline'])
      : 'stapled',
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

function decideSnp(policy: Omit<Policy, 'decided'>): DecidedSnpPolicy {
  const measurement = policy.measurements.flatMap((build) =>
    'measurement' in build ? [build.measurement] : [],
  );
  return decideSnpPolicy(
    {
      ...policy.snp,
      measurement: unlessEmpty(measurement),
      chipIds: unlessEmpty(policy.chips?.filter((chip) => chip.length === 2 * 64)),
      hostData: policy.hostData,
      idKeyDigest: policy.idKeyDigests,
      authorKeyDigest: policy.authorKeyDigests,
      guestPolicy: policy.guestPolicy,
      vmpl: policy.vmpl,
      products: policy.products,
    } satisfies SnpPolicy,
    { minimums: policy.minimumTcb },
  );
}

function decideTdx(policy: Omit<Policy, 'decided'>): DecidedTdxPolicy {
  return decideTdxPolicy({
    ...policy.tdx,
    mrTd: unlessEmpty(policy.measurements.flatMap((build) => ('mrTd' in build ? [build.mrTd] : []))),
    ppid: unlessEmpty(policy.chips?.filter((chip) => chip.length === 2 * 16)),
    mrSeam: policy.mrSeam,
    minimumTcbEvaluationDataNumber: policy.minimumTcbEvaluationDataNumber,
    tcbStatus: policy.tcbStatus,
  } satisfies TdxPolicy);
}

/** A list nothing of which is for this vendor is not asked: what it is for is judged by the appraisal as a whole. */
function unlessEmpty(list: readonly string[] | undefined): readonly string[] | undefined {
  return list === undefined || list.length === 0 ? undefined : list;
}

function symbolsOf(input: AppraisalPolicy | Policy): Dangers {
  // Own properties only: nothing that was slipped into a prototype.
  const given = { ...(input as AppraisalPolicy) };
  return {
    ...(given[allowSimulated] === undefined ? {} : { [allowSimulated]: given[allowSimulated] }),
    ...(given[allowAnyModel] === undefined ? {} : { [allowAnyModel]: given[allowAnyModel] }),
    ...(given[allowCertificateChannel] === undefined
      ? {}
      : { [allowCertificateChannel]: given[allowCertificateChannel] }),
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

function readReferences(value: unknown, name: string, releases: Releases): readonly Reference[] {
  if (typeof value !== 'object' || value === null || !('release' in value))
    return [readReference(value, name)];
  const release = read.string(read.object(value, name, ['release'])['release'], `${name}.release`, 64);
  const builds = releases.get(release);
  if (builds !== undefined) return builds;
  throw malformed(
    'malformed_policy',
    `${name} names the release ${JSON.stringify(release)}, of which no reference values are given`,
    {
      hint:
        releases.size === 0
          ? 'give them with --reference-values, or in code'
          : `known: ${[...releases.keys()].slice(0, 8).join(', ')}`,
    },
  );
}

function readReference(value: unknown, name: string): Reference {
  if (typeof value === 'string') return { measurement: hex(value, name, 48) };
  const isTdx = typeof value === 'object' && value !== null && 'mrTd' in value;
  const object = isTdx
    ? read.object(value, name, ['mrTd', 'rtmr1', 'rtmr2'], ['rtmr0', 'rtmr3', 'name'])
    : read.object(value, name, ['measurement'], ['name']);
  const label =
    object['name'] === undefined ? {} : { name: read.string(object['name'], `${name}.name`, 128) };
  const field = (key: string): string => hex(object[key], `${name}.${key}`, 48);
  if (!isTdx) return { measurement: field('measurement'), ...label };
  return {
    mrTd: field('mrTd'),
    ...(object['rtmr0'] === undefined ? {} : { rtmr0: field('rtmr0') }),
    rtmr1: field('rtmr1'),
    rtmr2: field('rtmr2'),
    ...(object['rtmr3'] === undefined ? {} : { rtmr3: field('rtmr3') }),
    ...label,
  };
}

function readModels(value: unknown): ReadonlyMap<string, string> {
  const ids = typeof value === 'object' && value !== null ? Object.keys(value) : [];
  const object = read.object(value, 'models', [], ids);
  if (ids.length === 0 || ids.length > LIST_MAX)
    throw malformed('malformed_policy', `models has ${ids.length} entries, expected 1 to ${LIST_MAX}`);
  if (ids.some((id) => id === '' || id === '*'))
    throw malformed('malformed_policy', 'models has an entry for "" or "*", which no model can have as id');
  return new Map(ids.map((id) => [id, hex(object[id], `models[${JSON.stringify(id)}]`, 32)]));
}

function readTees(value: unknown): readonly ('sev-snp' | 'tdx')[] {
  if (Array.isArray(value) && value.includes('simulated')) {
    throw malformed('malformed_policy', 'tee lists simulated, which no policy can accept', {
      hint: 'use --allow-simulated on the command line, or [allowSimulated] in code',
    });
  }
  const vendors = TEE_TYPES.filter((tee): tee is Exclude<TeeType, 'simulated'> => tee !== 'simulated');
  return readChoices(value, 'tee', vendors);
}

/** Whoever wrote an empty section meant something. */
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

function readMinimumTcb(value: unknown): MinimumTcbs {
  const object = read.object(value, 'minimumTcb', [], PRODUCTS);
  const products = PRODUCTS.filter((product) => object[product] !== undefined);
  if (products.length === 0) throw malformed('malformed_policy', 'minimumTcb is empty');
  return Object.fromEntries(
    products.map((product) => {
      const components = ['bootloader', 'tee', 'snp', 'microcode', ...(product === 'Turin' ? ['fmc'] : [])];
      const minimum = read.object(object[product], `minimumTcb.${product}`, [], components);
      const given = components.filter((component) => minimum[component] !== undefined);
      if (given.length === 0) throw malformed('malformed_policy', `minimumTcb.${product} is empty`);
      return [product, Object.fromEntries(given.map((component) => [component, read.integer(minimum[component], `minimumTcb.${product}.${component}`, 0, 255)]))]; // prettier-ignore
    }),
  );
}

/** Hex of one of the sizes (bytes), in lower case. */
function hex(value: unknown, name: string, ...sizes: readonly number[]): string {
  const text = read.string(value, name, 2 * Math.max(...sizes) + 64);
  let bytes: Uint8Array;
  try {
    bytes = fromHex(text, name);
  } catch (error) {
    if (error instanceof AttestationError) throw malformed('malformed_policy', error.message);
    throw error;
  }
  if (!sizes.includes(bytes.length)) {
    throw malformed('malformed_policy', `${name} is ${bytes.length} bytes, expected ${sizes.join(' or ')}`);
  }
  return toHex(bytes);
}

// The demands of a relying party on TPM-rooted evidence: the section `vtpm` of the appraisal policy, and the
// part `vtpm` of a policy for one piece of evidence. A closed JSON shape; hex in either case. An absent key
// is a visible skip in the transcript, except that an Enclave in debug mode and a NitroTPM document with a
// command line from outside (PCR12) are refused whatever the policy says.

import { fromHex } from '../encoding/bytes.ts';
import { shapeReaders } from '../encoding/json.ts';
import { malformed } from '../transcript/errors.ts';
import { PCR_COUNT } from './quote.ts';

/** The section `vtpm` of the appraisal policy. */
export interface VtpmSection {
  /** Measurements of Azure's paravisor: MEASUREMENT or MRTD, 48 bytes each. Absent: any Microsoft signed. */
  readonly paravisorMeasurements?: readonly string[] | undefined;
  readonly requireSecureBoot?: boolean | undefined;
  /** Refuse an Azure VM with its serial console enabled. */
  readonly forbidConsole?: boolean | undefined;
  /** `required`: the attestation key has a certificate of the cloud's pinned root. Default `optional`. */
  readonly akCertificate?: 'required' | 'optional' | undefined;
  /** Seconds between the hypervisor's clock in a Nitro document and `now`. */
  readonly maxDocumentAge?: number | undefined;
  /** Memory of a GCP TDX machine that its endorsement has to name, in GiB. */
  readonly ramGib?: number | undefined;
  /** SHA-256 of the init data that Kata measured into PCR8. */
  readonly initData?: string | undefined;
}

/** With the values that belong to one piece of evidence. */
export interface VtpmPolicy extends VtpmSection {
  /** PCR index → accepted values. */
  readonly pcrs?: Readonly<Record<string, string | readonly string[]>> | undefined;
  /** Bytes that extraData of the quote must be, all of them. */
  readonly challenge?: string | undefined;
  /** `user_data` and `nonce` of a Nitro document, as bytes: ASCII text is given as hex of its bytes. */
  readonly userData?: string | undefined;
  readonly nonce?: string | undefined;
}

/** Decoded; undefined means not asked. */
export interface DecidedVtpmPolicy {
  readonly paravisorMeasurements: readonly Uint8Array[] | undefined;
  readonly requireSecureBoot: boolean;
  readonly forbidConsole: boolean;
  readonly akCertificate: 'required' | 'optional';
  readonly maxDocumentAge: number | undefined;
  readonly ramGib: number | undefined;
  readonly initData: Uint8Array | undefined;
  readonly pcrs: ReadonlyMap<number, readonly Uint8Array[]> | undefined;
  readonly challenge: Uint8Array | undefined;
  readonly userData: Uint8Array | undefined;
  readonly nonce: Uint8Array | undefined;
}

const OF_THE_SECTION = [
  'paravisorMeasurements',
  'requireSecureBoot',
  'forbidConsole',
  'akCertificate',
  'maxDocumentAge',
  'ramGib',
  'initData',
] as const satisfies readonly (keyof VtpmSection)[];
const OF_ONE = ['pcrs', 'challenge', 'userData', 'nonce'] as const satisfies readonly (keyof VtpmPolicy)[];
const MAX_LIST = 1024;
const MAX_AGE = 31_536_000;

const shape = shapeReaders('malformed_policy');

/** JSON → decided policy. `one`: with the values of one piece of evidence. @throws malformed_policy */
export function decideVtpmPolicy(value: unknown, scope: 'section' | 'one'): DecidedVtpmPolicy {
  const keys = scope === 'section' ? OF_THE_SECTION : [...OF_THE_SECTION, ...OF_ONE];
  const given = shape.object(value, 'vtpm', [], keys);
  const ask = <T>(key: keyof VtpmPolicy, read: (item: unknown, name: string) => T): T | undefined =>
    given[key] === undefined ? undefined : read(given[key], `vtpm ${key}`);
  return {
    paravisorMeasurements: ask('paravisorMeasurements', (item, name) =>
      shape.list(item, name, 1, MAX_LIST).map((each) => hex(each, name, 48, 48)),
    ),
    requireSecureBoot: ask('requireSecureBoot', shape.boolean) ?? false,
    forbidConsole: ask('forbidConsole', shape.boolean) ?? false,
    akCertificate:
      ask('akCertificate', (item, name) => shape.oneOf(item, name, ['required', 'optional'])) ?? 'optional',
    maxDocumentAge: ask('maxDocumentAge', (item, name) => shape.integer(item, name, 1, MAX_AGE)),
    ramGib: ask('ramGib', (item, name) => shape.integer(item, name, 1, 65_536)),
    initData: ask('initData', (item, name) => hex(item, name, 32, 32)),
    pcrs: ask('pcrs', readPcrs),
    challenge: ask('challenge', (item, name) => hex(item, name, 0, 64)),
    userData: ask('userData', (item, name) => hex(item, name, 0, 1024)),
    nonce: ask('nonce', (item, name) => hex(item, name, 0, 1024)),
  };
}

function readPcrs(value: unknown, name: string): ReadonlyMap<number, readonly Uint8Array[]> {
  const indexes = Array.from({ length: PCR_COUNT }, (_, i) => String(i));
  const given = Object.entries(shape.object(value, name, [], indexes));
  if (given.length === 0) throw malformed('malformed_policy', `${name} is empty`);
  return new Map(
    given.map(([index, values]) => [
      Number(index),
      (typeof values === 'string' ? [values] : shape.list(values, `${name} ${index}`, 1, MAX_LIST)).map(
        (item) => hex(item, `${name} ${index}`, 32, 48),
      ),
    ]),
  );
}

function hex(value: unknown, name: string, least: number, most: number): Uint8Array {
  const text = shape.string(value, name, 2 * most);
  if (!/^(?:[0-9a-fA-F]{2})*$/.test(text) || text.length < 2 * least)
    throw malformed('malformed_policy', `${name} is not ${least} to ${most} bytes in hex`);
  return fromHex(text, name);
}

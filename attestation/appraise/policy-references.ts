// The reference values of a policy: what a build measures to, for each vendor, and releases
// that stand for many builds.

import { fromHex, toHex } from '../encoding/bytes.ts';
import { shapeReaders } from '../encoding/json.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';

const read = shapeReaders('malformed_policy');

/**
 * One accepted build. SNP: MEASUREMENT covers everything. TDX: MRTD covers the firmware only, so
 * the RTMRs are needed too.
 */
export interface SnpReference {
  readonly measurement: string;
  /** A name for people; printed in the verdict. */
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
/** GCP TDX: Google endorses the firmware that MRTD is of, so only the RTMRs are listed. */
export type GceReference = Omit<TdxReference, 'mrTd'>;
/** A cloud's TPM: PCRs of a build, 32 or 48 bytes each; 4, 7 and 12 together say what booted and how. */
export interface PcrReference {
  readonly pcrs: Readonly<Record<string, string>>;
  readonly name?: string | undefined;
}
export type Reference = SnpReference | TdxReference | GceReference | PcrReference;
/** Every shape of a published release; resolved by the reference values that go with the policy. */
export interface ReleaseReference {
  readonly release: string;
}
/** Release name → its builds, as `parseReferenceValues` reads them. */
export type Releases = ReadonlyMap<string, readonly Reference[]>;

/** One entry of `measurements` → the builds it stands for. @throws malformed_policy */
export function readReferences(value: unknown, name: string, releases: Releases): readonly Reference[] {
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
  const has = (key: string): boolean => typeof value === 'object' && value !== null && key in value;
  const isTdx = has('mrTd') || has('rtmr1');
  const other = has('pcrs') ? 'pcrs' : 'measurement';
  const object = isTdx
    ? read.object(value, name, ['rtmr1', 'rtmr2'], ['mrTd', 'rtmr0', 'rtmr3', 'name'])
    : read.object(value, name, [other], ['name']);
  const label = object['name'] === undefined ? undefined : read.string(object['name'], `${name}.name`, 128);
  const field = (key: string): string => hex(object[key], `${name}.${key}`, 48);
  const optional = (key: string): string | undefined => (object[key] === undefined ? undefined : field(key));
  if (has('pcrs')) return { pcrs: readPcrs(object['pcrs'], `${name}.pcrs`), name: label };
  if (!isTdx) return { measurement: field('measurement'), name: label };
  const registers = {
    rtmr0: optional('rtmr0'),
    rtmr1: field('rtmr1'),
    rtmr2: field('rtmr2'),
    rtmr3: optional('rtmr3'),
    name: label,
  };
  return has('mrTd') ? { mrTd: field('mrTd'), ...registers } : registers;
}

const PCRS = Array.from({ length: 24 }, (_, i) => String(i));

function readPcrs(value: unknown, name: string): PcrReference['pcrs'] {
  const given = Object.entries(read.object(value, name, ['4', '7', '12'], PCRS));
  return Object.fromEntries(given.map(([index, item]) => [index, hex(item, `${name}.${index}`, 32, 48)]));
}

/** Hex of one of the sizes (bytes), in lower case. */
export function hex(value: unknown, name: string, ...sizes: readonly number[]): string {
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

// The signed content of a reference manifest (TCG Reference Integrity Manifest Information Model 1.01; SWID,
// ISO/IEC 19770-2:2015): whose values they are, and the values. Read from the tree the signature covers,
// never from the text.

import { fromHex } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import type { XmlAttribute, XmlElement } from './xml.ts';

const SWID = 'http://standards.iso.org/iso/19770/-2/2015/schema.xsd';
const HASH = 'http://www.w3.org/2001/04/xmlenc#sha384';
const MAX_ALTERNATIVES = 32;
const MAX_INDEX = 254;

/** One expected measurement. */
export interface ManifestEntry {
  /** SPDM block index − 1. */
  readonly index: number;
  readonly name: string;
  /** Entries that are not active make no demand. */
  readonly active: boolean;
  /** 48 bytes each: one of them must be measured. Zero is a value like any other. */
  readonly alternatives: readonly Uint8Array[];
}

/** The values of one driver, VBIOS or switch BIOS. */
export interface ManifestValues {
  /** Version of what is measured, spelt as reports spell it. */
  readonly version: string;
  /** `GH100`, `GB100`, `LS10` … */
  readonly product: string;
  readonly edition: string;
  readonly entries: readonly ManifestEntry[];
}

/** @throws AttestationError `gpu_rim_entries` */
export function readManifestValues(root: XmlElement): ManifestValues {
  if (root.local !== 'SoftwareIdentity' || root.namespace !== SWID)
    throw bad(`the root is ${root.name}, expected SoftwareIdentity`);
  // The signature, which is the last child, has been read as what it is.
  const parts = elementsOf(root).slice(0, -1);
  const names = parts.map(({ namespace, local }) => (namespace === SWID ? local : `{${namespace}}${local}`));
  if (names.join() !== 'Entity,Meta,Payload')
    throw bad(`the root has ${names.join(', ').slice(0, 256)}, expected Entity, Meta, Payload`);
  const [, meta, payload] = parts;
  if (meta === undefined || payload === undefined) throw bad('Meta or Payload is missing');
  const entries = elementsOf(payload).map(readEntry);
  if (new Set(entries.map(({ index }) => index)).size !== entries.length)
    throw bad('two entries have the same index');
  if (entries.length === 0) throw bad('Payload has no entry');
  return {
    version: plain(meta, 'colloquialVersion'),
    product: plain(meta, 'product'),
    edition: plain(meta, 'edition'),
    entries,
  };
}

function readEntry(element: XmlElement): ManifestEntry {
  if (element.local !== 'Resource' || element.namespace !== SWID || element.children.length > 0)
    throw bad(`Payload has ${element.name}, expected an empty Resource`);
  if (plain(element, 'type') !== 'Measurement') throw bad('a Resource is of another type than Measurement');
  const name = plain(element, 'name').slice(0, 128);
  const active = plain(element, 'active');
  if (active !== 'True' && active !== 'False') throw bad(`active of ${name} is ${JSON.stringify(active)}`);
  if (plain(element, 'size') !== '48') throw bad(`size of ${name} is not 48`);
  const hashes = element.attributes.filter(({ namespace }) => namespace === HASH);
  const others = element.attributes.filter(({ namespace }) => namespace !== HASH && namespace !== '');
  if (others.length > 0) throw bad(`${name} has ${others[0]?.name}, which is in no known namespace`);
  const count = decimal(plain(element, 'alternatives'), `alternatives of ${name}`, MAX_ALTERNATIVES);
  if (count === 0 || hashes.length !== count)
    throw bad(`${name} has ${hashes.length} hashes, alternatives says ${count}`);
  return {
    index: decimal(plain(element, 'index'), `index of ${name}`, MAX_INDEX),
    name,
    active: active === 'True',
    alternatives: Array.from({ length: count }, (_, i) => readHash(hashes, i, name)),
  };
}

function readHash(hashes: readonly XmlAttribute[], i: number, name: string): Uint8Array {
  const text = hashes.find(({ local }) => local === `Hash${i}`)?.value;
  if (text?.length !== 96) throw bad(`${name} has no Hash${i} of 96 hex digits`);
  try {
    return fromHex(text, `Hash${i} of ${name}`);
  } catch (error) {
    if (error instanceof AttestationError) throw bad(error.message);
    throw error;
  }
}

/** Child elements, with white space alone between them. */
function elementsOf(element: XmlElement): readonly XmlElement[] {
  return element.children.flatMap((child) => {
    if (typeof child !== 'string') return [child];
    if (/^[ \t\n]*$/.test(child)) return [];
    throw bad(`${element.name} has text between its elements`);
  });
}

function plain(element: XmlElement, local: string): string {
  const found = element.attributes.find((each) => each.namespace === '' && each.local === local);
  if (found === undefined) throw bad(`${element.name} has no ${local}`);
  return found.value;
}

function decimal(text: string, name: string, most: number): number {
  const value = /^(?:0|[1-9][0-9]{0,3})$/.test(text) ? Number(text) : Number.NaN;
  if (!(value <= most)) throw bad(`${name} is ${JSON.stringify(text.slice(0, 32))}`);
  return value;
}

function bad(problem: string): AttestationError {
  return malformed('gpu_rim_entries', `reference manifest: ${problem}`);
}

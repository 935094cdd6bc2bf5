// Simulated reference manifests, in the form NVIDIA writes its own: SWID with a TCG RIM payload, one
// enveloped XML signature. Wrong documents are written as asked.

import { sha384 } from '@noble/hashes/sha2.js';
import { toBase64, toHex, utf8 } from '../encoding/bytes.ts';
import { canonicalXml } from '../gpu/canonical-xml.ts';
import { type XmlElement, parseXml } from '../gpu/xml.ts';
import { type IssuerKey, signRaw } from './issue.ts';

/** An entry as it is written; `alternatives` are hex. */
export interface SimulatedEntry {
  readonly index: number;
  readonly active: boolean;
  readonly alternatives: readonly string[];
}

/** The content of a manifest, and how it departs from a regular one. */
export interface ManifestChanges {
  /** It is handed out under; default the one a regular device asks for. */
  readonly id?: string | undefined;
  readonly version?: string | undefined;
  readonly product?: string | undefined;
  readonly edition?: string | undefined;
  readonly entries?: readonly SimulatedEntry[] | undefined;
  /** Applied to the text before it is signed: what it makes is signed as well. */
  readonly write?: ((xml: string) => string) | undefined;
  /** Applied to the signed text. */
  readonly damage?: ((xml: string) => string) | undefined;
  readonly signer?: IssuerKey | undefined;
  /** DER, leaf first. */
  readonly chain?: readonly Uint8Array[] | undefined;
}

/** All that a manifest needs; regular ones are made by `createSimulatedNvidia`. */
export interface ManifestParts extends Pick<ManifestChanges, 'write' | 'damage'> {
  readonly version: string;
  readonly product: string;
  readonly edition: string;
  readonly entries: readonly SimulatedEntry[];
  readonly signer: IssuerKey;
  readonly chain: readonly Uint8Array[];
}

const ALGORITHM = {
  c14n: 'http://www.w3.org/2006/12/xml-c14n11',
  signature: 'http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384',
  enveloped: 'http://www.w3.org/2000/09/xmldsig#enveloped-signature',
  digest: 'http://www.w3.org/2001/04/xmldsig-more#sha384',
} as const;

/**
 * The signed document, UTF-8.
 * @example const xml = await signManifest(...manifestParts);
 */
export async function signManifest(parts: ManifestParts): Promise<Uint8Array> {
  const written = (digest: string, signature: string): string => {
    const xml = documentText(parts, signatureText(digest, signature, parts.chain));
    return parts.write?.(xml) ?? xml;
  };
  const blank = parseXml(utf8(written('', '')));
  const digest = toBase64(sha384(canonicalXml(blank, signatureOf(blank))));
  const [signedInfo] = signatureOf(parseXml(utf8(written(digest, '')))).children;
  if (signedInfo === undefined || typeof signedInfo === 'string') throw new TypeError('no SignedInfo');
  const signature = toBase64(await signRaw(parts.signer, canonicalXml(signedInfo)));
  const xml = written(digest, signature);
  return utf8(parts.damage?.(xml) ?? xml);
}

function signatureOf(root: XmlElement): XmlElement {
  const found = root.children.findLast((child) => typeof child !== 'string');
  if (found === undefined) throw new TypeError('no signature');
  return found;
}

function documentText({ version, product, edition, entries }: ManifestParts, signature: string): string {
  const resources = entries.map(
    ({ index, active, alternatives }) =>
      `        <ns0:Resource type="Measurement" index="${index}" active="${active ? 'True' : 'False'}" alternatives="${alternatives.length}" ${alternatives.map((hash, i) => `ns2:Hash${i}="${hash}" `).join('')}name="Measurement_${index}" size="48"/>\n`,
  );
  const tag = toHex(sha384(utf8(`${product} ${version}`)));
  return `<SoftwareIdentity xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384" corpus="false" name="${product}" patch="false" supplemental="false" tagId="${tag}" version="1.0" tagVersion="0">
    <ns0:Entity name="Assay simulated hierarchy" role="softwareCreator tagCreator"/>
    <ns0:Meta xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/" colloquialVersion="${version}" edition="${edition}" product="${product}" revision="r1" PayloadType="direct" ns1:BindingSpec="RIMIM" ns1:BindingSpecVersion="1.01"/>
    <ns0:Payload xmlns:SHA384="http://www.w3.org/2001/04/xmlenc#sha384">
${resources.join('')}    </ns0:Payload>
${signature}</SoftwareIdentity>
`;
}

function signatureText(digest: string, signature: string, chain: readonly Uint8Array[]): string {
  const certificates = chain
    .map(
      (der) =>
        `<ds:X509Certificate>${(toBase64(der).match(/.{1,64}/g) ?? []).join('\n')}\n</ds:X509Certificate>`,
    )
    .join('');
  return `<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="${ALGORITHM.c14n}"/><ds:SignatureMethod Algorithm="${ALGORITHM.signature}"/><ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="${ALGORITHM.enveloped}"/><ds:Transform Algorithm="${ALGORITHM.c14n}"/></ds:Transforms><ds:DigestMethod Algorithm="${ALGORITHM.digest}"/><ds:DigestValue>${digest}</ds:DigestValue></ds:Reference></ds:SignedInfo><ds:SignatureValue>${signature}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>${certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>`;
}

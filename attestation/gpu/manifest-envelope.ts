// The `ds:Signature` of a reference manifest (W3C XML Signature 1.1): enveloped, over the whole document, in
// the one form NVIDIA writes. The enveloped-signature transform takes the whole element out of what is
// hashed, so that everything in it besides these three parts would be unsigned, and is refused.

import { fromBase64 } from '../encoding/bytes.ts';
import { AttestationError, malformed } from '../transcript/errors.ts';
import type { XmlElement } from './xml.ts';

const DSIG = 'http://www.w3.org/2000/09/xmldsig#';
const C14N_11 = 'http://www.w3.org/2006/12/xml-c14n11';
const ENVELOPED = `${DSIG}enveloped-signature`;
const ECDSA_SHA384 = 'http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384';
const SHA384 = 'http://www.w3.org/2001/04/xmldsig-more#sha384';
const MAX_CERTIFICATES = 6;

/** The parts of the signature element. */
export interface ManifestEnvelope {
  readonly signatureElement: XmlElement;
  readonly signedInfo: XmlElement;
  /** 48 bytes: SHA-384 of the canonical document without the signature. */
  readonly digest: Uint8Array;
  /** r ‖ s, 96 bytes. */
  readonly signature: Uint8Array;
  /** DER, leaf first. */
  readonly certificates: readonly Uint8Array[];
}

/** Reads the last child of the root. @throws AttestationError `gpu_rim_envelope` */
export function readEnvelope(root: XmlElement): ManifestEnvelope {
  const signatures = everyElement(root).filter(({ namespace }) => namespace === DSIG);
  const signatureElement = root.children.findLast((child) => typeof child !== 'string');
  if (signatureElement?.local !== 'Signature' || signatureElement.namespace !== DSIG)
    throw bad('the last element of the root is no ds:Signature');
  if (signatures.filter(({ local }) => local === 'Signature').length !== 1)
    throw bad('there is more than one ds:Signature');
  const [signedInfo, value, keyInfo] = exactly(signatureElement, ['SignedInfo', 'SignatureValue', 'KeyInfo']);
  const [method, algorithm, reference] = exactly(signedInfo, [
    'CanonicalizationMethod',
    'SignatureMethod',
    'Reference',
  ]);
  expectAlgorithm(method, C14N_11);
  expectAlgorithm(algorithm, ECDSA_SHA384);
  const digest = readReference(reference);
  const [data] = exactly(keyInfo, ['X509Data']);
  const certificates = elementsOf(data, 'X509Data');
  if (certificates.length < 2 || certificates.length > MAX_CERTIFICATES)
    throw bad(`X509Data has ${certificates.length} certificates, expected 2 to ${MAX_CERTIFICATES}`);
  return {
    signatureElement,
    signedInfo,
    digest,
    signature: sized(textOf(value), 96, 'SignatureValue'),
    certificates: certificates.map((each, i) => {
      expectElement(each, 'X509Certificate');
      return base64(textOf(each), `X509Certificate ${i}`);
    }),
  };
}

function readReference(reference: XmlElement): Uint8Array {
  const [uri, ...more] = reference.attributes;
  if (uri?.name !== 'URI' || uri.value !== '' || more.length > 0)
    throw bad('Reference names something other than the whole document (URI="")');
  const [transforms, method, value] = exactly(reference, ['Transforms', 'DigestMethod', 'DigestValue'], 1);
  const [enveloped, canonical] = exactly(transforms, ['Transform', 'Transform']);
  expectAlgorithm(enveloped, ENVELOPED);
  expectAlgorithm(canonical, C14N_11);
  expectAlgorithm(method, SHA384);
  return sized(textOf(value), 48, 'DigestValue');
}

/** The children of the element, which are these and no others, as a tuple of the same length. */
function exactly<const Names extends readonly string[]>(
  element: XmlElement,
  names: Names,
  attributes = 0,
): { readonly [K in keyof Names]: XmlElement } {
  if (element.attributes.length !== attributes)
    throw bad(`${element.local} has attributes besides those expected`);
  const children = elementsOf(element, element.local);
  const found = children.map(({ local }) => local).join(', ');
  if (children.length !== names.length)
    throw bad(`${element.local} has ${found || 'nothing'}, expected ${names.join(', ')}`);
  for (const [i, child] of children.entries()) expectElement(child, names[i] ?? '');
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as many as there are names, checked above
  return children as unknown as { readonly [K in keyof Names]: XmlElement };
}

function expectElement(element: XmlElement, local: string): void {
  if (element.local !== local || element.namespace !== DSIG)
    throw bad(`there is ${element.name} where ds:${local} is expected`);
}

function expectAlgorithm(element: XmlElement, algorithm: string): void {
  const [attribute, ...more] = element.attributes;
  if (attribute?.name !== 'Algorithm' || more.length > 0 || element.children.length > 0)
    throw bad(`${element.local} has something besides its Algorithm`);
  if (attribute.value !== algorithm)
    throw bad(`${element.local} is ${attribute.value.slice(0, 128)}, expected ${algorithm}`);
}

/** Child elements. Inside a signature even white space between them is refused: it is not signed. */
function elementsOf(element: XmlElement, what: string): readonly XmlElement[] {
  return element.children.map((child) => {
    if (typeof child === 'string') throw bad(`${what} has text between its elements`);
    return child;
  });
}

function everyElement(element: XmlElement): XmlElement[] {
  const inside = element.children.flatMap((child) => (typeof child === 'string' ? [] : everyElement(child)));
  return [element, ...inside];
}

function textOf(element: XmlElement): string {
  const [text, ...more] = element.children;
  if (typeof text !== 'string' || more.length > 0 || element.attributes.length > 0)
    throw bad(`${element.local} is not text alone`);
  return text;
}

function base64(text: string, name: string): Uint8Array {
  try {
    return fromBase64(text.replaceAll('\n', ''), name);
  } catch (error) {
    if (error instanceof AttestationError) throw bad(error.message);
    throw error;
  }
}

function sized(text: string, length: number, name: string): Uint8Array {
  const bytes = base64(text, name);
  if (bytes.length !== length) throw bad(`${name} is ${bytes.length} bytes, expected ${length}`);
  return bytes;
}

function bad(problem: string): AttestationError {
  return malformed('gpu_rim_envelope', `signature of the reference manifest: ${problem}`);
}

// Inclusive Canonical XML 1.1 (W3C, 2 May 2008) of a subtree, for documents that xml.ts reads: these have no
// comments, no `xml:` attributes, ASCII names and ASCII namespaces, so that order by UTF-16 unit is the order
// the recommendation asks for.

import { utf8 } from '../encoding/bytes.ts';
import type { XmlAttribute, XmlElement } from './xml.ts';

/** The canonical form, UTF-8; `without` is left out with all it contains. */
export function canonicalXml(apex: XmlElement, without?: XmlElement): Uint8Array {
  const parts: string[] = [];
  write(parts, apex, { rendered: new Map(), without });
  return utf8(parts.join(''));
}

interface Context {
  /** Declarations that an ancestor in the output has. */
  readonly rendered: ReadonlyMap<string, string>;
  readonly without: XmlElement | undefined;
}

/** Depth is bounded by the reader. */
function write(parts: string[], element: XmlElement, { rendered, without }: Context): void {
  parts.push('<', element.name);
  const fresh = [...element.scope].filter(([prefix, uri]) => rendered.get(prefix) !== uri);
  for (const [prefix, uri] of fresh.toSorted(([a], [b]) => compare(a, b)))
    parts.push(prefix === '' ? ' xmlns' : ` xmlns:${prefix}`, '="', escapeAttribute(uri), '"');
  for (const { name, value } of element.attributes.toSorted(attributeOrder))
    parts.push(' ', name, '="', escapeAttribute(value), '"');
  parts.push('>');
  const inside = { rendered: element.scope, without };
  for (const child of element.children) {
    if (typeof child === 'string') parts.push(escapeText(child));
    else if (child !== without) write(parts, child, inside);
  }
  parts.push('</', element.name, '>');
}

/** §2.2: by namespace URI, then by local name; attributes in no namespace come first. */
function attributeOrder(a: XmlAttribute, b: XmlAttribute): number {
  return compare(a.namespace, b.namespace) || compare(a.local, b.local);
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

const ATTRIBUTE_ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '"': '&quot;',
  '\t': '&#x9;',
  '\n': '&#xA;',
  '\r': '&#xD;',
};
const TEXT_ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '\r': '&#xD;',
};

function escapeAttribute(value: string): string {
  return value.replaceAll(/[&<"\t\n\r]/g, (each) => ATTRIBUTE_ESCAPES[each] ?? each);
}

function escapeText(value: string): string {
  return value.replaceAll(/[&<>\r]/g, (each) => TEXT_ESCAPES[each] ?? each);
}

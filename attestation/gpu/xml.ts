// Strict reader of the XML that reference manifests are written in (XML 1.0 fifth edition, Namespaces in XML
// 1.0), without recursion. Refused, as `gpu_rim_xml`: declarations, DOCTYPE, processing instructions, CDATA,
// comments, entities besides the five, characters outside `Char`, names that are not ASCII, duplicate
// attributes, undeclared prefixes, text around the root, and anything over the bounds below.

import { fromUtf8 } from '../encoding/bytes.ts';
import { type AttestationError, malformed } from '../transcript/errors.ts';

export const MAX_XML_BYTES = 256 * 1024;
const MAX_DEPTH = 16;
const MAX_ELEMENTS = 2048;
const MAX_ATTRIBUTES = 64;

/** An attribute that is not a namespace declaration; without a prefix it is in no namespace (`''`). */
export interface XmlAttribute {
  /** As written, with its prefix. */
  readonly name: string;
  readonly local: string;
  readonly namespace: string;
  readonly value: string;
}

/** An element; text between elements is a child of its own. */
export interface XmlElement {
  /** As written, with its prefix. */
  readonly name: string;
  readonly local: string;
  readonly namespace: string;
  /** Prefix (`''`: the default) → URI, of all declarations in scope, its own included. */
  readonly scope: ReadonlyMap<string, string>;
  readonly attributes: readonly XmlAttribute[];
  readonly children: readonly (XmlElement | string)[];
}

interface Open extends XmlElement {
  readonly children: (XmlElement | string)[];
}

/** UTF-8 → the root element. @throws AttestationError `gpu_rim_xml` */
export function parseXml(bytes: Uint8Array): XmlElement {
  if (bytes.length > MAX_XML_BYTES) throw bad(`is ${bytes.length} bytes, at most ${MAX_XML_BYTES} are read`);
  // XML 1.0 §2.11: line ends are LF before anything else looks.
  const text = fromUtf8(bytes, 'reference manifest', 'gpu_rim_xml').replaceAll(/\r\n?/g, '\n');
  const foreign = /[^\t\n\r\u{20}-\u{D7FF}\u{E000}-\u{FFFD}\u{10000}-\u{10FFFF}]/u.exec(text);
  if (foreign !== null) throw bad(`has a character that XML does not allow (at ${foreign.index})`);
  return readTree(text);
}

function readTree(text: string): XmlElement {
  const open: Open[] = [];
  let root: XmlElement | undefined;
  let elements = 0;
  for (let at = 0; ;) {
    const tag = text.indexOf('<', at);
    const parent = open.at(-1);
    addText(text.slice(at, tag < 0 ? text.length : tag), parent);
    if (tag < 0) break;
    if (text.charAt(tag + 1) === '/') {
      at = readEnd(text, tag, open.pop());
      continue;
    }
    if (parent === undefined && root !== undefined) throw bad('has an element after its root');
    if (open.length === MAX_DEPTH) throw bad(`nests deeper than ${MAX_DEPTH}`);
    elements += 1;
    if (elements > MAX_ELEMENTS) throw bad(`has more than ${MAX_ELEMENTS} elements`);
    const started = readStart(text, tag, parent);
    if (parent === undefined) root = started.element;
    else parent.children.push(started.element);
    if (!started.empty) open.push(started.element);
    at = started.end;
  }
  if (root === undefined) throw bad('has no element');
  if (open.length > 0) throw bad(`ends inside <${open.at(-1)?.name ?? ''}>`);
  return root;
}

function addText(text: string, parent: Open | undefined): void {
  if (text === '') return;
  if (parent === undefined) {
    if (!/^[ \t\n]*$/.test(text)) throw bad('has text outside its root');
    return;
  }
  if (text.includes(']]>')) throw bad('has ]]> in text');
  parent.children.push(decodeReferences(text));
}

const END = /<\/([^\s<>/]+)[ \t\n]*>/y;

function readEnd(text: string, at: number, element: Open | undefined): number {
  END.lastIndex = at;
  const name = END.exec(text)?.[1];
  if (name === undefined || element === undefined || name !== element.name)
    throw bad(`closes ${JSON.stringify((name ?? '').slice(0, 64))}, which is not open`);
  return END.lastIndex;
}

const NAME = /[A-Za-z_][A-Za-z0-9_.-]*(?::[A-Za-z_][A-Za-z0-9_.-]*)?/y;
const ATTRIBUTE = /[ \t\n]+([A-Za-z_][A-Za-z0-9_.:-]*)[ \t\n]*=[ \t\n]*(?:"([^<"]*)"|'([^<']*)')/y;
const CLOSE = /[ \t\n]*(\/?)>/y;

interface Started {
  readonly element: Open;
  readonly empty: boolean;
  readonly end: number;
}

function readStart(text: string, at: number, parent: XmlElement | undefined): Started {
  const kind = text.charAt(at + 1);
  if (kind === '!' || kind === '?')
    throw bad(`has a declaration, comment, CDATA section or instruction: ${text.slice(at, at + 9)}`);
  NAME.lastIndex = at + 1;
  const name = NAME.exec(text)?.[0];
  if (name === undefined) throw bad(`has a < that begins no element (at ${at})`);
  const written = new Map<string, string>();
  ATTRIBUTE.lastIndex = NAME.lastIndex;
  let end = NAME.lastIndex;
  for (let found = ATTRIBUTE.exec(text); found !== null; found = ATTRIBUTE.exec(text)) {
    const [, key = '', double, single = ''] = found;
    if (written.has(key)) throw bad(`<${name}> has the attribute ${key} twice`);
    if (written.size === MAX_ATTRIBUTES) throw bad(`<${name}> has more than ${MAX_ATTRIBUTES} attributes`);
    // XML 1.0 §3.3.3: white space as written becomes spaces; that of a reference stays.
    written.set(key, decodeReferences((double ?? single).replaceAll(/[\t\n]/g, ' ')));
    end = ATTRIBUTE.lastIndex;
  }
  CLOSE.lastIndex = end;
  const close = CLOSE.exec(text);
  if (close === null) throw bad(`<${name}> is not closed, or has an attribute that is not one`);
  return { element: namespaced(name, written, parent), empty: close[1] === '/', end: CLOSE.lastIndex };
}

function namespaced(
  name: string,
  written: ReadonlyMap<string, string>,
  parent: XmlElement | undefined,
): Open {
  const scope = new Map(parent?.scope);
  const plain: [name: string, value: string][] = [];
  for (const [key, value] of written) {
    const prefix = key === 'xmlns' ? '' : /^xmlns:(.*)$/.exec(key)?.[1];
    if (prefix === undefined) plain.push([key, value]);
    else scope.set(checkedPrefix(prefix, value), value);
  }
  const attributes = plain.map(([key, value]): XmlAttribute => {
    const { prefix, local } = split(key);
    return { name: key, local, namespace: prefix === '' ? '' : resolve(prefix, scope), value };
  });
  const seen = new Set(attributes.map(({ namespace, local }) => `${namespace} ${local}`));
  if (seen.size !== attributes.length) throw bad(`<${name}> has an attribute twice, under two prefixes`);
  const { prefix, local } = split(name);
  return { name, local, namespace: resolve(prefix, scope), scope, attributes, children: [] };
}

function checkedPrefix(prefix: string, uri: string): string {
  if (/^xml/i.test(prefix) || prefix.includes(':')) throw bad(`declares the prefix ${prefix}`);
  // Taking a declaration back is legal for the default alone, and no manifest does it.
  if (!/^[\u{21}-\u{7E}]+$/u.test(uri)) throw bad(`declares a namespace that is empty or not ASCII`);
  return prefix;
}

function split(name: string): { readonly prefix: string; readonly local: string } {
  const [first = '', second, ...more] = name.split(':');
  if (more.length > 0 || second === '' || first === '') throw bad(`has the name ${name.slice(0, 64)}`);
  return second === undefined ? { prefix: '', local: first } : { prefix: first, local: second };
}

function resolve(prefix: string, scope: ReadonlyMap<string, string>): string {
  const uri = scope.get(prefix);
  if (uri !== undefined) return uri;
  if (prefix === '') return '';
  throw bad(`uses the prefix ${prefix.slice(0, 64)}, which is not declared`);
}

const ENTITIES: ReadonlyMap<string, string> = new Map([
  ['amp', '&'],
  ['lt', '<'],
  ['gt', '>'],
  ['quot', '"'],
  ['apos', "'"],
]);

function decodeReferences(text: string): string {
  if (!text.includes('&')) return text;
  return text.replaceAll(/&([A-Za-z0-9#]{0,8})(;?)/g, (_whole, name: string, end: string) => {
    const decoded = end === '' ? undefined : (ENTITIES.get(name) ?? character(name));
    if (decoded === undefined) throw bad('has a reference that is none of the five entities or a character');
    return decoded;
  });
}

function character(name: string): string | undefined {
  const digits = /^#(?:x([0-9A-Fa-f]{1,6})|([0-9]{1,7}))$/.exec(name);
  if (digits === null) return undefined;
  const point = digits[1] === undefined ? Number(digits[2]) : Number.parseInt(digits[1], 16);
  const allowed =
    (point >= 0x20 && point <= 0xd7ff) ||
    (point >= 0xe000 && point <= 0xfffd) ||
    (point >= 0x10000 && point <= 0x10ffff);
  return allowed || point === 9 || point === 10 || point === 13 ? String.fromCodePoint(point) : undefined;
}

function bad(problem: string): AttestationError {
  return malformed('gpu_rim_xml', `reference manifest ${problem}`);
}

// The strict XML reader: what it takes, and every form it refuses.

import { describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { utf8 } from '../../../attestation/encoding/bytes.ts';
import { canonicalXml } from '../../../attestation/gpu/canonical-xml.ts';
import { MAX_XML_BYTES, parseXml } from '../../../attestation/gpu/xml.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';

function canonical(xml: string): string {
  return new TextDecoder().decode(canonicalXml(parseXml(utf8(xml))));
}

describe('canonical form (Canonical XML 1.1)', () => {
  test.each([
    ['an empty element', '<a/>', '<a></a>'],
    ['space in tags', '<a\n  b = "1"\tc=\'2\' ></a >', '<a b="1" c="2"></a>'],
    ['attributes in order of namespace, then name', '<a xmlns:z="u:a" xmlns:y="u:b" z:q="1" y:a="2" b="3" a="4"/>', '<a xmlns:y="u:b" xmlns:z="u:a" a="4" b="3" z:q="1" y:a="2"></a>'],
    ['declarations, the default first', '<a xmlns:b="u:b" xmlns="u:d"/>', '<a xmlns="u:d" xmlns:b="u:b"></a>'],
    ['a declaration that an ancestor has', '<a xmlns:b="u:b"><b:c xmlns:b="u:b"><b:d xmlns:b="u:e"/></b:c></a>', '<a xmlns:b="u:b"><b:c><b:d xmlns:b="u:e"></b:d></b:c></a>'],
    ['a prefix declared as two things in turn', '<a xmlns:b="u:1"><b:c xmlns:b="u:2"/><b:c/></a>', '<a xmlns:b="u:1"><b:c xmlns:b="u:2"></b:c><b:c></b:c></a>'],
    ['references', '<a b="&#101;&quot;&#x9;&lt;">&#101;&gt;&amp;&#13;&apos;</a>', '<a b="e&quot;&#x9;&lt;">e&gt;&amp;&#xD;\'</a>'],
    ['white space in a value', '<a b="1\n2\t3"/>', '<a b="1 2 3"></a>'],
    ['line ends', '<a>1\r\n2\r3</a>\r\n', '<a>1\n2\n3</a>'],
    ['text around the root', '\n<a/>\n\n', '<a></a>'],
    ['characters outside the basic plane', '<a>\u{1F512}é</a>', '<a>\u{1F512}é</a>'],
  ])('%s', (_what, xml, expected) => {
    expect(canonical(xml)).toBe(expected);
  }); // prettier-ignore

  test('of a subtree: every namespace in scope is written on it', () => {
    const root = parseXml(utf8('<a xmlns="u:d" xmlns:x="u:x" xmlns:b="u:b"><b:c><d/></b:c></a>'));
    const [child] = root.children;
    if (child === undefined || typeof child === 'string') throw new Error('no child');
    expect(new TextDecoder().decode(canonicalXml(child))).toBe(
      '<b:c xmlns="u:d" xmlns:b="u:b" xmlns:x="u:x"><d></d></b:c>',
    );
    expect(new TextDecoder().decode(canonicalXml(root, child))).toBe(
      '<a xmlns="u:d" xmlns:b="u:b" xmlns:x="u:x"></a>',
    );
  });

  test('is its own canonical form', () => {
    const name = fc.constantFrom('a', 'b', 'c1', 'x-y', '_z');
    const value = fc.string({
      unit: fc.constantFrom('&', '<', '>', '"', "'", '\t', '\n', '\r', 'é', 'x', ' '),
    });
    const escaped = (text: string): string =>
      [...text].map((each) => `&#${each.codePointAt(0) ?? 0};`).join('');
    const { tree } = fc.letrec<{ tree: string }>((tie) => ({
      tree: fc.oneof(
        { depthSize: 'small', withCrossShrink: true },
        value.map(escaped),
        fc
          .tuple(name, fc.uniqueArray(fc.tuple(name, value), { selector: ([key]) => key }), fc.array(tie('tree'), { maxLength: 3 }))
          .map(([tag, attributes, inside]) => `<${tag}${attributes.map(([key, text]) => ` ${key}='${escaped(text)}'`).join('')}>${inside.join('')}</${tag}>`),
      ),
    })); // prettier-ignore
    fc.assert(
      fc.property(tree, (inside) => {
        const once = canonical(`<r>${inside}</r>`);
        expect(canonical(once)).toBe(once);
      }),
      { numRuns: 300 },
    );
  });
});

describe('refused', () => {
  test.each([
    ['a declaration', '<?xml version="1.0"?><a/>'],
    ['an instruction', '<a><?b c?></a>'],
    ['DOCTYPE', '<!DOCTYPE a><a/>'],
    ['an entity of its own', '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'],
    ['a comment', '<a><!-- b --></a>'],
    ['a comment after the root', '<a/><!-- b -->'],
    ['CDATA', '<a><![CDATA[b]]></a>'],
    ['an unknown entity', '<a>&nbsp;</a>'],
    ['an entity without its end', '<a>&amp</a>'],
    ['a bare ampersand', '<a>& </a>'],
    ['a reference to no character', '<a>&#0;</a>'],
    ['a reference to a surrogate', '<a>&#xD800;</a>'],
    ['a reference to a control character', '<a>&#11;</a>'],
    ['a reference past the last character', '<a>&#x110000;</a>'],
    ['a control character', '<a>\u000b</a>'],
    ['U+FFFE', '<a>\u{FFFE}</a>'],
    ['a byte order mark', '\u{FEFF}<a/>'],
    ['an attribute twice', '<a b="1" b="2"/>'],
    ['an attribute twice under two prefixes', '<a xmlns:x="u:1" xmlns:y="u:1" x:b="1" y:b="2"/>'],
    ['an undeclared prefix', '<b:a/>'],
    ['an undeclared prefix of an attribute', '<a b:c="1"/>'],
    ['the prefix xml', '<a xml:lang="en"/>'],
    ['a declaration of xmlns', '<a xmlns:xmlns="u:1"/>'],
    ['a declaration taken back', '<a xmlns="u:1"><b xmlns=""/></a>'],
    ['a prefix for nothing', '<a xmlns:b=""/>'],
    ['a name in two colons', '<a:b:c xmlns:a="u:1"/>'],
    ['a name that is not ASCII', '<é/>'],
    ['< in a value', '<a b="<"/>'],
    ['a value without quotes', '<a b=1/>'],
    ['attributes without space', '<a b="1"c="2"/>'],
    [']]> in text', '<a>]]></a>'],
    ['text before the root', 'b<a/>'],
    ['text after the root', '<a/>b'],
    ['a second root', '<a/><b/>'],
    ['no root', ' '],
    ['an end of another element', '<a><b></a></b>'],
    ['an end without a beginning', '</a>'],
    ['a missing end', '<a><b></b>'],
    ['an unfinished tag', '<a b="1"'],
    ['more than 16 levels', '<a>'.repeat(17) + '</a>'.repeat(17)],
    ['more than 2048 elements', `<a>${'<b/>'.repeat(2048)}</a>`],
    ['more than 64 attributes', `<a ${Array.from({ length: 65 }, (_, i) => `b${i}=""`).join(' ')}/>`],
    ['more than its bytes', `<a>${' '.repeat(MAX_XML_BYTES)}</a>`],
  ])('%s', (_what, xml) => {
    expect(() => parseXml(utf8(xml))).toThrowError(expect.objectContaining({ code: 'gpu_rim_xml' }));
  });

  test('bytes that are not UTF-8', () => {
    expect(() => parseXml(Uint8Array.of(0x3c, 0x61, 0xff, 0x2f, 0x3e))).toThrowError(
      expect.objectContaining({ code: 'gpu_rim_xml' }),
    );
  });

  test('whatever comes, the reader answers with a tree or its one code', () => {
    const piece = fc.constantFrom('<', '>', '/', '"', "'", '=', ' ', 'a', 'b:', 'xmlns:b="u"', '&', '&amp;', '#', ';', '<a>', '</a>', '<!', '<?', ']]>', '\r', '\0'); // prettier-ignore
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
        try {
          parseXml(utf8(pieces.join('')));
        } catch (error) {
          expect(error).toBeInstanceOf(AttestationError);
          expect((error as AttestationError).code).toBe('gpu_rim_xml');
        }
      }),
      { numRuns: 2000 },
    );
  });
});

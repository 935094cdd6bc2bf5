// The DER reader: what it accepts is exactly DER, everything else is the typed error, and no byte
// outside the view is read.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import {
  TAG,
  childrenOf,
  contextTag,
  encodeBits,
  encodeDer,
  encodeInteger,
  encodeOid,
  encodeText,
  encodeTime,
  parseDer,
  parseSequence,
  readBits,
  readBitOctets,
  readBoolean,
  readInteger,
  readNull,
  readOctets,
  readOid,
  readSmall,
  readText,
  readTime,
  readUnsigned,
  type Der,
} from '../../../attestation/x509/der.ts';
import { codeOf } from '../../fixtures/refusal.ts';

/** `make fuzz` multiplies the runs. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

function parse(hex: string): Der {
  return parseDer(fromHex(hex), 'value');
}

/** The outcome of entering so many nested SEQUENCEs one by one. */
function depthOf(levels: number): string {
  return codeOf(() => {
    let bytes: Uint8Array = new Uint8Array();
    for (let i = 0; i < levels; i++) bytes = encodeDer(TAG.sequence, bytes);
    let element = parseDer(bytes, 'nested');
    while (element.content.length > 0) element = childrenOf(element, 'nested').next('inner');
  });
}

/** Reads every child as every kind of value. */
function walk(bytes: Uint8Array): string {
  return codeOf(() => {
    const cursor = parseSequence(bytes, 'fuzz');
    while (!cursor.atEnd) {
      const element = cursor.next('item');
      for (const read of [readInteger, readBits, readBoolean, readOid, readText, readTime])
        codeOf(() => read(element, 'item'));
    }
  });
}

describe('elements', () => {
  test.each([
    ['short form', '0400'],
    ['one length octet over 127', `048180${'00'.repeat(128)}`],
    ['two length octets', `04820100${'00'.repeat(256)}`],
  ])('%s is read', (_name, hex) => {
    expect(toHex(parse(hex).raw)).toBe(hex);
  });

  test.each([
    ['nothing', ''],
    ['a tag alone', '04'],
    ['indefinite length', '30800000'],
    ['length in one octet that fits the short form', '04817f' + '00'.repeat(127)],
    ['length with a leading zero', '0482007f' + '00'.repeat(127)],
    ['length of five octets', '04850000000001ff'],
    ['length cut off', '048201'],
    ['content cut off', '040200'],
    ['bytes after the end', '040000'],
    ['high tag number', '1f8101'],
    ['length of almost 4 GiB', '0484ffffffff00'],
  ])('%s is refused', (_name, hex) => {
    expect(codeOf(() => parse(hex))).toBe('malformed_der');
  });

  test('over the size given: refused before anything is read', () => {
    expect(codeOf(() => parseDer(new Uint8Array(11), 'value', 10))).toBe('input_too_large');
  });

  test('nesting deeper than 24 is refused, and does not overflow any stack', () => {
    expect([depthOf(24), depthOf(26), depthOf(2000)]).toEqual(['accepted', 'malformed_der', 'malformed_der']);
  });

  test('a cursor reports what is missing and what is left over', () => {
    const bytes = encodeDer(TAG.sequence, encodeInteger(1), encodeInteger(2));
    const cursor = parseSequence(bytes, 'pair');
    expect(readSmall(cursor.next('first'), 'first')).toBe(1);
    expect(codeOf(() => cursor.end())).toBe('malformed_der');
    expect(cursor.optional('other', TAG.null)).toBeUndefined();
    expect(readSmall(cursor.next('second'), 'second')).toBe(2);
    cursor.end();
    expect(codeOf(() => cursor.next('third'))).toBe('malformed_der');
    expect(codeOf(() => parseSequence(encodeDer(TAG.set), 'pair'))).toBe('malformed_der');
    expect(codeOf(() => childrenOf(parse('0400'), 'octets', TAG.octetString))).toBe('malformed_der');
  });
});

describe('values', () => {
  test.each([
    ['no content', '0200'],
    ['leading 00', '02020001'],
    ['leading ff', '0202ff80'],
    ['another tag', '0a0101'],
  ])('INTEGER with %s is refused', (_name, hex) => {
    expect(codeOf(() => readInteger(parse(hex), 'value'))).toBe('malformed_der');
  });

  test('INTEGER sign and size', () => {
    expect(toHex(readUnsigned(parse('020200db'), 'value'))).toBe('db');
    expect(toHex(readUnsigned(parse('020100'), 'value'))).toBe('00');
    expect(codeOf(() => readUnsigned(parse('020180'), 'value'))).toBe('malformed_der');
    expect(codeOf(() => readUnsigned(parse('02021234'), 'value', 1))).toBe('malformed_der');
    expect(codeOf(() => readSmall(parse('02020100'), 'value', 255))).toBe('malformed_der');
    expect(readSmall(parse('020200ff'), 'value', 255)).toBe(255);
  });

  test.each([
    ['0101ff', true],
    ['010100', false],
  ])('BOOLEAN %s', (hex, value) => {
    expect(readBoolean(parse(hex), 'value')).toBe(value);
  });

  test.each(['010101', '0100', '0102ffff'])('BOOLEAN %s is refused', (hex) => {
    expect(codeOf(() => readBoolean(parse(hex), 'value'))).toBe('malformed_der');
  });

  test('NULL, OCTET STRING and BIT STRING', () => {
    readNull(parse('0500'), 'value');
    expect(codeOf(() => readNull(parse('050100'), 'value'))).toBe('malformed_der');
    expect(toHex(readOctets(parse('04020102'), 'value'))).toBe('0102');
    expect(toHex(readBitOctets(parse('0303000102'), 'value'))).toBe('0102');
    expect(readBits(parse('03020780'), 'value')).toEqual({ bytes: Uint8Array.of(0x80), unusedBits: 7 });
    for (const hex of ['0300', '030108', '030101', '03020781', '03020880'])
      expect([hex, codeOf(() => readBits(parse(hex), 'value'))]).toEqual([hex, 'malformed_der']);
    expect(codeOf(() => readBitOctets(parse('03020780'), 'value'))).toBe('malformed_der');
  });

  test.each([
    ['06092b06010401 9c780101'.replace(' ', ''), '1.3.6.1.4.1.3704.1.1'],
    ['0603550403', '2.5.4.3'],
    ['06032a0304', '1.2.3.4'],
    ['060100', '0.0'],
    ['0602883 7'.replace(' ', ''), '2.999'],
  ])('OID %s is %s', (hex, dotted) => {
    expect(readOid(parse(hex), 'value')).toBe(dotted);
    expect(toHex(encodeOid(dotted))).toBe(hex);
  });

  test.each(['0600', '060180', '06022a80', '06032a8001', '0609ffffffffffffffff7f', `0621${'01'.repeat(33)}`])(
    'OID %s is refused',
    (hex) => {
      expect(codeOf(() => readOid(parse(hex), 'value'))).toBe('malformed_der');
    },
  );

  test('text', () => {
    expect(readText(parse('1605547572696e'), 'value', TAG.ia5String)).toBe('Turin');
    expect(codeOf(() => readText(parse('0c0180'), 'value'))).toBe('malformed_der');
    expect(codeOf(() => readText(parse('160180'), 'value'))).toBe('malformed_der');
    expect(codeOf(() => readText(parse('0c05547572696e'), 'value', TAG.ia5String))).toBe('malformed_der');
    expect(
      codeOf(() => readText(parseDer(encodeText('a'.repeat(1025), TAG.ia5String), 'value'), 'value')),
    ).toBe('malformed_der');
  });

  test.each([
    ['170d3230313032323137323330355a', '2020-10-22T17:23:05.000Z'],
    ['170d3439313233313233353935395a', '2049-12-31T23:59:59.000Z'],
    ['170d3530303130313030303030305a', '1950-01-01T00:00:00.000Z'],
    ['180f32303530303130313030303030305a', '2050-01-01T00:00:00.000Z'],
    ['180f30303939303130313030303030305a', '0099-01-01T00:00:00.000Z'],
  ])('time %s is %s', (hex, iso) => {
    expect(readTime(parse(hex), 'value').toISOString()).toBe(iso);
  });

  test.each([
    ['month 13', '201322172305Z'],
    ['day 32', '201032172305Z'],
    ['30 February', '200230172305Z'],
    ['29 February of no leap year', '210229172305Z'],
    ['hour 24', '201022242305Z'],
    ['second 60', '201022172360Z'],
    ['no zone', '201022172305'],
    ['an offset', '201022172305+0100'],
    ['no seconds', '2010221723Z'],
    ['a letter', '2o1022172305Z'],
  ])('UTCTime with %s is refused', (_name, text) => {
    expect(codeOf(() => readTime(parseDer(encodeText(text, TAG.utcTime), 'value'), 'value'))).toBe(
      'malformed_der',
    );
  });
});

describe('properties', () => {
  test(
    'property: any bytes: the typed error or a value, and bytes around a view change nothing',
    { timeout: 180_000 * FUZZ },
    () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(20), (bytes, offset) => {
          const buffer = new Uint8Array(bytes.length + 40).fill(0x30);
          buffer.set(bytes, offset);
          expect(walk(buffer.subarray(offset, offset + bytes.length))).toBe(walk(bytes));
        }),
        { numRuns: 2000 * FUZZ },
      );
    },
  );

  test(
    'property: integers, identifiers, texts, times and bits come back as they were written',
    { timeout: 180_000 * FUZZ },
    () => {
      fc.assert(
        fc.property(
          fc.record({
            integer: fc.bigInt(0n, (1n << 159n) - 1n),
            arcs: fc.array(fc.nat(2 ** 31), { maxLength: 5 }),
            text: fc.string({ unit: 'grapheme', maxLength: 50 }),
            date: fc.date({
              min: new Date('1950-01-01T00:00:00Z'),
              max: new Date('9999-12-31T23:59:59Z'),
              noInvalidDate: true,
            }),
            bytes: fc.uint8Array({ maxLength: 300 }),
          }),
          ({ integer, arcs, text, date, bytes }) => {
            expect(
              BigInt(`0x${toHex(readUnsigned(parseDer(encodeInteger(integer), 'value'), 'value'))}`),
            ).toBe(integer);
            const oid = ['1.3', ...arcs].join('.');
            expect(readOid(parseDer(encodeOid(oid), 'value'), 'value')).toBe(oid);
            expect(readText(parseDer(encodeText(text), 'value'), 'value')).toBe(text);
            expect(readTime(parseDer(encodeTime(date), 'value'), 'value').getTime()).toBe(
              Math.floor(date.getTime() / 1000) * 1000,
            );
            expect(readBitOctets(parseDer(encodeBits(bytes), 'value'), 'value')).toEqual(bytes);
            const nested = parseSequence(
              encodeDer(TAG.sequence, encodeDer(contextTag(3), encodeDer(TAG.octetString, bytes))),
              'value',
            );
            expect(readOctets(nested.enter('inner', contextTag(3)).next('octets'), 'octets')).toEqual(bytes);
          },
        ),
        { numRuns: 500 * FUZZ },
      );
    },
  );
});

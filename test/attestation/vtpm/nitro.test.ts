// Nitro documents: each departure of form is refused, and any bytes end in the typed error.

import * as fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { concatBytes, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { encodeCbor } from '../../../attestation/encoding/cbor.ts';
import { createSimulatedNitro, type SimulatedNitro } from '../../../attestation/simulated/tpm.ts';
import { CborReader } from '../../../attestation/vtpm/cbor-reader.ts';
import { describeNonce, parseNitroDocument } from '../../../attestation/vtpm/nitro.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

const PCRS = Array.from({ length: 24 }, (_, i) => new Uint8Array(48).fill(i));
let nitro: SimulatedNitro;

beforeAll(async () => {
  nitro = await createSimulatedNitro({ now: new Date('2026-06-01T00:00:00Z') });
});

/** A document around this payload; no signature of it is asked for. */
function around(payload: Uint8Array, header = Uint8Array.of(0xa1, 0x01, 0x38, 0x22)): Uint8Array {
  return encodeCbor([header, new Map(), payload, new Uint8Array(96)]);
}

function payload(
  change: (fields: [string, unknown][]) => readonly (readonly [string, unknown])[] = (fields) => fields,
): Uint8Array {
  const fields: [string, unknown][] = [
    ['module_id', 'i-51'],
    ['digest', 'SHA384'],
    ['timestamp', 1_786_642_608_432],
    ['nitrotpm_pcrs', new Map(PCRS.map((value, i) => [i, value]))],
    ['certificate', new Uint8Array(4)],
    ['cabundle', [new Uint8Array(4)]],
    ['public_key', null],
    ['user_data', null],
    ['nonce', null],
  ];
  const parts = change(fields).flatMap(([key, value]) => [encodeCbor(key), encodeCbor(value as never)]);
  return concatBytes(Uint8Array.of(0xbf), ...parts, Uint8Array.of(0xff));
}

test('is read whole', async () => {
  const document = parseNitroDocument(await nitro.document({ pcrs: PCRS, nonce: utf8('hello') }));
  expect(document).toMatchObject({
    kind: 'nitrotpm',
    es384: true,
    moduleId: 'i-51-tpm0000000000000000',
    userData: undefined,
  });
  expect([...document.pcrs.keys()]).toEqual(PCRS.map((_, i) => i));
  expect(describeNonce(document.nonce ?? new Uint8Array())).toBe('the text "hello"');
  expect(describeNonce(Uint8Array.of(0, 255))).toBe('00ff');
  expect(codeOf(() => parseNitroDocument(around(payload())))).toBe('accepted');
});

type Fields = [string, unknown][];

function without(key: string) {
  return (fields: Fields): Fields => fields.filter(([name]) => name !== key);
}

function having(key: string, value: unknown) {
  return (fields: Fields): Fields => fields.map(([name, old]) => [name, name === key ? value : old]);
}

test.each<[string, () => Uint8Array]>([
  ['a key twice', () => payload((fields) => [...fields, ['nonce', null]])],
  ['an unknown key', () => payload((fields) => [...fields, ['extra', null]])],
  ['both kinds of PCRs', () => payload((fields) => [...fields, ['pcrs', new Map([[0, new Uint8Array(48)]])]])],
  ['no PCRs', () => payload(without('nitrotpm_pcrs'))],
  ['too few PCRs', () => payload(having('nitrotpm_pcrs', new Map([[0, new Uint8Array(48)]])))],
  ['a PCR of 32 bytes', () => payload(having('nitrotpm_pcrs', new Map(PCRS.map((value, i) => [i, value.subarray(16)]))))],
  ['another digest', () => payload(having('digest', 'SHA256'))],
  ['no certificate', () => payload(without('certificate'))],
  ['an empty certificate', () => payload(having('certificate', new Uint8Array()))],
  ['no chain', () => payload(having('cabundle', []))],
  ['a chain of nine', () => payload(having('cabundle', Array.from({ length: 9 }, () => new Uint8Array(1))))],
  ['no module', () => payload(without('module_id'))],
  ['a timestamp as text', () => payload(having('timestamp', 'now'))],
  ['no break', () => payload().subarray(0, -1)],
  ['bytes after the map', () => concatBytes(payload(), Uint8Array.of(0))],
])('%s', (_what, made) => {
  expect(codeOf(() => parseNitroDocument(around(made())))).toBe('cose_format');
}); // prettier-ignore

test.each<[string, () => Uint8Array]>([
  ['a tag', () => concatBytes(Uint8Array.of(0xd2), around(payload()))],
  ['an array of three', () => encodeCbor([new Uint8Array(), new Map(), payload()])],
  ['an unprotected header', () => encodeCbor([new Uint8Array(), new Map([[1, 2]]), payload(), new Uint8Array(96)])],
  ['a short signature', () => encodeCbor([new Uint8Array(), new Map(), payload(), new Uint8Array(64)])],
  ['too much', () => new Uint8Array(20_000)],
])('%s around it', (_what, made) => {
  expect(codeOf(() => parseNitroDocument(made()))).toBe('cose_format');
}); // prettier-ignore

test('another header is read, and said', () => {
  expect(parseNitroDocument(around(payload(), Uint8Array.of(0xa0))).es384).toBe(false);
});

test('any bytes end in the typed error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      accepted(() => parseNitroDocument(bytes));
      accepted(() => parseNitroDocument(around(bytes)));
      accepted(() => parseNitroDocument(around(concatBytes(Uint8Array.of(0xbf), bytes))));
    }),
  );
});

test('a head is the shortest there is', () => {
  for (const value of [0, 23, 24, 255, 256, 65_535, 65_536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1])
    expect(new CborReader(encodeCbor(value), 'number').head(0)).toBe(value);
  for (const hex of ['1817', '190018', '1a0000ffff', '1b00000000ffffffff', '1f', '1bffffffffffffffff'])
    expect(
      codeOf(() => new CborReader(new Uint8Array(Buffer.from(hex, 'hex')), 'number').head(0)),
      hex,
    ).toBe('malformed_cbor');
  expect(toHex(encodeCbor(24))).toBe('1818');
});

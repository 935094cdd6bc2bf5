// Init data of Kata containers: known digests, placement in registers, the annotation's gzip, and what is
// refused.

import { deflateRawSync, gzipSync } from 'node:zlib';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes, fromUtf8, toBase64, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { gunzip } from '../../../attestation/vtpm/gunzip.ts';
import { decodeInitData, initDataPcr8, measureInitData } from '../../../attestation/vtpm/initdata.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { cloudBytes } from '../../fixtures/attestation/cloud-vectors.ts';
import { accepted, codeOf, codeOfAsync } from '../../fixtures/refusal.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const TOML = 'algorithm = "sha256"\nversion = "0.1.0"\n\n[data]\n"aa.toml" = \'\'\'\nversion = "9"\n\'\'\'\n';

describe.skipIf(!haveVectors)('known answers', () => {
  const read = (name: string): Uint8Array => cloudBytes(`kata/${name}/initdata.toml`);

  test.each([
    ['initdata-sha256-policy', '0deccded0d87ec44702c7330fac3eb936b68dcca5c9f6b5df1fb3480c0b525ac', 32, '1c625622a76bb04c5989f8b8c3e8ff0412e580004c93ef42961486d49a7b4fcb'],
    ['initdata-sha384-small', '34dfe95a9833cf839330ed2f1dffe9659ed36cdf97bc441684f6bc98540839c4e7c37af6b952bb37e736dec6c59814b8', 48, undefined],
    ['initdata-sha512-small', 'c30650f0c216291abdf70ac07707d69fbcfb9b3a269966d66167848103cf24fbb46d3d4cd5cebd97dce2cd097428a4a98138baff9a0055304e99743dfd60f081', 64, undefined],
  ] as const)('%s', async (name, digest, size, pcr8) => {
    const found = await measureInitData(read(name));
    expect(toHex(found.digest)).toBe(digest);
    expect(found.digest).toHaveLength(size);
    expect(toHex(found.hostData)).toBe(digest.slice(0, 64));
    expect(toHex(found.mrConfigId)).toBe(digest.slice(0, 96).padEnd(96, '0'));
    expect(found.truncated).toBe(size > 32);
    expect(found.pcr8 && toHex(found.pcr8)).toBe(pcr8);
  }); // prettier-ignore

  test('the annotation decodes to the same bytes', () => {
    const annotation = fromUtf8(cloudBytes('kata/initdata-sha256-policy/annotation.txt')).trim();
    expect(decodeInitData(annotation)).toEqual(read('initdata-sha256-policy'));
  });

  test('written anew it has another digest, or is refused', async () => {
    const text = fromUtf8(read('initdata-sha384-small'));
    const whole = toHex((await measureInitData(utf8(text))).digest);
    const lines = text.split('\n');
    const reordered = utf8([lines[1], lines[0], ...lines.slice(2)].join('\n'));
    const requoted = utf8(text.replace(/^(algorithm = )"(\w+)"/m, "$1'$2'"));
    for (const other of [reordered, requoted]) {
      expect(fromUtf8(other)).not.toBe(text);
      expect(toHex((await measureInitData(other)).digest)).not.toBe(whole);
    }
    expect(await codeOfAsync(() => measureInitData(utf8(text.replaceAll('\n', '\r\n'))))).toBe(
      'initdata_format',
    );
  });
});

test.each<[string, string, string]>([
  ['as it is', TOML, 'accepted'],
  ['with comments and tabs', `# hello\n\tversion = "9"\n${TOML}`.replace('\tversion = "9"\n', ''), 'accepted'],
  ['of another version', TOML.replace('0.1.0', '0.2.0'), 'initdata_version'],
  ['of an unknown algorithm', TOML.replace('sha256', 'md5'), 'initdata_algorithm'],
  ['without an algorithm', TOML.replace('algorithm', 'digest'), 'initdata_format'],
  ['with its version twice', `version = "0.1.0"\n${TOML}`, 'initdata_format'],
  ['with its version in a table alone', TOML.replace('version = "0.1.0"\n\n[data]', '[data]\nversion = "0.1.0"'), 'initdata_format'],
  ['with a text of several lines before the tables', `note = """\nalgorithm = "sha512"\n"""\n${TOML}`, 'initdata_format'],
  ['with CRLF', TOML.replaceAll('\n', '\r\n'), 'initdata_format'],
])('%s', async (_what, text, code) => {
  expect(await codeOfAsync(() => measureInitData(utf8(text)))).toBe(code);
}); // prettier-ignore

test('not UTF-8, and too much', async () => {
  expect(await codeOfAsync(() => measureInitData(Uint8Array.of(0xff)))).toBe('initdata_format');
  expect(await codeOfAsync(() => measureInitData(new Uint8Array((1 << 20) + 1)))).toBe('input_too_large');
  expect(() => initDataPcr8(new Uint8Array(48))).toThrow('PCR8 takes 32');
});

describe('gunzip', () => {
  test('is the inverse of the platform’s gzip, at every level', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 5000 }), fc.integer({ min: 0, max: 9 }), (bytes, level) => {
        const doubled = concatBytes(bytes, bytes);
        expect(gunzip(new Uint8Array(gzipSync(doubled, { level })), 1 << 20)).toEqual(doubled);
      }),
      { numRuns: 200 },
    );
  });

  test('stops at its bound', () => {
    const bomb = new Uint8Array(gzipSync(new Uint8Array(5 << 20)));
    expect(bomb.length).toBeLessThan(10_000);
    expect(codeOf(() => gunzip(bomb, 1 << 20))).toBe('input_too_large');
    expect(codeOf(() => decodeInitData(toBase64(bomb)))).toBe('input_too_large');
  });

  const member = (): Uint8Array => new Uint8Array(gzipSync(utf8(TOML)));
  test.each<[string, () => Uint8Array]>([
    ['a second member', () => concatBytes(member(), member())],
    ['a byte after its end', () => concatBytes(member(), new Uint8Array(1))],
    ['another CRC', () => flipped(member(), 8 * (member().length - 8))],
    ['another size', () => flipped(member(), 8 * (member().length - 4))],
    ['flags', () => member().with(3, 8)],
    ['no gzip', () => new Uint8Array(20)],
    ['an end inside', () => member().subarray(0, 20)],
    ['a reserved block', () => concatBytes(member().subarray(0, 10), Uint8Array.of(0x07), new Uint8Array(8))],
    ['two members of the same data in one stream', () => {
      const raw = new Uint8Array(deflateRawSync(utf8(TOML)));
      return concatBytes(member().subarray(0, 10), raw, raw, member().subarray(-8));
    }],
  ])('%s is refused', (_what, bytes) => {
    expect(codeOf(() => gunzip(bytes(), 1 << 20))).toBe('initdata_annotation');
  }); // prettier-ignore

  test('any bytes end in the typed error', () => {
    const head = gzipSync('').subarray(0, 10);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        accepted(() => gunzip(concatBytes(head, bytes), 1 << 16));
      }),
    );
  });
});

// TPM quotes: real ones whole, and each departure of form; signatures in the forms that TPM stacks write.

import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { concatBytes, fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { generateEcKey, signRaw } from '../../../attestation/simulated/issue.ts';
import { createSimulatedTpm, type SimulatedTpm } from '../../../attestation/simulated/tpm.ts';
import {
  digestOfPcrs,
  parseTpmQuote,
  pcrsOf,
  verifyQuoteSignature,
} from '../../../attestation/vtpm/quote.ts';
import { parsePublicKey } from '../../../attestation/x509/public-key.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';

const PCRS = Array.from({ length: 24 }, (_, i) => new Uint8Array(32).fill(i));
let tpm: SimulatedTpm;
let quote: Uint8Array;
let signature: Uint8Array;

beforeAll(async () => {
  tpm = await createSimulatedTpm({ now: new Date('2026-01-01T00:00:00Z') });
  ({ quote, signature } = await tpm.quote({
    extraData: new Uint8Array(32).fill(7),
    pcrs: PCRS,
    selected: [0, 4, 7, 12, 23],
  }));
});

test('is read whole', () => {
  const read = parseTpmQuote(quote);
  expect(read).toMatchObject({
    bank: 'SHA-256',
    selected: [0, 4, 7, 12, 23],
    resetCount: 1,
    safe: true,
    clock: 123_456n,
  });
  expect(read.extraData).toEqual(new Uint8Array(32).fill(7));
  expect(quote).toHaveLength(113 + 32);
});

test('PCR values: all 24, or exactly the selected ones', () => {
  const read = parseTpmQuote(quote);
  const all = pcrsOf(read, PCRS);
  expect([...all.keys()]).toEqual([0, 4, 7, 12, 23]);
  expect(
    pcrsOf(
      read,
      [0, 4, 7, 12, 23].map((i) => PCRS[i] ?? new Uint8Array()),
    ),
  ).toEqual(all);
  expect(digestOfPcrs(all)).toEqual(read.pcrDigest);
  expect(codeOf(() => pcrsOf(read, PCRS.slice(1)))).toBe('tpm_quote');
  expect(codeOf(() => pcrsOf(read, PCRS.with(3, new Uint8Array(48))))).toBe('tpm_quote');
});

/** Offset of the selection for an extraData of 32 bytes. */
const SELECTION = 6 + 36 + 34 + 17 + 8;

test.each<[string, (bytes: Uint8Array) => Uint8Array, string]>([
  ['another magic', (bytes) => bytes.with(0, 0), 'tpm_magic'],
  ['another type', (bytes) => bytes.with(5, 0x17), 'tpm_magic'],
  ['one byte less', (bytes) => bytes.subarray(0, -1), 'tpm_quote'],
  ['one byte more', (bytes) => Uint8Array.of(...bytes, 0), 'tpm_quote'],
  ['nothing', () => new Uint8Array(), 'tpm_quote'],
  ['too much', () => new Uint8Array(1025), 'tpm_quote'],
  ['two banks', (bytes) => bytes.with(SELECTION + 3, 2), 'tpm_quote'],
  ['the SHA-1 bank', (bytes) => bytes.with(SELECTION + 5, 4), 'tpm_quote'],
  ['a bitmap of four bytes', (bytes) => bytes.with(SELECTION + 6, 4), 'tpm_quote'],
  ['safe neither yes nor no', (bytes) => bytes.with(SELECTION - 9, 2), 'tpm_quote'],
])('%s', (_what, change, code) => {
  expect(codeOf(() => parseTpmQuote(change(quote)))).toBe(code);
});

test('any bytes end in the typed error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 256 }), (bytes) => {
      accepted(() => parseTpmQuote(bytes));
      accepted(() => parseTpmQuote(concatBytes(fromHex('ff5443478018'), bytes)));
    }),
  );
});

test('a signature is raw or a TPMT_SIGNATURE of exactly its size', async () => {
  const read = parseTpmQuote(quote);
  const key = parsePublicKey(tpm.spki);
  const wrapped = concatBytes(fromHex('0014000b0100'), signature);
  expect(await verifyQuoteSignature(read, signature, key)).toBe(true);
  expect(await verifyQuoteSignature(read, wrapped, key)).toBe(true);
  for (const wrong of [
    flipped(signature, 9),
    wrapped.with(3, 0x0c),
    wrapped.with(5, 1),
    signature.subarray(1),
    concatBytes(wrapped, new Uint8Array(1)),
    new Uint8Array(2000),
  ])
    expect(await verifyQuoteSignature(read, wrong, key)).toBe(false);
});

test('ECDSA on P-256, with r and s shorter than 32 bytes allowed', async () => {
  const key = await generateEcKey('P-256');
  const raw = await signRaw(key, quote);
  const part = (bytes: Uint8Array): Uint8Array => concatBytes(Uint8Array.of(0, bytes.length), bytes);
  const wrapped = concatBytes(fromHex('0018000b'), part(raw.subarray(0, 32)), part(raw.subarray(32)));
  const read = parseTpmQuote(quote);
  const spki = parsePublicKey(key.spki);
  expect(await verifyQuoteSignature(read, wrapped, spki)).toBe(true);
  expect(await verifyQuoteSignature(read, raw, spki)).toBe(false);
  expect(await verifyQuoteSignature(read, concatBytes(wrapped, new Uint8Array(1)), spki)).toBe(false);
  expect(await verifyQuoteSignature(read, wrapped.subarray(0, 20), spki)).toBe(false);
  const p384 = await generateEcKey('P-384');
  expect(await verifyQuoteSignature(read, wrapped, parsePublicKey(p384.spki))).toBe(false);
});

interface H100 {
  readonly message: string;
  readonly signature: string;
  readonly pcrs: readonly string[];
  readonly ak_public_pem: string;
}

test.skipIf(!haveVectors)(
  'the quote of a VM with an H100: PCR 0 to 14, and the nonce of its GPU',
  async () => {
    const file = JSON.parse(readFileSync(vectorPath('azure/h100-vm-tpm-quote/quote.json'), 'utf8')) as H100;
    const read = parseTpmQuote(fromHex(file.message));
    const base64 = file.ak_public_pem.replaceAll(/-----[^-]+-----|\s/g, '');
    const key = parsePublicKey(new Uint8Array(Buffer.from(base64, 'base64')));
    expect(await verifyQuoteSignature(read, fromHex(file.signature), key)).toBe(true);
    const pcrs = pcrsOf(
      read,
      file.pcrs.map((value) => fromHex(value)),
    );
    expect([...pcrs.keys()]).toEqual(Array.from({ length: 15 }, (_, i) => i));
    expect(digestOfPcrs(pcrs)).toEqual(read.pcrDigest);
    expect(toHex(read.extraData)).toBe('690bb51b904351e28100a0610fe60624255c26d7d38c53fb1285ecfed1cab17a');
  },
);

// The TDX parsers on a mebibyte in every field: the typed error or an answer, without recursion or quadratic
// work.

import { describe, expect, test } from 'vitest';
import { utf8 } from '../../../attestation/encoding/bytes.ts';
import type { TdxEvidence } from '../../../attestation/tdx/subject.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { now, intel, quote, evidence, log, foreignAsync } from '../../fixtures/attestation/tdx-parsing.ts';

describe('a mebibyte of anything, in every field', () => {
  const size = 1 << 20;
  const fillers: readonly (readonly [string, (i: number) => number])[] = [
    ['zeros', () => 0],
    ['0xff', () => 0xff],
    ['ASCII 0', () => 0x30],
    ['a counter', (i) => i & 0xff],
    ['open brackets', () => 0x5b],
    ['open braces', () => 0x7b],
    ['SEQUENCE headers', (i) => (i % 2 === 0 ? 0x30 : 0x80)],
    ['quotes', () => 0x22],
    ['backslashes', () => 0x5c],
    ['PEM dashes', () => 0x2d],
  ];

  test.each(fillers)('%s', async (_name, filler) => {
    const bytes = Uint8Array.from({ length: size }, (_, i) => filler(i));
    const text = String.fromCharCode(...bytes.subarray(0, 1024)).repeat(1024);
    const { collateral } = evidence;
    const variants: readonly TdxEvidence[] = [
      { ...evidence, quote: bytes },
      {
        ...evidence,
        quote: Uint8Array.from([...quote.subarray(0, 60_000), ...bytes.subarray(0, 60_000 - quote.length)]),
      },
      { ...evidence, eventLog: bytes },
      { ...evidence, eventLog: Uint8Array.from([...log.subarray(0, 65), ...bytes.subarray(0, size - 65)]) },
      { ...evidence, collateral: { ...collateral, tcbInfo: text } },
      { ...evidence, collateral: { ...collateral, tcbInfo: `{"tcbInfo":${text.slice(0, 200_000)}` } },
      { ...evidence, collateral: { ...collateral, qeIdentity: text } },
      { ...evidence, collateral: { ...collateral, tcbInfoIssuerChain: text } },
      {
        ...evidence,
        collateral: { ...collateral, qeIdentityIssuerChain: `-----BEGIN CERTIFICATE-----\n${text}` },
      },
      { ...evidence, collateral: { ...collateral, pckCrl: bytes } },
      { ...evidence, collateral: { ...collateral, rootCaCrl: bytes } },
      { ...evidence, collateral: { ...collateral, pckCrlIssuerChain: text } },
    ];
    const slow: string[] = [];
    for (const [i, variant] of variants.entries()) {
      const started = process.cpuUsage();
      expect(await foreignAsync(() => verifyTdx(variant, {}, { now, roots: [intel.root] }))).toBeUndefined();
      const { user, system } = process.cpuUsage(started);
      // The goal is 100 ms; the bound here is on CPU time and wide, so that a busy machine does not fail it.
      if (user + system > 1_000_000) slow.push(`variant ${i}: ${(user + system) / 1000} ms`);
    }
    expect(slow).toEqual([]);
  });

  test('a signed TCB info nested without end is refused, not recursed into', async () => {
    const tcbInfo = await intel.tcbInfo({
      text: (text) => text.replace('"tcbType":0', `"tcbType":${'['.repeat(50_000)}0${']'.repeat(50_000)}`),
    });
    await expect(
      verifyTdx(
        { ...evidence, collateral: { ...evidence.collateral, tcbInfo } },
        {},
        { now, roots: [intel.root] },
      ),
    ).rejects.toMatchObject({ code: 'malformed_json' });
  });

  test('a PEM of many certificates is refused by number', async () => {
    const chain = utf8(intel.pckChainPem.repeat(20));
    await expect(
      verifyTdx(
        await intel.evidence({ certificationData: chain.subarray(0, 40_000) }),
        {},
        { now, roots: [intel.root] },
      ),
    ).rejects.toMatchObject({ kind: 'malformed' });
  });
});

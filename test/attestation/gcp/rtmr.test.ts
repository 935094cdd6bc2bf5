// RTMR0 to RTMR2 of a genuine GCP TDX quote of June 2026, recomputed from the digests of its firmware and
// image (shared/reference/clouds.md §1.2); and what changes with memory and disks.

import { describe, expect, test } from 'vitest';
import { fromHex, toHex } from '../../../attestation/encoding/bytes.ts';
import { commandLineDigest, predictGceRegisters } from '../../../attestation/gcp/rtmr.ts';
import { parseTdxQuote } from '../../../attestation/tdx/quote.ts';
import { cloudBytes } from '../../fixtures/attestation/cloud-vectors.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const FIRMWARE = {
  cfv: fromHex('d10d31022a1ef32ee501f31745257f84e7c753a8b79a3fdb82ffda9dc57684a1cfefba3edcdabc8b4ea791c17dd8a02b'),
  secureBoot: fromHex('cfa4e2c606f572627bf06d5669cc2ab1128358d27b45bc63ee9ea56ec109cfafb7194006f847a6a74b5eaed6b73332ec'),
  pk: fromHex('905f6243baf0d7c63cd672f89b16e15f99597e8d0392955e685172d447100123f7c490d178543922faddf896625dabab'),
  kek: fromHex('be013b0d9188e72b870f598899c35864d6b25f029a7b5f21a037bacf61ca3646207af2bc714d471407c9939317763c4a'),
  db: fromHex('723ad4d64f430bf6d325ab9d6c29147993ded5630002e42e13df696ebc680c4bc14c392d2e113e141154e21723f890f6'),
  dbx: fromHex('c61bae1a3f7b7e6cc3b9b03f630b77292ebd232ae60e0e1916f980955ec38459529574b49f1898c367eaf6d8a62311f5'),
  acpiLoader: fromHex('f60c35e53bb21b4675cfa8db310ec88e38cd369d8d463acdde815122fa8b893b8896a5783b538856693ed7645ddb897e'),
  acpiRsdp: fromHex('509dcfe10beb5d470c40f25e30895370948831b9cf79db15d977e7bba8eb42f7200212071ad8b19d6011759779eced5a'),
  acpiTables: fromHex('0bb0afa008873bdc20dee0f741da7896c2bfeee94ae52e9bdbf94bc87c32d04a4b1f1d824490f1dae574ff6d4e4bb0b3'),
  bootEntries: [
    fromHex('a25333c7aec2e0993034938c7f11893b3c2bcaf67e88c342a3d586f6f7fae2c6a1247a9ed86988080a6d4be497d4fbb6'),
    fromHex('9068065754ff3ae3dd58a5897535eeaf62a19a6757d82dd91349c41bae2e3f208e268abba2a4378bc5c8d1acf2fd260f'),
    fromHex('23ada07f5261f12f34a0bd8e46760962d6b4d576a416f1fea1c64bc656b1d28eacf7047ae6e967c58fd2a98bfa74c298'),
  ],
}; // prettier-ignore
const COMMAND_LINE =
  'console=tty0 console=ttyS0,115200n8 mitigations=auto,nosmt spec_store_bypass_disable=on nospectre_v2 transparent_hugepage=madvise systemd.unit=minimal.target';
const INITRD =
  '99251a9997f552ce98364e3f7311ca47471e299b6fdb31226d738a10577959ab741cc2e7b8c268236153de568265d3f2';
const IMAGE = {
  gpt: fromHex('488fa3f08aae01c1a46b497319e8a7d3b7335c9ff4f4d7fe6a3dd62c844b03de22157c0303be58f10e3152687778e68d'),
  applications: [
    fromHex('82500f977e16a1e3fd47db792ac9c9fdd69caa73d8e719fe4489416355f23f5d0863ad796febfc1241bc3e868c3649a6'),
    fromHex('b2a6076ae199d325e553a5102cf1f4a18b5e67e36b33261ef20352052199ec5853b5133c0231b16f1198bb086f1cbfac'),
  ],
}; // prettier-ignore

async function registers(ramGib: number, firmware = FIRMWARE): Promise<string[]> {
  const stub = [await commandLineDigest(COMMAND_LINE), fromHex(INITRD)];
  const { rtmr0, rtmr1, rtmr2 } = await predictGceRegisters(ramGib, firmware, { ...IMAGE, stub });
  return [rtmr0, rtmr1, rtmr2].map((value) => toHex(value));
}

test('the command line is hashed as UTF-16 with its NUL', async () => {
  expect(toHex(await commandLineDigest(COMMAND_LINE))).toBe(
    'e03b89abf354a38976537b7a9138fd312e4cbf73b61eebc44086491701b1d167b9f6cb97a922325866c93e0834723d87',
  );
});

test('memory and disks change RTMR0 alone', async () => {
  const [rtmr0, ...rest] = await registers(16);
  const [more, ...restOfMore] = await registers(32);
  expect(restOfMore).toEqual(rest);
  expect(more).not.toBe(rtmr0);
  const [first = new Uint8Array(), ...entries] = FIRMWARE.bootEntries;
  const disk = new Uint8Array(48).fill(3);
  const [twoDisks, ...restOfTwo] = await registers(16, {
    ...FIRMWARE,
    bootEntries: [first, disk, ...entries],
  });
  expect(restOfTwo).toEqual(rest);
  expect(twoDisks).not.toBe(rtmr0);
});

describe.skipIf(!haveVectors)('the genuine quote', () => {
  test('has the three registers that are predicted', async () => {
    const { body } = parseTdxQuote(cloudBytes('tdx/v4-gcp-trailing-zeros/gcp-tdx-1782809233226668671'));
    expect(await registers(16)).toEqual([body.rtmr0, body.rtmr1, body.rtmr2].map((value) => toHex(value)));
  });
});

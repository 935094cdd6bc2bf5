// Google's launch endorsement, made by an own PKI because no genuine object could be obtained: accepted
// whole, and refused with flips, fields unknown or twice, another salt, PKCS #1 v1.5, another root or clock.

import * as fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { concatBytes } from '../../../attestation/encoding/bytes.ts';
import { parseLaunchEndorsement } from '../../../attestation/gcp/endorsement.ts';
import { checkLaunchEndorsement, type GceQuestion } from '../../../attestation/gcp/verify.ts';
import { createSimulatedEndorser, type SimulatedEndorser } from '../../../attestation/simulated/tpm.ts';
import { Transcript } from '../../../attestation/transcript/checks.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { flipped } from '../../fixtures/attestation/cloud-documents.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

const now = new Date('2026-06-01T00:00:00Z');
const keys = createKeyCache();
const MR_TD = new Uint8Array(48).fill(0x41);
const MEASUREMENT = new Uint8Array(48).fill(0xa5);
const TDX: GceQuestion = { kind: 'tdx', measurement: MR_TD };
let endorser: SimulatedEndorser;
let whole: Uint8Array;

beforeAll(async () => {
  endorser = await createSimulatedEndorser({ now });
  whole = await endorser.endorse({
    tdx: [
      { ramGib: 16, mrTd: MR_TD },
      { ramGib: 32, mrTd: new Uint8Array(48).fill(0x42) },
    ],
    snp: [{ vcpus: 2, measurement: MEASUREMENT }],
  });
});

async function codes(
  launchEndorsement: Uint8Array,
  question: GceQuestion = TDX,
  context: { readonly now?: Date; readonly roots?: readonly Uint8Array[] | undefined } = {},
): Promise<string[]> {
  const transcript = new Transcript();
  try {
    const asked = { now, roots: [endorser.root], keys, ...context };
    const { endorsed } = await checkLaunchEndorsement({ launchEndorsement }, question, asked, transcript);
    expect(endorsed).toBe(!transcript.failed);
  } catch (error) {
    if (error instanceof AttestationError) return [error.code];
    throw error;
  }
  return transcript.checks.flatMap(({ status, code }) => (status === 'fail' ? [code ?? ''] : []));
}

test('is accepted for a firmware it lists, of either CPU', async () => {
  expect(await codes(whole)).toEqual([]);
  expect(await codes(whole, { ...TDX, ramGib: 16 })).toEqual([]);
  expect(await codes(whole, { kind: 'snp', measurement: MEASUREMENT })).toEqual([]);
});

test('another firmware, CPU or memory', async () => {
  expect(await codes(whole, { kind: 'tdx', measurement: MEASUREMENT })).toEqual([
    'gce_endorsement_measurement',
  ]);
  expect(await codes(whole, { kind: 'snp', measurement: MR_TD })).toEqual(['gce_endorsement_measurement']);
  expect(await codes(whole, { ...TDX, ramGib: 32 })).toEqual(['gce_endorsement_ram']);
});

test('another root, and another time', async () => {
  expect(await codes(whole, TDX, { roots: undefined })).toEqual(['gce_endorsement_certificate']);
  const other = await createSimulatedEndorser({ now });
  expect(await codes(whole, TDX, { roots: [other.root] })).toEqual(['gce_endorsement_certificate']);
  expect(await codes(whole, TDX, { now: new Date('2028-01-01') })).toEqual(['gce_endorsement_certificate']);
});

test('another salt', async () => {
  for (const saltLength of [0, 20, 31, 33, 48]) {
    // oxlint-disable-next-line no-await-in-loop -- two cores are shared
    const salted = await endorser.endorse({ tdx: [{ ramGib: 16, mrTd: MR_TD }], saltLength });
    expect(await codes(salted), String(saltLength)).toEqual(['gce_endorsement_signature']);
  }
});

describe('fields', () => {
  const tdx = [{ ramGib: 16, mrTd: MR_TD }];
  const FIELD_9 = Uint8Array.of(0x4a, 1, 0);

  test('unknown: counted under the signature, refused outside of it', async () => {
    const signed = await endorser.endorse({ tdx, signedTail: FIELD_9 });
    expect(parseLaunchEndorsement(signed).unknownFields).toBe(1);
    expect(await codes(signed)).toEqual([]);
    expect(await codes(await endorser.endorse({ tdx, unsignedTail: FIELD_9 }))).toEqual([
      'gce_endorsement_form',
    ]);
  });

  test('twice: refused on either side of the signature', async () => {
    const digest = concatBytes(Uint8Array.of(0x2a, 48), new Uint8Array(48));
    expect(await codes(await endorser.endorse({ tdx, signedTail: digest }))).toEqual([
      'gce_endorsement_form',
    ]);
    const signature = Uint8Array.of(0x12, 1, 0);
    expect(await codes(await endorser.endorse({ tdx, unsignedTail: signature }))).toEqual([
      'gce_endorsement_form',
    ]);
  });

  test.each<[string, Uint8Array]>([
    ['nothing', new Uint8Array()],
    ['a field 0', Uint8Array.of(0x02, 0)],
    ['a group', Uint8Array.of(0x0b)],
    ['a length past the end', Uint8Array.of(0x0a, 5, 0)],
    ['a varint that is not the shortest', Uint8Array.of(0x0a, 0x81, 0x00, 0)],
    ['a varint of eleven bytes', new Uint8Array(11).fill(0xff)],
    ['too much', new Uint8Array(70_000)],
  ])('%s', (_what, bytes) => {
    expect(codeOf(() => parseLaunchEndorsement(bytes))).toBe('gce_endorsement_form');
  });

  test('any bytes end in the typed error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        accepted(() => parseLaunchEndorsement(bytes));
      }),
    );
  });
});

test('every byte of it, one bit flipped', { timeout: 200_000 }, async () => {
  const missed: number[] = [];
  for (let byte = 0; byte < whole.length; byte++) {
    // oxlint-disable-next-line no-await-in-loop -- one at a time: two cores are shared
    const found = await codes(flipped(whole, 8 * byte + (byte % 8)));
    if (found.length === 0) missed.push(byte);
  }
  expect(missed).toEqual([]);
});

test('PKCS #1 v1.5 by the same key', async () => {
  const { golden, certificate } = parseLaunchEndorsement(whole);
  expect(certificate.length).toBeGreaterThan(0);
  const parameters = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const pair = await crypto.subtle.generateKey(
    { ...parameters, modulusLength: 4096, publicExponent: Uint8Array.of(1, 0, 1) },
    true,
    ['sign', 'verify'],
  );
  const signature = new Uint8Array(
    await crypto.subtle.sign(parameters, pair.privateKey, golden as BufferSource),
  );
  const at = whole.length - 512;
  expect(await codes(concatBytes(whole.subarray(0, at), signature))).toEqual(['gce_endorsement_signature']);
});

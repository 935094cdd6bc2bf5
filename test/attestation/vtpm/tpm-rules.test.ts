// The rules on a quote's event log, its PCRs and init data: each passed, skipped and failed by its own code.

import { beforeAll, describe, expect, test } from 'vitest';
import { concatBytes, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { createSimulatedTpm, type SimulatedTpm } from '../../../attestation/simulated/tpm.ts';
import { Transcript } from '../../../attestation/transcript/checks.ts';
import { initDataPcr8 } from '../../../attestation/vtpm/initdata.ts';
import { decideVtpmPolicy } from '../../../attestation/vtpm/policy.ts';
import { checkTpm } from '../../../attestation/vtpm/tpm-rules.ts';
import { parsePublicKey } from '../../../attestation/x509/public-key.ts';
import { logHeader, sha256Of, tpmEvent } from '../../fixtures/attestation/tpm-log.ts';

const SEPARATOR = new Uint8Array(4);
const LOG = concatBytes(
  logHeader(),
  tpmEvent(4, 5, utf8('Calling EFI Application')),
  tpmEvent(4, 4, SEPARATOR),
);
const ZERO = new Uint8Array(32);
const PCR4 = sha256Of(
  concatBytes(sha256Of(concatBytes(ZERO, sha256Of(utf8('Calling EFI Application')))), sha256Of(SEPARATOR)),
);
const INIT = sha256Of(utf8('init data'));
const PCRS = Array.from({ length: 24 }, () => ZERO)
  .with(4, new Uint8Array(PCR4))
  .with(8, new Uint8Array(initDataPcr8(INIT)));
let tpm: SimulatedTpm;

beforeAll(async () => {
  tpm = await createSimulatedTpm({ now: new Date('2026-01-01T00:00:00Z') });
});

interface Asked {
  readonly policy?: object;
  readonly eventLog?: Uint8Array | undefined;
  readonly challenge?: Uint8Array | undefined;
  readonly extraData?: Uint8Array;
  readonly selected?: readonly number[];
  readonly key?: boolean;
}

async function ids(asked: Asked): Promise<Record<'pass' | 'fail' | 'skip', string>> {
  const { policy = {}, eventLog, challenge, extraData = ZERO, selected, key = true } = asked;
  const quoted = await tpm.quote({ extraData, pcrs: PCRS, selected });
  const transcript = new Transcript();
  const found = await checkTpm(
    { ...quoted, pcrs: PCRS, eventLog },
    { key: key ? parsePublicKey(tpm.spki) : undefined, challenge, policy: decideVtpmPolicy(policy, 'one') },
    transcript,
  );
  expect(found.pcrs.size === 0).toBe(!found.authentic);
  const of = (status: string): string =>
    transcript.checks
      .filter((check) => check.status === status)
      .map(({ id }) => id)
      .join(' ');
  return { pass: of('pass'), fail: of('fail'), skip: of('skip') };
}

test('all that is asked passes', async () => {
  const policy = { pcrs: { 4: toHex(PCR4), 12: '00'.repeat(32) }, initData: toHex(INIT) };
  const found = await ids({ policy, eventLog: LOG, challenge: ZERO });
  expect(found).toEqual({ pass: 'V1 V2 V3 V4 V5 V6 V8 V9 K1', fail: '', skip: '' });
});

test('what is not asked is skipped', async () => {
  expect(await ids({})).toEqual({ pass: 'V1 V2 V4', fail: '', skip: 'V3 V5 V6 V8 V9 K1' });
});

test.each<[string, Asked, string]>([
  ['a log of another boot', { eventLog: concatBytes(LOG, tpmEvent(4, 4, SEPARATOR)) }, 'V8'],
  ['a log of a PCR that is not quoted', { eventLog: LOG, selected: [0, 7] }, 'V8'],
  ['an empty log', { eventLog: logHeader() }, 'V8'],
  ['a log with other words', { eventLog: concatBytes(logHeader(), tpmEvent(4, 5, utf8('x'), sha256Of(utf8('Calling EFI Application'))), tpmEvent(4, 4, SEPARATOR)) }, 'V9'],
  ['a PCR that is not quoted', { policy: { pcrs: { 4: toHex(PCR4) } }, selected: [0, 7] }, 'V5 V6'],
  ['another value', { policy: { pcrs: { 4: ['00'.repeat(32)] } } }, 'V6'],
  ['other init data', { policy: { initData: '11'.repeat(32) } }, 'K1'],
  ['init data where PCR8 is not quoted', { policy: { initData: toHex(INIT) }, selected: [4] }, 'K1'],
  ['an empty challenge', { challenge: new Uint8Array(), extraData: new Uint8Array() }, 'V3'],
  ['no key that anything vouches for', { key: false, policy: { pcrs: { 4: toHex(PCR4) } }, eventLog: LOG }, 'V2 V5 V6 V8'],
])('%s', async (_what, asked, failed) => {
  expect((await ids(asked)).fail).toBe(failed);
}); // prettier-ignore

describe('the policy', () => {
  test.each<[string, unknown]>([
    ['an unknown key', { pcr: {} }],
    ['a PCR past 23', { pcrs: { 24: '00'.repeat(32) } }],
    ['no PCR', { pcrs: {} }],
    ['a PCR of 20 bytes', { pcrs: { 4: '00'.repeat(20) } }],
    ['an odd challenge', { challenge: '0' }],
    ['a challenge of 65 bytes', { challenge: '00'.repeat(65) }],
    ['an empty list', { paravisorMeasurements: [] }],
    ['a certificate that may be', { akCertificate: 'maybe' }],
    ['no age', { maxDocumentAge: 0 }],
    ['a list', []],
  ])('with %s is refused', (_what, policy) => {
    expect(() => decideVtpmPolicy(policy, 'one')).toThrow(/^vtpm/);
  });

  test('of a section has no values of one piece of evidence', () => {
    for (const key of ['pcrs', 'challenge', 'userData', 'nonce'])
      expect(() => decideVtpmPolicy({ [key]: {} }, 'section')).toThrow('unknown key');
  });
});

// Event logs of TPMs: real ones of GCE parse and replay in both banks; a written one replays to its PCRs,
// with its startup locality; locators of SP800-155 events are read and never extended.

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { concatBytes, fromHex, toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { parseEventLog, replayEventLog } from '../../../attestation/eventlog/tcg.ts';
import {
  manifestLocators,
  parseTpmLog,
  replayTpmLog,
  tpmEventContent,
} from '../../../attestation/eventlog/tpm.ts';
import { cloudBytes } from '../../fixtures/attestation/cloud-vectors.ts';
import { logHeader, sha256Of, tpmEvent } from '../../fixtures/attestation/tpm-log.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';
import { haveVectors } from '../../fixtures/shared.ts';

const SEPARATOR = new Uint8Array(4);

test('replays each PCR from its own start', async () => {
  const log = concatBytes(
    logHeader(),
    tpmEvent(0, 3, concatBytes(utf8('StartupLocality\0'), Uint8Array.of(3)), new Uint8Array(32)),
    tpmEvent(0, 4, SEPARATOR),
    tpmEvent(7, 4, SEPARATOR),
    tpmEvent(17, 4, SEPARATOR),
  );
  const pcrs = await replayTpmLog(parseTpmLog(log, 'SHA-256'), 'SHA-256');
  const digest = sha256Of(SEPARATOR);
  const extended = (start: Uint8Array): string => toHex(sha256Of(concatBytes(start, digest)));
  expect([...pcrs].map(([index, value]) => [index, toHex(value)])).toEqual([
    [0, extended(new Uint8Array(32).with(31, 3))],
    [7, extended(new Uint8Array(32))],
    [17, extended(new Uint8Array(32).fill(0xff))],
  ]);
});

test('an event whose words are not what was hashed contradicts itself', async () => {
  const log = concatBytes(logHeader(), tpmEvent(4, 5, utf8('Calling EFI Application'), new Uint8Array(32)));
  const [event] = parseTpmLog(log, 'SHA-256');
  if (event === undefined) throw new Error('no event');
  expect(await tpmEventContent(event, 'SHA-256')).toBe('contradicted');
});

test.each<[string, Uint8Array, string]>([
  ['a PCR past 23', concatBytes(logHeader(), tpmEvent(24, 4, SEPARATOR)), 'malformed_event_log'],
  ['no header', tpmEvent(0, 4, SEPARATOR), 'malformed_event_log'],
  [
    'an end inside an event',
    concatBytes(logHeader(), tpmEvent(0, 4, SEPARATOR)).subarray(0, -1),
    'malformed_event_log',
  ],
])('%s', (_what, log, code) => {
  expect(codeOf(() => parseTpmLog(log, 'SHA-256'))).toBe(code);
});

test('a bank that is not in the log', () => {
  expect(codeOf(() => parseTpmLog(logHeader(), 'SHA-384'))).toBe('malformed_event_log');
});

test('any bytes end in the typed error', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const events = accepted(() => parseTpmLog(concatBytes(logHeader(), bytes), 'SHA-256'));
      if (events !== undefined) accepted(() => manifestLocators(events));
      const announced = tpmEvent(0, 3, concatBytes(utf8('SP800-155 Event3'), bytes), new Uint8Array(32));
      accepted(() => manifestLocators(parseTpmLog(concatBytes(logHeader(), announced), 'SHA-256')));
    }),
  );
});

describe.skipIf(!haveVectors)('logs of GCE', () => {
  test.each(['SHA-256', 'SHA-384'] as const)('parse and replay in the %s bank', async (bank) => {
    const log = cloudBytes('gcp/vtpm-log-ubuntu-2404-amd-sevsnp/eventlog.bin');
    const events = parseTpmLog(log, bank);
    expect(events).toHaveLength(116);
    const pcrs = await replayTpmLog(events, bank);
    expect([...pcrs.keys()].toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14]);
    // One separator alone.
    if (bank === 'SHA-256')
      expect(toHex(pcrs.get(3) ?? new Uint8Array())).toBe(
        '3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969',
      );
    for (const event of events) expect(await tpmEventContent(event, bank)).not.toBe('contradicted');
    expect(manifestLocators(events)).toEqual([]);
  });

  test('SP800-155 events: a UEFI variable and the URI of a signed firmware', () => {
    const events = parseTpmLog(cloudBytes('gcp/vtpm-log-sp800155/eventlogwithsp800155.bin'), 'SHA-256');
    const common = { firmwareMaker: 'Google, Inc.', firmwareVersion: '2.7' };
    const [variable, uri, ...more] = manifestLocators(events);
    expect(more).toEqual([]);
    expect(variable).toEqual({
      ...common,
      locator: { kind: 'variable', text: 'a2858e46-a37f-456a-8c79-0c1fe48b65ff-FirmwareRIM' },
    });
    expect(uri).toMatchObject({ ...common, locator: { kind: 'uri' } });
    expect(uri?.locator.text).toMatch(/\/gce_tcb_integrity\/ovmf_x64_csm\/[0-9a-f]{96}\.fd\.signed$/);
  });

  test('the CCEL of an image with keys of its own replays', async () => {
    const events = parseEventLog(cloudBytes('gcp/tdx-ccel-custom-keys/ccel.bin'));
    const registers = (await replayEventLog(events)).map((value) => toHex(value));
    expect(registers[1]).toBe(
      '3300980705adf09d28b707b79699d9874892164280832be2c386a715b6e204e0897fb564a064f810659207ba862b304f',
    );
    // The HOB digest of every GCE machine with 16 GiB.
    expect(toHex(events.find(({ register }) => register === 1)?.digest ?? fromHex(''))).toBe(
      '458994daa60deac8dea19dba79748f6ff93fd0aebb8e3e0be5a65eb12309d342c3ce31cc67af7bbd22af1a44e7d9fe21',
    );
  });
});

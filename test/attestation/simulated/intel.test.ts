// The simulated Intel: formats a third party reads, a root that stays the same over a restart, logs that
// replay, and that no verifier takes it for Intel.

import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { toHex, utf8 } from '../../../attestation/encoding/bytes.ts';
import { runEvidence } from '../../../attestation/appraise/evidence-contract.ts';
import { toBase64 } from '../../../attestation/encoding/bytes.ts';
import {
  buildEventLog,
  buildRuntimeLog,
  SIMULATED_BOOT,
} from '../../../attestation/simulated/intel-eventlog.ts';
import {
  createSimulatedIntel,
  SIMULATED_INTEL_SERIALS,
  type SimulatedIntel,
} from '../../../attestation/simulated/intel.ts';
import { encodePem } from '../../../attestation/simulated/issue.ts';
import { eventName, eventText, parseEventLog, replayEventLog } from '../../../attestation/eventlog/tcg.ts';
import { parseRuntimeLog, replayRuntimeLog } from '../../../attestation/eventlog/dstack.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';

const now = new Date('2026-06-15T12:00:00Z');
const made = createSimulatedIntel({ now });

/** Input of the hermetic contract. */
async function hermetic(
  intel: SimulatedIntel,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const { quote, collateral } = await intel.evidence();
  return JSON.stringify({
    tee: 'tdx',
    quote: toBase64(quote),
    collateral: {
      tcb_info: collateral.tcbInfo,
      tcb_info_issuer_chain: collateral.tcbInfoIssuerChain,
      qe_identity: collateral.qeIdentity,
      qe_identity_issuer_chain: collateral.qeIdentityIssuerChain,
      pck_crl: toBase64(collateral.pckCrl),
      pck_crl_issuer_chain: collateral.pckCrlIssuerChain,
      root_ca_crl: toBase64(collateral.rootCaCrl),
    },
    now: now.toISOString(),
    ...changes,
  });
}

describe('certificates', () => {
  test('OpenSSL reads and verifies the chains', async () => {
    const intel = await made;
    const [root, ca, pck, signing] = [intel.root, intel.pckCa, intel.pck, intel.tcbSigning].map(
      (der) => new X509Certificate(Buffer.from(der)),
    );
    if (!root || !ca || !pck || !signing) throw new Error('certificate missing');
    expect([
      pck.checkIssued(ca),
      pck.verify(ca.publicKey),
      ca.checkIssued(root),
      ca.verify(root.publicKey),
      signing.verify(root.publicKey),
      root.verify(root.publicKey),
    ]).toEqual(Array.from({ length: 6 }, () => true));
    expect(BigInt(`0x${pck.serialNumber}`)).toBe(BigInt(SIMULATED_INTEL_SERIALS.pck));
    expect(pck.subject).toContain('SIMULATED hierarchy');
  });

  test('exported keys make the same root again, and only through JSON', async () => {
    const intel = await made;
    const saved = JSON.parse(JSON.stringify(await intel.exportKeys())) as Awaited<
      ReturnType<SimulatedIntel['exportKeys']>
    >;
    const again = await createSimulatedIntel({ now, keys: saved });
    expect(toHex(again.root)).toBe(toHex(intel.root));
    expect((await verifyTdx(await again.evidence(), {}, { now, roots: [intel.root] })).accepted).toBe(true);
  });

  test('two hierarchies do not believe each other, and nobody takes either for Intel', async () => {
    const other = await createSimulatedIntel({ now });
    const evidence = await (await made).evidence();
    expect((await verifyTdx(evidence, {}, { now, roots: [other.root] })).transcript.firstFailure?.code).toBe(
      'tdx_root_not_trusted',
    );
    expect((await verifyTdx(evidence, {}, { now })).transcript.firstFailure?.code).toBe(
      'tdx_root_not_trusted',
    );
  });
});

describe('the hermetic contract', () => {
  test('accepts under the replaced root and says that it was', async () => {
    const intel = await made;
    const { exitCode, output } = await runEvidence(
      await hermetic(intel, {
        roots: [encodePem(intel.root)],
        policy: { fmspc: toHex(intel.fmspc), tcbStatus: ['UpToDate'] },
      }),
    );
    expect(exitCode).toBe(0);
    expect(output).toMatchObject({
      accepted: true,
      code: null,
      claims: {
        rootsReplaced: true,
        fmspc: toHex(intel.fmspc),
        ppid: toHex(intel.ppid),
        tcbStatus: 'UpToDate',
      },
    });
    expect(output.checks.some(({ id, status }) => id === 'T27' && status === 'skip')).toBe(true);
  });

  test.each([
    ['without the root', {}, 10, 'tdx_root_not_trusted'],
    ['with another MRTD', { policy: { mrTd: '11'.repeat(48) } }, 10, 'tdx_mr_td'],
    ['with an unknown policy key', { policy: { mrtd: '11'.repeat(48) } }, 30, 'malformed_policy'],
    ['with a cut quote', { quote: 'BAACAA==' }, 30, 'malformed_length'],
    ['with a log that is none', { event_log: 'AAAA' }, 30, 'malformed_event_log'],
  ] as const)('%s', async (name, changes, exitCode, code) => {
    const intel = await made;
    const roots = name === 'without the root' ? {} : { roots: [encodePem(intel.root)] };
    const result = await runEvidence(await hermetic(intel, { ...roots, ...changes }));
    expect([result.exitCode, result.output.code]).toEqual([exitCode, code]);
  });
});

describe('event logs', () => {
  test('a CCEL replays to the registers it was made with, and names its events', async () => {
    const { log, rtmrs } = await buildEventLog();
    const events = parseEventLog(log);
    expect((await replayEventLog(events)).slice(1).map(toHex)).toEqual(rtmrs.map(toHex));
    expect(events.map(eventName)).toEqual([
      '#0 RTMR0 EV_EFI_VARIABLE_DRIVER_CONFIG',
      '#1 RTMR0 EV_SEPARATOR',
      '#2 RTMR1 EV_EFI_ACTION',
      '#3 RTMR1 EV_EFI_BOOT_SERVICES_APPLICATION',
      '#4 RTMR2 EV_IPL',
    ]);
    expect(events.map(eventText).slice(2, 5)).toEqual([
      'Calling EFI Application from Boot Option',
      'image',
      'kernel_cmdline: quiet',
    ]);
  });

  test('EV_NO_ACTION extends nothing', async () => {
    const { rtmrs } = await buildEventLog();
    const { log } = await buildEventLog([...SIMULATED_BOOT, { rtmr: 3, type: 3, data: utf8('note') }]);
    expect((await replayEventLog(parseEventLog(log))).slice(1).map(toHex)).toEqual(rtmrs.map(toHex));
  });

  test('blank digests of runtime events are computed, wrong ones found', async () => {
    const events = [
      { name: 'app-id', payload: Uint8Array.of(1) },
      { name: 'compose-hash', payload: Uint8Array.of(2) },
    ] as const;
    const full = await buildRuntimeLog(events);
    const lite = await buildRuntimeLog(events.map((event) => ({ ...event, digest: '' })));
    const [a, b] = [
      await replayRuntimeLog(parseRuntimeLog(full.log)),
      await replayRuntimeLog(parseRuntimeLog(lite.log)),
    ];
    expect([a.registers, b.registers].map((list) => list.map(toHex))).toEqual([
      full.rtmrs.map(toHex),
      full.rtmrs.map(toHex),
    ]);
    const lying = await buildRuntimeLog([{ ...events[0], digest: '00'.repeat(48) }]);
    expect((await replayRuntimeLog(parseRuntimeLog(lying.log))).contradicted.map(({ name }) => name)).toEqual(
      ['app-id'],
    );
  });

  test.each([
    ['no specification header', (log: Uint8Array) => log.subarray(65)],
    ['another signature', (log: Uint8Array) => log.map((byte, i) => (i === 32 ? byte ^ 1 : byte))],
    ['no SHA-384 bank', (log: Uint8Array) => log.with(32 + 28, 0x0b).with(32 + 30, 32)],
    ['a register that is none', (log: Uint8Array) => log.map((byte, i) => (i === 65 ? 9 : byte))],
    ['an unknown digest algorithm', (log: Uint8Array) => log.map((byte, i) => (i === 65 + 12 ? 0x77 : byte))],
    ['an event cut short', (log: Uint8Array) => log.subarray(0, 100)],
  ])('%s is malformed', async (_name, damage) => {
    const { log } = await buildEventLog();
    expect(() => parseEventLog(damage(log))).toThrow(
      expect.objectContaining({ kind: 'malformed', code: 'malformed_event_log' }) as Error,
    );
  });
});

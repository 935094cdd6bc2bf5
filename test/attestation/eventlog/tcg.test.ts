// Event logs of a TD on anything: only the typed error, round trips, padding of two values.

import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { buildEventLog } from '../../../attestation/simulated/intel-eventlog.ts';
import {
  eventContent,
  eventName,
  eventText,
  parseEventLog,
  replayEventLog,
} from '../../../attestation/eventlog/tcg.ts';
import { parseRuntimeLog, replayRuntimeLog } from '../../../attestation/eventlog/dstack.ts';
import { log, runtimeLog, foreignAsync } from '../../fixtures/attestation/tdx-parsing.ts';

/** `make fuzz` raises this. */
const FUZZ = Number(process.env['ASSAY_FUZZ'] ?? 1);

vi.setConfig({ testTimeout: 180_000 * FUZZ });

function runs(count: number): { readonly numRuns: number } {
  return { numRuns: count * FUZZ };
}

/** `base` with some bytes overwritten and its end cut or extended. */
function damaged(base: () => Uint8Array): fc.Arbitrary<Uint8Array> {
  return fc
    .record({
      edits: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }),
      length: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1.2, noNaN: true })),
    })
    .map(({ edits, length }) => {
      const bytes = new Uint8Array(Math.floor(base().length * length));
      bytes.set(base().subarray(0, bytes.length));
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      return bytes;
    });
}

async function read(bytes: Uint8Array): Promise<unknown> {
  const events = parseEventLog(bytes);
  await replayEventLog(events);
  return Promise.all(
    events.map(async (event) => [await eventContent(event), eventName(event), eventText(event)]),
  );
}

describe('event logs', () => {
  test('property: random and damaged logs end in events or the typed error', async () => {
    await expect(
      fc.assert(
        fc.asyncProperty(
          fc.uint8Array({ maxLength: 2048 }),
          async (bytes) => (await foreignAsync(() => read(bytes))) === undefined,
        ),
      ),
    ).resolves.toBeUndefined();
    await expect(
      fc.assert(
        fc.asyncProperty(
          damaged(() => log),
          async (bytes) => (await foreignAsync(() => read(bytes))) === undefined,
        ),
        runs(400),
      ),
    ).resolves.toBeUndefined();
    await expect(
      fc.assert(
        fc.asyncProperty(
          damaged(() => runtimeLog),
          async (bytes) =>
            (await foreignAsync(async () => replayRuntimeLog(parseRuntimeLog(bytes)))) === undefined,
        ),
        runs(300),
      ),
    ).resolves.toBeUndefined();
  });

  test('property: what is written reads back', async () => {
    const event = fc.record({
      rtmr: fc.nat(3),
      type: fc.constantFrom(4, 13, 0x80000003, 0x80000007),
      data: fc.uint8Array({ maxLength: 300 }),
    });
    await expect(
      fc.assert(
        fc.asyncProperty(fc.array(event, { maxLength: 12 }), fc.nat(100), async (events, padding) => {
          const built = await buildEventLog(events, padding);
          const parsed = parseEventLog(built.log);
          expect(parsed.map(({ register, type, data }) => [register - 1, type, toHex(data)])).toEqual(
            events.map(({ rtmr, type, data }) => [rtmr, type, toHex(data)]),
          );
          expect((await replayEventLog(parsed)).slice(1).map(toHex)).toEqual(built.rtmrs.map(toHex));
        }),
        runs(100),
      ),
    ).resolves.toBeUndefined();
  });

  test('padding may be 0xff or zero, nothing else', async () => {
    const { log: bare } = await buildEventLog(undefined, 0);
    const count = parseEventLog(bare).length;
    const padded = (value: number): Uint8Array =>
      Uint8Array.from([...bare, ...new Uint8Array(64).fill(value)]);
    expect(parseEventLog(padded(0xff)).length).toBe(count);
    expect(parseEventLog(padded(0)).length).toBe(count);
    expect(() => parseEventLog(padded(1))).toThrow(AttestationError);
    expect(() => parseEventLog(Uint8Array.from([...bare, ...new Uint8Array(8).fill(0xff), 1]))).toThrow(
      /after its last event/,
    );
  });
});

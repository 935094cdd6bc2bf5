// The TDX parsers on anything: only the typed error, no read past the end, round trips, and answers in time on a
// mebibyte of whatever.

import * as fc from 'fast-check';
import { describe, expect, test, vi } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { AttestationError } from '../../../attestation/transcript/errors.ts';
import { buildEventLog } from '../../../attestation/simulated/intel-eventlog.ts';
import { encodeMembers, sgxMembers } from '../../../attestation/simulated/intel-pck.ts';
import { cutSigned, parseQeIdentity, parseTcbInfo } from '../../../attestation/tdx/collateral.ts';
import {
  eventContent,
  eventName,
  eventText,
  parseEventLog,
  replayEventLog,
} from '../../../attestation/eventlog/tcg.ts';
import { parsePckExtensions, pckClaims } from '../../../attestation/tdx/pck.ts';
import { decideTdxPolicy } from '../../../attestation/tdx/policy.ts';
import { parseTdxQuote, quoteClaims } from '../../../attestation/tdx/quote.ts';
import { parseRuntimeLog, replayRuntimeLog } from '../../../attestation/eventlog/dstack.ts';
import {
  intel,
  quote,
  quote5,
  log,
  runtimeLog,
  foreign,
  foreignAsync,
} from '../../fixtures/attestation/tdx-parsing.ts';

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

function bytesOf(size: number): fc.Arbitrary<Uint8Array> {
  return fc.uint8Array({ minLength: size, maxLength: size });
}

async function read(bytes: Uint8Array): Promise<unknown> {
  const events = parseEventLog(bytes);
  await replayEventLog(events);
  return Promise.all(
    events.map(async (event) => [await eventContent(event), eventName(event), eventText(event)]),
  );
}

describe('quotes', () => {
  test('property: random and damaged bytes end in a quote or the typed error', () => {
    expect(() =>
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 8192 }),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => quote),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
        runs(500),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => quote5),
          (bytes) => foreign(() => quoteClaims(parseTdxQuote(bytes))) === undefined,
        ),
        runs(500),
      ),
    ).not.toThrow();
  });

  test('every truncation is refused', () => {
    for (const whole of [quote, quote5]) {
      for (let length = 0; length < whole.length; length++)
        expect(() => parseTdxQuote(whole.subarray(0, length))).toThrow(AttestationError);
    }
  });

  test('property: a quote written with any field values reads back as them', async () => {
    await expect(
      fc.assert(
        fc.asyncProperty(
          fc.record({
            mrTd: bytesOf(48),
            rtmr3: bytesOf(48),
            reportData: bytesOf(64),
            xfam: bytesOf(8),
            mrServiceTd: bytesOf(48),
            qeAuthData: fc.uint8Array({ maxLength: 80 }),
          }),
          fc.constantFrom({ version: 4 }, { version: 5 }, { version: 5, bodyType: 2 }),
          async (fields, shape) => {
            const parsed = parseTdxQuote(await intel.signQuote({ ...fields, ...shape }));
            const { body, version } = parsed;
            expect(version).toBe(shape.version);
            expect([body.mrTd, body.rtmr3, body.reportData, body.xfam].map(toHex)).toEqual(
              [fields.mrTd, fields.rtmr3, fields.reportData, fields.xfam].map(toHex),
            );
            expect(body.mrServiceTd === undefined ? undefined : toHex(body.mrServiceTd)).toBe(
              parsed.bodyType === 3 ? toHex(fields.mrServiceTd) : undefined,
            );
            expect(toHex(parsed.qeAuthData)).toBe(toHex(fields.qeAuthData));
          },
        ),
        runs(30),
      ),
    ).resolves.toBeUndefined();
  });

  test('parsing reads nothing outside its view', () => {
    const buffer = new Uint8Array(quote.length + 64).fill(0xff);
    buffer.set(quote, 32);
    expect(quoteClaims(parseTdxQuote(buffer.subarray(32, 32 + quote.length)))).toEqual(
      quoteClaims(parseTdxQuote(quote)),
    );
    expect(() => parseTdxQuote(buffer.subarray(32, 32 + quote.length - 1))).toThrow(AttestationError);
  });
});

describe('SGX extensions', () => {
  const values = {
    ppid: new Uint8Array(16).fill(7),
    components: Array.from({ length: 16 }, (_, i) => i * 17),
    pceSvn: 300,
    pceId: new Uint8Array(2),
    fmspc: Uint8Array.of(1, 2, 3, 4, 5, 6),
    sgxType: 1,
    platformInstanceId: new Uint8Array(16),
  };

  test('property: what is written reads back, in any order of members', () => {
    expect(() =>
      fc.assert(
        fc.property(
          fc.shuffledSubarray(
            sgxMembers(values).map((_, i) => i),
            { minLength: 7 },
          ),
          (order) => {
            const members = sgxMembers(values);
            const encoded = encodeMembers(order.flatMap((i) => members[i] ?? []));
            expect(parsePckExtensions(encoded)).toMatchObject({
              components: values.components,
              pceSvn: 300,
              sgxType: 1,
              configuration: { dynamicPlatform: true, cachedKeys: false },
            });
            expect(pckClaims(parsePckExtensions(encoded))).toMatchObject({ fmspc: '010203040506' });
          },
        ),
      ),
    ).not.toThrow();
  });

  test('property: damage ends in the typed error', () => {
    const encoded = encodeMembers(sgxMembers(values));
    expect(() =>
      fc.assert(
        fc.property(
          damaged(() => encoded),
          (bytes) => foreign(() => parsePckExtensions(bytes)) === undefined,
        ),
        runs(1000),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 600 }),
          (bytes) => foreign(() => parsePckExtensions(bytes)) === undefined,
        ),
      ),
    ).not.toThrow();
  });
});

describe('collateral', () => {
  test('property: any text, and damaged responses, end in the typed error', async () => {
    const response = await intel.tcbInfo();
    expect(() =>
      fc.assert(
        fc.property(
          fc.string({ maxLength: 400 }),
          (text) => foreign(() => cutSigned(text, 'tcbInfo')) === undefined,
        ),
        runs(300),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.json(),
          (text) =>
            foreign(() => cutSigned(text, 'tcbInfo')) === undefined &&
            foreign(() => parseTcbInfo(text)) === undefined &&
            foreign(() => parseQeIdentity(text)) === undefined,
        ),
      ),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(fc.nat(response.length - 1), fc.string({ maxLength: 3 }), (at, insert) => {
          const text = response.slice(0, at) + insert + response.slice(at + 1);
          return foreign(() => parseTcbInfo(cutSigned(text, 'tcbInfo').text)) === undefined;
        }),
        runs(500),
      ),
    ).not.toThrow();
  });

  test('the signed text is cut out byte for byte, spaces and escapes and all', () => {
    const inner = '{ "id" : "T\\"}{DX" , "list":[ {"a":"]"} , 1 ] }';
    const text = ` { "signature" : "${'ab'.repeat(64)}" ,\n "tcbInfo" :${inner} } `;
    expect(cutSigned(text, 'tcbInfo').text).toBe(inner);
    for (const wrong of [
      `{"tcbInfo":${inner}}`,
      `${text}x`,
      text.replace('"signature"', '"tcbInfo"'),
      text.replace('ab', 'xy'),
      `[${text}]`,
      text.slice(0, -2),
      text.replace('{ "sig', '{ "more":1,"sig'),
    ]) {
      expect(() => cutSigned(wrong, 'tcbInfo')).toThrow(AttestationError);
    }
  });

  test.each(['2026-02-30T00:00:00Z', '2026-02-20 00:00:00Z', '2026-02-20T00:00:00+01:00', '2026-02-20', ''])(
    'the time %j is not one',
    async (time) => {
      const response = await intel.tcbInfo({ members: (list) => ({ ...list, nextUpdate: time }) });
      expect(() => parseTcbInfo(cutSigned(response, 'tcbInfo').text)).toThrow(/nextUpdate is not a UTC time/);
    },
  );
});

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

describe('policies', () => {
  test('property: any JSON is a policy or the typed error', () => {
    expect(() =>
      fc.assert(fc.property(fc.jsonValue(), (value) => foreign(() => decideTdxPolicy(value)) === undefined)),
    ).not.toThrow();
    expect(() =>
      fc.assert(
        fc.property(
          fc.dictionary(
            fc.constantFrom('mrTd', 'tcbStatus', 'reportData', 'fmspc', 'tcbGraceDays', 'advisories'),
            fc.jsonValue(),
          ),
          (value) => foreign(() => decideTdxPolicy(value)) === undefined,
        ),
      ),
    ).not.toThrow();
  });
});

// Real TDX evidence under injected clocks, against the verdicts recorded with it: quotes of versions 4 and 5,
// Intel's own collateral of 2025 and 2026, and two boots whose event logs replay to their quotes.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { eventContent, parseEventLog, replayEventLog } from '../../../attestation/eventlog/tcg.ts';
import { parsePckExtensions, pckClaims, SGX_EXTENSIONS_OID } from '../../../attestation/tdx/pck.ts';
import { parseTdxQuote } from '../../../attestation/tdx/quote.ts';
import { INTEL_ROOT_SPKI_SHA256, spkiSha256 } from '../../../attestation/tdx/roots.ts';
import { TDX_RULES } from '../../../attestation/tdx/rules.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import { readVector, readVectorText, readYamlCollateral } from '../../fixtures/attestation/tdx-vectors.ts';
import {
  GCP,
  GCP_COLLATERAL,
  uptodate,
  td15,
  td15Collateral,
  VECTORS,
} from '../../fixtures/attestation/tdx-vector-rows.ts';

/** The same bytes inside a larger buffer, at a non-zero offset. */
function shift(bytes: Uint8Array, by: number): Uint8Array {
  const buffer = new Uint8Array(bytes.length + by + 5).fill(0xee);
  buffer.set(bytes, by);
  return buffer.subarray(by, by + bytes.length);
}

describe.skipIf(!haveVectors)('real TDX evidence', () => {
  test.each(VECTORS.map((vector) => [vector.name, vector] as const))('%s', async (_name, vector) => {
    const eventLog = vector.eventLog?.();
    const evidence = {
      quote: vector.quote(),
      collateral: vector.collateral(),
      ...(eventLog === undefined ? {} : { eventLog }),
    };
    const result = await verifyTdx(evidence, vector.policy ?? {}, { now: new Date(vector.now) });
    const failures = result.transcript.checks.filter(({ status }) => status === 'fail');
    expect(failures.map(({ code }) => code)).toEqual(vector.codes ?? []);
    expect(result.accepted).toBe(vector.accepted);
    expect(result.rootsReplaced).toBe(false);
    expect(result.tcb).toMatchObject(vector.tcb ?? {});
    const replayed = vector.codes?.includes('tdx_event_log_replay') === true ? 'fail' : 'pass';
    const logStatuses = eventLog === undefined ? ['skip', 'skip'] : [replayed, 'pass'];
    expect(['E1', 'E2'].map((row) => result.transcript.checks.find(({ id }) => id === row)?.status)).toEqual(
      logStatuses,
    );
  });

  test('every quote says what the index recorded of it', () => {
    interface Recorded {
      readonly path: string;
      readonly quotes?: readonly Readonly<Record<string, unknown>>[];
    }
    const index = JSON.parse(readFileSync(vectorPath('INDEX.json'), 'utf8')) as {
      readonly entries: readonly Recorded[];
    };
    let seen = 0;
    for (const { path, quotes } of index.entries) {
      for (const recorded of quotes ?? []) {
        const file = path.replace('tdx/', '');
        const bytes =
          recorded['container'] === 'hex'
            ? new Uint8Array(Buffer.from(readVectorText(file).trim(), 'hex'))
            : readVector(file);
        const { version, body, trailing } = parseTdxQuote(bytes);
        expect({
          version,
          tee_tcb_svn: toHex(body.teeTcbSvn),
          tee_tcb_svn2: body.teeTcbSvn2 === undefined ? null : toHex(body.teeTcbSvn2),
          tdattr: toHex(body.tdAttributes),
          xfam: toHex(body.xfam),
          mrtd: toHex(body.mrTd),
          rtmr: [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3].map(toHex),
          report_data: toHex(body.reportData),
          trailing: trailing.length,
        }).toMatchObject(
          Object.fromEntries(
            [
              'version',
              'tee_tcb_svn',
              'tee_tcb_svn2',
              'tdattr',
              'xfam',
              'mrtd',
              'rtmr',
              'report_data',
              'trailing',
            ].map((key) => [key, recorded[key]]),
          ),
        );
        seen += 1;
      }
    }
    expect(seen).toBeGreaterThanOrEqual(9);
  });

  test('published firmware measurement is the MRTD of its quote', async () => {
    const mrTd =
      /^mrtd: >-\s+([0-9a-f]{96})$/m.exec(
        readVectorText('v4-gcp-trailing-zeros/gcp-tdx-firmware-1782809233226668671.yaml'),
      )?.[1] ?? '';
    const evidence = { quote: readVector(GCP), collateral: readYamlCollateral(GCP_COLLATERAL) };
    const result = await verifyTdx(evidence, { mrTd }, { now: new Date('2026-07-05T00:00:00Z') });
    expect(result.transcript.checks.find(({ title }) => title === TDX_RULES.mrTd.title)?.status).toBe('pass');
    expect(result.accepted).toBe(true);
  });

  test('the root is the pinned one, in both files; a PCK of a server without TDX is read too', () => {
    const [google = new Uint8Array()] = parsePem(
      readFileSync(vectorPath('intel-roots/google_intel_sgx_root_ca.pem'), 'utf8'),
    );
    for (const der of [
      google,
      new Uint8Array(readFileSync(vectorPath('intel-roots/phala_TrustedRootCA.der'))),
    ]) {
      expect(spkiSha256(parseCertificate(der).publicKey.raw)).toBe(toHex(INTEL_ROOT_SPKI_SHA256));
    }
    const pck = parseCertificate(readVector('v4-platform-outofdate/pck.der'));
    const extensions = parsePckExtensions(pck.extensions.get(SGX_EXTENSIONS_OID)?.value ?? new Uint8Array());
    expect(pckClaims(extensions)).toMatchObject({
      fmspc: '00606a000000',
      pceId: '0000',
      pceSvn: 13,
      cpuSvn: '0c0c0303ffff01000000000000000000',
    });
    expect(extensions).toMatchObject({
      components: [12, 12, 3, 3, 255, 255, 1, ...Array.from({ length: 9 }, () => 0)],
      sgxType: 1,
      configuration: { dynamicPlatform: true },
    });
  });

  test('the CRLs of 2023: genuine then, stale now', async () => {
    const old = {
      ...td15Collateral(),
      pckCrl: readVector('v5-td15/pckcrl'),
      rootCaCrl: readVector('v5-td15/rootcrl.der'),
    };
    const evidence = { quote: td15.quote(), collateral: old };
    const stale = await verifyTdx(evidence, {}, { now: new Date('2026-03-25T00:00:00Z') });
    expect(stale.transcript.checks.filter(({ status }) => status === 'fail').map(({ code }) => code)).toEqual(
      ['tdx_crl_expired'],
    );
    const then = await verifyTdx(evidence, {}, { now: new Date('2023-06-20T00:00:00Z') });
    const crls = then.transcript.checks.filter(({ id }) => id === 'T10').map(({ status }) => status);
    expect(crls).toEqual(['pass', 'pass', 'pass']);
  });

  test('the same verdict from sub-views of larger buffers', async () => {
    const collateral = uptodate.collateral();
    const evidence = {
      quote: uptodate.quote(),
      collateral,
      eventLog: readVector('ccel-live/tdx_ccel_live2.dat'),
    };
    const moved = {
      quote: shift(evidence.quote, 13),
      collateral: {
        ...collateral,
        pckCrl: shift(collateral.pckCrl, 7),
        rootCaCrl: shift(collateral.rootCaCrl, 1),
      },
      eventLog: shift(evidence.eventLog, 3),
    };
    const context = { now: new Date('2025-06-25T00:00:00Z') };
    const [plain, offset] = [await verifyTdx(evidence, {}, context), await verifyTdx(moved, {}, context)];
    expect(offset.transcript.checks).toEqual(plain.transcript.checks);
    expect(offset.claims).toEqual(plain.claims);
  });

  test(
    'a single flipped bit anywhere in what is signed is refused, all bits of one quote',
    { timeout: 400_000 },
    async () => {
      const evidence = { quote: uptodate.quote(), collateral: uptodate.collateral() };
      const context = { now: new Date('2025-06-25T00:00:00Z'), keys: createKeyCache() };
      const signed = parseTdxQuote(evidence.quote).signed.length;
      const survived: string[] = [];
      const attempt = async (at: number, bit: number): Promise<void> => {
        const quote = evidence.quote.slice();
        quote[at] = (quote[at] ?? 0) ^ (1 << bit);
        // Version, TEE type and key type say how to read the rest: those bits end in
        // `unsupported` or `malformed`.
        const accepted = await verifyTdx({ ...evidence, quote }, {}, context).then(
          (result) =>
            result.accepted || result.transcript.checks.every(({ code }) => code !== 'tdx_quote_signature'),
          () => false,
        );
        if (accepted) survived.push(`${at}.${bit}`);
      };
      for (let at = 0; at < signed; at++)
        await Promise.all(Array.from({ length: 8 }, (_, bit) => attempt(at, bit)));
      expect(signed).toBe(632);
      expect(survived).toEqual([]);
    },
  );

  test(
    'a flipped bit anywhere in the rest of the quote is refused too, but for the zero tail',
    { timeout: 400_000 },
    async () => {
      const evidence = { quote: uptodate.quote(), collateral: uptodate.collateral() };
      const context = { now: new Date('2025-06-25T00:00:00Z'), keys: createKeyCache() };
      const { signed, trailing } = parseTdxQuote(evidence.quote);
      const survived: number[] = [];
      for (let at = signed.length; at < evidence.quote.length; at += 7) {
        const quote = evidence.quote.slice();
        quote[at] = (quote[at] ?? 0) ^ (1 << (at % 8));
        const accepted = await verifyTdx({ ...evidence, quote }, {}, context).then(
          (result) => result.accepted,
          () => false,
        );
        if (accepted) survived.push(at);
      }
      // One NUL ends the PEM; everything else is authenticated or has to be zero.
      expect(survived.filter((at) => at < evidence.quote.length - trailing.length - 1)).toEqual([]);
      expect(survived.filter((at) => at >= evidence.quote.length - trailing.length)).toEqual([]);
    },
  );
});

describe.skipIf(!haveVectors)('real event logs', () => {
  test.each([
    ['ccel-cos', 'ccel-cos/ccel_data.dat', 'ccel-cos/cos-113-tdx-quote.dat'],
    ['ccel-live', 'ccel-live/tdx_ccel_live2.dat', 'ccel-live/tdx_quote_live.dat'],
  ])('%s replays to the four RTMRs of its quote', async (_name, log, quote) => {
    const registers = await replayEventLog(parseEventLog(readVector(log)));
    const { body } = parseTdxQuote(readVector(quote));
    expect(registers.slice(1).map(toHex)).toEqual(
      [body.rtmr0, body.rtmr1, body.rtmr2, body.rtmr3].map(toHex),
    );
  });

  test('a log published with its decoding replays to the published registers', async () => {
    const registers = await replayEventLog(
      parseEventLog(new Uint8Array(readFileSync(vectorPath('measure/ccel/trustee-CCEL_data_ovmf')))),
    );
    expect(registers.slice(1, 4).map(toHex)).toEqual([
      '8566f998798db09443b244c62de9a3041fb02e2e6936c4396d784bba2e90177329ec5aba3bb484404f2ab9cc90abe193',
      '775b9f6bfe99f8a31396f0d0218e67ffa796d3b96ccf961cbb0deba48c79c00f082cda1a5567c1c16305f1fc210c13c6',
      '94eaf7a7bf398ed8d888c91057ae0261802e4f3df084213a76ca7f0b5055ac9d2241de43cd58d9e8b49c503bbf25f34a',
    ]);
  });

  test('no event of four real boots contradicts its digest; commands and variables are proven, images only described', async () => {
    for (const [path, hashed] of [
      ['tdx/ccel-cos/ccel_data.dat', 31],
      ['tdx/ccel-live/tdx_ccel_live2.dat', 12],
      ['measure/ccel/goeventlog-event_log.bin', 18],
      ['measure/ccel/trustee-CCEL_data_ovmf', 12],
    ] as const) {
      const contents = await Promise.all(
        parseEventLog(new Uint8Array(readFileSync(vectorPath(path)))).map((event) => eventContent(event)),
      );
      expect(contents).not.toContain('contradicted');
      expect(contents.filter((content) => content === 'hashed').length).toBe(hashed);
    }
  });
});

// Real TDX evidence under injected clocks, against the verdicts recorded with it: quotes of versions 4 and 5, Intel's own
// collateral of 2025 and 2026, and two boots whose event logs replay to their quotes.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { toHex } from '../../../attestation/encoding/bytes.ts';
import { eventContent, parseEventLog, replayEventLog } from '../../../attestation/eventlog/tcg.ts';
import type { TdxCollateral } from '../../../attestation/tdx/collateral.ts';
import type { TdxPolicy } from '../../../attestation/tdx/policy.ts';
import { parsePckExtensions, pckClaims, SGX_EXTENSIONS_OID } from '../../../attestation/tdx/pck.ts';
import { parseTdxQuote } from '../../../attestation/tdx/quote.ts';
import { INTEL_ROOT_SPKI_SHA256, spkiSha256 } from '../../../attestation/tdx/roots.ts';
import { TDX_RULES } from '../../../attestation/tdx/rules.ts';
import { verifyTdx } from '../../../attestation/tdx/verify.ts';
import { parsePem } from '../../../attestation/x509/pem.ts';
import { createKeyCache } from '../../../attestation/x509/signature.ts';
import { parseCertificate } from '../../../attestation/x509/certificate.ts';
import { haveVectors, vectorPath } from '../../fixtures/shared.ts';
import {
  collateral2025,
  collateral2026,
  readVector,
  readVectorText,
  readYamlCollateral,
  splitCollateral,
} from '../../fixtures/attestation/tdx-vectors.ts';

const gcp = 'v4-gcp-trailing-zeros/gcp-tdx-1782809233226668671';
const GCP_COLLATERAL = 'v4-gcp-trailing-zeros/gcp-tdx-collateral-1782809233226668671.yaml';

interface Vector {
  readonly name: string;
  readonly quote: () => Uint8Array;
  readonly collateral: () => TdxCollateral;
  readonly now: string;
  readonly policy?: TdxPolicy;
  readonly accepted: boolean;
  readonly codes?: readonly string[];
  readonly tcb?: Readonly<Record<string, unknown>>;
  readonly eventLog?: () => Uint8Array;
}

const uptodate = {
  quote: () => readVector('v4-uptodate/tdx_quote'),
  collateral: () => splitCollateral('v4-uptodate/tdx_quote_collateral.json'),
};
const td15 = { quote: () => readVector('v5-td15/quote_v5_sample.dat') };
const outdated = {
  quote: () => readVector('v5-no-tcb-level/tdx_quote_outdated'),
  collateral: () => splitCollateral('v5-no-tcb-level/tdx_quote_outdated_collateral.json'),
};
const platform = {
  quote: () => readVector('v4-platform-outofdate/quote_tdx.bin'),
  collateral: collateral2025,
};
const debugTd = {
  quote: () => readVector('v4-debug-td/tdx_quote_4.dat'),
  collateral: () => collateral2026('50806f000000'),
};
const UP_TO_DATE = {
  status: 'UpToDate',
  platform: 'UpToDate',
  module: 'UpToDate',
  qe: 'UpToDate',
  advisoryIds: [],
  shortfall: [],
};

function td15Collateral(): TdxCollateral {
  return collateral2026('90c06f000000');
}

const VECTORS: readonly Vector[] = [
  {
    name: 'v4, up to date',
    ...uptodate,
    now: '2025-06-25T00:00:00Z',
    accepted: true,
    tcb: { ...UP_TO_DATE, evaluationDataNumber: 17 },
  },
  { name: 'v4, first second of the window', ...uptodate, now: '2025-06-19T10:32:27Z', accepted: true },
  {
    name: 'v4, a second before the QE identity',
    ...uptodate,
    now: '2025-06-19T10:32:26Z',
    accepted: false,
    codes: ['tdx_qe_identity_expired'],
  },
  { name: 'v4, last second of the PCK CRL', ...uptodate, now: '2025-07-19T10:00:34Z', accepted: true },
  {
    name: 'v4, PCK CRL run out',
    ...uptodate,
    now: '2025-07-19T10:00:35Z',
    accepted: false,
    codes: ['tdx_crl_expired'],
  },
  {
    name: 'v4, TCB info run out',
    ...uptodate,
    now: '2025-07-19T10:16:03Z',
    accepted: false,
    codes: ['tdx_crl_expired', 'tdx_tcb_info_expired'],
  },
  {
    name: 'v4, after the PCK',
    ...uptodate,
    now: '2032-02-07T00:00:00Z',
    accepted: false,
    codes: ['tdx_certificate_expired', 'tdx_crl_expired', 'tdx_tcb_info_expired', 'tdx_qe_identity_expired'],
  },
  {
    name: 'v4, evaluation floor of 2026',
    ...uptodate,
    now: '2025-06-25T00:00:00Z',
    policy: { minimumTcbEvaluationDataNumber: 18 },
    accepted: false,
    // Once for the TCB info, once for the QE identity.
    codes: ['tdx_tcb_evaluation_number', 'tdx_tcb_evaluation_number'],
  },
  {
    name: 'v4, seventy zero bytes after it',
    ...uptodate,
    now: '2025-06-25T00:00:00Z',
    policy: {
      mrTd: '91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7',
    },
    accepted: true,
  },
  {
    name: 'v4 of GCP, 3065 zero bytes after it',
    quote: () => readVector(gcp),
    collateral: () => readYamlCollateral(GCP_COLLATERAL),
    now: '2026-07-05T00:00:00Z',
    accepted: true,
    tcb: { ...UP_TO_DATE, evaluationDataNumber: 19 },
  },
  {
    name: 'v4 of GCP, before its collateral',
    quote: () => readVector(gcp),
    collateral: () => readYamlCollateral(GCP_COLLATERAL),
    now: '2026-06-29T00:00:00Z',
    accepted: false,
    codes: ['tdx_crl_expired', 'tdx_tcb_info_expired', 'tdx_qe_identity_expired'],
  },
  {
    name: 'v5 TD 1.5, February 2026',
    ...td15,
    collateral: outdated.collateral,
    now: '2026-02-25T00:00:00Z',
    accepted: true,
    tcb: UP_TO_DATE,
  },
  {
    name: 'v5 TD 1.5, March 2026',
    ...td15,
    collateral: () => collateral2026('90c06f000000'),
    now: '2026-03-25T00:00:00Z',
    accepted: true,
    tcb: { ...UP_TO_DATE, evaluationDataNumber: 18 },
  },
  {
    name: 'v5 TD 1.5, TCB info of another platform',
    ...td15,
    collateral: () => collateral2026('50806f000000'),
    now: '2026-03-25T00:00:00Z',
    accepted: false,
    codes: ['tdx_tcb_info_platform', 'tdx_tcb_convergence', 'tdx_tcb_status'],
  },
  {
    name: 'v5, no TCB level matches',
    ...outdated,
    now: '2026-02-25T00:00:00Z',
    accepted: false,
    codes: ['tdx_no_tcb_level', 'tdx_tcb_convergence', 'tdx_tcb_status'],
    tcb: { status: undefined, platform: undefined, module: 'UpToDate', qe: 'UpToDate' },
  },
  {
    name: 'v4, platform out of date, module up to date',
    ...platform,
    now: '2025-07-15T00:00:00Z',
    accepted: false,
    codes: ['tdx_tcb_status'],
    tcb: {
      status: 'OutOfDate',
      platform: 'OutOfDate',
      module: 'UpToDate',
      qe: 'UpToDate',
      advisoryIds: ['INTEL-SA-00960', 'INTEL-SA-00982', 'INTEL-SA-00986'],
      tcbDate: new Date('2023-08-09T00:00:00Z'),
      shortfall: [
        { part: 'sgx', component: 1, type: 'Early Microcode Update', actual: 6, needed: 7 },
        { part: 'sgx', component: 2, type: 'SGX Late Microcode Update', actual: 6, needed: 7 },
      ],
    },
  },
  {
    name: 'v4, platform out of date, accepted by policy',
    ...platform,
    now: '2025-07-15T00:00:00Z',
    policy: { tcbStatus: ['UpToDate', 'OutOfDate'] },
    accepted: true,
  },
  {
    name: 'v4, out of date, an advisory not accepted',
    ...platform,
    now: '2025-07-15T00:00:00Z',
    policy: { tcbStatus: ['OutOfDate'], advisories: ['INTEL-SA-00960'] },
    accepted: false,
    codes: ['tdx_tcb_advisory'],
  },
  {
    name: 'v4 from hex, the same quote',
    quote: () =>
      new Uint8Array(Buffer.from(readVectorText('v4-platform-outofdate/quotev4.hex').trim(), 'hex')),
    collateral: collateral2025,
    now: '2025-07-15T00:00:00Z',
    accepted: false,
    codes: ['tdx_tcb_status'],
  },
  {
    name: 'v4 debug TD, whatever is accepted',
    ...debugTd,
    now: '2026-03-25T00:00:00Z',
    policy: {
      tcbStatus: ['UpToDate', 'OutOfDate', 'OutOfDateConfigurationNeeded'],
      tdAttributes: '0100001000000000',
    },
    accepted: false,
    codes: ['tdx_debug'],
  },
  {
    name: 'v4 debug TD, default policy',
    ...debugTd,
    now: '2026-03-25T00:00:00Z',
    accepted: false,
    codes: ['tdx_tcb_status', 'tdx_debug'],
    tcb: { status: 'OutOfDate', platform: 'OutOfDate', module: 'UpToDate' },
  },
  {
    name: 'v4 debug TD, with the TCB info of another platform that was published beside it',
    quote: debugTd.quote,
    collateral: () => ({
      ...collateral2025(),
      tcbInfo: readVectorText('v4-debug-td/tcbInfo.json').trim(),
      qeIdentity: readVectorText('v4-debug-td/enclaveIdentity.json').trim(),
    }),
    now: '2025-11-10T00:00:00Z',
    accepted: false,
    codes: ['tdx_crl_expired', 'tdx_tcb_info_platform', 'tdx_tcb_convergence', 'tdx_tcb_status', 'tdx_debug'],
  },
  {
    name: 'GCP COS boot with its event log',
    quote: () => readVector('ccel-cos/cos-113-tdx-quote.dat'),
    collateral: collateral2025,
    now: '2025-07-15T00:00:00Z',
    accepted: true,
    eventLog: () => readVector('ccel-cos/ccel_data.dat'),
  },
  {
    name: 'GCP COS boot with another boot’s log',
    quote: () => readVector('ccel-cos/cos-113-tdx-quote.dat'),
    collateral: collateral2025,
    now: '2025-07-15T00:00:00Z',
    accepted: false,
    codes: ['tdx_event_log_replay'],
    eventLog: () => readVector('ccel-live/tdx_ccel_live2.dat'),
  },
  // The only collateral of its family here predates this PCK: everything but the dates holds.
  {
    name: 'live boot with its event log, collateral too old',
    quote: () => readVector('ccel-live/tdx_quote_live.dat'),
    collateral: uptodate.collateral,
    now: '2025-06-25T00:00:00Z',
    accepted: false,
    codes: ['tdx_certificate_expired'],
    eventLog: () => readVector('ccel-live/tdx_ccel_live2.dat'),
  },
  {
    name: 'live boot, later clock',
    quote: () => readVector('ccel-live/tdx_quote_live.dat'),
    collateral: uptodate.collateral,
    now: '2026-04-01T00:00:00Z',
    accepted: false,
    codes: ['tdx_crl_expired', 'tdx_tcb_info_expired', 'tdx_qe_identity_expired'],
    tcb: UP_TO_DATE,
  },
];

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
    const evidence = { quote: readVector(gcp), collateral: readYamlCollateral(GCP_COLLATERAL) };
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
        // Version, TEE type and key type say how to read the rest: those bits end in `unsupported` or `malformed`.
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
        parseEventLog(new Uint8Array(readFileSync(vectorPath(path)))).map(eventContent),
      );
      expect(contents).not.toContain('contradicted');
      expect(contents.filter((content) => content === 'hashed').length).toBe(hashed);
    }
  });
});

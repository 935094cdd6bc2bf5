// The policy: closed, strict where it is silent, and no file can weaken it ([M19], [M20]).

import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  allowAnyModel,
  allowCertificateChannel,
  allowSimulated,
  type AppraisalPolicy,
  isPolicy,
  observingPolicy,
  parsePolicy,
  policyToJson,
} from '../../../attestation/appraise/policy.ts';
import { lintPolicy } from '../../../attestation/appraise/policy-lint.ts';
import { accepted, codeOf } from '../../fixtures/refusal.ts';

const M = 'a5'.repeat(48);
const D = '11'.repeat(32);
const BASE = { measurements: [M], models: { demo: D } };
function code(policy: unknown): string {
  return codeOf(() => parsePolicy(JSON.stringify(policy)));
}

describe('policy', () => {
  test('decides every field, strictly', () => {
    const policy = parsePolicy(BASE);
    expect(policy).toMatchObject({
      measurements: [{ measurement: M }],
      tee: ['sev-snp', 'tdx'],
      products: ['Genoa', 'Turin'],
      tcbStatus: ['UpToDate'],
      guestPolicy: { allowSmt: true, allowMigrationAgent: false, allowCxl: false, requireAes256Xts: false },
      vmpl: 0,
      maxEvidenceAge: 3600,
      endorsements: 'stapled',
      danger: { simulated: false, anyModel: false, certificateChannel: false },
    });
    expect(policy.models).toEqual(new Map([['demo', D]]));
    expect(policy.chips).toBeUndefined();
    expect(Object.isFrozen(policy)).toBe(true);
    expect(parsePolicy(policy)).toBe(policy);
    expect(isPolicy({ ...policy })).toBe(false);
  });

  test.each<[string, Record<string, unknown>]>([
    ['an unknown key', { extra: 1 }],
    ['a debug switch', { allowDebug: true }],
    ['no measurements', { measurements: undefined }],
    ['no models', { models: undefined }],
    ['an empty list of measurements', { measurements: [] }],
    ['a short measurement', { measurements: ['00'] }],
    ['a measurement that is no hex', { measurements: ['zz'.repeat(48)] }],
    ['a measurement with an unknown key', { measurements: [{ measurement: M, colour: 1 }] }],
    ['a TDX reference without RTMR1', { measurements: [{ mrTd: M, rtmr2: M }] }],
    ['no model in the map', { models: {} }],
    ['models as a list', { models: [D] }],
    ['a model with a short digest', { models: { demo: '00' } }],
    ['a model called *', { models: { '*': D } }],
    ['a model without a name', { models: { '': D } }],
    ['an empty list of tees', { tee: [] }],
    ['the simulated tee', { tee: ['simulated'] }],
    ['a tee twice', { tee: ['tdx', 'tdx'] }],
    ['an unknown product', { products: ['Naples'] }],
    ['an empty list of products', { products: [] }],
    ['an empty minimum', { minimumTcb: {} }],
    ['an empty minimum of a product', { minimumTcb: { Genoa: {} } }],
    ['fmc outside Turin', { minimumTcb: { Genoa: { fmc: 1 } } }],
    ['a component over a byte', { minimumTcb: { Genoa: { snp: 256 } } }],
    ['a revoked TCB status', { tcbStatus: ['Revoked'] }],
    ['an empty list of statuses', { tcbStatus: [] }],
    ['an unknown guest flag', { guestPolicy: { allowDebug: true } }],
    ['a guest policy grade nobody knows', { guestPolicy: 'loose' }],
    ['a guest policy grade in capitals', { guestPolicy: 'Strict' }],
    ['a grade in an object that nobody knows', { guestPolicy: { grade: 'none' } }],
    ['a guest flag that is a word', { guestPolicy: { allowSmt: 'yes' } }],
    ['an ABI that is a number', { guestPolicy: { minimumAbi: 1.55 } }],
    ['an ABI of three parts', { guestPolicy: { minimumAbi: '1.55.0' } }],
    ['a VMPL over 3', { vmpl: 4 }],
    ['an empty list of chips', { chips: [] }],
    ['a chip of 32 bytes', { chips: [D] }],
    ['an empty list of configurations', { configs: [] }],
    ['an age of zero', { maxEvidenceAge: 0 }],
    ['an age that is fractional', { maxEvidenceAge: 1.5 }],
    ['the certificate channel', { channel: 'certificate' }],
    ['an unknown channel', { channel: 'none' }],
    ['an unknown source of endorsements', { endorsements: 'trust' }],
    ['a name that is a number', { measurements: [{ measurement: M, name: 1 }] }],
  ])('refuses %s [M19]', (_, changes) => {
    expect(code({ ...BASE, ...changes })).toBe('malformed_policy');
  });

  test('refuses texts with a key twice', () => {
    expect(
      codeOf(() =>
        parsePolicy(`{"measurements":["${M}"],"models":{"a":"${D}"},"models":{"a":"${'22'.repeat(32)}"}}`),
      ),
    ).toBe('malformed_json');
  });

  test('no JSON, whatever it is, gives a policy with a danger in it [M20]', () => {
    const names = [
      'allowSimulated',
      'allowDebug',
      'allowAnyModel',
      'allowCertificateChannel',
      'danger',
      '@@assay: accept simulated evidence',
      'Symbol(assay: accept simulated evidence)',
      '__proto__',
    ];
    const extra = fc.dictionary(
      fc.constantFrom(...names),
      fc.oneof(fc.constant(true), fc.constant({ simulated: true }), fc.jsonValue()),
    );
    fc.assert(
      fc.property(extra, (more) => {
        const text = JSON.stringify({ ...BASE })
          .replace(/}$/, `,${JSON.stringify(more).slice(1)}`)
          .replace(/,}$/, '}');
        const policy = accepted(() => parsePolicy(text));
        expect(
          policy === undefined ||
            JSON.stringify(policy.danger) ===
              '{"simulated":false,"anyModel":false,"certificateChannel":false}',
        ).toBe(true);
      }),
    );
    const polluted = Object.create({ [allowSimulated]: true }) as object;
    expect(parsePolicy(Object.assign(polluted, BASE) as AppraisalPolicy).danger.simulated).toBe(false);
  });

  test('what the symbols switch on, in code [M20]', () => {
    expect(parsePolicy({ ...BASE, [allowSimulated]: true }).danger.simulated).toBe(true);
    expect(parsePolicy({ ...BASE, [allowSimulated]: { root: D.toUpperCase() } }).danger.simulated).toBe(D);
    expect(parsePolicy({ measurements: [M], [allowAnyModel]: true })).toMatchObject({
      models: undefined,
      danger: { anyModel: true },
    });
    expect(parsePolicy({ ...BASE, [allowCertificateChannel]: true }).danger.certificateChannel).toBe(true);
    expect(parsePolicy(JSON.stringify(BASE), { [allowSimulated]: true }).danger.simulated).toBe(true);
    expect(codeOf(() => parsePolicy({ ...BASE, [allowAnyModel]: true }))).toBe('malformed_policy');
    expect(codeOf(() => parsePolicy({ ...BASE, [allowSimulated]: { root: '00' } }))).toBe('malformed_policy');
  });

  test('the observing policy lists nothing', () => {
    const policy = observingPolicy();
    expect(policy.measurements).toEqual([]);
    expect(policy.models?.size).toBe(0);
    expect(policy.danger).toEqual({ simulated: false, anyModel: false, certificateChannel: false });
  });

  test('printed and read again it is the same', () => {
    const full: AppraisalPolicy = {
      measurements: [{ measurement: M, name: 'x' }, { mrTd: M, rtmr0: M, rtmr1: M, rtmr2: M, rtmr3: M, name: 'y' }], // prettier-ignore
      models: { a: D, b: D },
      tee: ['tdx', 'sev-snp'],
      products: ['Turin', 'Milan'],
      minimumTcb: { Turin: { fmc: 1, snp: 2 }, Milan: { microcode: 219 } },
      tcbStatus: ['UpToDate', 'SWHardeningNeeded'],
      minimumTcbEvaluationDataNumber: 17,
      guestPolicy: { allowSmt: true, minimumAbi: '1.55' },
      vmpl: 1,
      chips: ['00'.repeat(64), '11'.repeat(16)],
      hostData: [D],
      idKeyDigests: [M],
      authorKeyDigests: [M],
      mrSeam: [M],
      configs: [D],
      maxEvidenceAge: 60,
      channel: 'exporter',
      endorsements: 'offline',
    };
    const json = policyToJson(parsePolicy(full));
    expect(policyToJson(parsePolicy(JSON.stringify(json)))).toEqual(json);
    expect(json).toMatchObject({
      ...full,
      guestPolicy: { allowSmt: true, requireSingleSocket: false, minimumAbi: '1.55' },
    });
  });

  test.each<[RegExp, AppraisalPolicy]>([
    [/simulated evidence is accepted/, { ...BASE, [allowSimulated]: true }],
    [/any model is accepted/, { measurements: [M], [allowAnyModel]: true }],
    [/certificate evidence is accepted/, { ...BASE, [allowCertificateChannel]: true }],
    [/Milan/, { ...BASE, products: ['Milan'] }],
    [/minimumTcb has no entry for Turin/, { ...BASE, minimumTcb: { Genoa: { snp: 1 } } }],
    [/tcbStatus accepts OutOfDate/, { ...BASE, tcbStatus: ['UpToDate', 'OutOfDate'] }],
    [
      /tee that is not accepted/,
      { ...BASE, tee: ['tdx'], measurements: [M, { mrTd: M, rtmr1: M, rtmr2: M }] },
    ],
    [/no measurement is listed/, { ...BASE, measurements: [{ mrTd: M, rtmr1: M, rtmr2: M }] }],
    [/no mrTd is listed/, BASE],
    [/chips is absent/, BASE],
    [
      /guestPolicy refuses a guest launched with policy=0x30000.*launch it with policy=0x3d20000$/m,
      { ...BASE, guestPolicy: 'strict' },
    ],
    [
      /guestPolicy refuses .*requirePageSwapDisabled true \(needs Linux 6\.19/,
      { ...BASE, guestPolicy: { requirePageSwapDisabled: true } },
    ],
    [/^guestPolicy\.allowMigrationAgent: /m, { ...BASE, guestPolicy: { allowMigrationAgent: true } }],
    [/^guestPolicy\.allowCxl: /m, { ...BASE, guestPolicy: { grade: 'strict', allowCxl: true } }],
    [/more than a day/, { ...BASE, maxEvidenceAge: 90_000 }],
  ])('lint remarks %s', (remark, policy) => {
    expect(lintPolicy(parsePolicy(policy)).join('\n')).toMatch(remark);
  });

  test('lint has nothing to say about a careful policy', () => {
    const careful: AppraisalPolicy = {
      ...BASE,
      tee: ['sev-snp'],
      products: ['Genoa'],
      minimumTcb: { Genoa: { snp: 22 } },
      chips: ['00'.repeat(64)],
    };
    expect(lintPolicy(parsePolicy(careful))).toEqual([]);
  });
});

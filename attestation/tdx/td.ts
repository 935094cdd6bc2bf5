// Rules on the TD itself (T22 to T28): attributes, XFAM, SEAM, measurements, REPORTDATA, and which platform it runs on.
// Bit positions: Intel TDX Module 1.5 ABI, ATTRIBUTES and XFAM. Fields are little-endian bit fields in the quote's order.

import { equalBytes, isZero, toHex, viewOf } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import type { Certificate } from '../x509/certificate.ts';
import type { PckExtensions } from './pck.ts';
import type { Accepted, DecidedTdxPolicy } from './policy.ts';
import type { TdBody } from './quote.ts';
import { TDX_RULES } from './rules.ts';

const DEBUG = 1n;
/** TUD group (7:1), SEC reserved (27:8), OTHER reserved (61:32) and TPA (62, not for Intel's TDs of today). */
const RESERVED_ATTRIBUTES = 0x7fff_ffff_0fff_fffen;
const SEPT_VE_DISABLE = 1n << 28n;
const MIGRATABLE = 1n << 29n;
/** x87 and SSE are always on; only bits the module knows may be: AVX, AVX-512, PT, PKRU, CET, UINTR, LBR, AMX. */
const XFAM_FIXED_ONE = 0x3n;
const XFAM_KNOWN = 0x6dbe7n;

export function tdRules(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  attributeRules(t, body, policy);
  const R = TDX_RULES;
  const xfam = viewOf(body.xfam).getBigUint64(0, true);
  const xfamOk = (xfam & XFAM_FIXED_ONE) === XFAM_FIXED_ONE && (xfam & ~XFAM_KNOWN) === 0n;
  t.expect(
    R.xfamBits,
    xfamOk,
    `XFAM is ${hex64(xfam)}, bits ${hex64(XFAM_FIXED_ONE)} are needed and ${hex64(XFAM_KNOWN)} known`,
  );
  listed(t, R.xfam, 'XFAM', body.xfam, policy.xfam);
  unlessZero(t, R.seamAttributes, 'SEAM attributes', body.seamAttributes, policy.seamAttributes);
  listed(t, R.mrSeam, 'MRSEAM', body.mrSeam, policy.mrSeam);
  listed(t, R.mrSignerSeam, 'MRSIGNERSEAM', body.mrSignerSeam, policy.mrSignerSeam);
  listed(t, R.mrTd, 'MRTD', body.mrTd, policy.mrTd);
  listed(t, R.rtmr0, 'RTMR0', body.rtmr0, policy.rtmr0);
  listed(t, R.rtmr1, 'RTMR1', body.rtmr1, policy.rtmr1);
  listed(t, R.rtmr2, 'RTMR2', body.rtmr2, policy.rtmr2);
  listed(t, R.rtmr3, 'RTMR3', body.rtmr3, policy.rtmr3);
  listed(t, R.mrConfigId, 'MRCONFIGID', body.mrConfigId, policy.mrConfigId);
  listed(t, R.mrOwner, 'MROWNER', body.mrOwner, policy.mrOwner);
  listed(t, R.mrOwnerConfig, 'MROWNERCONFIG', body.mrOwnerConfig, policy.mrOwnerConfig);
  if (body.mrServiceTd === undefined) t.skip(R.mrServiceTd, 'a TD 1.0 body has no MRSERVICETD');
  else unlessZero(t, R.mrServiceTd, 'MRSERVICETD', body.mrServiceTd, policy.mrServiceTd);
  listed(t, R.reportData, 'REPORTDATA', body.reportData, policy.reportData && [policy.reportData]);
}

/** T28: pins to particular machines. `pck` is undefined when the PCK could not be relied on. */
export function platformRules(
  t: Transcript,
  pck: PckExtensions | undefined,
  certificate: Certificate,
  policy: DecidedTdxPolicy,
): void {
  const R = TDX_RULES;
  const pin = (
    rule: Rule,
    name: string,
    value: Uint8Array | undefined,
    accepted: Accepted | undefined,
  ): void => {
    if (value !== undefined) listed(t, rule, name, value, accepted);
    else if (accepted === undefined) t.skip(rule, `${name} is not in the policy`);
    else t.fail(rule, `${name} is not known: the PCK certificate could not be relied on`);
  };
  pin(R.fmspc, 'FMSPC', pck?.fmspc, policy.fmspc);
  pin(R.ppid, 'PPID', pck?.ppid, policy.ppid);
  pin(R.pckSerial, 'PCK serial number', pck && certificate.serial, policy.pckSerial);
}

function attributeRules(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const R = TDX_RULES;
  const bits = viewOf(body.tdAttributes).getBigUint64(0, true);
  const reserved = bits & RESERVED_ATTRIBUTES;
  t.expect(R.debug, (bits & DEBUG) === 0n, `DEBUG is ${bits & DEBUG}`, {
    expected: '0',
    actual: String(bits & DEBUG),
  });
  t.expect(
    R.reservedAttributes,
    reserved === 0n,
    reserved === 0n ? 'reserved bits are zero' : `reserved bits ${hex64(reserved)} are set`,
  );
  const migratable = (bits & MIGRATABLE) !== 0n;
  if (migratable && policy.allowMigratable === true)
    t.skip(R.migratable, 'MIGRATABLE is set, and the policy allows it');
  else t.expect(R.migratable, !migratable, `MIGRATABLE is ${migratable ? 1 : 0}`);
  const sept = (bits & SEPT_VE_DISABLE) !== 0n;
  if (policy.requireSeptVeDisable !== true)
    t.skip(R.septVeDisable, `not required by the policy; SEPT_VE_DISABLE is ${sept ? 1 : 0}`);
  else t.expect(R.septVeDisable, sept, `SEPT_VE_DISABLE is ${sept ? 1 : 0}`);
  listed(t, R.tdAttributes, 'TD attributes', body.tdAttributes, policy.tdAttributes);
}

/** Passes when the value is one of those accepted; a visible skip when the policy does not say. */
function listed(
  t: Transcript,
  rule: Rule,
  name: string,
  value: Uint8Array,
  accepted: Accepted | undefined,
): void {
  const shown = isZero(value) ? `zero (${value.length} bytes)` : toHex(value);
  if (accepted === undefined) {
    t.skip(rule, `${name} is not in the policy; it is ${shown}`);
    return;
  }
  const found = accepted.reduce((any, item) => equalBytes(item, value) || any, false);
  if (found) t.pass(rule, `${name} ${isOrAre(name)} ${shown}`);
  else
    t.fail(rule, accepted.every(isZero) ? boundText(name, shown) : notListedText(name, shown, accepted), {
      expected: accepted.slice(0, 4).map(expectedText).join(' or '),
      actual: toHex(value),
    });
}

/** A value that is zero when there is no such thing: without a word of the policy none is accepted. */
function unlessZero(
  t: Transcript,
  rule: Rule,
  name: string,
  value: Uint8Array,
  accepted: Accepted | undefined,
): void {
  listed(t, rule, name, value, accepted ?? [new Uint8Array(value.length)]);
}

/** What it means that a value is not zero, in the words of whoever has to act on it. */
const BOUND: Readonly<Record<string, string>> = {
  MRSERVICETD: 'a service TD is bound',
  'SEAM attributes': 'the TDX module has attributes',
  MRSIGNERSEAM: 'the TDX module is signed by another than Intel',
  MRCONFIGID: 'a configuration id is set',
  MROWNER: 'an owner is set',
  MROWNERCONFIG: 'an owner configuration is set',
  RTMR3: 'the application has extended RTMR3',
};

function boundText(name: string, shown: string): string {
  return `${BOUND[name] ?? `${name} is not zero`}; the policy accepts none (${name} ${isOrAre(name)} ${shown})`;
}

function notListedText(name: string, shown: string, accepted: Accepted): string {
  const what = accepted.length === 1 ? 'the value' : `one of the ${accepted.length} values`;
  return `${name} ${isOrAre(name)} ${shown}, not ${what} accepted`;
}

function isOrAre(name: string): string {
  return name.endsWith('s') ? 'are' : 'is';
}

function expectedText(value: Uint8Array): string {
  return isZero(value) ? `zero (${value.length} bytes)` : toHex(value);
}

function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}

// Rules on the TD itself (T22 to T28): attributes, XFAM, SEAM, measurements, REPORTDATA, and which platform it runs on.
// What single bits mean is in tdx/attributes.ts. Fields are little-endian bit fields in the quote's order.

import { equalBytes, isZero, toHex, viewOf } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import type { Certificate } from '../x509/certificate.ts';
import { bitNames, judgeBits, TD_ATTRIBUTES, XFAM_BITS } from './attributes.ts';
import type { PckExtensions } from './pck.ts';
import type { Accepted, DecidedTdxPolicy } from './policy.ts';
import type { TdBody } from './quote.ts';
import { TDX_RULES } from './rules.ts';

/** MIGRATABLE has a rule and a policy key of its own. */
const MIGRATABLE = 1n << 29n;
const SEPT_VE_DISABLE = 1n << 28n;

export function tdRules(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  attributeRules(t, body, policy);
  const R = TDX_RULES;
  xfamRules(t, body, policy);
  listed(
    t,
    R.seamAttributes,
    'SEAM attributes',
    body.seamAttributes,
    policy.seamAttributes ?? [new Uint8Array(8)],
  );
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
  else listed(t, R.mrServiceTd, 'MRSERVICETD', body.mrServiceTd, policy.mrServiceTd ?? [new Uint8Array(48)]);
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

/** T22. */
function attributeRules(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const R = TDX_RULES;
  const bits = viewOf(body.tdAttributes).getBigUint64(0, true);
  const debug = bits & 1n;
  t.expect(R.debug, debug === 0n, `DEBUG is ${debug}`, { expected: '0', actual: String(debug) });
  const judged = judgeBits(bits & ~1n, TD_ATTRIBUTES);
  const refused = [...judged.refused, ...judged.undefined];
  t.expect(
    R.reservedAttributes,
    refused.length === 0,
    refused.length === 0 ? `set are ${bitNames(bits, TD_ATTRIBUTES)}` : `set: ${refused.join('; ')}`,
  );
  migratableRule(t, body, policy);
  const sept = (bits & SEPT_VE_DISABLE) !== 0n;
  if (policy.requireSeptVeDisable !== true)
    t.skip(R.septVeDisable, `not required by the policy; SEPT_VE_DISABLE is ${sept ? 1 : 0}`);
  else t.expect(R.septVeDisable, sept, `SEPT_VE_DISABLE is ${sept ? 1 : 0}`);
  const unpinned = judgeBits(bits & ~MIGRATABLE, TD_ATTRIBUTES).pinned;
  if (policy.tdAttributes === undefined && unpinned.length > 0)
    t.fail(R.tdAttributes, `set: ${unpinned.join('; ')}; accepted only in a value that tdAttributes pins`, {
      expected: 'tdAttributes of the policy',
      actual: toHex(body.tdAttributes),
    });
  else listed(t, R.tdAttributes, 'TD attributes', body.tdAttributes, policy.tdAttributes);
}

/** Who pins the very value has decided about its bit, too. */
function migratableRule(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const R = TDX_RULES;
  const isSet = (viewOf(body.tdAttributes).getBigUint64(0, true) & MIGRATABLE) !== 0n;
  if (!isSet) t.pass(R.migratable, 'MIGRATABLE is 0');
  else if (policy.allowMigratable === true)
    t.skip(R.migratable, 'MIGRATABLE is set, and the policy allows it');
  else if (policy.allowMigratable === undefined && isListed(body.tdAttributes, policy.tdAttributes))
    t.skip(R.migratable, 'MIGRATABLE is set, and the policy pins these attributes');
  else t.fail(R.migratable, 'MIGRATABLE is 1');
}

/** T23. */
function xfamRules(t: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const R = TDX_RULES;
  const xfam = viewOf(body.xfam).getBigUint64(0, true);
  const { missing, refused, undefined: unknown, pinned } = judgeBits(xfam, XFAM_BITS);
  const problems = [
    ...missing.map((bit) => `${bit} is not set`),
    ...[...refused, ...unknown].map((bit) => `${bit} is set`),
  ];
  t.expect(
    R.xfamBits,
    problems.length === 0,
    problems.length === 0
      ? `XFAM is ${hex64(xfam)}: ${bitNames(xfam, XFAM_BITS)}`
      : `XFAM is ${hex64(xfam)}: ${problems.join('; ')}`,
  );
  if (policy.xfam === undefined && pinned.length > 0)
    t.fail(R.xfam, `set: ${pinned.join('; ')}; accepted only in a value that xfam pins`, {
      expected: 'xfam of the policy',
      actual: toHex(body.xfam),
    });
  else listed(t, R.xfam, 'XFAM', body.xfam, policy.xfam);
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
  const found = isListed(value, accepted);
  t.expect(
    rule,
    found,
    found ? `${name} is ${shown}` : `${name} ${shown} is not one of the ${accepted.length} accepted`,
    {
      expected: accepted.slice(0, 4).map(toHex).join(' or '),
      actual: toHex(value),
    },
  );
}

/** Looks at every value, so that time does not say which matched. */
function isListed(value: Uint8Array, accepted: Accepted | undefined): boolean {
  return (accepted ?? []).reduce((any, item) => equalBytes(item, value) || any, false);
}

function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}

// Rules on the TD itself (T22 to T28): attributes, XFAM, SEAM, measurements, REPORTDATA, and which
// platform it runs on. Single bits are explained in tdx/attributes.ts. Fields are little-endian bit
// fields in the quote's order.

import { equalBytes, isZero, toHex, viewOf } from '../encoding/bytes.ts';
import type { Rule, Transcript } from '../transcript/checks.ts';
import { bitNames, judgeBits, TD_ATTRIBUTES, XFAM_BITS } from './attributes.ts';
import type { PckExtensions } from './pck.ts';
import type { Accepted, DecidedTdxPolicy } from './policy.ts';
import type { TdBody } from './quote.ts';
import { TDX_RULES } from './rules.ts';
import type { TdxSubject } from './subject.ts';

/** MIGRATABLE has a rule and a policy key of its own. */
const MIGRATABLE = 1n << 29n;
const SEPT_VE_DISABLE = 1n << 28n;

export function checkTd({ quote, policy }: TdxSubject, transcript: Transcript): void {
  const { body } = quote;
  attributeRules(transcript, body, policy);
  xfamRules(transcript, body, policy);
  for (const [rule, name, key] of LISTED)
    listed(transcript, rule, { name, value: body[key], accepted: policy[key] ?? ABSENT_MEANS[key] });
  if (body.mrServiceTd === undefined)
    transcript.skip(TDX_RULES.mrServiceTd, 'a TD 1.0 body has no MRSERVICETD');
  else
    listed(transcript, TDX_RULES.mrServiceTd, {
      name: 'MRSERVICETD',
      value: body.mrServiceTd,
      accepted: policy.mrServiceTd ?? [new Uint8Array(48)],
    });
  listed(transcript, TDX_RULES.reportData, {
    name: 'REPORTDATA',
    value: body.reportData,
    accepted: policy.reportData && [policy.reportData],
  });
}

/** Fields that a body and a policy name alike. */
const LISTED = [
  [TDX_RULES.seamAttributes, 'SEAM attributes', 'seamAttributes'],
  [TDX_RULES.mrSeam, 'MRSEAM', 'mrSeam'],
  [TDX_RULES.mrSignerSeam, 'MRSIGNERSEAM', 'mrSignerSeam'],
  [TDX_RULES.mrTd, 'MRTD', 'mrTd'],
  [TDX_RULES.rtmr0, 'RTMR0', 'rtmr0'],
  [TDX_RULES.rtmr1, 'RTMR1', 'rtmr1'],
  [TDX_RULES.rtmr2, 'RTMR2', 'rtmr2'],
  [TDX_RULES.rtmr3, 'RTMR3', 'rtmr3'],
  [TDX_RULES.mrConfigId, 'MRCONFIGID', 'mrConfigId'],
  [TDX_RULES.mrOwner, 'MROWNER', 'mrOwner'],
  [TDX_RULES.mrOwnerConfig, 'MROWNERCONFIG', 'mrOwnerConfig'],
] as const satisfies readonly (readonly [Rule, string, keyof TdBody & keyof DecidedTdxPolicy])[];

/** Values whose absence from a policy is a value: no debug module. */
const ABSENT_MEANS: Readonly<Record<string, Accepted | undefined>> = { seamAttributes: [new Uint8Array(8)] };

/** T28: pins to particular machines. `platform` is undefined when the PCK could not be relied on. */
export function checkPckPlatform(
  { policy }: TdxSubject,
  transcript: Transcript,
  platform: (Pick<PckExtensions, 'fmspc' | 'ppid'> & { readonly serial: Uint8Array }) | undefined,
): void {
  const pins = [
    [TDX_RULES.fmspc, 'FMSPC', platform?.fmspc, policy.fmspc],
    [TDX_RULES.ppid, 'PPID', platform?.ppid, policy.ppid],
    [TDX_RULES.pckSerial, 'PCK serial number', platform?.serial, policy.pckSerial],
  ] as const;
  for (const [rule, name, value, accepted] of pins) {
    if (value !== undefined) listed(transcript, rule, { name, value, accepted });
    else if (accepted === undefined) transcript.skip(rule, `${name} is not in the policy`);
    else transcript.fail(rule, `${name} is not known: the PCK certificate could not be relied on`);
  }
}

/** T22. */
function attributeRules(transcript: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const bits = viewOf(body.tdAttributes).getBigUint64(0, true);
  const debug = bits & 1n;
  transcript.expect(TDX_RULES.debug, debug === 0n, `DEBUG is ${debug}`, {
    expected: '0',
    actual: String(debug),
  });
  const judged = judgeBits(bits & ~1n, TD_ATTRIBUTES);
  const refused = [...judged.refused, ...judged.undefined];
  transcript.expect(
    TDX_RULES.reservedAttributes,
    refused.length === 0,
    refused.length === 0 ? `set are ${bitNames(bits, TD_ATTRIBUTES)}` : `set: ${refused.join('; ')}`,
  );
  migratableRule(transcript, body, policy);
  const sept = (bits & SEPT_VE_DISABLE) !== 0n;
  if (policy.requireSeptVeDisable !== true)
    transcript.skip(
      TDX_RULES.septVeDisable,
      `not required by the policy; SEPT_VE_DISABLE is ${sept ? 1 : 0}`,
    );
  else transcript.expect(TDX_RULES.septVeDisable, sept, `SEPT_VE_DISABLE is ${sept ? 1 : 0}`);
  const unpinned = judgeBits(bits & ~MIGRATABLE, TD_ATTRIBUTES).pinned;
  if (policy.tdAttributes === undefined && unpinned.length > 0)
    transcript.fail(
      TDX_RULES.tdAttributes,
      `set: ${unpinned.join('; ')}; accepted only in a value that tdAttributes pins`,
      {
        expected: 'tdAttributes of the policy',
        actual: toHex(body.tdAttributes),
      },
    );
  else
    listed(transcript, TDX_RULES.tdAttributes, {
      name: 'TD attributes',
      value: body.tdAttributes,
      accepted: policy.tdAttributes,
    });
}

/** A pin of the exact value decides about its bit, too. */
function migratableRule(transcript: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const isSet = (viewOf(body.tdAttributes).getBigUint64(0, true) & MIGRATABLE) !== 0n;
  if (!isSet) transcript.pass(TDX_RULES.migratable, 'MIGRATABLE is 0');
  else if (policy.allowMigratable === true)
    transcript.skip(TDX_RULES.migratable, 'MIGRATABLE is set, and the policy allows it');
  else if (policy.allowMigratable === undefined && isListed(body.tdAttributes, policy.tdAttributes))
    transcript.skip(TDX_RULES.migratable, 'MIGRATABLE is set, and the policy pins these attributes');
  else transcript.fail(TDX_RULES.migratable, 'MIGRATABLE is 1');
}

/** T23. */
function xfamRules(transcript: Transcript, body: TdBody, policy: DecidedTdxPolicy): void {
  const xfam = viewOf(body.xfam).getBigUint64(0, true);
  const { missing, refused, undefined: unknown, pinned } = judgeBits(xfam, XFAM_BITS);
  const problems = [
    ...missing.map((bit) => `${bit} is not set`),
    ...[...refused, ...unknown].map((bit) => `${bit} is set`),
  ];
  transcript.expect(
    TDX_RULES.xfamBits,
    problems.length === 0,
    problems.length === 0
      ? `XFAM is ${hex64(xfam)}: ${bitNames(xfam, XFAM_BITS)}`
      : `XFAM is ${hex64(xfam)}: ${problems.join('; ')}`,
  );
  if (policy.xfam === undefined && pinned.length > 0)
    transcript.fail(TDX_RULES.xfam, `set: ${pinned.join('; ')}; accepted only in a value that xfam pins`, {
      expected: 'xfam of the policy',
      actual: toHex(body.xfam),
    });
  else listed(transcript, TDX_RULES.xfam, { name: 'XFAM', value: body.xfam, accepted: policy.xfam });
}

/** Passes when the value is one of those accepted; a visible skip when the policy does not say. */
function listed(
  transcript: Transcript,
  rule: Rule,
  {
    name,
    value,
    accepted,
  }: { readonly name: string; readonly value: Uint8Array; readonly accepted: Accepted | undefined },
): void {
  const shown = isZero(value) ? `zero (${value.length} bytes)` : toHex(value);
  if (accepted === undefined) {
    transcript.skip(rule, `${name} is not in the policy; it is ${shown}`);
    return;
  }
  if (isListed(value, accepted)) transcript.pass(rule, `${name} ${isOrAre(name)} ${shown}`);
  else
    transcript.fail(
      rule,
      accepted.every(isZero) ? boundText(name, shown) : notListedText(name, shown, accepted),
      { expected: accepted.slice(0, 4).map(expectedText).join(' or '), actual: toHex(value) },
    );
}

/** The meaning of a value that is not zero, in words a person can act on. */
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

/** Looks at every value, so that time does not say which matched. */
function isListed(value: Uint8Array, accepted: Accepted | undefined): boolean {
  return (accepted ?? []).reduce((any, item) => equalBytes(item, value) || any, false);
}

function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}

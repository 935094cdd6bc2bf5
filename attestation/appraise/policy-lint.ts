// Remarks on a policy: protections it gives up, demands that cannot be met, questions it leaves open.

import { lintGuestPolicy } from '../snp/guest-policy-lint.ts';
import { lintPinnedBits, TD_ATTRIBUTES, XFAM_BITS } from '../tdx/attributes.ts';
import { isCloudTee } from '../protocol/document.ts';
import { AttestationError } from '../transcript/errors.ts';
import { decideVtpmPolicy } from '../vtpm/policy.ts';
import type { Policy } from './policy.ts';
import { softwareRootOf } from './software-root.ts';

/**
 * The questions of a careful reader; empty when there are none.
 * @example for (const question of lintPolicy(parsePolicy(text))) console.warn(question);
 */
export function lintPolicy(policy: Policy): string[] {
  const remarks: string[] = [];
  const { danger } = policy;
  if (danger.simulated !== false)
    remarks.push('danger: simulated evidence is accepted; nothing about hardware is proven');
  if (danger.anyModel) remarks.push('danger: any model is accepted; which one answers is not proven');
  if (danger.certificateChannel)
    remarks.push('danger: certificate evidence is accepted; freshness and connection are not proven');
  if (policy.channel === 'sealed') remarks.push(SEALED_PRICE);
  if (policy.tee.includes('sev-snp')) {
    if (policy.products.includes('Milan'))
      remarks.push('products lists Milan, whose VCEK seed has been extracted in software (arXiv 2605.12990)');
    remarks.push(...lintGuestPolicy(policy.guestPolicy));
    for (const product of policy.products) {
      if (policy.minimumTcb[product] === undefined)
        remarks.push(
          `minimumTcb has no entry for ${product}: any firmware AMD ever signed for it is accepted`,
        );
    }
  }
  if (policy.tee.includes('tdx')) {
    const open = policy.tcbStatus.filter((status) => status !== 'UpToDate');
    if (open.length > 0)
      remarks.push(`tcbStatus accepts ${open.join(', ')}: platforms with published, unfixed weaknesses`);
  }
  remarks.push(...lintSections(policy), ...lintMeasurements(policy), ...lintClouds(policy));
  if (policy.chips === undefined)
    remarks.push(
      'chips is absent: any genuine machine will do, also one whose owner has physical access to it',
    );
  if (policy.maxEvidenceAge > 86_400)
    remarks.push(`maxEvidenceAge is ${policy.maxEvidenceAge} s, more than a day`);
  return remarks;
}

/** Kinds of reference values, and the TEEs whose evidence shows them. */
const KINDS = [
  ['measurement', ['sev-snp']],
  ['mrTd', ['tdx', 'gcp-tdx']],
  ['rtmr1', ['gcp-tdx']],
  ['pcrs', ['azure-sev-snp', 'azure-tdx', 'aws-nitrotpm', 'gcp-sev-snp']],
] as const;

function lintMeasurements({ tee, measurements }: Policy): string[] {
  const kindOf = (reference: object): string | undefined => KINDS.find(([key]) => key in reference)?.[0];
  const listed = new Set(measurements.map(kindOf));
  const remarks = tee
    .filter((each) => !KINDS.some(([key, tees]) => listed.has(key) && tees.some((one) => one === each)))
    .map((each) => `tee accepts ${each} but no ${wanted(each)} is listed for it: it will always be refused`);
  const stray = KINDS.some(([key, tees]) => listed.has(key) && !tees.some((each) => tee.includes(each)));
  return stray ? [...remarks, 'measurements has entries for a tee that is not accepted'] : remarks;
}

function wanted(tee: string): string {
  return KINDS.find(([, tees]) => tees.some((each) => each === tee))?.[0] ?? 'value';
}

function lintClouds({ tee, softwareRoot, vtpm }: Policy): string[] {
  const remarks = tee
    .filter((each) => !softwareRoot.includes(softwareRootOf(each)))
    .map((each) => `softwareRoot lacks ${softwareRootOf(each)}: ${each} will always be refused`);
  for (const root of softwareRoot)
    if (root !== 'cpu')
      remarks.push(`softwareRoot accepts ${root}: which software runs is its word, not the CPU’s`);
  if (vtpm === undefined) return remarks;
  if (!tee.some(isCloudTee)) remarks.push('vtpm speaks of a tee that is not accepted');
  try {
    decideVtpmPolicy(vtpm, 'section');
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    remarks.push(
      `vtpm cannot be read, so that evidence of the clouds will always be refused: ${error.message}`,
    );
  }
  return remarks;
}

const SEALED_PRICE =
  'channel "sealed" proves a key and no connection: whoever ends TLS sees addresses, sizes and times, a leaked key opens what was recorded for it, and fresh evidence can be relayed';

function lintSections({ tee, snp, tdx }: Policy): string[] {
  const remarks: string[] = [];
  if (snp !== undefined && !tee.includes('sev-snp')) remarks.push('snp speaks of a tee that is not accepted');
  if (tdx === undefined) return remarks;
  if (!tee.includes('tdx')) remarks.push('tdx speaks of a tee that is not accepted');
  if (tdx.allowMigratable === true)
    remarks.push('tdx.allowMigratable: a migration TD nobody judged here may move the guest elsewhere');
  if ((tdx.tcbGraceDays ?? 0) > 0)
    remarks.push(
      `tdx.tcbGraceDays accepts platforms with published, unfixed weaknesses for ${tdx.tcbGraceDays} days`,
    );
  for (const [key, table] of [
    ['tdAttributes', TD_ATTRIBUTES],
    ['xfam', XFAM_BITS],
  ] as const)
    for (const value of [tdx[key] ?? []].flat()) remarks.push(...lintPinnedBits(`tdx.${key}`, value, table));
  for (const key of ['seamAttributes', 'mrServiceTd'] as const) {
    const listed = tdx[key] ?? [];
    if ((typeof listed === 'string' ? [listed] : listed).some((value) => !/^0+$/.test(value)))
      remarks.push(
        `tdx.${key} accepts a value that is not zero: ${key === 'mrServiceTd' ? 'another TD serves the guest' : 'the TDX module may be a debug one'}`,
      );
  }
  return remarks;
}

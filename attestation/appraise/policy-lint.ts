// Remarks on a policy: protections it gives up, demands that cannot be met, questions it leaves open.

import { decideGpuPolicy } from '../gpu/policy.ts';
import { lintGuestPolicy } from '../snp/guest-policy-lint.ts';
import { lintPinnedBits, TD_ATTRIBUTES, XFAM_BITS } from '../tdx/attributes.ts';
import type { Policy } from './policy.ts';

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
  remarks.push(...lintSections(policy), ...lintGpu(policy));
  if (policy.tee.length === 1) {
    const other =
      policy.tee[0] === 'tdx'
        ? policy.measurements.some((reference) => 'measurement' in reference)
        : policy.measurements.some((reference) => 'mrTd' in reference);
    if (other) remarks.push('measurements has entries for a tee that is not accepted');
  } else {
    if (!policy.measurements.some((reference) => 'measurement' in reference))
      remarks.push('tee accepts sev-snp but no measurement is listed for it: it will always be refused');
    if (!policy.measurements.some((reference) => 'mrTd' in reference))
      remarks.push('tee accepts tdx but no mrTd is listed for it: it will always be refused');
  }
  if (policy.chips === undefined)
    remarks.push(
      'chips is absent: any genuine machine will do, also one whose owner has physical access to it',
    );
  if (policy.maxEvidenceAge > 86_400)
    remarks.push(`maxEvidenceAge is ${policy.maxEvidenceAge} s, more than a day`);
  return remarks;
}

const SEALED_PRICE =
  'channel "sealed" proves a key and no connection: whoever ends TLS sees addresses, sizes and times, a leaked key opens what was recorded for it, and fresh evidence can be relayed';

/** @throws AttestationError `malformed_policy`: the section is read as when a document is judged */
function lintGpu({ gpu }: Policy): string[] {
  if (gpu === undefined) return [];
  const { required, rims, revocation, allowHold, topology, count } = decideGpuPolicy(gpu, 'gpu');
  return [
    ...(required ? [] : ['gpu.required is false: a server may leave its GPUs out']),
    ...(rims === 'required'
      ? []
      : ['gpu.rims is "optional": driver and VBIOS may be anything, where their manifests are left out']),
    ...(revocation === 'required' ? [] : [`gpu.revocation is "${revocation}": a revoked device may pass`]),
    ...(allowHold ? ['gpu.allowHold accepts certificates that NVIDIA has put on hold'] : []),
    ...(topology === 'whole' ? [] : ['gpu.topology is "any": linked GPUs pass without their switches']),
    ...(count === undefined ? ['gpu.count is absent: a server may show fewer GPUs than it uses'] : []),
  ];
}

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

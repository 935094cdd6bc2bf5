// Remarks of `policy lint` on the bits of a guest policy: which hosts can launch the stronger value, and the
// risk of the weaker one. Apart from the table of bits, because a verifying page does not need the advice.

import {
  BITS,
  type DecidedGuestPolicy,
  type GuestPolicyKey,
  hex64,
  launchPolicy,
  ofGrade,
} from './guest-policy.ts';

interface Advice {
  /** The host that can launch the stronger value. */
  readonly needs: string;
  /** The risk of the weaker value. */
  readonly risk: string;
}

const ADVICE: Readonly<Record<GuestPolicyKey, Advice>> = {
  allowSmt: {
    needs: 'SMT off in the host and Linux 6.17',
    risk: 'a sibling thread of the host or of another guest can watch the guest',
  },
  allowMigrationAgent: {
    needs: 'nothing',
    risk: 'an agent that is not judged here may move the guest elsewhere',
  },
  requireSingleSocket: {
    needs: 'a host with one socket and Linux 6.17',
    risk: 'pages of the guest may cross the link between sockets',
  },
  allowCxl: {
    needs: 'nothing',
    risk: 'memory of the guest may be on a CXL device',
  },
  requireAes256Xts: {
    needs: 'Linux 6.19, and firmware and a product that report it',
    risk: 'memory is encrypted with AES-128-XTS',
  },
  requireRaplDisabled: {
    needs: 'Linux 6.19, and firmware that has RAPL disabled',
    risk: 'the host can measure power',
  },
  requireCiphertextHiding: {
    needs: 'Linux 6.19 with ciphertext hiding on, and a product that has it (Turin)',
    risk: 'the host can watch ciphertext change',
  },
  requirePageSwapDisabled: {
    needs: 'Linux 6.19 and firmware 1.58',
    risk: 'the host can swap pages of the guest out',
  },
};

/** Remarks on a policy: bits that no host of the baseline can launch, and bits that give something up. */
export function lintGuestPolicy(rules: DecidedGuestPolicy): readonly string[] {
  const baseline = ofGrade('baseline');
  const changed = BITS.filter(({ key }) => rules[key] !== baseline[key]);
  const isWeaker = ({ key, kind }: (typeof BITS)[number]): boolean => kind === 'allow' && rules[key];
  const remarks = changed.filter(isWeaker).map(({ key }) => `guestPolicy.${key}: ${ADVICE[key].risk}`);
  const stronger = changed.filter((bit) => !isWeaker(bit));
  if (stronger.length === 0) return remarks;
  const asked = stronger.map(({ key }) => `${key} ${rules[key]} (needs ${ADVICE[key].needs})`).join(', ');
  return [
    ...remarks,
    `guestPolicy refuses a guest launched with policy=${hex64(launchPolicy(baseline))}: ${asked}; launch it with policy=${hex64(launchPolicy(rules))}`,
  ];
}

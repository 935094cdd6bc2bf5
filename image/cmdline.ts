// The kernel command line, defined here and nowhere else: builder, manifest and verifier all use this
// function. It is measured (SNP: kernel-hash table; TDX: RTMR2), so the root hash and the configuration hash
// in it bind the rest of the system.

import { badInput } from './errors.ts';

export interface CmdlineValues {
  /** Root hash of root.img, hex. */
  readonly root: string;
  /** Data blocks of root.img; its hash tree follows them. */
  readonly blocks: number;
  /** SHA-256 of the measured configuration, hex. */
  readonly config: string;
}

const FIXED = [
  // Messages up to errors reach the console; a panic ends the guest at once.
  'console=ttyS0',
  'quiet',
  'loglevel=4',
  'panic=-1',
  'oops=panic',
  // Only modules signed by the distribution's build key, and no way into kernel memory.
  'lockdown=confidentiality',
  'module.sig_enforce=1',
  'init_on_alloc=1',
  'slab_nomerge',
  'page_alloc.shuffle=1',
  'randomize_kstack_offset=on',
  'vsyscall=none',
  'debugfs=off',
  // Seeds the host hands over are mixed in, but not believed; the processor's generator is.
  'random.trust_bootloader=off',
  'random.trust_cpu=on',
  'net.ifnames=0',
  // The start-up check of the timer's ticks fails when a busy host emulates us; hypervisors
  // switch it off themselves.
  'no_timer_check',
];

const ROOT = /^[0-9a-f]{64}$/;

export function cmdline({ root, blocks, config }: CmdlineValues): string {
  if (!ROOT.test(root) || !ROOT.test(config))
    throw badInput('the command line takes hashes of 64 lower-case hex digits');
  if (!Number.isSafeInteger(blocks) || blocks < 2 || blocks > 999_999_999)
    throw badInput(`root image of ${blocks} blocks does not fit the command line`);
  return [...FIXED, `assay.root=${root}`, `assay.blocks=${blocks}`, `assay.cfg=${config}`].join(' ');
}

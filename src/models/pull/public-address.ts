// The addresses a pull may connect to: global unicast ones, checked against the IANA special-purpose address
// registries for IPv4 and IPv6 (RFC 6890 and its updates), and not those that carry a special IPv4 address
// inside. Fails closed: an entry of the registries counts as special also where it is globally reachable (it
// is an anycast or a translation service, never one machine), and IPv6 outside 2000::/3 counts as special
// unless it is a form of a public IPv4 address.

import { BlockList, isIP, isIPv6 } from 'node:net';

/**
 * Not reachable from the public internet, or not one machine. A text that is no address counts as private.
 */
export function isPrivateAddress(address: string): boolean {
  if (isIP(address) === 0) return true;
  if (!isIPv6(address)) return SPECIAL_IPV4.check(address, 'ipv4');
  const words = wordsOf(address);
  if (words === undefined) return true;
  const prefix = words.slice(0, 6).map(hex).join(':');
  if (IPV4_FORMS.has(prefix)) return isSpecialIpv4(words[6]!, words[7]!);
  if (SPECIAL_IPV6.check(words.map(hex).join(':'), 'ipv6')) return true;
  if (words[0] === 0x2002) return isSpecialIpv4(words[1]!, words[2]!);
  // ISATAP (RFC 5214 §6.1): interface identifiers [ug]00:5efe:a.b.c.d below any prefix.
  const isatap = (words[4]! & 0xfcff) === 0 && words[5] === 0x5efe;
  return isatap && isSpecialIpv4(words[6]!, words[7]!);
}

/** Prefixes of 96 bits whose last 32 are an IPv4 address. */
const IPV4_FORMS = new Set([
  '0:0:0:0:0:0', // compatible, RFC 4291 §2.5.5.1; holds :: and ::1, which are 0.0.0.0/8 read this way
  '0:0:0:0:0:ffff', // mapped, RFC 4291 §2.5.5.2
  '0:0:0:0:ffff:0', // translated, RFC 7915 (from RFC 2765 §2.1)
  '64:ff9b:0:0:0:0', // NAT64, RFC 6052 §2.1
]);

// Two lists: a BlockList holds IPv4 addresses against IPv6 subnets as well, in their mapped form.
const SPECIAL_IPV4 = new BlockList();
const SPECIAL_IPV6 = new BlockList();
for (const [network, prefix] of [
  ['0.0.0.0', 8], // this network
  ['10.0.0.0', 8], // private use
  ['100.64.0.0', 10], // shared address space
  ['127.0.0.0', 8], // loopback
  ['169.254.0.0', 16], // link local, cloud metadata
  ['172.16.0.0', 12], // private use
  ['192.0.0.0', 24], // IETF protocol assignments, with DS-Lite, PCP and TURN anycast, NAT64 discovery
  ['192.0.2.0', 24], // documentation
  ['192.31.196.0', 24], // AS112
  ['192.52.193.0', 24], // AMT
  ['192.88.99.0', 24], // 6to4 relay anycast
  ['192.168.0.0', 16], // private use
  ['192.175.48.0', 24], // AS112
  ['198.18.0.0', 15], // benchmarking
  ['198.51.100.0', 24], // documentation
  ['203.0.113.0', 24], // documentation
  ['224.0.0.0', 3], // multicast, reserved, limited broadcast
] as const) {
  SPECIAL_IPV4.addSubnet(network, prefix, 'ipv4');
}
for (const [network, prefix] of [
  // All but global unicast, 2000::/3: 0000::/3 and 4000:: to ffff::. Among them 64:ff9b:1::/48, 100::/64,
  // 100:0:0:1::/64, 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8.
  ['::', 3],
  ['4000::', 2],
  ['8000::', 1],
  // IETF protocol assignments, with Teredo, benchmarking, AMT, ORCHID, AS112-v6, drone remote id.
  ['2001::', 23],
  ['2001:db8::', 32], // documentation
  ['2620:4f:8000::', 48], // AS112
  ['3fff::', 20], // documentation
] as const) {
  SPECIAL_IPV6.addSubnet(network, prefix, 'ipv6');
}

/** The eight 16-bit words of an IPv6 address; a zone is left out. */
function wordsOf(address: string): readonly number[] | undefined {
  const url = `http://[${address.split('%')[0]}]/`;
  if (!URL.canParse(url)) return undefined;
  // The URL parser writes every IPv6 address in one canonical form, in hex.
  const [head = '', tail] = new URL(url).hostname.slice(1, -1).split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const middle = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return [...left, ...middle, ...right].map((word) => Number.parseInt(word, 16));
}

function hex(word: number): string {
  return word.toString(16);
}

function isSpecialIpv4(high: number, low: number): boolean {
  return SPECIAL_IPV4.check([high >> 8, high & 255, low >> 8, low & 255].join('.'), 'ipv4');
}

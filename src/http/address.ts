// Addresses of peers: loopback addresses (RFC 6890), and the addresses that count as one peer.

import { isIPv6 } from 'node:net';

/** 127.0.0.0/8 and ::1, also as IPv4-mapped IPv6, and the name localhost. */
export function isLoopback(address: string): boolean {
  const plain = address.replace(/^\[|\]$/g, '').replace(/^::ffff:/i, '');
  return plain === 'localhost' || plain === '::1' || /^127(?:\.\d{1,3}){3}$/.test(plain);
}

/**
 * The key that limits of a peer are counted under: its IPv4 address, or the first 64 bits of its IPv6
 * address, since one host usually has all addresses below them (RFC 4291 §2.5.4). IPv4-mapped
 * addresses (§2.5.5.2) are IPv4.
 */
export function peerOf(address: string): string {
  if (!address.includes(':')) return address;
  const mapped = /^::ffff:(\d{1,3}(?:\.\d{1,3}){3})$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const plain = address.replace(/%.*$/, '');
  if (!isIPv6(plain)) return address;
  const [left, right] = plain.split('::') as [string, string | undefined];
  const groups = (part: string): string[] => (part === '' ? [] : part.split(':'));
  const head = groups(left);
  // A dotted end stands for two groups; only the number of groups matters here.
  const tail = groups(right ?? '').flatMap((group) => (group.includes('.') ? ['0', '0'] : [group]));
  const all =
    right === undefined
      ? head
      : [...head, ...Array.from({ length: 8 - head.length - tail.length }, () => '0'), ...tail];
  return `${all
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')}::/64`;
}

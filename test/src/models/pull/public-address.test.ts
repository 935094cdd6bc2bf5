// Addresses a pull may connect to, held against the IANA special-purpose registries and
// every form that embeds IPv4.

import { isIPv6 } from 'node:net';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isPrivateAddress } from '../../../../src/models/pull/public-address.ts';

/** Each row of the IANA IPv4 registry, by its first and its last address. */
const SPECIAL_IPV4 = [
  ['0.0.0.0', '0.255.255.255'],
  ['10.0.0.0', '10.255.255.255'],
  ['100.64.0.0', '100.127.255.255'],
  ['127.0.0.0', '127.255.255.255'],
  ['169.254.0.0', '169.254.255.255'],
  ['172.16.0.0', '172.31.255.255'],
  ['192.0.0.0', '192.0.0.255'],
  ['192.0.2.0', '192.0.2.255'],
  ['192.31.196.0', '192.31.196.255'],
  ['192.52.193.0', '192.52.193.255'],
  ['192.88.99.0', '192.88.99.255'],
  ['192.168.0.0', '192.168.255.255'],
  ['192.175.48.0', '192.175.48.255'],
  ['198.18.0.0', '198.19.255.255'],
  ['198.51.100.0', '198.51.100.255'],
  ['203.0.113.0', '203.0.113.255'],
  ['224.0.0.0', '239.255.255.255'],
  ['240.0.0.0', '255.255.255.255'],
] as const;

/** Each row of the IANA IPv6 registry that embeds no IPv4 address, and multicast and site-local. */
const SPECIAL_IPV6 = [
  ['::', '::1'],
  ['64:ff9b:1::', '64:ff9b:1:ffff:ffff:ffff:ffff:ffff'],
  ['100::', '100::ffff:ffff:ffff:ffff'],
  ['100:0:0:1::', '100:0:0:1:ffff:ffff:ffff:ffff'],
  ['2001::', '2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:1::1', '2001:1::3'],
  ['2001:2::', '2001:2:0:ffff:ffff:ffff:ffff:ffff'],
  ['2001:3::', '2001:3:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:4:112::', '2001:4:112:ffff:ffff:ffff:ffff:ffff'],
  ['2001:10::', '2001:1f:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:20::', '2001:2f:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:30::', '2001:3f:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:db8::', '2001:db8:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2620:4f:8000::', '2620:4f:8000:ffff:ffff:ffff:ffff:ffff'],
  ['3fff::', '3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['5f00::', '5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fc00::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fe80::', 'febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['fec0::', 'feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['ff00::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
] as const;

/** Addresses before and after the blocks above: public. */
const PUBLIC = [
  ['1.0.0.0', '9.255.255.255'],
  ['11.0.0.0', '100.63.255.255'],
  ['100.128.0.0', '126.255.255.255'],
  ['128.0.0.0', '169.253.255.255'],
  ['169.255.0.0', '172.15.255.255'],
  ['172.32.0.0', '191.255.255.255'],
  ['192.0.1.0', '192.0.1.255'],
  ['192.169.0.0', '198.17.255.255'],
  ['203.0.114.0', '223.255.255.255'],
  ['2001:200::', '2001:db7:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2001:db9::', '2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  ['2003::', '2620:4f:7fff:ffff:ffff:ffff:ffff:ffff'],
  ['2620:4f:8001::', '3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
] as const;

/** Every form in which an IPv6 address carries an IPv4 address. */
const FORMS: readonly (readonly [string, (high: string, low: string) => string])[] = [
  ['compatible, ::/96', (high, low) => `::${high}:${low}`],
  ['mapped, ::ffff:0:0/96', (high, low) => `::ffff:${high}:${low}`],
  ['translated, ::ffff:0:0:0/96', (high, low) => `::ffff:0:${high}:${low}`],
  ['NAT64, 64:ff9b::/96', (high, low) => `64:ff9b::${high}:${low}`],
  ['6to4, 2002::/16', (high, low) => `2002:${high}:${low}::1`],
  ['ISATAP', (high, low) => `2606:4700::5efe:${high}:${low}`],
  ['ISATAP with the universal bit', (high, low) => `2606:4700::200:5efe:${high}:${low}`],
];

function halves(ipv4: string): [string, string] {
  const [a, b, c, d] = ipv4.split('.').map(Number) as [number, number, number, number];
  return [((a << 8) | b).toString(16), ((c << 8) | d).toString(16)];
}

describe('rows of the registries', () => {
  test.each([...SPECIAL_IPV4, ...SPECIAL_IPV6])('%s to %s are private', (first, last) => {
    expect([isPrivateAddress(first), isPrivateAddress(last)]).toEqual([true, true]);
  });

  test.each(PUBLIC)('%s to %s are not', (first, last) => {
    expect([isPrivateAddress(first), isPrivateAddress(last)]).toEqual([false, false]);
  });

  test('what is no address is private', () => {
    for (const text of ['', 'localhost', '1.2.3', '01.2.3.4', '::1::', 'hub.example.com'])
      expect(isPrivateAddress(text), text).toBe(true);
  });
});

describe.each(FORMS)('%s', (_, form) => {
  test('is what the IPv4 address inside is, in every notation', () => {
    fc.assert(
      fc.property(fc.ipV4(), (ipv4) => {
        const [high, low] = halves(ipv4);
        const address = form(high, low);
        expect(isIPv6(address)).toBe(true);
        expect(isPrivateAddress(address)).toBe(isPrivateAddress(ipv4));
        expect(isPrivateAddress(new URL(`http://[${address}]/`).hostname.slice(1, -1))).toBe(
          isPrivateAddress(ipv4),
        );
        expect(isPrivateAddress(`${address}%eth0`.toUpperCase())).toBe(isPrivateAddress(ipv4));
      }),
    );
  });

  test.each(SPECIAL_IPV4)('carries %s and %s no further', (first, last) => {
    for (const ipv4 of [first, last]) expect(isPrivateAddress(form(...halves(ipv4)))).toBe(true);
  });

  test('with a dotted end', () => {
    expect(isPrivateAddress(form(...halves('8.8.8.8')))).toBe(false);
    expect(isPrivateAddress('::ffff:0:169.254.169.254')).toBe(true);
    expect(isPrivateAddress('64:ff9b::10.0.0.1')).toBe(true);
    expect(isPrivateAddress('::ffff:0:8.8.8.8')).toBe(false);
  });
});

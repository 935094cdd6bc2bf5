// Addresses that never leave this machine: 127.0.0.0/8 and ::1 (RFC 6890), also as IPv4-mapped IPv6, and their name.

export function isLoopback(address: string): boolean {
  const plain = address.replace(/^\[|\]$/g, '').replace(/^::ffff:/i, '');
  return plain === 'localhost' || plain === '::1' || /^127(?:\.\d{1,3}){3}$/.test(plain);
}

// Header fields at the proxy: which ones end at this hop and which ones travel on (RFC 9110 §7.6.1), as raw
// name, value pairs, so that repeated fields and their order survive.

/** Fields of this hop; those that Connection names are added to them. Host is set to the upstream's. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
  'host',
  'expect',
]);

/** Raw name, value, name, value … without the fields of this hop. */
export function endToEnd(raw: readonly (string | Buffer)[]): string[] {
  const pairs = pairsOf(raw);
  const named = pairs
    .filter(([name]) => name.toLowerCase() === 'connection')
    .flatMap(([, value]) => tokensOf(value));
  return pairs
    .filter(([name]) => !HOP_BY_HOP.has(name.toLowerCase()) && !named.includes(name.toLowerCase()))
    .flat();
}

/** The same list without the fields that `dropped` chooses by their name in lower case. */
export function withoutFields(raw: readonly string[], dropped: (name: string) => boolean): string[] {
  return pairsOf(raw)
    .filter(([name]) => !dropped(name.toLowerCase()))
    .flat();
}

/** The elements of a comma-separated list, in lower case, without the empty ones. */
export function tokensOf(value: string): string[] {
  return value
    .split(',')
    .map((token) => token.trim().toLowerCase())
    .filter((token) => token !== '');
}

function pairsOf(raw: readonly (string | Buffer)[]): (readonly [string, string])[] {
  const pairs: (readonly [string, string])[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) pairs.push([text(raw[i]), text(raw[i + 1])]);
  return pairs;
}

function text(value: string | Buffer | undefined): string {
  return typeof value === 'string' ? value : (value?.toString('latin1') ?? '');
}

// Which proxies an environment names for fetching endorsements. Apart from what fetches, so that a command
// that opens no connection loads none of it.

export interface ProxySettings {
  readonly httpProxy?: string | undefined;
  readonly httpsProxy?: string | undefined;
  readonly noProxy?: string | undefined;
}

/**
 * HTTPS_PROXY and its relatives out of an environment the caller hands in; undefined when none is set.
 * @example
 * const proxy = proxyFromEnvironment({ HTTPS_PROXY: 'http://proxy.example:3128' });
 * const endorsements = createEndorsements({ proxy });
 */
export function proxyFromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
): ProxySettings | undefined {
  const value = (name: string): string | undefined =>
    (environment[name] ?? environment[name.toUpperCase()]) || undefined;
  const [httpProxy, httpsProxy, noProxy] = [value('http_proxy'), value('https_proxy'), value('no_proxy')];
  if (!httpProxy && !httpsProxy) return undefined;
  return { httpProxy, httpsProxy, noProxy };
}

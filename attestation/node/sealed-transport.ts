// Carries sealed bytes in Node: undici's fetch, over connections whose certificate is not judged. Sealed
// bodies do not rest on TLS: the party that ends it reads no request either way (docs/sealed.md §2).

import { Agent, fetch as undiciFetch } from 'undici';

export interface SealedTransport {
  /** For `sealedFetch({ fetch })`. */
  readonly fetch: typeof globalThis.fetch;
  close(): Promise<void>;
}

/** `connectTimeoutMs`: TCP and TLS together. Answers may take as long as they take. */
export function sealedTransport(connectTimeoutMs: number): SealedTransport {
  const dispatcher = new Agent({
    connect: { rejectUnauthorized: false, timeout: connectTimeoutMs },
    headersTimeout: 0,
    bodyTimeout: 0,
  });
  const carry = (input: string | URL | Request, init: RequestInit = {}): Promise<unknown> =>
    undiciFetch(input instanceof Request ? input.url : input, { ...init, dispatcher } as Parameters<
      typeof undiciFetch
    >[1]);
  return {
    // undici's own classes, which are those of Node's fetch in another version.
    fetch: carry as typeof globalThis.fetch,
    close: () => dispatcher.destroy(),
  };
}

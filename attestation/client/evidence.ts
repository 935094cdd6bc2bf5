// The evidence of one origin for sealed bodies (docs/sealed.md §2): asked for, judged, held until it is too
// old or the key no longer opens. Only fresh evidence says what a key is: no error of a network does. Sealed
// time is the guest's `issued_at` plus what has passed on a clock of this process that only runs on.

import { isSealedResult, verify, type SealedResult } from '../appraise/appraise.ts';
import type { HardwareOptions } from '../appraise/hardware.ts';
import type { Policy } from '../appraise/policy.ts';
import { concatBytes, fromHex, fromUtf8, toHex } from '../encoding/bytes.ts';
import { type AttestationDocument, MAX_DOCUMENT_BYTES, parseDocument } from '../protocol/document.ts';
import { MAX_KEY_LIST_BYTES, openKeyList } from '../receipts/key-list.ts';
import { keyIdOf, xWingKeyIdOf } from '../sealed/request.ts';
import { type AttestationCode, AttestationError, refused } from '../transcript/errors.ts';

/** Fresh evidence has another key. `boot: same`: the key rotated; `other`: a restart, or another guest. */
export interface Rotated {
  readonly origin: string;
  readonly boot: 'same' | 'other';
  readonly result: SealedResult;
}

/** The evidence as it came, before it was judged. */
export interface ReceivedKey {
  readonly document: AttestationDocument;
  readonly nonce: Uint8Array;
}

/** By which key an answer opened, and of which request it is. */
export interface SealedEvidence {
  readonly result: SealedResult;
  readonly evidence: ReceivedKey;
  /** SHA-256(public key ‖ encapsulated key), 32 bytes: key 7 of its receipt. */
  readonly request: Uint8Array;
}

const answeredBy = new WeakMap<Response, SealedEvidence>();

export function noteEvidence(response: Response, by: SealedEvidence): void {
  answeredBy.set(response, by);
}

/** Of an answer of `sealedFetch`; undefined for one that is the client's own. */
export function evidenceOf(response: Response): SealedEvidence | undefined {
  return answeredBy.get(response);
}

export interface HeldEvidence {
  readonly result: SealedResult;
  readonly evidence: ReceivedKey;
  /** Claim 7, or the X-Wing key that belongs to it. */
  readonly publicKey: Uint8Array;
  readonly keyId: number;
}

interface HolderOptions extends Pick<HardwareOptions, 'endorsements' | 'keys' | 'memory' | 'vtpm'> {
  readonly policy: Policy;
  /** `require`: the key is X-Wing's, or there is none. */
  readonly postQuantum?: 'off' | 'require' | undefined;
  readonly send: typeof globalThis.fetch;
  readonly now: () => number;
  readonly monotonic: () => number;
  /** Milliseconds. */
  readonly evidenceTimeout: number;
  readonly onRotated: (rotated: Rotated) => void;
}

/** These requests carry no cookie of the page, follow no redirect and use no cache. */
export const OUTSIDE = { credentials: 'omit', redirect: 'error', cache: 'no-store' } as const;

export class EvidenceHolder {
  readonly origin: string;
  readonly #options: HolderOptions;
  #held: HeldEvidence | undefined;
  #asking: Promise<HeldEvidence> | undefined;
  #stale = false;
  #heldAt = 0;
  /** Sealed time in seconds at `#setAt` of the monotonic clock. */
  #time = 0;
  #setAt = 0;

  constructor(origin: string, options: HolderOptions) {
    this.origin = origin;
    this.#options = options;
  }

  get held(): HeldEvidence | undefined {
    return this.#held;
  }

  /** Milliseconds of a clock that only runs on. */
  get monotonic(): number {
    return this.#options.monotonic();
  }

  /** Sealed time now, seconds. */
  get seconds(): number {
    return Math.floor(this.#time + (this.monotonic - this.#setAt) / 1000);
  }

  /** Sets the time that a sealed `sealed_clock` said. */
  setSeconds(seconds: number): void {
    this.#time = seconds;
    this.#setAt = this.monotonic;
  }

  /** The guest says a model is another than this evidence showed: the next request asks anew. */
  spoil(): void {
    this.#stale = true;
  }

  async current(signal: AbortSignal): Promise<HeldEvidence> {
    const age = this.monotonic - this.#heldAt;
    const fresh =
      this.#held !== undefined && !this.#stale && age < this.#options.policy.maxEvidenceAge * 1000;
    return fresh && this.#held !== undefined ? this.#held : this.renew(signal);
  }

  /** One at a time: calls that ask meanwhile share it. */
  renew(signal: AbortSignal): Promise<HeldEvidence> {
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    return unlessAborted(this.#asking, signal);
  }

  async #ask(again = false): Promise<HeldEvidence> {
    requireSealable(this.origin);
    await requireCrypto();
    const { onRotated, postQuantum } = this.#options;
    // Evidence is as old as its nonce: a party in between may hold the answer back.
    const askedAt = this.monotonic;
    const { result, evidence } = await this.#judged();
    const claim7 = fromHex(result.hpkeKey);
    const key = { publicKey: claim7, keyId: keyIdOf(claim7) };
    const own = postQuantum === 'require' ? await this.#xWing(result) : key;
    // The key rotated between the two answers.
    if (own === undefined && !again) return this.#ask(true);
    if (own === undefined)
      throw refused('sealed_keys', 'the list of keys is of another key than the evidence');
    const before = this.#held;
    this.#held = { result, evidence, ...own };
    this.#heldAt = askedAt;
    this.#stale = false;
    this.setSeconds(result.issuedAt);
    if (before !== undefined && before.result.hpkeKey !== result.hpkeKey)
      onRotated({ origin: this.origin, boot: bootOf(before.result, result), result });
    return this.#held;
  }

  async #judged(): Promise<Pick<HeldEvidence, 'result' | 'evidence'>> {
    const { policy, now, endorsements, keys, memory, vtpm } = this.#options;
    const nonce = crypto.getRandomValues(new Uint8Array(32));
    const body = await this.#answer(
      `/v1/attestation?nonce=${toHex(nonce)}&channel=sealed`,
      MAX_DOCUMENT_BYTES,
    );
    const document = parseDocument(fromUtf8(body, 'document'));
    const result = await verify(document, {
      channel: 'sealed',
      nonce,
      policy,
      now: now(),
      endorsements,
      keys,
      memory,
      vtpm,
    });
    if (!isSealedResult(result))
      throw new AttestationError('internal', 'internal', 'a key was to be used without a result for it');
    return { result, evidence: { document, nonce } };
  }

  /** The X-Wing key beside the claim 7 of that result; undefined: of another one. */
  async #xWing(result: SealedResult): Promise<Pick<HeldEvidence, 'publicKey' | 'keyId'> | undefined> {
    const body = await this.#answer('/v1/sealed/keys', MAX_KEY_LIST_BYTES, 'sealed_unsupported');
    const { claim7, xWingKey } = await openKeyList(body, fromHex(result.receiptKey));
    if (toHex(claim7) !== result.hpkeKey) return undefined;
    return { publicKey: xWingKey, keyId: xWingKeyIdOf(claim7) };
  }

  /** Calls share the wait for it, so it must come to an end. */
  async #answer(
    path: string,
    maxBytes: number,
    code: AttestationCode = 'attestation_unavailable',
  ): Promise<Uint8Array> {
    const { send, evidenceTimeout } = this.#options;
    const signal = AbortSignal.timeout(evidenceTimeout);
    let body: Uint8Array | undefined;
    try {
      const response = await send(`${this.origin}${path}`, { ...OUTSIDE, signal });
      if (response.status !== 200)
        throw refused(code, `the request for ${path.split('?', 1)[0]} was answered ${response.status}`);
      body = await boundedBody(response, maxBytes);
    } catch (error) {
      if (error instanceof AttestationError) throw error;
      throw new AttestationError(
        'internal',
        signal.aborted ? 'attestation_timeout' : 'connection_failed',
        signal.aborted ? 'the evidence did not come in time' : 'the evidence could not be asked for',
        { cause: error },
      );
    }
    if (body === undefined) throw refused('attestation_response', 'the evidence is larger than is read');
    return body;
  }
}

/** By claim 6, which lives as long as the process that signs with it. */
export function bootOf(before: SealedResult, after: SealedResult): Rotated['boot'] {
  return before.receiptKey === after.receiptKey ? 'same' : 'other';
}

function requireSealable(origin: string): void {
  const { protocol, hostname } = new URL(origin);
  const loopback = /^(localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname);
  if (protocol === 'https:' || (protocol === 'http:' && loopback)) return;
  throw refused('plain_http', `${origin} is neither https nor loopback`, {
    expected: 'https:',
    actual: protocol,
  });
}

async function requireCrypto(): Promise<void> {
  try {
    await crypto.subtle.generateKey('X25519', false, ['deriveBits']);
    await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
  } catch (error) {
    throw new AttestationError('unsupported', 'sealed_unsupported', 'this runtime cannot seal', {
      hint: 'a secure context, and X25519 and Ed25519 in WebCrypto, are needed',
      cause: error,
    });
  }
}

/** The body of a response, whole; undefined: it is over so many bytes, and dropped. */
export async function boundedBody(response: Response, maxBytes: number): Promise<Uint8Array | undefined> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    if (done) return concatBytes(...pieces);
    length += value.length;
    if (length > maxBytes) {
      await reader?.cancel();
      return undefined;
    }
    pieces.push(value);
  }
}

function unlessAborted<T>(made: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(signal.reason as Error);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave, { once: true });
    made.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave));
  });
}

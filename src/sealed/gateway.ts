// The server's end of sealed bodies (docs/sealed.md §4 to §6): opens the head of a request, judges clock,
// repetition and Binary HTTP, hands the request to the HTTP server on a connection of its own in memory, and
// seals what comes back. Whatever does not open has one answer, which the caller gives; everything after that
// is answered sealed.

import type { Duplex } from 'node:stream';
import { AttestationError } from '@assay/attestation';
import { encodeKeyList } from '@assay/attestation/receipt';
import {
  AAD,
  ByteReader,
  type Bytes,
  ContentReader,
  decodeRequestHead,
  nextChunk,
  openAny,
  openRequest,
  type OpenedRequest,
  type RequestHead,
} from '@assay/attestation/sealed-envelope';
import { ApiError } from '../base/errors.ts';
import { SealedAnswer } from './answer.ts';
import { type Entries, replayed, type TimedEntry } from './entries.ts';
import { InnerSocket } from './inner-socket.ts';
import type { SealedKeys } from './keys.ts';
import type { SealedTime } from './time.ts';

/** A request that came sealed, as the server knows it. */
export interface SealedConnection {
  /** 32 bytes: SHA-256(recipient's public key ‖ encapsulated key), for its receipt. */
  readonly digest: Uint8Array;
  /** `assay-model`: the digest the sender was shown for the model it names, lower-case hex. */
  readonly model: string | undefined;
  /** Its answer, before anything else is looked at. */
  readonly refusal: { readonly error: ApiError; readonly headers: Readonly<Record<string, string>> } | null;
  /** Clock and key are right: from now on a second one is refused. Throws ApiError. */
  enter(caller: string): void;
  /** Its route has it, so it may have been executed. */
  begun(): void;
}

/** The HTTP server, as the gateway needs it. */
export interface SealedHost {
  /** Answers the request on that connection like any other. */
  connect(socket: Duplex, about: SealedConnection): void;
  errorAnswer(error: ApiError): {
    readonly status: number;
    readonly fields: readonly (readonly [string, string])[];
    readonly body: Uint8Array;
  };
}

/** The connection the sealed bytes came on. */
export interface OuterAnswer {
  /** Status and fields: from here on the answer is sealed. */
  begin(): void;
  /** False: it is full, and `onDrain` tells when it is not. */
  write(bytes: Uint8Array): boolean;
  onDrain(call: () => void): void;
  end(): void;
  /** Cuts the answer: without its final chunk it is none. */
  destroy(): void;
  onClose(call: () => void): void;
}

export interface Sealed {
  readonly keys: SealedKeys;
  /** The X-Wing key, signed with claim 7 by the receipt key; undefined: it is off. */
  keyList(): Uint8Array | undefined;
  readonly time: SealedTime;
  /** Rejects for whatever does not open: all such requests have one answer. `any`: for several replicas. */
  open(body: Bytes, form?: 'one' | 'any'): Promise<OpenedSealed>;
  close(): void;
}

export interface OpenedSealed {
  /** Resolves when its answer is over. */
  serve(outer: OuterAnswer, host: SealedHost): Promise<void>;
}

export function createSealed({
  keys,
  time,
  entries,
  sign,
}: {
  readonly keys: SealedKeys;
  readonly time: SealedTime;
  readonly entries: Entries;
  /** The 64 bytes of an Ed25519 signature by the receipt key. */
  readonly sign: (bytes: Uint8Array) => Uint8Array;
}): Sealed {
  return {
    keys,
    time,
    keyList() {
      const xWing = keys.currentXWing();
      return xWing === undefined ? undefined : encodeKeyList(keys.current(), xWing, sign);
    },
    async open(body, form = 'one') {
      const reader = new ByteReader(body);
      const any = form === 'any' ? await openAny(reader, (hint, kem) => keys.ofHint(hint, kem)) : undefined;
      const opened = any ?? (await openRequest(reader, (keyId) => keys.of(keyId)));
      return {
        async serve(outer, host) {
          const judged = judge(opened, any?.sealedAt, time, entries);
          const content = judged.refusal === null ? contentOf(reader, opened, judged) : undefined;
          await new Serving({ opened, judged, content, entries, outer, host }).run();
        },
      };
    },
    close: () => keys.close(),
  };
}

interface Judged {
  readonly head: RequestHead;
  readonly indeterminate: boolean;
  /** Its own first. */
  readonly entries: readonly TimedEntry[];
  readonly model: string | undefined;
  readonly refusal: SealedConnection['refusal'];
}

const NO_HEAD: RequestHead = { method: 'GET', path: '/', fields: [] };

/** Fields of the envelope; the route does not see them. */
const OWN_FIELDS: ReadonlySet<string> = new Set(['assay-sealed-at', 'assay-sealed-before', 'assay-model']);

/** An entry, and the second it was sealed at; for several replicas the earliest and the latest. */
const BEFORE = /^(?<entry>[0-9a-f]{32});at=(?<first>\d{1,12})(?:-(?<last>\d{1,12}))?$/;

/** Repetition first: its answer must not depend on anything else (docs/sealed.md §5). */
function judge(
  opened: OpenedRequest,
  wrappedAt: number | undefined,
  time: SealedTime,
  known: Entries,
): Judged {
  const own = Buffer.from(opened.digest.subarray(0, 16)).toString('hex');
  const nothing = { head: NO_HEAD, indeterminate: false, entries: [], model: undefined };
  const refused = (error: ApiError, headers = {}): Judged => ({ ...nothing, refusal: { error, headers } });
  if (known.has(own)) return refused(replayed());
  let read: ReturnType<typeof decodeRequestHead>;
  try {
    read = decodeRequestHead(opened.first);
  } catch (error) {
    if (!(error instanceof AttestationError)) throw error;
    return refused(new ApiError('sealed_malformed', `the sealed head is not taken: ${error.message}`));
  }
  const field = (name: string): string | undefined =>
    read.head.fields.find(([candidate]) => candidate === name)?.[1];
  // Of a request for several replicas each has its own, wrapped.
  const inside = field('assay-sealed-at');
  const at = wrappedAt === undefined ? inside : String(wrappedAt);
  const before = field('assay-sealed-before');
  const { entry, first, last = first } = BEFORE.exec(before ?? '')?.groups ?? {};
  const model = field('assay-model');
  const wrong = [
    /^\d{1,12}$/.test(at ?? '') ? '' : 'assay-sealed-at is no time in seconds',
    wrappedAt === undefined || inside === undefined ? '' : 'assay-sealed-at is there, and one in the wrap',
    before === undefined || entry !== undefined ? '' : 'assay-sealed-before is no entry with its time',
    model === undefined || /^[0-9a-f]{64}$/.test(model) ? '' : 'assay-model is no SHA-256',
    /^\d{1,15}$/.test(field('content-length') ?? '0') ? '' : 'content-length is no length',
  ].find((text) => text !== '');
  if (wrong !== undefined) return refused(new ApiError('sealed_malformed', wrong));
  // Bytes that may have run unknown to this set, or may still be taken, must not be followed by others.
  if (
    entry !== undefined &&
    (known.has(entry) || known.hasForgotten(Number(first)) || known.isAhead(Number(last)))
  )
    return refused(replayed());
  if (!known.takes(Number(at)) && known.hasForgotten(Number(at))) return refused(replayed());
  if (!known.takes(Number(at)))
    return refused(
      new ApiError('sealed_clock', 'the request was sealed at another time than now', { shouldRetry: false }),
      { 'assay-sealed-time': String(time.seconds()) },
    );
  const { method, path, fields } = read.head;
  return {
    head: { method, path, fields: fields.filter(([name]) => !OWN_FIELDS.has(name)) },
    indeterminate: read.indeterminate,
    entries: [{ entry: own, at: Number(at) }, ...(entry === undefined ? [] : [{ entry, at: Number(last) }])],
    model,
    refusal: null,
  };
}

/** Padding beyond what any client of ours adds. */
const SPARE_BYTES = 64 * 1024;

async function* contentOf(
  reader: ByteReader,
  { context }: OpenedRequest,
  { indeterminate, head }: Judged,
): AsyncGenerator<Uint8Array, void> {
  const content = new ContentReader(indeterminate);
  const announced = head.fields.find(([name]) => name === 'content-length')?.[1];
  let opened = 0;
  let taken = 0;
  // One piece is held back: a route must not run before the final chunk has opened.
  let held: Uint8Array | undefined;
  for (let final = false; !final;) {
    const chunk = await nextChunk(reader);
    ({ final } = chunk);
    const plain = await context.open(chunk.sealed, final ? AAD.final : AAD.chunk);
    opened += plain.length;
    for (const piece of content.push(plain)) {
      taken += piece.length;
      if (taken > Number(announced ?? Number.POSITIVE_INFINITY)) throw malformed('content-length is another');
      if (held !== undefined) yield held;
      held = piece;
    }
    if (opened > SPARE_BYTES + taken * 1.25) throw malformed('there is more padding than is read');
  }
  content.end();
  if (announced !== undefined && taken !== Number(announced)) throw malformed('content-length is another');
  if (held !== undefined) yield held;
}

function malformed(what: string): ApiError {
  return new ApiError('sealed_malformed', what);
}

interface ServingOptions {
  readonly opened: OpenedRequest;
  readonly judged: Judged;
  readonly content: AsyncGenerator<Uint8Array, void> | undefined;
  readonly entries: Entries;
  readonly outer: OuterAnswer;
  readonly host: SealedHost;
}

/** One sealed request from its head to its answer. */
class Serving {
  readonly #options: ServingOptions;
  #entered = false;
  #routed = false;
  #over: () => void = () => undefined;

  constructor(options: ServingOptions) {
    this.#options = options;
  }

  async run(): Promise<void> {
    const { opened, outer, judged } = this.#options;
    const { answer, nonce } = await SealedAnswer.open(opened, (bytes) => outer.write(bytes));
    const content = hasContent(judged.head) ? this.#options.content : undefined;
    const ended = new Promise<void>((resolve) => (this.#over = resolve));
    // A request without a body is read to its end before it counts.
    const failure = content === undefined ? await this.#withoutContent() : undefined;
    if (failure !== undefined) this.#refuse(answer, nonce, failure);
    else this.#connect(answer, nonce, content);
    await ended;
  }

  async #withoutContent(): Promise<unknown> {
    try {
      for await (const piece of this.#options.content ?? [])
        throw malformed(`there are ${piece.length} bytes of content for a method that has none`);
      return undefined;
    } catch (error) {
      return error;
    }
  }

  #connect(
    answer: SealedAnswer,
    nonce: Uint8Array,
    content: AsyncGenerator<Uint8Array, void> | undefined,
  ): void {
    const { outer, host, judged } = this.#options;
    const socket = new InnerSocket({
      head: judged.head,
      content,
      onHead: (head, length) => {
        outer.begin();
        outer.write(nonce);
        answer.head(head, length);
      },
      onContent: (bytes, done) => {
        if (answer.write(bytes)) done();
        else outer.onDrain(done);
      },
      onEnd: () => {
        answer.end();
        outer.end();
      },
      onClose: (error) => this.#closed(answer, nonce, error),
    });
    outer.onClose(() => socket.destroy());
    if (!socket.destroyed) host.connect(socket, this.#about());
  }

  #about(): SealedConnection {
    const { opened, judged, entries } = this.#options;
    return {
      digest: opened.digest,
      model: judged.model,
      refusal: judged.refusal,
      enter: (caller) => {
        entries.enter(judged.entries, caller);
        this.#entered = true;
      },
      begun: () => (this.#routed = true),
    };
  }

  /** The connection in memory is over: with its answer, or without one. */
  #closed(answer: SealedAnswer, nonce: Uint8Array, error: unknown): void {
    if (answer.ended) this.#over();
    else if (answer.begun || !isFault(error)) this.#cut(answer);
    else this.#refuse(answer, nonce, error);
  }

  #cut(answer: SealedAnswer): void {
    const { entries, judged, outer } = this.#options;
    if (this.#entered && !this.#routed && !answer.begun)
      for (const { entry } of judged.entries) entries.free(entry);
    outer.destroy();
    this.#over();
  }

  /** A fault of the content is answered sealed. */
  #refuse(answer: SealedAnswer, nonce: Uint8Array, cause: unknown): void {
    if (!isFault(cause)) {
      this.#cut(answer);
      return;
    }
    const { outer, host } = this.#options;
    const error =
      cause instanceof ApiError ? cause : malformed(`the sealed content is not taken: ${cause.message}`);
    const { status, fields, body } = host.errorAnswer(error);
    outer.begin();
    outer.write(nonce);
    answer.head({ status, fields }, body.length);
    answer.write(body);
    answer.end();
    outer.end();
    this.#over();
  }
}

/** A fault of the sealed message; anything else is a connection that ended. */
function isFault(error: unknown): error is AttestationError | ApiError {
  return error instanceof AttestationError || error instanceof ApiError;
}

/** Without content-length content is what has a content-type: no route takes any without. */
function hasContent({ method, fields }: RequestHead): boolean {
  if (method === 'GET' || method === 'HEAD') return false;
  const valueOf = (name: string): string | undefined => fields.find(([candidate]) => candidate === name)?.[1];
  const length = valueOf('content-length');
  return length === undefined ? valueOf('content-type') !== undefined : Number(length) > 0;
}

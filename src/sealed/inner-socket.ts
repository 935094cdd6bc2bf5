// The connection a sealed request has: one HTTP/1.1 request in, one answer out, in memory, so that Node's own
// parser and server judge it like any other. It has no address. The request is written from a head that was
// checked byte by byte; the answer is Node's own writing, and is read back without lenience.

import { Duplex } from 'node:stream';
import type { HttpField, RequestHead, ResponseHead } from '@assay/attestation/sealed-envelope';

export interface InnerSocketOptions {
  readonly head: RequestHead;
  /** Content that comes; undefined: none. */
  readonly content: AsyncIterator<Uint8Array> | undefined;
  readonly onHead: (head: ResponseHead, length: number | undefined) => void;
  /** `done` is called when more can be taken. */
  readonly onContent: (bytes: Uint8Array, done: () => void) => void;
  /** The answer is whole. */
  readonly onEnd: () => void;
  /** It is over; `error` is of the content. */
  readonly onClose: (error: unknown) => void;
}

const END_OF_HEAD = Buffer.from('\r\n\r\n');
const MAX_ANSWER_HEAD_BYTES = 64 * 1024;

export class InnerSocket extends Duplex {
  readonly #options: InnerSocketOptions;
  readonly #chunked: boolean;
  #begun = false;
  /** Content is being waited for, or has come to its end. */
  #reading = false;
  #answer: 'head' | 'body' | 'chunk' | 'whole' = 'head';
  #held: Buffer = Buffer.alloc(0);
  /** Bytes of the body, or of its chunk, that are to come; undefined: up to the end. */
  #left: number | undefined = 0;
  #failure: unknown;

  constructor(options: InnerSocketOptions) {
    super({ allowHalfOpen: true });
    this.#options = options;
    this.#chunked = options.content !== undefined && lengthOf(options.head.fields) === undefined;
    this.on('error', () => undefined);
  }

  // Of the interface of a socket, as far as the server asks for it.
  setTimeout(): this {
    return this;
  }
  setNoDelay(): this {
    return this;
  }
  setKeepAlive(): this {
    return this;
  }

  override _read(): void {
    if (this.#reading) return;
    if (!this.#begun) {
      this.#begun = true;
      this.push(requestText(this.#options, this.#chunked));
      return;
    }
    const { content } = this.#options;
    // The other half stays open: a client that has sent all of its request waits for the answer.
    if (content === undefined) return;
    this.#reading = true;
    void this.#next(content);
  }

  async #next(content: AsyncIterator<Uint8Array>): Promise<void> {
    try {
      const { done, value } = await content.next();
      if (done === true) {
        if (this.#chunked) this.push('0\r\n\r\n');
        return;
      }
      this.#reading = false;
      if (this.#chunked) this.push(`${value.length.toString(16)}\r\n`);
      this.push(value);
      if (this.#chunked) this.push('\r\n');
    } catch (error) {
      this.#failure = error;
      this.destroy();
    }
  }

  override _write(piece: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#held = this.#held.length === 0 ? piece : Buffer.concat([this.#held, piece]);
    try {
      this.#take(done);
    } catch (error) {
      done(error instanceof Error ? error : new Error('the answer could not be read'));
    }
  }

  /** Reads what is there; content that finds no room continues when there is some. */
  #take(done: () => void): void {
    const contents: Buffer[] = [];
    while (this.#step(contents));
    if (contents.length === 0) done();
    // One write of the route is one chunk.
    else this.#options.onContent(contents.length === 1 ? contents[0]! : Buffer.concat(contents), done);
  }

  /** False when more bytes are needed. */
  #step(contents: Buffer[]): boolean {
    if (this.#answer === 'head') return this.#readHead();
    if (this.#answer === 'whole' || this.#held.length === 0) return false;
    if (this.#answer === 'chunk') return this.#readChunkLength();
    const taken = this.#held.subarray(0, this.#left);
    contents.push(taken);
    this.#held = this.#held.subarray(taken.length);
    if (this.#left === undefined) return false;
    this.#left -= taken.length;
    if (this.#left === 0) this.#answer = this.#answerChunked ? 'chunk' : 'whole';
    return true;
  }

  #answerChunked = false;

  #readHead(): boolean {
    const end = this.#held.indexOf(END_OF_HEAD);
    if (end < 0) {
      if (this.#held.length > MAX_ANSWER_HEAD_BYTES)
        throw new TypeError('the head of the answer is too long');
      return false;
    }
    const [first = '', ...lines] = this.#held.toString('latin1', 0, end).split('\r\n');
    this.#held = this.#held.subarray(end + END_OF_HEAD.length);
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(first)?.[1]);
    const fields = lines.map((line): HttpField => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
    });
    this.#answerChunked = fields.some(([name]) => name === 'transfer-encoding');
    const bare = this.#options.head.method === 'HEAD' || status === 204 || status === 304;
    const length = bare ? 0 : lengthOf(fields);
    if (this.#answerChunked && !bare) this.#answer = 'chunk';
    else this.#answer = length === 0 ? 'whole' : 'body';
    this.#left = length;
    this.#options.onHead(
      { status, fields: fields.filter(([name]) => !OF_THE_HOP.has(name)) },
      this.#answerChunked && !bare ? undefined : length,
    );
    return true;
  }

  #readChunkLength(): boolean {
    // The line end behind a chunk comes before the next length.
    const from = this.#held[0] === 13 ? 2 : 0;
    const end = this.#held.indexOf('\r\n', from);
    if (end < 0) return false;
    this.#left = Number.parseInt(this.#held.toString('latin1', from, end), 16);
    this.#held = this.#held.subarray(end + 2);
    this.#answer = this.#left === 0 ? 'whole' : 'body';
    return true;
  }

  override _final(done: (error?: Error | null) => void): void {
    if (this.#answer === 'whole' || (this.#answer === 'body' && this.#left === undefined))
      this.#options.onEnd();
    done();
    // One request is all it carries.
    this.destroy();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    void this.#options.content?.return?.();
    this.#options.onClose(this.#failure ?? error);
    done(error);
  }
}

const OF_THE_HOP: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'transfer-encoding']);

function lengthOf(fields: readonly HttpField[]): number | undefined {
  const length = fields.find(([name]) => name === 'content-length')?.[1];
  return length === undefined ? undefined : Number(length);
}

function requestText({ head }: InnerSocketOptions, chunked: boolean): Buffer {
  const lines = [
    `${head.method} ${head.path} HTTP/1.1`,
    'host: sealed',
    'connection: close',
    ...head.fields.map(([name, value]) => `${name}: ${value}`),
    ...(chunked ? ['transfer-encoding: chunked'] : []),
  ];
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

// The receipt of one answer in the making: opened with the request, begun when the engine begins to work,
// sealed once, at the answer's end, whatever that is. It holds hashes, and of a text no more than the last
// few kilobytes, until they are hashed. The salt comes in last, so the hashes run while the answer does.

import { createHash, randomBytes, type Hash } from 'node:crypto';
import {
  type CommittedField,
  digestOfParts,
  logitBiasBytes,
  type Receipt,
  type ReceiptChannel,
  type ReceiptEnd,
  type ReceiptEngine,
  type ReceiptModel,
  type ReceiptSampling,
  stopBytes,
} from '@assay/attestation/receipt';
import type { Chains } from './chains.ts';
import { Commitments } from './commitments.ts';
import type { KeptReceipt } from './kept.ts';
import { AnswerOutput } from './output.ts';
import { TextHash } from './text-hash.ts';

/** How a client asked, by its headers. */
export interface ReceiptAsk {
  readonly mode: 'final' | 'rolling' | null;
  readonly nonce: Uint8Array | undefined;
  /** The ids of tokens before the events of a stream. */
  readonly tokens?: boolean | undefined;
  /** Computed alone, so that a replay must be equal. */
  readonly alone?: boolean | undefined;
}

export interface AnswerRequest {
  readonly ask: ReceiptAsk;
  /** By whom the chain is: never written. */
  readonly caller: string;
  readonly channel: ReceiptChannel;
  readonly method: string;
  readonly path: string;
}

export interface AnswerWork {
  readonly model: ReceiptModel;
  readonly engine: Omit<ReceiptEngine, 'release' | 'digest'>;
}

/** The sampling of a request as the engine was given it. */
export interface AppliedSampling extends Omit<
  ReceiptSampling,
  'seed' | 'seedGiven' | 'stop' | 'logitBias' | 'grammar'
> {
  readonly seed: number | undefined;
  readonly stop: readonly string[];
  readonly logitBias: ReadonlyMap<number, number> | undefined;
  readonly grammar: string | undefined;
}

export interface AnswerEnd {
  readonly status: number;
  readonly end: ReceiptEnd;
  readonly errorCode?: string | undefined;
  /** Of an answer that is not streamed: its bytes. */
  readonly body?: string | Uint8Array | undefined;
  readonly usage: {
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly cachedTokens: number;
  };
}

export interface SealedReceipt {
  readonly bytes: Uint8Array;
  readonly digest: Uint8Array;
}

/** The parts of the issuer that a receipt in the making uses. */
export interface ReceiptSigner {
  readonly chains: Chains;
  readonly publicKey: Uint8Array;
  readonly build: Pick<ReceiptEngine, 'release' | 'digest'>;
  now(): number;
  auditHead(): Uint8Array | undefined;
  seal(receipt: Receipt): Uint8Array;
  keep(id: string, caller: string, receipt: KeptReceipt): void;
}

export class AnswerReceipt {
  readonly id = new Uint8Array(randomBytes(16));
  readonly salt: Uint8Array;
  readonly ask: ReceiptAsk;
  readonly output = new AnswerOutput();
  readonly #issuer: ReceiptSigner;
  readonly #commitments: Commitments;
  readonly #request: AnswerRequest;
  readonly #receivedAt: number;
  readonly #body: Hash = createHash('sha256');
  readonly #transcript = new TextHash();
  #events = 0;
  #checkpoints = 0;
  #lastCheckpoint: Uint8Array | undefined;
  #work: AnswerWork | undefined;
  readonly #prompts: Uint8Array[] = [];
  #sampling: AppliedSampling | undefined;
  #seed = 0;
  #sealed: SealedReceipt | undefined;

  /** `salt`: of a receipt that this one is compared with; default: drawn. */
  constructor(
    issuer: ReceiptSigner,
    request: AnswerRequest,
    salt: Uint8Array = new Uint8Array(randomBytes(32)),
  ) {
    this.salt = salt;
    this.#commitments = new Commitments(salt);
    this.#issuer = issuer;
    this.#request = request;
    this.ask = request.ask;
    this.#receivedAt = issuer.now();
  }

  /** Milliseconds since 1970, as the receipt says it. */
  get receivedAt(): number {
    return this.#receivedAt;
  }

  get hexId(): string {
    return Buffer.from(this.id).toString('hex');
  }

  /** Work has begun, so there will be a receipt. */
  get begun(): boolean {
    return this.#work !== undefined;
  }

  get sealed(): SealedReceipt | undefined {
    return this.#sealed;
  }

  get events(): number {
    return this.#events;
  }

  /** Bytes of the request's body, as they are received. */
  received(piece: Uint8Array): void {
    this.#body.update(piece);
  }

  begin(work: AnswerWork): void {
    this.#work ??= work;
  }

  /** Of the first of several prompts. */
  sampled(sampling: AppliedSampling): void {
    this.#sampling ??= sampling;
  }

  /** The engine has taken the prompt; `seed`: the one it uses, given or drawn. */
  prompt(index: number, digest: Uint8Array | undefined, seed: number | undefined): void {
    if (digest !== undefined) this.#prompts[index] = digest;
    if (index === 0 && seed !== undefined) this.#seed = seed;
  }

  /** An event of a stream, as it is sent. */
  event(name: string, data: string): void {
    this.#events += 1;
    this.#transcript.update(`${name}\n${data}\n`);
  }

  /** The stream so far. */
  checkpoint(): Uint8Array {
    const bytes = this.#issuer.seal({
      kind: 'checkpoint',
      ...this.#common(),
      chain: this.#issuer.chains.chainOf(this.#request.caller),
      seq: this.#checkpoints,
      prev: this.#lastCheckpoint ?? new Uint8Array(32),
      outcome: { ...this.#soFar(200), end: null },
    });
    this.#checkpoints += 1;
    this.#lastCheckpoint = sha256(bytes);
    return bytes;
  }

  /** The last receipt: made at the first call, the same at every other. */
  seal(end: AnswerEnd): SealedReceipt {
    return (this.#sealed ??= this.#seal(end));
  }

  #seal({ status, end, errorCode, body, usage }: AnswerEnd): SealedReceipt {
    if (body !== undefined) this.#transcript.update(body);
    const { caller, method, path } = this.#request;
    const bodyDigest = new Uint8Array(this.#body.digest());
    const prompts = this.#prompts.filter((each) => each !== undefined);
    let sealed: SealedReceipt | undefined;
    this.#issuer.chains.next(caller, (link) => {
      const bytes = this.#issuer.seal({
        kind: 'final',
        ...this.#common(),
        ...link,
        request: {
          method,
          path,
          body: this.#commit('body', bodyDigest),
          promptTokens: prompts.length === 0 ? null : this.#commit('promptTokens', digestOfParts(prompts)),
        },
        sampling: this.#applied(),
        outcome: { ...this.#soFar(status), end, errorCode },
        usage,
        receivedAt: this.#receivedAt,
        finishedAt: Math.max(this.#receivedAt, this.#issuer.now()),
        lastCheckpoint: this.#lastCheckpoint,
        auditHead: this.#issuer.auditHead(),
      });
      sealed = { bytes, digest: sha256(bytes) };
      return sealed.digest;
    });
    if (sealed === undefined) throw new TypeError('a receipt was to be sealed');
    this.#issuer.keep(this.hexId, caller, { receipt: sealed.bytes, salt: this.salt });
    return sealed;
  }

  #common() {
    if (this.#work === undefined) throw new TypeError('there is no receipt of work that has not begun');
    const { model, engine } = this.#work;
    return {
      id: this.id,
      receiptKey: this.#issuer.publicKey,
      channel: this.#request.channel,
      model,
      engine: { ...engine, ...this.#issuer.build },
      nonce: this.ask.nonce,
    };
  }

  #soFar(status: number) {
    const transcript = this.#transcript.soFar();
    return {
      status,
      transcript: this.#commit('transcript', transcript),
      events: this.#events,
      choices: this.output.choices(this.#commitments),
    };
  }

  #applied(): ReceiptSampling | null {
    if (this.#sampling === undefined) return null;
    const { seed, stop, logitBias, grammar, ...given } = this.#sampling;
    const numbers = { ...given, ...withoutMinusZero(given) };
    const committed = (field: CommittedField, bytes: string | Uint8Array): Uint8Array =>
      this.#commit(field, sha256(bytes));
    return {
      ...numbers,
      seed: seed ?? this.#seed,
      seedGiven: seed !== undefined,
      stop: stop.length === 0 ? undefined : committed('stop', stopBytes(stop)),
      logitBias: logitBias === undefined ? undefined : committed('logitBias', logitBiasBytes(logitBias)),
      grammar: grammar === undefined ? undefined : committed('grammar', grammar),
    };
  }

  #commit(field: CommittedField, digest: Uint8Array): Uint8Array {
    return this.#commitments.of(field, digest);
  }
}

function sha256(bytes: string | Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** The numbers a caller gave: JSON knows -0, and a receipt does not. */
function withoutMinusZero({
  temperature,
  topP,
  minP,
  presencePenalty,
  frequencyPenalty,
  repeatPenalty,
}: Omit<AppliedSampling, 'seed' | 'stop' | 'logitBias' | 'grammar'>) {
  return {
    temperature: temperature + 0,
    topP: topP + 0,
    minP: minP + 0,
    presencePenalty: presencePenalty + 0,
    frequencyPenalty: frequencyPenalty + 0,
    repeatPenalty: repeatPenalty + 0,
  };
}

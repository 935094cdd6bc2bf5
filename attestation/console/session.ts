// The state of the console without its page: one server, one policy, one verdict, one key to seal to. It
// never goes further than its verdict: without one that accepts, no text can be sent, and evidence with
// another key locks it until that is accepted, too. Network, clocks and storage come from its caller.

import type { SealedResult, Verified } from '../appraise/appraise.ts';
import { type Witnessed, archiveToJson } from '../appraise/archive-writer.ts';
import type { Outcome } from '../appraise/explain.ts';
import { allowSimulated, observingPolicy, onChannel, parsePolicy, type Policy } from '../appraise/policy.ts';
import { boundedBody, type ReceivedKey, type Rotated, type SealedEvidence } from '../client/evidence.ts';
import { sealedFetch, type SealedFetch } from '../client/sealed-fetch.ts';
import { receiptOf } from '../client/checked-answer.ts';
import type { ReceiptRecord, ReceiptVerdict } from '../client/receipt-options.ts';
import { fromHex, fromUtf8, toHex, utf8 } from '../encoding/bytes.ts';
import type { JsonObject } from '../encoding/json.ts';
import { sha256Digest } from '../client/asking.ts';
import { type AttestationDocument, MAX_DOCUMENT_BYTES, parseDocument } from '../protocol/document.ts';
import type { Check } from '../transcript/checks.ts';
import { AttestationError } from '../transcript/errors.ts';
import type { RollbackMemory } from '../transcript/rollback-memory.ts';
import { answerEvents, errorMessage } from './answer-events.ts';
import { olderThanSeen } from './storage.ts';

/** `rotated`: the server showed another key, which is still to be accepted. */
export type VerdictKind = 'asking' | 'not judged' | 'refused' | 'simulated' | 'verified' | 'rotated';

export interface Verdict {
  readonly kind: VerdictKind;
  /** Undefined while it is asked for. */
  readonly outcome: Outcome | undefined;
  /** As received; undefined where none came that could be read. */
  readonly document: AttestationDocument | undefined;
  /** Milliseconds of the monotonic clock. */
  readonly at: number;
  readonly rotated: Rotated | undefined;
  /** A higher release that was accepted here before. */
  readonly older: string | undefined;
}

export interface UsedPolicy {
  readonly text: string;
  readonly policy: Policy;
  /** SHA-256 of its text in UTF-8, hex. */
  readonly digest: string;
}

export interface Turn {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

export interface ConsoleQuestion {
  readonly messages: readonly Turn[];
  readonly model: string;
  /** Empty: none is sent. */
  readonly apiKey: string;
  readonly signal: AbortSignal;
}

export type ChatEvent =
  | { readonly kind: 'text' | 'thought'; readonly text: string }
  | { readonly kind: 'receipt'; readonly verdict: ReceiptVerdict }
  | { readonly kind: 'end'; readonly reason: string | undefined };

export interface SessionWorld {
  readonly origin: string;
  readonly fetch: typeof globalThis.fetch;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** Milliseconds of a clock that only runs on. */
  readonly monotonic: () => number;
  readonly memory: RollbackMemory;
  /** Called when the verdict, or what rests on it, is another. */
  readonly onChange: () => void;
}

/** The chat may not go on: its key is another, or its evidence was refused. */
export class LockedError extends Error {
  override readonly name = 'LockedError';
}

/** An answer that is an error: of the server, or of this client in its place. */
export class AnswerError extends Error {
  override readonly name = 'AnswerError';
  /** Empty: it has none. */
  readonly code: string;

  constructor(message: string, code: string) {
    super(message);
    this.code = code;
  }
}

/** Answers whose receipts can be saved; the first of more are dropped. */
const MAX_KEPT = 256;
const CHAT = '/v1/chat/completions';
const ASKING = { kind: 'asking', outcome: undefined, document: undefined, rotated: undefined, older: undefined } as const; // prettier-ignore

export class Session {
  readonly #options: SessionWorld;
  #policy: UsedPolicy | undefined;
  #sealed: SealedFetch | undefined;
  #verdict: Verdict;
  #received: ReceivedKey | undefined;
  /** By which the newest evidence was judged: the reader's, with the tick. */
  #judgedBy: Policy = observingPolicy();
  /** Counts judgements: one that is overtaken has no effect. */
  #turn = 0;
  #underWay = new AbortController();
  readonly #records: ReceiptRecord<SealedEvidence>[] = [];
  /** Every accepted piece of evidence, with the policy that accepted it. */
  readonly #accepted = new Map<Verified, { readonly received: ReceivedKey; readonly policy: Policy }>();

  constructor(options: SessionWorld) {
    this.#options = options;
    this.#verdict = { ...ASKING, at: options.monotonic() };
  }

  get verdict(): Verdict {
    return this.#verdict;
  }

  get policy(): UsedPolicy | undefined {
    return this.#policy;
  }

  /** Whether a text may be sealed and sent now. */
  get open(): boolean {
    return this.#sealed !== undefined;
  }

  get savedCount(): { readonly evidence: number; readonly receipts: number } {
    return { evidence: this.#accepted.size, receipts: this.#records.length };
  }

  /** @throws AttestationError malformed_policy, malformed_json */
  usePolicy(text: string): UsedPolicy {
    const used = { text, policy: parsePolicy(text), digest: toHex(sha256Digest(utf8(text))) };
    this.#lock();
    this.#policy = used;
    return used;
  }

  /**
   * Asks for evidence and judges it. `simulated`: the reader's tick, for this judgement alone. Without a
   * policy all is shown and no evidence accepted.
   */
  async judge({ simulated }: { readonly simulated: boolean }): Promise<void> {
    this.#lock();
    const turn = (this.#turn += 1);
    const { origin, now, monotonic, memory } = this.#options;
    this.#show({ ...ASKING, at: monotonic() });
    this.#received = undefined;
    const used = this.#policy?.policy;
    const policy =
      used === undefined
        ? onChannel(observingPolicy({ [allowSimulated]: true }), 'sealed')
        : withTick(this.#policy?.text ?? '', simulated);
    const underWay = new AbortController();
    const sealed = sealedFetch({
      policy,
      endpoint: origin,
      now,
      monotonic,
      memory: used === undefined ? undefined : memory,
      fetch: (input, init) => this.#carried(input, init),
      receipts: { keepContent: true, sink: (record) => this.#keep(record) },
    });
    sealed.on('rotated', (rotated) => {
      if (turn === this.#turn) this.#rotatedTo(rotated);
    });
    try {
      const result = await sealed.verify(origin);
      const older = await olderThanSeen(memory, result.build);
      if (turn !== this.#turn) return;
      this.#underWay = underWay;
      this.#sealed = sealed;
      this.#judgedBy = policy;
      this.#accept(result, older);
    } catch (error) {
      if (turn === this.#turn) this.#refuse(error);
    }
  }

  /**
   * One question and its answer, as it comes. Ends with `end` when all of it came and its receipt holds.
   * @throws AttestationError of a refusal, LockedError where it may not go on, AnswerError with the words of
   * the server
   */
  async *chat({ messages, model, apiKey, signal }: ConsoleQuestion): AsyncGenerator<ChatEvent> {
    const sealed = this.#sealed;
    if (sealed === undefined) throw new LockedError('no evidence is accepted, so nothing was sent');
    const stopped = AbortSignal.any([signal, this.#underWay.signal]);
    const { origin } = this.#options;
    const authorization = apiKey === '' ? [] : [['authorization', `Bearer ${apiKey}`]];
    try {
      const response = await sealed(`${origin}${CHAT}`, {
        method: 'POST',
        headers: Object.fromEntries([['content-type', 'application/json'], ...authorization]),
        body: JSON.stringify({ model, messages, stream: true }),
        signal: stopped,
      }).catch((error: unknown) => this.#unsealed(error, sealed));
      this.#renewed(sealed);
      if (!response.ok) throw await refusalOf(response);
      yield* eventsOf(response, stopped);
    } catch (error) {
      if (this.#verdict.kind === 'rotated' && !signal.aborted)
        throw new LockedError('the server showed another key: the conversation stops here');
      throw error;
    }
  }

  /** No request was sealed: the evidence is too old, and newer was refused or did not come. */
  #unsealed(error: unknown, sealed: SealedFetch): never {
    if (error instanceof AttestationError && error.code !== 'model_not_attested' && this.#sealed === sealed) {
      this.#lock();
      this.#refuse(error);
    }
    throw error;
  }

  /** An archive (docs/receipts.md §4) of what was accepted, and of the receipts. */
  archive({ texts }: { readonly texts: boolean }): JsonObject {
    const { origin } = this.#options;
    const evidence = [...this.#accepted].map(([result, { received, policy }]): Witnessed => ({
      ...received,
      exporter: undefined,
      peerSpki: undefined,
      endorsements: undefined,
      origin,
      policy,
      at: result.verifiedAt,
      code: undefined,
    }));
    const receipts = this.#records.map(({ receipt, salt, requestBody, responseBody }) => ({
      receipt,
      salt,
      request: texts ? requestBody : undefined,
      response: texts ? responseBody : undefined,
    }));
    return archiveToJson(evidence, receipts);
  }

  #lock(): void {
    this.#sealed = undefined;
    this.#underWay.abort();
  }

  #show(verdict: Verdict): void {
    this.#verdict = verdict;
    this.#options.onChange();
  }

  #accept(result: SealedResult, older: string | undefined): void {
    const received = this.#received;
    if (received !== undefined) this.#accepted.set(result, { received, policy: this.#judgedBy });
    this.#show({
      kind: result.simulated ? 'simulated' : 'verified',
      outcome: { result },
      document: received?.document,
      at: this.#options.monotonic(),
      rotated: undefined,
      older,
    });
  }

  #refuse(error: unknown): void {
    const known =
      error instanceof AttestationError
        ? error
        : new AttestationError('internal', 'internal', 'the page could not judge the evidence', {
            cause: error,
          });
    this.#show({
      kind: this.#policy === undefined ? 'not judged' : 'refused',
      outcome: { error: known },
      document: this.#received?.document,
      at: this.#options.monotonic(),
      rotated: undefined,
      older: undefined,
    });
  }

  /** Called before a request is sealed anew, which the abort keeps from happening. */
  #rotatedTo(rotated: Rotated): void {
    this.#lock();
    this.#show({
      kind: 'rotated',
      outcome: { result: rotated.result },
      document: this.#received?.document,
      at: this.#options.monotonic(),
      rotated,
      older: undefined,
    });
  }

  /** Evidence that came of age was asked for anew, with the same key. */
  #renewed(sealed: SealedFetch): void {
    const result = sealed.result(this.#options.origin);
    const { outcome, older } = this.#verdict;
    const known = outcome !== undefined && 'result' in outcome ? outcome.result : undefined;
    if (result === undefined || result === known || this.#sealed !== sealed) return;
    this.#accept(result, older);
  }

  /** Carries a request, and keeps the evidence that comes for it. */
  async #carried(input: Parameters<typeof fetch>[0], init: RequestInit | undefined): Promise<Response> {
    const response = await this.#options.fetch(input, init);
    const url = new URL(input instanceof Request ? input.url : input);
    const nonce = url.searchParams.get('nonce');
    if (url.pathname !== '/v1/attestation' || nonce === null || response.status !== 200) return response;
    const body = await boundedBody(response, MAX_DOCUMENT_BYTES);
    if (body === undefined) return new Response(null, { status: 413 });
    try {
      this.#received = { document: parseDocument(fromUtf8(body)), nonce: fromHex(nonce) };
    } catch {
      this.#received = undefined;
    }
    return new Response(body as BodyInit, { status: 200 });
  }

  #keep(record: ReceiptRecord<SealedEvidence>): void {
    const { result, evidence } = record.evidence;
    if (!this.#accepted.has(result))
      this.#accepted.set(result, { received: evidence, policy: this.#judgedBy });
    this.#records.push(record);
    if (this.#records.length > MAX_KEPT) this.#records.shift();
  }
}

function withTick(text: string, simulated: boolean): Policy {
  return parsePolicy(text, { [allowSimulated]: simulated ? true : undefined });
}

async function* eventsOf(response: Response, signal: AbortSignal): AsyncGenerator<ChatEvent> {
  let reason: string | undefined;
  for await (const event of answerEvents(piecesOf(response, signal))) {
    if (event.kind === 'error') throw new AnswerError(event.message, '');
    if (event.kind === 'finish') reason = event.reason;
    else yield event;
  }
  const verdict = receiptOf(response);
  if (verdict?.state !== 'verified')
    throw new AttestationError('refused', verdict?.code ?? 'receipt_missing', 'the answer has no receipt');
  yield { kind: 'receipt', verdict };
  yield { kind: 'end', reason };
}

async function* piecesOf(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  const leave = (): void => void reader?.cancel(signal.reason).catch(() => undefined);
  signal.addEventListener('abort', leave, { once: true });
  try {
    for (;;) {
      const next = await reader?.read();
      signal.throwIfAborted();
      if (next === undefined || next.done) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', leave);
    await reader?.cancel().catch(() => undefined);
  }
}

async function refusalOf(response: Response): Promise<Error> {
  const text = (await response.text()).slice(0, 64 * 1024);
  const { message, code } = errorMessage(text) ?? {
    message: `the server answered ${response.status}`,
    code: '',
  };
  return new AnswerError(message, code);
}

/** Rows of a policy that was not given are neither ok nor failed. */
export function checksOf({ kind, outcome }: Verdict): readonly Check[] {
  if (outcome === undefined) return [];
  const { transcript } = 'result' in outcome ? outcome.result : outcome.error;
  if (kind !== 'not judged') return transcript;
  return transcript.map((check) =>
    check.id.startsWith('P')
      ? { ...check, status: 'skip', detail: `${check.detail} (you gave no policy)`, code: undefined }
      : check,
  );
}

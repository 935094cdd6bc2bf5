// Whom the requests of one origin are sealed to (docs/sealed.md §5, §8): one guest, or the replicas behind a
// balancer that may choose and retry. Only verified guests are ever sealed to.

import type { SealedResult } from '../appraise/appraise.ts';
import { toHex } from '../encoding/bytes.ts';
import { ANY_TYPE, MAX_REPLICAS, sealToAny } from '../sealed/any.ts';
import type { HttpField, RequestHead } from '../sealed/bhttp.ts';
import { ENTRY_BYTES, REQUEST_TYPE, sealRequest, type SealedRequest } from '../sealed/request.ts';
import { AttestationError, type AttestationCode, refused } from '../transcript/errors.ts';
import { bootOf, type EvidenceHolder, type HeldEvidence } from './evidence.ts';

/** A verified guest, and where its evidence comes from. */
export interface Guest {
  readonly holder: EvidenceHolder;
  readonly held: HeldEvidence;
}

/** Sealed bytes, for whom, and the sealed times they carry. */
export interface SentBytes {
  readonly sealed: SealedRequest;
  readonly contentType: string;
  readonly guests: readonly Guest[];
  readonly earliest: number;
  readonly latest: number;
  /** Milliseconds of the monotonic clock of this process. */
  readonly sealedAt: number;
}

/** A replica that cannot be reached is left out; one whose evidence is refused is an error. */
const ABSENT: ReadonlySet<AttestationCode> = new Set([
  'connection_failed',
  'attestation_timeout',
  'attestation_unavailable',
]);

export class Recipients {
  /** Where sealed bytes go. */
  readonly origin: string;
  readonly #holders: readonly EvidenceHolder[];
  readonly #form: 'one' | 'any';

  /** `any`: the holders are of replicas, 1 to 8. */
  constructor(origin: string, holders: readonly EvidenceHolder[], form: 'one' | 'any') {
    if (holders.length === 0 || holders.length > MAX_REPLICAS)
      throw refused(
        'sealed_replicas',
        `${holders.length} replicas, from 1 to ${MAX_REPLICAS} can be sealed to`,
      );
    this.origin = origin;
    this.#holders = holders;
    this.#form = form;
  }

  get monotonic(): number {
    return this.#holders[0]?.monotonic ?? 0;
  }

  /** The newest accepted evidence of the first that has any. */
  get held(): HeldEvidence | undefined {
    return this.#holders.find(({ held }) => held !== undefined)?.held;
  }

  current(signal: AbortSignal): Promise<readonly Guest[]> {
    return this.#guests((holder) => holder.current(signal));
  }

  /** With fresh evidence. */
  renew(signal: AbortSignal): Promise<readonly Guest[]> {
    return this.#guests((holder) => holder.renew(signal));
  }

  /** The next request asks for evidence anew. */
  spoil(): void {
    for (const holder of this.#holders) holder.spoil();
  }

  /**
   * A guest said its time. Of several it is not known which one: their fresh evidence says the time of each.
   * Undefined: it said none, or one that is not after the bytes, which could then still be taken.
   */
  async corrected(
    { guests, latest }: SentBytes,
    said: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly Guest[] | undefined> {
    if (this.#form === 'any') return this.renew(signal);
    const seconds = Number(said);
    if (said === undefined || !Number.isSafeInteger(seconds)) return undefined;
    for (const { holder } of guests) holder.setSeconds(seconds);
    return seconds > latest ? guests : undefined;
  }

  async seal(
    guests: readonly Guest[],
    { head, content, model }: SealedQuestion,
    before: SentBytes | undefined,
  ): Promise<SentBytes> {
    const fields: HttpField[] = [...head.fields];
    const digest = digestFor(model, guests);
    if (digest !== undefined) fields.push(['assay-model', digest]);
    if (before !== undefined) fields.push(['assay-sealed-before', beforeField(before)]);
    const times = guests.map(({ holder }) => holder.seconds);
    const sealedAt = this.monotonic;
    const about = { guests, earliest: Math.min(...times), latest: Math.max(...times), sealedAt };
    const [first] = guests;
    if (this.#form === 'one' && first !== undefined) {
      fields.push(['assay-sealed-at', String(about.latest)]);
      const { publicKey, keyId } = first.held;
      const sealed = await sealRequest(publicKey, { ...head, fields }, content, keyId);
      return { ...about, sealed, contentType: REQUEST_TYPE };
    }
    const replicas = guests.map(({ held }, i) => ({ publicKey: held.publicKey, sealedAt: times[i] ?? 0 }));
    const sealed = await sealToAny(replicas, { ...head, fields }, content);
    return { ...about, sealed, contentType: ANY_TYPE };
  }

  async #guests(ask: (holder: EvidenceHolder) => Promise<HeldEvidence>): Promise<readonly Guest[]> {
    const asked = await Promise.all(
      this.#holders.map(async (holder): Promise<Guest | AttestationError> => {
        try {
          return { holder, held: await ask(holder) };
        } catch (error) {
          if (this.#form === 'one' || !(error instanceof AttestationError) || !ABSENT.has(error.code))
            throw error;
          return error;
        }
      }),
    );
    const guests = asked.filter((each): each is Guest => !(each instanceof AttestationError));
    if (guests.length === 0)
      throw refused('sealed_replicas', 'no replica gave evidence', { cause: asked[0] });
    // Two addresses of one guest are one recipient.
    return [...new Map(guests.toReversed().map((guest) => [guest.held.result.hpkeKey, guest])).values()].toReversed(); // prettier-ignore
  }
}

/** The request itself, for any guest. */
export interface SealedQuestion {
  readonly head: RequestHead;
  readonly content: Uint8Array;
  /** The model it names. */
  readonly model: string | undefined;
}

/** Whether a guest has a key that none had before. */
export function haveRotated(before: readonly Guest[], after: readonly Guest[]): boolean {
  const known = new Set(before.map(({ held }) => held.result.hpkeKey));
  return after.some(({ held }) => !known.has(held.result.hpkeKey));
}

/** Whether a guest is of another boot than the one its address had before. */
export function haveRestarted(before: readonly Guest[], after: readonly Guest[]): boolean {
  return after.some(({ holder, held }) => {
    const earlier = before.find((guest) => guest.holder === holder);
    return earlier !== undefined && bootOf(earlier.held.result, held.result) === 'other';
  });
}

/** The models that all of them show with one digest. */
export function commonModels(results: readonly SealedResult[]): ReadonlyMap<string, string> {
  const [first, ...others] = results;
  const models = [...(first?.models ?? [])];
  return new Map(models.filter(([id, digest]) => others.every((other) => other.models.get(id) === digest)));
}

/** The digest of the model a request names. With one model alone, it is that of any request. */
function digestFor(model: string | undefined, guests: readonly Guest[]): string | undefined {
  const results = guests.map(({ held }) => held.result);
  const models = commonModels(results);
  const all = new Set(results.flatMap((result) => [...result.models.keys()]));
  if (model === undefined) return models.size === 1 && all.size === 1 ? [...models.values()][0] : undefined;
  const digest = models.get(model);
  if (digest === undefined && all.has(model))
    throw refused('sealed_replicas', 'the replicas do not all show one digest of the model that is named');
  if (digest === undefined)
    throw refused(
      'model_not_attested',
      `request names the model ${JSON.stringify(model.slice(0, 128))}, which is not attested`,
      { expected: [...models.keys()].slice(0, 8).join(', '), actual: model.slice(0, 128) },
    );
  return digest;
}

function beforeField({ sealed, earliest, latest }: SentBytes): string {
  const at = earliest === latest ? String(latest) : `${earliest}-${latest}`;
  return `${toHex(sealed.digest.subarray(0, ENTRY_BYTES))};at=${at}`;
}

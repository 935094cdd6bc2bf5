// Runs the request of a receipt again on this build, and says what agrees (docs/receipts.md §5): what
// answered is here, the request opens its commitment, prompt, sampling, tokens, text, finish and usage are
// equal. What a difference proves depends on the class that the receipt claims.

import { createHash } from 'node:crypto';
import { equalBytes, toHex } from '@assay/attestation';
import { commitment, type FinalReceipt, opensTokens } from '@assay/attestation/receipt';
import { answerOpens } from '@assay/attestation/receipt-verdict';
import { ApiError } from '../../base/errors.ts';
import type { Engine, RecordedDifference } from '../../engine/seam/engine.ts';
import {
  compareAnswer,
  comparePlaces,
  compareQuestion,
  type ReplayStage,
  sameTranscript,
  type StageResult,
} from '../../receipts/compare.ts';
import type { ModelService } from '../../models/seam.ts';
import { buildOf } from '../receipts.ts';
import { ReplayEngines, ReplayRun } from './engine.ts';
import { ReplayModelsCache, type ReplayModelsOptions } from './models.ts';
import { recordedBy, textsIn } from './recorded-text.ts';
import { type ReplayServer, RequestRefused, startReplayServer } from './server.ts';
import { VECTOR_TOLERANCE, vectorDistance } from './vectors.ts';
import { ReplayEnded, type FoundDifference, type ReplayVerdict } from './verdict.ts';

/** Class 1: candidates that such a change of logits exchanges are undecided. */
export const EXACT_TOLERANCE = 1e-3;
/** Class 0: the change of logits that f16 or q8 keys and values, and another batch, explain. */
export const ROUNDED_TOLERANCE = 0.5;

const ELSEWHERE = 'what answered is not what is here, so a difference proves nothing';

export interface ReplayOptions extends ReplayModelsOptions {
  readonly version: string;
  readonly salt: Uint8Array;
  readonly request: Uint8Array;
  readonly response: Uint8Array | undefined;
  /** Ids of the output tokens of each choice. */
  readonly tokens: readonly (readonly number[])[] | undefined;
  /** Compared although what is here is another than what answered. */
  readonly allow: ReadonlySet<ReplayStage>;
  /** Whether the texts of the tokens that differ are told. */
  readonly showText: boolean;
}

/** Replays receipts one after the other; a model stays loaded for the next receipt of it. */
export class Replayer {
  readonly #shared = new SharedParts();

  async replay(options: ReplayOptions): Promise<ReplayVerdict> {
    const comparison = new Comparison(options, this.#shared);
    try {
      return await comparison.run();
    } catch (error) {
      if (error instanceof ReplayEnded) return error.verdict;
      throw error;
    } finally {
      comparison.close();
    }
  }

  close(): Promise<void> {
    return this.#shared.close();
  }
}

/** The parts that one receipt leaves for the next; all of one configuration. */
class SharedParts {
  readonly models = new ReplayModelsCache();
  readonly engines = new ReplayEngines();
  #build: ReturnType<typeof buildOf> | undefined;
  #server: Promise<ReplayServer> | undefined;

  build({ config, version }: ReplayOptions): ReturnType<typeof buildOf> {
    return (this.#build ??= buildOf(config, version));
  }

  async server(options: ReplayOptions): Promise<ReplayServer> {
    const { config, log, version } = options;
    const build = await this.build(options);
    return (this.#server ??= startReplayServer({ config, log, version, build }));
  }

  async close(): Promise<void> {
    const server = await this.#server;
    await server?.close();
    await this.models.close();
  }
}

class Comparison {
  readonly #options: ReplayOptions;
  readonly #shared: SharedParts;
  readonly #stages: StageResult[] = [];
  #server: ReplayServer | undefined;
  #service: ModelService<Engine> | undefined;
  #release: (() => void) | undefined;

  constructor(options: ReplayOptions, shared: SharedParts) {
    this.#options = options;
    this.#shared = shared;
  }

  async run(): Promise<ReplayVerdict> {
    this.#checkReceipt();
    this.#checkFiles();
    const { receipt } = this.#options;
    const engine = await this.#open();
    const free = new ReplayRun(this.#runOptions(receipt));
    const here = await this.#answer(free);
    for (const result of compareQuestion(receipt, here)) this.#note(result);
    if (receipt.sampling === null) return this.#vectors(here);
    const answer = compareAnswer(receipt, here);
    const first = answer.find(({ state }) => state !== 'equal');
    if (first === undefined) {
      this.#stages.push(...answer);
      return { verdict: 'equal', stages: this.#stages };
    }
    return this.#judge(engine, free, { answer, first });
  }

  close(): void {
    this.#release?.();
  }

  /** Claims that no answer can make true. */
  #checkReceipt(): void {
    const { receipt } = this.#options;
    const { replayClass } = receipt.engine;
    const { end } = receipt.outcome;
    const { cachedTokens } = receipt.usage;
    const claimed = `class ${replayClass}`;
    if (replayClass === 2 && (cachedTokens > 0 || receipt.sampling === null))
      this.#note({
        stage: 'class',
        state: 'different',
        receipt: claimed,
        here:
          cachedTokens > 0
            ? `${cachedTokens} tokens of the prompt came from the cache`
            : 'no text was written',
      });
    else this.#note({ stage: 'class', state: 'equal' });
    if (end === 'complete') this.#note({ stage: 'end', state: 'equal' });
    else this.#note({ stage: 'end', state: 'apart', receipt: end ?? 'none', here: 'complete' });
  }

  #checkFiles(): void {
    const { receipt, salt, request, response, tokens } = this.#options;
    const digest = new Uint8Array(createHash('sha256').update(request).digest());
    this.#note(opened('request', equalBytes(receipt.request.body, commitment(salt, 'body', digest))));
    if (response !== undefined) this.#note(opened('response', answerOpens(receipt, salt, response)));
    if (tokens !== undefined)
      this.#note(opened('recorded tokens', opensTokens(receipt.outcome, salt, tokens)));
  }

  /** Build, processor, threads and model are those here. */
  async #open(): Promise<Engine> {
    const { receipt } = this.#options;
    const build = await this.#shared.build(this.#options);
    const [builds] = comparePlaces(receipt, { ...receipt, engine: { ...receipt.engine, ...build } });
    if (builds !== undefined) this.#note(builds);
    const { models, engines } = this.#shared;
    const openEngine = engines.open(this.#options.openEngine);
    const { service, sameId } = (await models.of({ ...this.#options, openEngine })).of(receipt);
    if (service === undefined) {
      this.#note({
        stage: 'model',
        state: 'apart',
        receipt: `${receipt.model.id} ${toHex(receipt.model.sha256)}`,
        here: sameId === undefined ? 'no such model' : `${receipt.model.id} ${sameId}`,
      });
      throw new TypeError('a replay needs its model');
    }
    const lease = await this.#loaded(service);
    this.#release = () => lease.release();
    const { engine, model } = lease;
    const { contextLength: context, slots: batch, numerics } = engine.info;
    const { cpuVariant = 'unknown', threads = 0, alone } = numerics ?? {};
    const { kind: form, adapters = [] } = model;
    const applied = adapters.map(({ sha256, scale }) => ({ sha256: bytesOf(sha256), scale }));
    const places = comparePlaces(receipt, {
      ...receipt,
      engine: { ...receipt.engine, cpuVariant, threads, context, batch },
      model: { ...receipt.model, form, sha256: bytesOf(model.sha256), adapters: applied },
    });
    for (const result of places.slice(1)) this.#note(result);
    if (receipt.sampling !== null && receipt.engine.replayClass > 0 && alone !== true)
      this.#end('not comparable', 'class', 'this engine cannot compute as exactly as the receipt says');
    this.#server = await this.#shared.server(this.#options);
    this.#service = service;
    return engine;
  }

  /** With the context and the slots that the receipt says. */
  async #loaded(service: ModelService<Engine>): Promise<Awaited<ReturnType<typeof service.acquire>>> {
    try {
      return await service.acquire(this.#options.receipt.model.id, { signal: new AbortController().signal });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      return this.#end('not comparable', 'context', `it cannot be loaded here: ${error.message}`);
    }
  }

  #runOptions({ engine, sampling }: FinalReceipt): ReplayRun['options'] {
    return { alone: sampling !== null && engine.replayClass > 0, seed: sampling?.seed };
  }

  async #answer(run: ReplayRun): Promise<FinalReceipt> {
    this.#shared.engines.run = run;
    try {
      const [server, models] = [this.#server, this.#service];
      if (server === undefined || models === undefined) throw new TypeError('no server yet');
      const { receipt, salt, request } = this.#options;
      return await server.answer({ models, receipt, salt, request });
    } catch (error) {
      if (!(error instanceof RequestRefused)) throw error;
      return this.#end('not comparable', 'prompt', `the request is refused here (${error.code})`);
    }
  }

  /** The tokens, or what is made of them, are others than the receipt says. */
  async #judge(
    engine: Engine,
    free: ReplayRun,
    { answer, first }: { readonly answer: readonly StageResult[]; readonly first: StageResult },
  ): Promise<ReplayVerdict> {
    const { receipt } = this.#options;
    const { replayClass } = receipt.engine;
    const found = first.stage === 'tokens' ? await this.#locate(engine, free) : undefined;
    const { difference, farthest, adrift = false, here } = found ?? {};
    const verdict = (name: ReplayVerdict['verdict'], why?: string): ReplayVerdict => {
      const stages = name === 'equal' && here !== undefined ? compareAnswer(receipt, here) : answer;
      const { stage } = first;
      const softened = this.#elsewhere && name === 'different' ? 'undecided' : name;
      return {
        verdict: softened,
        stage: softened === 'equal' ? undefined : stage,
        why: softened === name ? why : ELSEWHERE,
        stages: [...this.#stages, ...stages],
        difference,
        farthest,
      };
    };
    // The same tokens are the same text everywhere.
    if (first.stage !== 'tokens') return verdict('different');
    if (replayClass === 2) return verdict('different');
    if (difference === undefined && farthest === undefined)
      return verdict('undecided', 'class 1 and 0 are decided by the recorded tokens: give --tokens FILE');
    if (difference?.by === 'response')
      return verdict('undecided', 'a text does not tell its tokens: give --tokens FILE');
    const exact = replayClass === 1;
    const tolerance = exact ? EXACT_TOLERANCE : ROUNDED_TOLERANCE;
    const { distance } = difference ?? {};
    if (exact)
      return distance == null || distance > tolerance
        ? verdict('different')
        : verdict('undecided', `the candidates are within ${tolerance} of each other`);
    if (farthest == null || farthest > tolerance)
      return adrift
        ? verdict('undecided', 'under a grammar the draws after a difference are not those of the answer')
        : verdict('different');
    const rest =
      here === undefined ? undefined : compareAnswer(receipt, here).find(({ state }) => state !== 'equal');
    return rest === undefined
      ? verdict('equal', `each recorded token is what is picked here within ${tolerance} in logits`)
      : verdict('different', `with the recorded tokens the ${rest.stage} is another`);
  }

  /** The request once more with the recorded tokens, which says where the first difference is. */
  async #locate(engine: Engine, free: ReplayRun): Promise<Located | undefined> {
    const { tokens, response } = this.#options;
    const texts = response === undefined ? undefined : textsIn(response);
    let recorded = tokens;
    if (recorded === undefined && texts !== undefined)
      recorded = await recordedBy(engine, free.tokens, texts);
    if (recorded === undefined) return undefined;
    const lists = free.tokens.map((_, choice) => recorded[choice] ?? []);
    const run = new ReplayRun({ ...free.options, recorded: lists });
    const here = await this.#answer(run);
    const by = tokens === undefined ? 'response' : 'tokens';
    const choice = run.reports.findIndex((report) => report?.first !== undefined);
    const first = run.reports[choice]?.first;
    const distances = run.reports.map(({ farthest }) => farthest);
    return {
      here,
      difference: first && { choice, by, ...first, texts: await this.#textsOf(engine, first) },
      farthest: distances.includes(null) ? null : Math.max(0, ...distances.map((each) => each ?? 0)),
      adrift: run.reports.some(({ adrift }) => adrift),
    };
  }

  async #textsOf(
    engine: Engine,
    { recorded, picked }: RecordedDifference,
  ): Promise<FoundDifference['texts']> {
    if (!this.#options.showText) return undefined;
    const textOf = async (token: number | null): Promise<string | null> => {
      if (token === null || token >= engine.info.vocabSize) return null;
      const [piece = new Uint8Array()] = await engine.pieces([token]);
      return Buffer.from(piece).toString();
    };
    return { recorded: await textOf(recorded), picked: await textOf(picked) };
  }

  /** Embeddings and scores have no tokens: the answer itself is compared. Sounds have a text. */
  #vectors(here: FinalReceipt): ReplayVerdict {
    const { receipt, response } = this.#options;
    for (const result of compareAnswer(receipt, here).slice(1)) {
      if (result.state === 'equal') this.#note(result);
      else this.#end('undecided', result.stage, 'answers without sampling are of class 0');
    }
    if (sameTranscript(receipt, here)) {
      this.#note({ stage: 'answer', state: 'equal' });
      return { verdict: 'equal', stages: this.#stages };
    }
    if (receipt.outcome.choices.length > 0) return { verdict: 'equal', stages: this.#stages };
    if (response === undefined)
      this.#end(
        'undecided',
        'answer',
        'the bytes differ, as they may: give --response FILE to compare numbers',
      );
    const distance = vectorDistance(
      response ?? new Uint8Array(),
      this.#server?.lastAnswer ?? new Uint8Array(),
    );
    if (distance === undefined || distance > VECTOR_TOLERANCE)
      this.#end(
        'different',
        'answer',
        `the numbers differ by ${distance?.toPrecision(3) ?? 'more than numbers'}`,
      );
    this.#note({ stage: 'answer', state: 'equal' });
    return {
      verdict: 'equal',
      stages: this.#stages,
      why: `the numbers agree within ${VECTOR_TOLERANCE} (${distance?.toPrecision(3)})`,
    };
  }

  /** Keeps a result; the first that is not equal ends the comparison, unless it is allowed. */
  #note(result: StageResult): void {
    this.#stages.push(result);
    if (result.state === 'equal' || result.state === 'skipped') return;
    if (result.state === 'apart' && this.#options.allow.has(result.stage)) return;
    const verdict = result.state === 'apart' ? 'not comparable' : 'different';
    this.#stop(verdict, result.stage);
  }

  /** Another build, processor, model or template answered, and is compared all the same. */
  get #elsewhere(): boolean {
    return this.#stages.some(({ state }) => state === 'apart');
  }

  #stop(verdict: ReplayVerdict['verdict'], stage: ReplayStage, why?: string): never {
    const softened = verdict === 'different' && this.#elsewhere;
    throw new ReplayEnded({
      verdict: softened ? 'undecided' : verdict,
      stage,
      why: softened ? ELSEWHERE : why,
      stages: this.#stages,
    });
  }

  #end(verdict: ReplayVerdict['verdict'], stage: ReplayStage, why: string): never {
    const state = verdict === 'undecided' ? 'undecided' : 'apart';
    this.#stages.push({ stage, state: verdict === 'different' ? 'different' : state });
    this.#stop(verdict, stage, why);
  }
}

interface Located {
  readonly here: FinalReceipt;
  readonly difference: FoundDifference | undefined;
  readonly farthest: number | null;
  readonly adrift: boolean;
}

function opened(stage: ReplayStage, opens: boolean): StageResult {
  return opens
    ? { stage, state: 'equal' }
    : { stage, state: 'different', receipt: 'its commitment', here: 'the file does not open it' };
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

// Notes what an engine does for a request in its receipt: the model and how it computes when work begins, the
// prompt's digest, the sampling, the text and tokens of each choice.

import type { Engine, EngineInfo, GenerateEvent, GenerateRequest, Pooled } from '../engine/seam/engine.ts';
import type { TranscribeEvent } from '../engine/seam/transcription.ts';
import type { RegisteredModel } from '../models/model.ts';
import type { AnswerReceipt, AnswerWork } from '../receipts/answer.ts';

export class Recorder {
  readonly #receipt: AnswerReceipt;
  readonly #model: RegisteredModel;
  readonly #info: EngineInfo;
  #prompts = 0;

  constructor(receipt: AnswerReceipt, model: RegisteredModel, { info }: Engine) {
    this.#receipt = receipt;
    this.#model = model;
    this.#info = info;
  }

  /** Called for each prompt of the request in its order; takes the events of that prompt. */
  generation(request: GenerateRequest): (event: GenerateEvent) => void {
    const prompt = this.#prompts;
    this.#prompts += 1;
    const receipt = this.#receipt;
    const index = (event: { readonly index: number }): number => prompt * request.n + event.index;
    return (event) => {
      if (event.kind === 'start') {
        receipt.begin(this.#work(request.prompt, event.alone === true));
        receipt.sampled(samplingOf(request));
        receipt.prompt(prompt, digestOf(event.promptSha256), event.seed);
        return;
      }
      if (event.tokens !== undefined && receipt.ask.tokens === true)
        receipt.output.tokens(index(event), event.tokens);
      if (event.kind === 'delta') receipt.output.text(index(event), event.text);
      else
        receipt.output.finish(index(event), {
          reason: event.reason,
          tokens: event.completionTokens,
          tokensDigest: digestOf(event.tokensSha256),
        });
    };
  }

  transcription(): (event: TranscribeEvent) => void {
    const { output } = this.#receipt;
    return (event) => {
      if (event.kind === 'start') this.#receipt.begin(this.#work(null));
      else if (event.kind === 'segment') output.text(0, event.segment.text);
      else output.finish(0, { reason: 'stop', tokens: 0 });
    };
  }

  /** Vectors or scores were made of these inputs; undefined: the engine ended in the work. */
  pooled(inputs: Pooled | undefined): void {
    this.#receipt.begin(this.#work(null));
    this.#receipt.prompt(0, digestOf(inputs?.inputsSha256), undefined);
  }

  #work(prompt: GenerateRequest['prompt'] | null, alone = false): AnswerWork {
    const { numerics, contextLength, slots } = this.#info;
    const model = this.#model;
    const tools = prompt?.kind === 'chat' && (prompt.tools ?? []).length > 0;
    const template = tools ? numerics?.toolTemplateSha256 : numerics?.templateSha256;
    return {
      model: {
        id: model.id,
        form: model.kind,
        sha256: bytesOf(model.sha256),
        adapters: (model.adapters ?? []).map(({ sha256, scale }) => ({ sha256: bytesOf(sha256), scale })),
        template: prompt?.kind === 'chat' ? (digestOf(template ?? undefined) ?? null) : null,
      },
      engine: {
        cpuVariant: numerics?.cpuVariant ?? 'unknown',
        threads: numerics?.threads ?? 0,
        replayClass: replayClassOf(prompt, alone, numerics?.exact === true),
        context: contextLength,
        batch: slots,
      },
    };
  }
}

/** How exactly a replay agrees with an answer that ran so (docs/receipts.md §5). */
function replayClassOf(
  prompt: GenerateRequest['prompt'] | null,
  alone: boolean,
  exact: boolean,
): AnswerWork['engine']['replayClass'] {
  if (alone) return 2;
  // Vectors, scores and sound: inputs are packed together.
  if (prompt === null) return 0;
  // The vectors of images come from a computation of their own, with flash attention.
  const pictured = prompt.kind === 'chat' && prompt.messages.some(({ images = [] }) => images.length > 0);
  return exact && !pictured ? 1 : 0;
}

function samplingOf({
  sampling,
  n,
  maxTokens,
  stop,
  grammar,
}: GenerateRequest): Parameters<AnswerReceipt['sampled']>[0] {
  const { seed, seedDrawn, logitBias, ...numbers } = sampling;
  return {
    ...numbers,
    seed: seedDrawn === true ? undefined : seed,
    maxTokens: maxTokens ?? null,
    n,
    stop,
    logitBias,
    grammar: grammar?.gbnf,
  };
}

function digestOf(hex: string | undefined): Uint8Array | undefined {
  return hex === undefined ? undefined : bytesOf(hex);
}

function bytesOf(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex, 'hex'));
}

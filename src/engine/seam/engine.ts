// The seam between the server and a loaded model. One Engine is one child process (engine/child/worker); the
// server uses an engine only through this interface, which the null engine of the bench implements too.
// Failures are ApiErrors (src/base/errors.ts) with these codes:
//   context_length_exceeded 400 · invalid_grammar 400 · engine_overloaded 429
//   engine_crashed 503 (retry helps) · model_load_failed 500 · wrong_model_type 400.
// An abort through the signal ends the iterable by throwing the signal's reason, and frees the slot
// within two decode steps.

import type { ModelNeeds } from './backend.ts';
import type { ImageKind } from '../../base/image-formats.ts';
import type { ReasoningFormat } from './reasoning.ts';
import type { CallMarks, ToolFormat } from './tool-format.ts';
import type { TranscribeEvent, TranscribeRequest } from './transcription.ts';

export type { CallMarks, ToolFormat } from './tool-format.ts';

export type ModelType = 'chat' | 'completion' | 'embedding' | 'rerank' | 'transcription';

/** How keys and values are kept: 16 bits a number, or 8 in blocks of 32 with a scale, for half the memory. */
export type KvType = 'f16' | 'q8_0';

/**
 * Where a text is guessed ahead from what it repeats: only with exact numerics, where that changes no token;
 * always; never.
 */
export type Drafting = 'exact' | 'always' | 'off';

/** The engine's report once a model is loaded. */
export interface EngineInfo {
  readonly type: ModelType;
  readonly architecture: string;
  /** Tokens one sequence may hold, prompt and completion together. */
  readonly contextLength: number;
  readonly vocabSize: number;
  /** Embedding width; 0 for generating models. */
  readonly embeddingSize: number;
  readonly hasChatTemplate: boolean;
  /** Whether the vocabulary has fill-in-the-middle tokens (`suffix` of /v1/completions). */
  readonly hasFimTokens: boolean;
  readonly slots: number;
  readonly bosToken: number | null;
  readonly eosToken: number | null;
  /** How this model writes tool calls, for toolCallGrammar and the reader of answers. */
  readonly toolFormat: ToolFormat;
  /** How it frames its reasoning; null for a model without. */
  readonly reasoning: ReasoningFormat | null;
  /** Whether messages may hold images. */
  readonly vision?: boolean | undefined;
  /** Bytes of memory for texts that cannot be swapped out; 0 where the machine does not allow it. */
  readonly lockedBytes: number;
  /** How it computes, for receipts; absent of engines that are none of a child. */
  readonly numerics?: EngineNumerics | undefined;
}

export interface EngineNumerics {
  /** The variant of libggml-cpu that was loaded, without its ending: `libggml-cpu-haswell`. */
  readonly cpuVariant: string;
  readonly threads: number;
  /** F32 keys and values, no flash attention, all on the processor: the same tokens each time. */
  readonly exact: boolean;
  /** SHA-256 of the chat template that renders, lower-case hex; null of a model that renders none. */
  readonly templateSha256: string | null;
  /** The same of conversations with tools. */
  readonly toolTemplateSha256: string | null;
  /** Requests may run alone (`GenerateRequest.alone`). */
  readonly alone?: boolean | undefined;
}

export interface LoadSpec {
  /**
   * Path the child opens: a staged tmpfs file, `/proc/self/fd/N` inherited through `stdio`, or a
   * plain path in development.
   */
  readonly path: string;
  /** File descriptor of this process to pass to the child as its fd 4 when `path` is '/proc/self/fd/4'. */
  readonly fd?: number | undefined;
  readonly type?: ModelType | undefined;
  readonly contextLength?: number | undefined;
  /** Sequences decoded together. */
  readonly slots?: number | undefined;
  readonly threads?: number | undefined;
  /** Absent: F16, or F32 on models small enough for exact numerics. */
  readonly kvType?: KvType | undefined;
  /** Overrides the GGUF's own chat template (and is then part of the model manifest). */
  readonly chatTemplate?: string | undefined;
  /** Its memory, where it computes on graphics cards. */
  readonly needs?: ModelNeeds | undefined;
  /** LoRA adapters that requests may name; Linux only, and only for models that generate. */
  readonly adapters?: readonly AdapterSpec[] | undefined;
  /** Lets messages hold images; Linux only, and only for models that generate. */
  readonly projector?: ProjectorSpec | undefined;
  /** Called with 0…1 while the weights load. */
  readonly onProgress?: ((fraction: number) => void) | undefined;
}

/** A checked adapter of the model. */
export interface AdapterSpec {
  /** By which requests name it. */
  readonly key: string;
  /** Its file, as a descriptor of this process. */
  readonly fd: number;
  /** Factor of its delta, beside alpha ÷ rank of the file. */
  readonly scale: number;
}

/** A checked projector of the model. */
export interface ProjectorSpec {
  /** Its file, as a descriptor of this process. */
  readonly fd: number;
  /** Pixels of an image for each vector it gives. */
  readonly vectorPixels: number;
  /** Its vectors stand in rows and columns (M-RoPE). */
  readonly grid: boolean;
}

export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  /** An assistant's thoughts before it said this. */
  readonly reasoning?: string | undefined;
  readonly name?: string | undefined;
  readonly toolCalls?:
    readonly { readonly id: string; readonly name: string; readonly arguments: string }[] | undefined;
  readonly toolCallId?: string | undefined;
  /** In the order of their places. */
  readonly images?: readonly MessageImage[] | undefined;
}

/** An image in a message. */
export interface MessageImage {
  /** Where in `content` it stands: the number of UTF-16 units before it. */
  readonly at: number;
  readonly kind: ImageKind;
  /** As the header of the file says, checked before anything decodes it. */
  readonly width: number;
  readonly height: number;
  /** The file. */
  readonly bytes: Uint8Array;
  /** The field of the request it came by; refusals name it. */
  readonly param: string;
}

export interface ToolSpec {
  readonly name: string;
  readonly description?: string | undefined;
  /** JSON schema of the arguments. */
  readonly parameters: unknown;
}

export interface Conversation {
  readonly kind: 'chat';
  readonly messages: readonly ChatMessage[];
  readonly tools?: readonly ToolSpec[] | undefined;
  /** Variables for the chat template beside those it is always given, which they cannot replace. */
  readonly templateVariables?: Readonly<Record<string, unknown>> | undefined;
  /** Whether the answer continues a last message of the assistant; default: it does. */
  readonly prefill?: boolean | undefined;
  /** The field of the request it came by, which refusals name; default: `messages`. */
  readonly param?: string | undefined;
  /** The time that a template is told, milliseconds since 1970; default: now. */
  readonly now?: number | undefined;
}

/**
 * The text or tokens to continue from. Text is tokenized without special-token parsing except
 * where the template wrote it.
 */
export type Prompt =
  | Conversation
  | { readonly kind: 'text'; readonly text: string; readonly suffix?: string | undefined }
  | { readonly kind: 'tokens'; readonly tokens: readonly number[] };

export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  /** 0: no limit. */
  readonly topK: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 1 is off. */
  readonly repeatPenalty: number;
  /** Absent: random. Same seed, prompt, model and parameters: same tokens. */
  readonly seed?: number | undefined;
  /** The server drew the seed, for one of several prompts. */
  readonly seedDrawn?: boolean | undefined;
  /** Token id → added to its logit; −100 bans. */
  readonly logitBias?: ReadonlyMap<number, number> | undefined;
}

export interface GenerateRequest {
  readonly prompt: Prompt;
  readonly sampling: Sampling;
  /** Completions sharing one prefill. */
  readonly n: number;
  /** Absent: up to the end of the context. */
  readonly maxTokens?: number | undefined;
  readonly stop: readonly string[];
  /** Where tool calls may stand. Stop strings, the template's too, end only the content before them. */
  readonly calls?: CallMarks | undefined;
  /** GBNF compiled by grammar/compile; `triggers` makes it lazy (applied from the first trigger text on). */
  readonly grammar?: { readonly gbnf: string; readonly triggers?: readonly string[] | undefined } | undefined;
  /** Tokens of reasoning, after which it is closed. */
  readonly reasoningBudget?: number | undefined;
  /** Number of alternatives per token (0: only the chosen one); absent: no logprobs. */
  readonly logprobs?: number | undefined;
  /**
   * Prompt logprobs and text first (legacy `echo`). The logprob of the first prompt token is
   * NaN: it has no predecessor.
   */
  readonly echo?: boolean | undefined;
  /** Key of the adapter that writes; absent: the model as it is. */
  readonly adapter?: string | undefined;
  /**
   * Prefix reuse happens only between requests with the same scope (an opaque per-API-key salt) and adapter.
   */
  readonly cacheScope: string;
  /** Work of a batch: it starts when no other request waits for a slot, and yields its slot to one. */
  readonly background?: boolean | undefined;
  /** Its events carry the fields that a receipt commits to. */
  readonly receipt?: boolean | undefined;
  /** Its events carry the ids of its tokens. */
  readonly tokens?: boolean | undefined;
  /**
   * In a context of its own: each decode holds this request's sequence only, keys and values are f32, there
   * is no flash attention, and the prompt is read from 0 in fixed chunks. 400 alone_unavailable where the
   * engine cannot; one at a time of each scope, others wait.
   */
  readonly alone?: boolean | undefined;
  /** Tokens that each choice writes instead of those it picks; its finish compares them. */
  readonly recorded?: readonly (readonly number[])[] | undefined;
}

/** Tokens of an earlier run beside what is picked now. */
export interface RecordedReport {
  /** Tokens that were compared. */
  readonly compared: number;
  readonly differing: number;
  /** The first that differs; absent: none does. */
  readonly first?: RecordedDifference | undefined;
  /** The largest distance; null: one token can be picked by no change. */
  readonly farthest: number | null;
  /** With a grammar, draws after a difference may not be those of the earlier run. */
  readonly adrift: boolean;
}

export interface RecordedDifference {
  /** Counted from 0. */
  readonly at: number;
  /** Null: the list of tokens ends here. */
  readonly recorded: number | null;
  /** Null: the choice ends here. */
  readonly picked: number | null;
  /** The logit of what is picked less that of what was recorded; null where one is missing. */
  readonly gap: number | null;
  /**
   * The least change of logits, by at most so much each, with which the recorded token is picked; null: none.
   */
  readonly distance: number | null;
}

export interface TokenLogprob {
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

export type GenerateEvent =
  /**
   * Once, first: the prompt was tokenized and admitted to a slot. After it the only 4xx is that of a grammar
   * that `logitBias` leaves no token for (400 invalid_value, logit_bias), which only shows while writing.
   */
  | {
      readonly kind: 'start';
      readonly promptTokens: number;
      readonly cachedTokens: number;
      /** SHA-256 of the prompt's tokens, hex, and the seed, given or drawn: where a receipt is made. */
      readonly promptSha256?: string | undefined;
      readonly seed?: number | undefined;
      /** It runs alone. */
      readonly alone?: boolean | undefined;
    }
  /**
   * Text of choice `index`: whole UTF-8 characters, stop strings never included. May be '' when
   * only logprobs are carried.
   */
  | {
      readonly kind: 'delta';
      readonly index: number;
      readonly text: string;
      /** The text is reasoning, which comes before the answer and is no part of it. */
      readonly reasoning?: boolean | undefined;
      readonly logprobs?: readonly (TokenLogprob & { readonly top: readonly TokenLogprob[] })[] | undefined;
      /** Ids of the tokens picked since the event before, where they are asked for. */
      readonly tokens?: readonly number[] | undefined;
    }
  /** Once per choice. */
  | {
      readonly kind: 'finish';
      readonly index: number;
      readonly reason: 'stop' | 'length';
      /** The stop string that ended it, the template's included; absent: none did. */
      readonly stop?: string | undefined;
      readonly completionTokens: number;
      /** Those of them that are reasoning, its marks included. */
      readonly reasoningTokens?: number | undefined;
      /** SHA-256 of the tokens, hex, where a receipt is made. */
      readonly tokensSha256?: string | undefined;
      /** As those of a delta. */
      readonly tokens?: readonly number[] | undefined;
      readonly recorded?: RecordedReport | undefined;
    };

export interface Engine {
  readonly info: EngineInfo;
  /** Pid of the child, for tests and status; null for engines without one. */
  readonly pid: number | null;
  /** Settles when the engine has ended, expected or not: null after close(), else the reason. */
  readonly closed: Promise<Error | null>;
  /**
   * Refuses, before tokenizing, a text with more bytes than the context's tokens can stand for, and more
   * tokens than a few contexts (`detokenize` and `pieces` too): `context_length_exceeded`. `param`: the field
   * that refusals name; default `prompt`.
   */
  tokenize(
    input:
      | {
          readonly text: string;
          readonly addSpecial?: boolean | undefined;
          readonly parseSpecial?: boolean | undefined;
          readonly param?: string | undefined;
        }
      /** −1 stands for each vector of an image. No file of one is read. */
      | Omit<Conversation, 'kind'>,
    signal?: AbortSignal,
  ): Promise<readonly number[]>;
  /** The text of their bytes, joined as `pieces` gives them; bytes that are no UTF-8 are U+FFFD. */
  detokenize(tokens: readonly number[], signal?: AbortSignal): Promise<string>;
  /** Text of single tokens, as bytes (a token need not be whole UTF-8). */
  pieces(tokens: readonly number[], signal?: AbortSignal): Promise<readonly Uint8Array[]>;
  generate(request: GenerateRequest, signal: AbortSignal): AsyncIterable<GenerateEvent>;
  /**
   * One vector per input, L2-normalised; `tokens` counts the evaluated tokens. Inputs of one scope wait
   * for each other, those of different scopes (an opaque per-API-key salt) are taken in turn; so are
   * the documents of `rank`.
   */
  embed(
    inputs: readonly (string | readonly number[])[],
    signal: AbortSignal,
    cacheScope?: string,
  ): Promise<Pooled & { readonly vectors: readonly Float32Array[] }>;
  /** Raw relevance logits, one per document, in the order given. */
  rank(
    query: string,
    documents: readonly string[],
    signal: AbortSignal,
    cacheScope?: string,
  ): Promise<Pooled & { readonly scores: readonly number[] }>;
  /** Only of models that hear: the text of a sound, segment by segment. */
  readonly transcribe?:
    ((request: TranscribeRequest, signal: AbortSignal) => AsyncIterable<TranscribeEvent>) | undefined;
  /** Resolves when the engine has dropped everything that was aborted until now, or has ended. */
  dropped(): Promise<void>;
  /** Numbers for /metrics; no content. */
  stats(): EngineStats;
  /** Ends the child process; all its memory is returned. Idempotent. */
  close(): Promise<void>;
}

/** Inputs of vectors or scores as they were evaluated. */
export interface Pooled {
  readonly tokens: number;
  /** Of their tokens as a receipt has them (docs/receipts.md §1), hex; absent where none is given. */
  readonly inputsSha256?: string | undefined;
}

export interface EngineStats {
  readonly queued: number;
  readonly active: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly cachedTokens: number;
  readonly decodeSteps: number;
}

export type OpenEngine = (spec: LoadSpec, signal: AbortSignal) => Promise<Engine>;

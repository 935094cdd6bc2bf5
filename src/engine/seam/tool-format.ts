// How a model writes tool calls. The grammar that enforces calls, the reader that finds them in an answer and
// the check that the model's template writes them so all work from this one description, which is data:
// open call (between call)* close, where `syntax` says how one call is written.

/** Every format: `generic` is ours, for a model whose template writes none that we know. */
export type ToolFormatKind =
  | 'apertus'
  | 'apriel'
  | 'cohere'
  | 'command-r-plus'
  | 'deepseek-r1'
  | 'deepseek-v3'
  | 'functionary'
  | 'functionary-recipient'
  | 'functools'
  | 'generic'
  | 'gigachat'
  | 'gigachat-token'
  | 'granite'
  | 'harmony'
  | 'hermes'
  | 'kimi-k2'
  | 'llama3'
  | 'minimax-m1'
  | 'mistral'
  | 'mistral-args'
  | 'mistral-call-id'
  | 'nemotron-v2'
  | 'solar';

export interface ToolFormat {
  readonly kind: ToolFormatKind;
  /** Text before the first call, between two of them, and after the last one. */
  readonly open: string;
  readonly between: string;
  readonly close: string;
  /** Text that begins a further message of the same answer; a call may stand in one of its own. */
  readonly turn: string;
  readonly syntax: CallSyntax;
  /** An answer holds one call at most. */
  readonly single: boolean;
  /** The first text that only a call has; where a lazy grammar begins. */
  readonly triggers: readonly string[];
  /** A call may begin inside the reasoning, which then ends there. */
  readonly inReasoning: boolean;
  /** Texts that frame the words of an answer and are no part of them. */
  readonly silent: readonly string[];
  /** Thoughts among the words of an answer: they are reasoning. */
  readonly aside: { readonly starts: readonly string[]; readonly end: string } | null;
}

export type CallSyntax = ObjectCall | NamedCall | TaggedCall | LiteralCall;

/** start {"name": N, "arguments": J} end */
export interface ObjectCall {
  readonly kind: 'object';
  readonly start: string;
  readonly end: string;
  /** The key of the name; null: the name is itself the key of the arguments, {"N": J}. */
  readonly name: 'name' | 'tool_name' | null;
  readonly arguments: 'arguments' | 'parameters';
  /** A key for an id: the first of the object, or one that may stand behind the arguments. */
  readonly id: { readonly at: 'first' | 'last'; readonly key: string; readonly form: CallIdForm } | null;
}

/** start N after J end, each of `wordings` one of the ways to write it */
export interface NamedCall {
  readonly kind: 'named';
  readonly wordings: readonly {
    readonly start: string;
    /** Between the name, or the id behind it, and the arguments. */
    readonly after: string;
  }[];
  readonly end: string;
  /**
   * An id before the name or behind it, with the text between the two; `around`: the whole, prefix N mark
   * number, is the id.
   */
  readonly id:
    | { readonly at: 'before' | 'behind'; readonly mark: string; readonly form: CallIdForm }
    | { readonly at: 'around'; readonly prefix: string; readonly mark: string; readonly form: 'number' }
    | null;
}

/** start N afterName (parameterStart K afterKey V parameterEnd)* end */
export interface TaggedCall {
  readonly kind: 'tagged';
  readonly start: string;
  readonly afterName: string;
  readonly parameterStart: string;
  readonly afterKey: string;
  readonly parameterEnd: string;
  readonly end: string;
}

/** start N afterName, arguments as a literal that is not JSON, end */
export interface LiteralCall {
  readonly kind: 'literal';
  readonly style: 'python' | 'bare-keys';
  readonly start: string;
  readonly afterName: string;
  readonly end: string;
}

/** Ids of calls: nine letters or digits; a number that the model counts up; any word. */
export type CallIdForm = 'nine' | 'number' | 'word';

/**
 * Where calls stand in an answer. From the first of them on the text is wire format, which no client reads.
 */
export interface CallMarks {
  /** Texts that begin a call. */
  readonly starts: readonly string[];
  /** True: the answer begins with a call or has none; false: words may come before it. */
  readonly anchored: boolean;
  /** The answer is calls only. */
  readonly only?: boolean | undefined;
}

/** Most formats have this in common. */
export const PLAIN_FORMAT = {
  open: '',
  between: '',
  close: '',
  turn: '',
  single: false,
  inReasoning: false,
  silent: [],
  aside: null,
} as const;

export const TAGGED_OBJECT: ObjectCall = {
  kind: 'object',
  start: '<tool_call>\n',
  end: '\n</tool_call>',
  name: 'name',
  arguments: 'arguments',
  id: null,
};

export const GENERIC_TOOL_FORMAT: ToolFormat = {
  ...PLAIN_FORMAT,
  kind: 'generic',
  between: '\n',
  syntax: TAGGED_OBJECT,
  triggers: ['<tool_call>'],
};

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
  | 'deepseek-v3.2'
  | 'deepseek-v4'
  | 'functionary'
  | 'functionary-recipient'
  | 'functools'
  | 'gemma4'
  | 'generic'
  | 'gigachat'
  | 'gigachat-token'
  | 'glm'
  | 'glm-lines'
  | 'granite'
  | 'harmony'
  | 'hermes'
  | 'hunyuan'
  | 'kimi-k2'
  | 'kimi-k3'
  | 'lfm2'
  | 'llama3'
  | 'minicpm5'
  | 'minimax-m1'
  | 'minimax-m2'
  | 'minimax-m3'
  | 'mistral'
  | 'mistral-args'
  | 'mistral-call-id'
  | 'muse'
  | 'nemotron-v2'
  | 'python'
  | 'qwen3-coder'
  | 'seed-oss'
  | 'solar'
  | 'stepfun';

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
  /** The first text that only a call has, where a lazy grammar begins; NAME_PLACE in it is a tool's name. */
  readonly triggers: readonly string[];
  /** A call may begin inside the reasoning, which then ends there. */
  readonly inReasoning: boolean;
  /** Texts that frame the words of an answer and are no part of them. */
  readonly silent: readonly string[];
  /** Thoughts among the words of an answer: they are reasoning. */
  readonly aside: { readonly starts: readonly string[]; readonly end: string } | null;
  /**
   * The prompt ends with a mark behind which the answer names its recipient: a tool, or by `words` the user.
   * Where tools are offered the model writes the mark itself, else the prompt goes on to the words.
   */
  readonly addressed: { readonly mark: string; readonly words: string } | null;
}

export type CallSyntax = ObjectCall | NamedCall | TaggedCall | ElementCall | LiteralCall;

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

/**
 * start N afterName (parameterStart K afterKey V parameterEnd)* end. Strings are written as they are, up to
 * the whole of parameterEnd, other values as JSON.
 */
export interface TaggedCall {
  readonly kind: 'tagged';
  readonly start: string;
  /** The beginning of `start` that a model may leave out; '' where none does. */
  readonly optional: string;
  /** The text between the name and the name once more, where it is written twice; else null. */
  readonly again: string | null;
  readonly afterName: string;
  /** The text after the number of the call, which stands behind afterName; null where calls have none. */
  readonly afterNumber: string | null;
  readonly parameterStart: string;
  readonly afterKey: string;
  /**
   * A word for the type of the value, behind afterKey; null: the schema of the tool tells a string from JSON.
   */
  readonly typed: TypeWords | null;
  readonly parameterEnd: string;
  /** Marks around a string that holds one of `needs`; null: no string has any. */
  readonly quoted: {
    readonly open: string;
    readonly close: string;
    readonly needs: readonly string[];
  } | null;
  readonly end: string;
}

export interface TypeWords {
  readonly string: string;
  readonly number: string;
  readonly boolean: string;
  readonly null: string;
  readonly object: string;
  readonly array: string;
  /** The text after the word. */
  readonly after: string;
}

/**
 * start N afterName V end. An object is mark<K>V mark</K> for each member, an array mark<item>V mark</item>
 * for each item; strings are written as they are, other values as JSON.
 */
export interface ElementCall {
  readonly kind: 'elements';
  readonly start: string;
  readonly afterName: string;
  readonly mark: string;
  readonly end: string;
}

/**
 * start N afterName arguments end. `bare`: {K:V,…} with bare keys, its strings as they are between two
 * quotes; `python`: K=V, … with literals of Python or of JSON.
 */
export interface LiteralCall {
  readonly kind: 'literal';
  readonly start: string;
  readonly afterName: string;
  readonly form: { readonly kind: 'bare'; readonly quote: string } | { readonly kind: 'python' };
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

/** In a trigger this stands for the name of each tool. */
export const NAME_PLACE = '\u0000';

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
  addressed: null,
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

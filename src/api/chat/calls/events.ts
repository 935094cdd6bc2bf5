// Words and calls of tools, as a reader finds them in an answer.

export type ToolEvent =
  | { readonly kind: 'content' | 'reasoning'; readonly text: string }
  /** A new call, with the id the model gives it where its format has one; its arguments follow. */
  | { readonly kind: 'call'; readonly name: string; readonly id?: string | undefined }
  /** More of the arguments of the newest call. */
  | { readonly kind: 'arguments'; readonly text: string };

export interface ToolReader {
  push(text: string): readonly ToolEvent[];
  /**
   * The text that was held back. `cut`: a limit ended the answer, so text that may be the framing of a call
   * is not content. A call whose arguments have begun comes out as far as it went, one that has no
   * arguments yet not at all.
   */
  end(cut?: boolean): readonly ToolEvent[];
  /** The arguments of the newest call have not ended. */
  readonly unfinished: boolean;
}

/** The tools of a request, for a reader. */
export interface Callable {
  readonly name: string;
  /** JSON schema of the arguments. */
  readonly parameters: unknown;
  /** False: the schema may be in any dialect. */
  readonly strict?: boolean | undefined;
}

// Pulling models from a hub: name → file and digest through the hub's API, download with resume, verify, register.
// One pull per name at a time; whoever asks again joins it; only `cancel` (or close) ends it early.

/** What a client is told while a pull runs; `type` is the SSE payload's `status`. At most ten `downloading` a second. */
export type PullEvent =
  | { readonly type: 'resuming'; readonly offset: number; readonly total: number }
  | { readonly type: 'downloading'; readonly completed: number; readonly total: number; readonly bytesPerSecond: number }
  | { readonly type: 'verifying' }
  | { readonly type: 'success'; readonly id: string; readonly sha256: string; readonly size: number }
  | { readonly type: 'already_exists'; readonly id: string; readonly sha256: string }
  | { readonly type: 'error'; readonly code: string; readonly message: string };

/** Persisted in pulls/<sha256 of the name>.json. Times are RFC 3339. */
export interface PullState {
  readonly name: string;
  readonly status: 'pulling' | 'done' | 'failed';
  readonly completed: number;
  readonly total: number;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly startedAt: string;
  readonly finishedAt: string | null;
}

export interface PullRequest {
  /** `owner/repo:QUANT`, `owner/repo/file.gguf`, either with `@revision`. 400 `invalid_model_name` otherwise. */
  readonly name: string;
  /** Pull again even when the model is registered; other bytes then replace it. */
  readonly force?: boolean;
  /** Hub token for this pull; never logged or stored. */
  readonly token?: string;
}

export interface PullService {
  /**
   * Starts or joins. The iterable begins with where the pull stands now, ends after `success`, `already_exists` or `error`,
   * and may be left at any time without harm to the pull. Throws ApiError only for a name that cannot be one.
   */
  pull(request: PullRequest): AsyncIterable<PullEvent>;
  /** undefined → 404 `pull_state_not_found`. */
  status(name: string): Promise<PullState | undefined>;
  /** Ends a running pull (its partial file stays for a later resume); false when none runs. */
  cancel(name: string): Promise<boolean>;
  /** Stops everything; partial files and states stay. */
  close(): Promise<void>;
}

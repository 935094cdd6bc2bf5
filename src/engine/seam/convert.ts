// The order of a conversion and its result, as the server and the process that converts know them.

import type { TaskOrder } from './task.ts';

export type ConvertType = 'auto' | 'f32' | 'f16' | 'bf16';

/** The base of a PEFT folder, as it decides how the adapter is written. */
export interface ConvertedBase {
  readonly architecture: string;
  readonly layers: number;
  readonly heads: number;
  readonly headsKv: number;
}

/** The two files of a model that sees. */
export type ConvertPart = 'text' | 'projector';

export interface ConvertOrder extends TaskOrder {
  readonly type: ConvertType;
  /** Absent: the folder is one of text alone, or an adapter. */
  readonly part?: ConvertPart | undefined;
  /** Present: the folder is an adapter of it. */
  readonly base?: ConvertedBase | undefined;
  /** By path below the folder, in the order of their descriptors. */
  readonly sources: readonly { readonly name: string; readonly size: number }[];
  /** Names of files that are not opened, so that a refusal can name one. */
  readonly unopened: readonly string[];
}

export interface ConvertedModel {
  readonly architecture: string;
  readonly type: string;
  readonly tensors: number;
  readonly bytes: number;
}

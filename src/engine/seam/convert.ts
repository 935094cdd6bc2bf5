// A conversion as the server asks for it, and its order and result, as the process that converts knows them.

import type { TaskOrder } from './task.ts';

export type ConvertType = 'auto' | 'f32' | 'f16' | 'bf16';

export interface ConvertOrder extends TaskOrder {
  readonly type: ConvertType;
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

export interface ConvertRequest {
  readonly type: ConvertType;
  /** Open for reading; they stay the caller's. */
  readonly sources: readonly { readonly name: string; readonly size: number; readonly fd: number }[];
  /** Open for writing, empty. */
  readonly outputFd: number;
  readonly unopened?: readonly string[] | undefined;
  readonly onProgress?: ((written: number, total: number) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type ConvertModel = (request: ConvertRequest) => Promise<ConvertedModel>;

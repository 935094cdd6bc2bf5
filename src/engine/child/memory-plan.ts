// How much KV memory a model gets on this machine, and how its context is laid out in it.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { LoadedModel } from './llama/model.ts';

/** KV memory up to which a small model gets exact numerics by default. */
const EXACT_BYTES = 128 * 1024 * 1024;

export interface MemoryPlan {
  /** Cells of the KV memory, all sequences together. */
  readonly cells: number;
  /** One pool for all sequences; else each has its own part. */
  readonly unified: boolean;
  readonly exact: boolean;
  readonly batchTokens: number;
}

export interface MemoryNeeds {
  readonly generating: boolean;
  readonly contextLength: number;
  readonly slots: number;
  /** Bytes of the machine. */
  readonly memory: number;
  readonly maxCells: number | undefined;
  readonly exact: boolean | undefined;
}

export function planMemory(model: LoadedModel, needs: MemoryNeeds): MemoryPlan {
  const length = roundUp(needs.contextLength);
  const perCell = cellBytes(model);
  if (!needs.generating)
    return { cells: length, unified: true, exact: needs.exact ?? false, batchTokens: length };
  const affordable = Math.min(needs.maxCells ?? Infinity, Math.floor(needs.memory / 4 / perCell));
  const { cells, unified } = kvCells(needs.contextLength, needs.slots, affordable);
  const exact = needs.exact ?? cells * perCell * 2 <= EXACT_BYTES;
  return { cells, unified, exact, batchTokens: Math.min(512, length) };
}

function roundUp(count: number): number {
  return Math.ceil(count / 256) * 256;
}

/** Bytes of keys and values of one token, at two bytes a number. */
function cellBytes(model: LoadedModel): number {
  const meta = (key: string): number => Number(model.meta(`${model.architecture}.${key}`) ?? NaN);
  const heads = meta('attention.head_count') || 1;
  const keyLength = meta('attention.key_length') || meta('embedding_length') / heads || 128;
  const valueLength = meta('attention.value_length') || keyLength;
  const kvHeads = meta('attention.head_count_kv') || heads;
  return model.layers * kvHeads * (keyLength + valueLength) * 2;
}

/**
 * Cells for every slot at full length if as many are affordable (a quarter of the memory); each slot then has its own, and
 * attention never walks over cells of others (measured: a fifth of the prefill). Else one pool of the affordable
 * cells, at least those of one slot.
 */
function kvCells(
  contextLength: number,
  slots: number,
  affordable: number,
): { readonly cells: number; readonly unified: boolean } {
  const all = slots * roundUp(contextLength);
  return all <= affordable
    ? { cells: all, unified: false }
    : { cells: roundUp(Math.max(contextLength, affordable)) + 256, unified: true };
}

/** Bytes this process may have. */
export function memoryLimit(): number {
  try {
    const limit = Number(readFileSync('/sys/fs/cgroup/memory.max', 'utf8'));
    return Number.isFinite(limit) ? Math.min(limit, totalmem()) : totalmem();
  } catch {
    return totalmem();
  }
}

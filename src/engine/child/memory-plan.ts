// How much KV memory a model gets on this machine, and how its context is laid out in it.

import { readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import type { KvType } from '../seam/engine.ts';
import { ModelLoadError, type LoadedModel } from './llama/model.ts';

/** KV memory up to which a small model gets exact numerics by default. */
const EXACT_BYTES = 128 * 1024 * 1024;

export interface MemoryPlan {
  /** Cells of the KV memory, all sequences together. */
  readonly cells: number;
  /** One pool for all sequences; else each has its own part. */
  readonly unified: boolean;
  readonly exact: boolean;
  readonly kvType: KvType;
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
  readonly kvType: KvType | undefined;
}

/** Bytes of one number. Q8_0 keeps 32 of them in a block of 34 bytes. */
const NUMBER_BYTES = { f16: 2, q8_0: 34 / 32 } as const;
const Q8_BLOCK = 32;

export function planMemory(model: LoadedModel, needs: MemoryNeeds): MemoryPlan {
  const length = roundUp(needs.contextLength);
  const kvType = needs.kvType ?? 'f16';
  if (kvType === 'q8_0') refuseQuantised(model, needs);
  const perCell = cellNumbers(model) * NUMBER_BYTES[kvType];
  if (!needs.generating)
    return { cells: length, unified: true, exact: needs.exact ?? false, kvType, batchTokens: length };
  const affordable = Math.min(needs.maxCells ?? Infinity, Math.floor(needs.memory / 4 / perCell));
  const { cells, unified } = kvCells(needs.contextLength, needs.slots, affordable);
  const small = needs.kvType === undefined && cells * perCell * 2 <= EXACT_BYTES;
  return { cells, unified, exact: needs.exact ?? small, kvType, batchTokens: Math.min(512, length) };
}

/** Requests that may run alone at once, where there is memory for as many. */
const MOST_LANES = 2;
/** Tokens of a chunk of a prompt that is read alone, on every machine. */
const LANE_CHUNK = 64;

export interface LanePlan {
  /** 0: the machine has no memory for one. */
  readonly lanes: number;
  readonly cells: number;
  readonly batchTokens: number;
}

/** Lanes of one sequence with f32 keys and values, in an eighth of the memory. */
export function planLanes(
  model: LoadedModel,
  { contextLength, memory }: Pick<MemoryNeeds, 'contextLength' | 'memory'>,
): LanePlan {
  const cells = roundUp(contextLength);
  const affordable = Math.floor(memory / 8 / (cells * cellNumbers(model) * 4));
  return { lanes: Math.min(MOST_LANES, affordable), cells, batchTokens: LANE_CHUNK };
}

/** llama.cpp would answer both with no context, and no reason. */
function refuseQuantised(model: LoadedModel, { exact }: MemoryNeeds): void {
  if (exact === true)
    throw new ModelLoadError('kv_type q8_0 rounds keys and values, which exact numerics exclude');
  const { keyLength, valueLength } = headWidths(model);
  for (const width of [keyLength, valueLength])
    if (width % Q8_BLOCK !== 0)
      throw new ModelLoadError(
        `attention heads of width ${width} are no whole blocks of ${Q8_BLOCK}, which kv_type q8_0 needs`,
      );
}

function roundUp(count: number): number {
  return Math.ceil(count / 256) * 256;
}

/** Numbers that the keys and values of one token are. */
function cellNumbers(model: LoadedModel): number {
  const { keyLength, valueLength } = headWidths(model);
  const heads = metaOf(model, 'attention.head_count') || 1;
  const kvHeads = metaOf(model, 'attention.head_count_kv') || heads;
  return model.layers * kvHeads * (keyLength + valueLength);
}

function headWidths(model: LoadedModel): { readonly keyLength: number; readonly valueLength: number } {
  const heads = metaOf(model, 'attention.head_count') || 1;
  const keyLength = metaOf(model, 'attention.key_length') || metaOf(model, 'embedding_length') / heads || 128;
  return { keyLength, valueLength: metaOf(model, 'attention.value_length') || keyLength };
}

/** NaN where the key is absent or no number. */
function metaOf(model: LoadedModel, key: string): number {
  return Number(model.meta(`${model.architecture}.${key}`) ?? NaN);
}

/**
 * Cells for every slot at full length if as many are affordable (a quarter of the memory); each slot then has
 * its own, and attention never walks over cells of others (measured: a fifth of the prefill). Else one pool
 * of the affordable cells, at least those of one slot.
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

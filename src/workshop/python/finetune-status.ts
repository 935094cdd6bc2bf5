// The means of training on this machine, and what of the hub's ecosystem is there: the answer of `GET
// /api/finetune/status`. CUDA counts only where a driver is, Unsloth is not part of the environment, and the
// hub is not asked: all of it is said rather than assumed.

import { existsSync } from 'node:fs';
import type { PythonEnvironment } from './environment.ts';
import { TOOL_PACKAGES } from './tools.ts';

const NVIDIA_DRIVER = '/proc/driver/nvidia/version';

interface Part {
  readonly available: boolean;
  readonly version: string | null;
  readonly note?: string | undefined;
}

export interface FinetuneStatus {
  /** A training would be taken: all packages are there, and the jail has the barriers it requires. */
  readonly ready: boolean;
  readonly backend: string;
  readonly cuda: Part;
  readonly unsloth: Part;
  readonly torch: Part;
  readonly transformers: Part;
  readonly peft: Part;
  readonly trl: Part;
  readonly bitsandbytes: Part;
  readonly huggingface_hub: Part;
  readonly datasets: Part;
  readonly accelerate: Part;
  readonly tokenizers: Part;
  readonly safetensors: Part;
  readonly hub: HubStatus & { readonly note: string };
  readonly export_formats: readonly string[];
  readonly missing: readonly string[];
  /** Makes what is missing; null where none is. */
  readonly command: string | null;
  /** Null where `ready`. */
  readonly reason: string | null;
}

/** The hub of this workshop, and whether models and data sets come from it and results go there. */
export interface HubStatus {
  readonly endpoint: string;
  readonly pull: boolean;
  readonly publish: boolean;
}

export interface FinetuneMeans {
  readonly hub: HubStatus;
  /** Why no training runs on this machine, whatever is installed. */
  readonly barred: string | null;
  readonly driver?: string | undefined;
}

export const EXPORTS = ['lora', 'safetensors', 'gguf', 'gguf_adapter'] as const;

export async function finetuneStatus(
  environment: PythonEnvironment,
  { hub, barred, driver = NVIDIA_DRIVER }: FinetuneMeans,
): Promise<FinetuneStatus> {
  const { state, missing, command, reason } = await environment.status();
  const absent = new Map(missing.map(({ name, found }) => [name, found]));
  const part = (name: string): Part =>
    absent.has(name)
      ? { available: false, version: absent.get(name) ?? null }
      : { available: true, version: environment.version(name) };
  const cuda = existsSync(driver);
  const whole = state === 'ready';
  return {
    ready: whole && barred === null,
    backend: 'peft + trl',
    cuda: {
      available: cuda,
      version: null,
      note: cuda ? 'a driver is loaded' : 'no NVIDIA driver: trains on the CPU, and use_4bit falls to false',
    },
    unsloth: {
      available: false,
      version: null,
      note: 'not in the environment: it needs a GPU; LoRA is trained with peft and trl instead',
    },
    torch: part('torch'),
    transformers: part('transformers'),
    peft: part('peft'),
    trl: part('trl'),
    bitsandbytes: {
      available: false,
      version: null,
      note: 'not in the environment: weights are trained over as 32-bit floats',
    },
    huggingface_hub: part('huggingface-hub'),
    datasets: part('datasets'),
    accelerate: part('accelerate'),
    tokenizers: part('tokenizers'),
    safetensors: part('safetensors'),
    hub: {
      ...hub,
      note: 'as configured: the hub is not asked. The workshop itself speaks to it; jobs have no network',
    },
    export_formats: EXPORTS,
    missing: TOOL_PACKAGES.finetune.filter((name) => absent.has(name)),
    command: whole ? null : command,
    reason: whole ? barred : (reason ?? 'the environment is incomplete'),
  };
}

// Requirements of libmtmd on a projector (clip_model_loader and the graphs of tools/mtmd in the pinned
// llama.cpp), checked against its header before an engine reads the file: value types it asserts on, sizes
// that it divides and allocates by, shapes that would only fail while an image is computed. Each kind that is
// served has rules of its own. Another is named, not an error, and then not used.

import { invalidGguf } from './bytes.ts';
import { settingsOf, type Settings } from './check.ts';
import type { GgufHeader } from './header.ts';
import { ProjectorFile } from './projector-file.ts';
import { KINDS, type KindFacts } from './projector-kinds.ts';

/** The facts of a projector that the server uses; numbers are 0 where it is not served. */
export interface ProjectorFacts extends KindFacts {
  /** `idefics3`, `qwen2.5vl_merger` …; a file may say anything here. */
  readonly kind: string;
  readonly served: boolean;
}

export const SERVED_KINDS: readonly string[] = [...KINDS.keys()];

export function isProjector({ metadata }: GgufHeader): boolean {
  const settings = settingsOf(metadata);
  const kind = settings.string('general.type');
  return kind === 'mmproj' || kind === 'clip-vision' || settings.string('general.architecture') === 'clip';
}

/** 400 invalid_gguf where it is no projector, or a served kind that cannot be right. */
export function inspectProjector(header: GgufHeader): ProjectorFacts {
  if (!isProjector(header)) throw invalidGguf('it is no multimodal projector');
  const settings = settingsOf(header.metadata);
  const kind =
    settings.string('clip.projector_type') ?? settings.string('clip.vision.projector_type') ?? 'unknown';
  const shown = /^[\w.-]{1,40}$/.test(kind) ? kind : 'unknown';
  const check = KINDS.get(kind);
  if (check === undefined) return { kind: shown, served: false, vectorPixels: 0, grid: false, width: 0 };
  checkCommon(settings);
  const file = new ProjectorFile(header, kind);
  const facts = check(file);
  file.end();
  return { kind, served: true, ...facts };
}

/** Keys that the loader reads whatever the kind is. */
function checkCommon(settings: Settings): void {
  if (settings.bool('clip.has_vision_encoder') !== true)
    throw invalidGguf('clip.has_vision_encoder is not true');
  for (const other of ['clip.has_audio_encoder', 'clip.has_gen_audio_encoder'])
    if (settings.bool(other) === true) throw invalidGguf(`${other} is true: only images are taken`);
  if (settings.bool('clip.use_gelu') === true && settings.bool('clip.use_silu') === true)
    throw invalidGguf('clip.use_gelu and clip.use_silu are both true');
  for (const key of ['general.name', 'general.description']) settings.string(key);
  const epsilon = settings.f32('clip.vision.attention.layer_norm_epsilon');
  if (epsilon === undefined || !(epsilon >= 0 && epsilon < 1))
    throw invalidGguf(`clip.vision.attention.layer_norm_epsilon is ${epsilon ?? 'missing'}`);
  for (const name of ['image_mean', 'image_std']) {
    const list = settings.array(`clip.vision.${name}`, ['f32']);
    const numbers = list?.numbers ?? [];
    if (list?.count !== 3 || !numbers.every((each) => Number.isFinite(each)))
      throw invalidGguf(`clip.vision.${name} has not three numbers`);
    if (name === 'image_std' && numbers.some((each) => each <= 0))
      throw invalidGguf(`clip.vision.${name} has a number that is not positive`);
  }
}

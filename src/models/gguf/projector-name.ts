// Multimodal projectors beside a model, told by their names as the converters write them:
// `mmproj-MODEL-f16.gguf`, `MODEL.mmproj-Q8_0.gguf`. Of several for one model one is taken.

const WORD = /(?:^|[^a-z0-9])(?:mmproj|projector|vision[-_.]?(?:tower|encoder))(?:$|[^a-z0-9])/;
/** Half the size of F32, and what the converters write unless told otherwise. */
const PREFERRED = [/(?:^|[^a-z0-9])f16(?:$|[^a-z0-9])/, /bf16/, /f32/, /q8_0/];

export function isProjectorName(name: string): boolean {
  return WORD.test(name.toLowerCase());
}

/** Of projectors for the same model; undefined of none. */
export function chooseProjector<T extends { readonly name: string }>(
  projectors: readonly T[],
): T | undefined {
  const sorted = projectors.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for (const type of PREFERRED) {
    const found = sorted.find(({ name }) => type.test(name.toLowerCase()));
    if (found !== undefined) return found;
  }
  return sorted[0];
}

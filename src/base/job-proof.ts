// Bounds of what a registration brings to show which job made its files (docs/workshop.md, "Admission").

/** Characters of a job's record in base64. */
export const MAX_RECORD = 700_000;
/** Characters of its evidence. */
export const MAX_EVIDENCE = 1024 * 1024;

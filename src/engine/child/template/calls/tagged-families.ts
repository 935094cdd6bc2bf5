// Families whose arguments are not one JSON object: tagged parameters, and literals of other languages.

import type { ToolFamily } from './family.ts';

export const TAGGED_FAMILIES: readonly ToolFamily[] = [];

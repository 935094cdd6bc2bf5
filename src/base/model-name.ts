// The form of a model id: plain ASCII without path tricks, so that no two ids look alike and none leads out
// of a folder. The configuration, the API and the store hold ids to the same rule.

const MAX_NAME_CHARACTERS = 200;
/** Words that are routes below /v1/models (http-api.md). */
const RESERVED = new Set(['pull', 'load', 'unload', 'status']);

/** Why this is no model id, as the end of a sentence about the name; undefined when it is one. */
export function modelNameProblem(name: unknown): string | undefined {
  if (typeof name !== 'string') return 'must be a string';
  if (name.length === 0) return 'is empty';
  if (name.length > MAX_NAME_CHARACTERS)
    return `has ${name.length} characters, at most ${MAX_NAME_CHARACTERS} are accepted`;
  if (!/^[A-Za-z0-9._:/@+-]+$/.test(name)) return 'may hold only the characters A-Z a-z 0-9 . _ : / @ + -';
  if (!/^[A-Za-z0-9]/.test(name)) return 'must begin with a letter or digit';
  if (name.split('/').some((part) => part === '' || part === '.' || part === '..'))
    return 'has an empty, "." or ".." part';
  if (name.includes('..')) return 'contains ".."';
  return RESERVED.has(name) ? 'is a reserved word' : undefined;
}

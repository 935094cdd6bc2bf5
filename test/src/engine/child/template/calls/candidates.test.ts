// Which formats a template's source may stand for, before a rendering decides.

import { expect, test } from 'vitest';
import { candidateFamilies } from '../../../../../../src/engine/child/template/calls/candidates.ts';

test.each([
  ['{% for m in messages %}', []],
  ['{{ tools }} <tool_call>', ['hermes']],
  ['{{ tools }} <|python_tag|>', ['llama3']],
  ['{% if tools %}"parameters"{% endif %}<|eot_id|>', ['llama3']],
  ['{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS]', ['mistral']],
])('%s', (source, kinds) => {
  const found = candidateFamilies(source).map(({ format }) => format.kind);
  for (const kind of kinds) expect(found).toContain(kind);
  if (kinds.length === 0) expect(found).toEqual([]);
});

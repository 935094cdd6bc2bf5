// Variables that a request sets in the chat template of its model: `chat_template_kwargs` as local servers know it, and the two
// parameters that switch thinking off. A template that does not read a variable renders as without it.

import { anyObject, flag, map, optional, optionalOrEmpty, refuse } from '../../base/shape.ts';
import type { Read } from '../../base/shape.ts';
import { supportedAs } from '../unsupported.ts';

const MAX_VARIABLES = 64;
/** Names the template gets from the server: a request that set one would not get what it asked for. */
const TAKEN: ReadonlySet<string> = new Set([
  'messages',
  'tools',
  'documents',
  'functions',
  'datetime',
  'bos_token',
  'eos_token',
  'add_generation_prompt',
  'raise_exception',
  'strftime_now',
  'range',
]);
/** This happens without the parameter too. */
const AS_USUAL: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ['add_generation_prompt', true],
  ['continue_final_message', false],
  ['tokenize', false],
]);

const variables = map(
  anyObject('Variables for the chat template of the model, such as `enable_thinking`.'),
  (given, path): Readonly<Record<string, unknown>> => {
    const entries = Object.entries(given).filter(([name, value]) => AS_USUAL.get(name) !== value);
    if (entries.length > MAX_VARIABLES)
      throw refuse(
        'invalid_value',
        path,
        `${path} has too many variables, expected at most ${MAX_VARIABLES}`,
      );
    for (const [name] of entries) {
      if (!/^[A-Za-z_]\w{0,63}$/.test(name))
        throw refuse('invalid_value', path, `${path} has a name that no template can read`);
      if (TAKEN.has(name) || AS_USUAL.has(name))
        throw refuse('unsupported_parameter', `${path}.${name}`, `${path}.${name} is set by the server`);
    }
    return Object.fromEntries(entries);
  },
);

export const templateFields = {
  chat_template_kwargs: optionalOrEmpty(variables),
  enable_thinking: optional(
    flag('Switches the thinking of the model on or off, where its chat template has a switch.'),
  ),
  reasoning_effort: supportedAs(['none'], 'The same as `enable_thinking: false`. Other values are refused.'),
} as const;

/** Templates know the switch by either name. */
const SWITCHES = ['enable_thinking', 'thinking'] as const;

/** Undefined: the request sets no variable. */
export function templateVariables(
  body: Read<typeof templateFields>,
): Readonly<Record<string, unknown>> | undefined {
  const { chat_template_kwargs: given = {}, enable_thinking: asked, reasoning_effort: effort } = body;
  if (effort === 'none' && asked === true)
    throw refuse('invalid_value', 'enable_thinking', 'enable_thinking and reasoning_effort differ');
  const thinking = effort === 'none' ? false : asked;
  const result: Record<string, unknown> = { ...given };
  for (const name of SWITCHES) {
    if (thinking === undefined) break;
    if (typeof given[name] === 'boolean' && given[name] !== thinking) {
      const param = `chat_template_kwargs.${name}`;
      throw refuse(
        'invalid_value',
        param,
        `${param} says another thing than ${effort === 'none' ? 'reasoning_effort' : 'enable_thinking'}`,
      );
    }
    result[name] ??= thinking;
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

// Variables that a request sets in the chat template of its model: `chat_template_kwargs` as local servers
// know it, and the parameters by which APIs switch thinking on and off. A template that does not read a
// variable renders as without it.

import {
  anyObject,
  choice,
  flag,
  integer,
  map,
  object,
  optional,
  optionalOrEmpty,
  refuse,
} from '../../base/shape.ts';
import type { Read, Shape } from '../../base/shape.ts';
import { asUsual } from '../unsupported.ts';

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
  'namespace',
  'loop',
  'self',
  'true',
  'false',
  'none',
  'True',
  'False',
  'None',
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

const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh'] as const;

function budget(about: string): Shape<number> {
  return integer({ min: 0, max: 1_000_000, about });
}

export const templateFields = {
  chat_template_kwargs: optionalOrEmpty(variables),
  enable_thinking: optional(
    flag('Switches the thinking of the model on or off, where its chat template has a switch.'),
  ),
  reasoning_effort: optionalOrEmpty(
    choice(
      EFFORTS,
      '`none` is the same as `enable_thinking: false`, any other value as `true`; the template gets the value too. A model without reasoning takes `none` only.',
    ),
  ),
  thinking_budget: optional(budget('Tokens of reasoning, after which it is closed and the answer begins.')),
  think: optional(flag('The same as `enable_thinking`.')),
  thinking: optionalOrEmpty(
    object(
      {
        type: choice(['enabled', 'disabled', 'adaptive']),
        budget_tokens: optional(budget('The same as `thinking_budget`.')),
      },
      '`type`: the same as `enable_thinking` true or false; `adaptive` leaves it to the model.',
    ),
  ),
  reasoning: optionalOrEmpty(
    object(
      {
        effort: optionalOrEmpty(choice(EFFORTS, 'The same as `reasoning_effort`.')),
        enabled: optional(flag('The same as `enable_thinking`.')),
        max_tokens: optional(budget('The same as `thinking_budget`.')),
        exclude: asUsual(false),
      },
      '`effort`: the same as `reasoning_effort`; `enabled`: the same as `enable_thinking`.',
    ),
  ),
} as const;

type Thinking = Read<typeof templateFields>;

/** The effort of a request, under either of its names. */
export function effortOf(body: Thinking): (typeof EFFORTS)[number] | undefined {
  return body.reasoning_effort ?? body.reasoning?.effort;
}

function switchOf(effort: (typeof EFFORTS)[number] | undefined): boolean | undefined {
  return effort === undefined ? undefined : effort !== 'none';
}

const THINKS = { enabled: true, disabled: false, adaptive: undefined } as const;

/** The budget of a request, by any of its names; two that differ are refused. */
export function budgetOf(body: Thinking): number | undefined {
  const given = [
    ['thinking_budget', body.thinking_budget],
    ['thinking.budget_tokens', body.thinking?.budget_tokens],
    ['reasoning.max_tokens', body.reasoning?.max_tokens],
  ] as const;
  const [first, ...others] = given.filter(([, tokens]) => tokens !== undefined);
  const other = others.find(([, tokens]) => tokens !== first?.[1]);
  if (first !== undefined && other !== undefined)
    throw refuse('invalid_value', other[0], `${first[0]} and ${other[0]} differ`);
  return first?.[1];
}

/** Every way to say whether the model is to think. */
const ASKED: readonly (readonly [name: string, (body: Thinking) => boolean | undefined])[] = [
  ['reasoning_effort', (body) => switchOf(body.reasoning_effort)],
  ['enable_thinking', (body) => body.enable_thinking],
  ['think', (body) => body.think],
  ['thinking', ({ thinking }) => THINKS[thinking?.type ?? 'adaptive']],
  ['reasoning.effort', (body) => switchOf(body.reasoning?.effort)],
  ['reasoning.enabled', (body) => body.reasoning?.enabled],
];

/** The wish of a request and the name it came by; two names that differ are refused. */
function thinkingOf(body: Thinking): { readonly name: string; readonly on: boolean } | undefined {
  let asked: { readonly name: string; readonly on: boolean } | undefined;
  for (const [name, read] of ASKED) {
    const on = read(body);
    if (on !== undefined && asked !== undefined && on !== asked.on)
      throw refuse('invalid_value', name, `${asked.name} and ${name} differ`);
    if (on !== undefined) asked ??= { name, on };
  }
  return asked;
}

/** Templates know the switch by either name. */
const SWITCHES = ['enable_thinking', 'thinking'] as const;

/** Undefined: the request sets nothing. */
export function templateVariables(body: Thinking): Readonly<Record<string, unknown>> | undefined {
  const { chat_template_kwargs: given = {} } = body;
  const thinking = thinkingOf(body);
  const result: Record<string, unknown> = { ...given };
  const effort = effortOf(body);
  // Templates know low, medium and high.
  const level = effort === 'minimal' ? 'low' : effort;
  if (level !== undefined && level !== 'none')
    result['reasoning_effort'] ??= level === 'xhigh' ? 'high' : level;
  for (const name of SWITCHES) {
    if (thinking === undefined) break;
    if (typeof given[name] === 'boolean' && given[name] !== thinking.on) {
      const param = `chat_template_kwargs.${name}`;
      throw refuse('invalid_value', param, `${param} says another thing than ${thinking.name}`);
    }
    result[name] ??= thinking.on;
  }
  return Object.keys(result).length === 0 ? undefined : result;
}

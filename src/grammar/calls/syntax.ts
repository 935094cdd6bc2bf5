// How a call is written in the syntax of a format (engine/seam/tool-format), as grammar; its arguments are
// compiled in the notation of that syntax.

import type {
  CallIdForm,
  CallSyntax,
  ElementCall,
  LiteralCall,
  NamedCall,
  ObjectCall,
  TaggedCall,
} from '../../engine/seam/tool-format.ts';
import { SPACE } from '../any-value.ts';
import { alternatives, terminal, type Expression, type GrammarBuilder } from '../gbnf.ts';

/** A tool: its name, and the expression of its arguments in the form of the syntax. */
export interface CallBody {
  readonly name: string;
  readonly body: Expression;
}

/** One call of one of the tools. */
// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
export function callExpression(
  builder: GrammarBuilder,
  syntax: CallSyntax,
  tools: readonly CallBody[],
): Expression {
  switch (syntax.kind) {
    case 'object':
      return objectCall(builder, syntax, tools);
    case 'named':
      return namedCall(builder, syntax, tools);
    case 'tagged':
      return taggedCall(builder, syntax, tools);
    case 'elements':
    case 'literal':
      return plainCall(builder, syntax, tools);
  }
}

/** The text as members of a sequence: none for an empty one. */
export function written(text: string): readonly Expression[] {
  return text === '' ? [] : [terminal(text)];
}

/** A blank at the head of a text is the tokenizer's: it may be left out. */
export function opening(text: string): readonly Expression[] {
  return text.startsWith(' ') ? [SPACE, ...written(text.slice(1))] : written(text);
}

function objectCall(builder: GrammarBuilder, syntax: ObjectCall, tools: readonly CallBody[]): Expression {
  const { id, name: nameKey, arguments: argumentsKey } = syntax;
  const member = (key: string): Expression => `${terminal(`${JSON.stringify(key)}:`)} ${SPACE}`;
  const idMember = id === null ? '' : `${member(id.key)} "\\"" ${idExpression(id.form)} "\\""`;
  const first = id?.at === 'first' ? [`${idMember} "," ${SPACE}`] : [];
  const last = id?.at === 'last' ? [`("," ${SPACE} ${idMember})?`] : [];
  const calls = tools.map(({ name, body }) => {
    const named =
      nameKey === null
        ? [member(name)]
        : [member(nameKey), terminal(JSON.stringify(name)), `"," ${SPACE}`, member(argumentsKey)];
    return builder.rule(`call-${name}`, ['"{"', ...first, ...named, body, ...last, '"}"'].join(' '));
  });
  return framed(builder, syntax, calls);
}

function namedCall(builder: GrammarBuilder, syntax: NamedCall, tools: readonly CallBody[]): Expression {
  const { id } = syntax;
  const before: Expression[] = [];
  const behind: Expression[] = [];
  if (id?.at === 'before') before.push(idExpression(id.form), ...written(id.mark));
  if (id?.at === 'around') before.push(...written(id.prefix));
  if (id?.at === 'around' || id?.at === 'behind') behind.push(...written(id.mark), idExpression(id.form));
  const calls = tools.map(({ name, body }) => {
    const ways = syntax.wordings.map(({ start, after }) =>
      [...opening(start), ...before, terminal(name), ...behind, ...written(after)].join(' '),
    );
    return builder.rule(`call-${name}`, `${alternatives(ways)} ${body}`);
  });
  return framed(builder, { start: '', end: syntax.end }, calls);
}

function taggedCall(builder: GrammarBuilder, syntax: TaggedCall, tools: readonly CallBody[]): Expression {
  const { start, optional, again, afterName, afterNumber, end } = syntax;
  const number = afterNumber === null ? [] : [idExpression('number'), ...written(afterNumber)];
  const calls = tools.map(({ name, body }) => {
    const named = (again === null ? name : name + again + name) + afterName;
    return builder.rule(`call-${name}`, [terminal(named), ...number, body].join(' '));
  });
  const begun = optional === '' ? [] : [`${terminal(optional)}?`];
  const call = [...begun, ...opening(start.slice(optional.length)), alternatives(calls), ...written(end)];
  return builder.rule('call', call.join(' '));
}

function plainCall(
  builder: GrammarBuilder,
  syntax: ElementCall | LiteralCall,
  tools: readonly CallBody[],
): Expression {
  const calls = tools.map(({ name, body }) =>
    builder.rule(`call-${name}`, [terminal(name), ...written(syntax.afterName), body].join(' ')),
  );
  return framed(builder, syntax, calls);
}

function framed(
  builder: GrammarBuilder,
  { start, end }: { readonly start: string; readonly end: string },
  calls: readonly Expression[],
): Expression {
  return builder.rule('call', [...written(start), alternatives(calls), ...written(end)].join(' '));
}

// oxlint-disable-next-line typescript/consistent-return -- the switch is exhaustive
function idExpression(form: CallIdForm): Expression {
  switch (form) {
    case 'nine':
      return '[a-zA-Z0-9]{9}';
    case 'number':
      return '[0-9]{1,4}';
    case 'word':
      return '[a-zA-Z0-9_-]{1,64}';
  }
}

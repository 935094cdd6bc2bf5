// JSON of any shape: the rules that schemas without constraints share.

import { terminal, type Expression, type GrammarBuilder } from './gbnf.ts';
import { numberExpression } from './number.ts';
import { anyCharacter } from './pattern.ts';

/** Text that may stand after a bracket, a comma or a colon. */
export const SPACE = '" "?';

export interface AnyValue {
  readonly value: Expression;
  readonly object: Expression;
  readonly array: Expression;
  readonly string: Expression;
  readonly number: Expression;
  readonly integer: Expression;
  readonly boolean: Expression;
  readonly null: Expression;
}

/** Nesting is the grammar's own recursion. */
export function anyValue(builder: GrammarBuilder): AnyValue {
  const string = builder.rule('string', `"\\"" ${anyCharacter(builder)}* "\\""`);
  const number = numberExpression(builder, { integer: false });
  const value = builder.declare('value');
  const object = builder.rule(
    'object',
    `"{" ${SPACE} (${string} ":" ${SPACE} ${value} ("," ${SPACE} ${string} ":" ${SPACE} ${value})*)? ${SPACE} "}"`,
  );
  const array = builder.rule('array', `"[" (${value} ("," ${SPACE} ${value})*)? "]"`);
  builder.define(value, `${object} | ${array} | ${string} | ${number} | "true" | "false" | "null"`);
  return {
    value,
    object,
    array,
    string,
    number,
    // Written where they are used.
    get integer() {
      return numberExpression(builder, { integer: true });
    },
    get boolean() {
      return builder.rule('boolean', '"true" | "false"');
    },
    null: terminal('null'),
  };
}

// Values of any shape, in each notation: the rules that schemas without constraints share.

import { joined, verbatim, terminal, type Expression, type GrammarBuilder } from './gbnf.ts';
import { ANY_KNOWN, JSON_NOTATION, type Notation } from './notation.ts';
import { numberExpression } from './number.ts';
import { anyCharacter } from './pattern.ts';
import { rawText } from './raw-string.ts';
import { otherName } from './words.ts';

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

/** Values in JSON. Nesting is the grammar's own recursion. */
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

/** Values in a notation; `known` are those of notations by their id, JSON's among them. */
export function anyIn(builder: GrammarBuilder, notation: Notation, known: Map<string, AnyValue>): AnyValue {
  const found = known.get(notation.id);
  if (found !== undefined) return found;
  if (notation.id === JSON_NOTATION.id) {
    const json = anyValue(builder);
    known.set(notation.id, json);
    return json;
  }
  return new AnyWriter(builder, notation, known).values();
}

class AnyWriter {
  readonly #builder: GrammarBuilder;
  readonly #notation: Notation;
  readonly #known: Map<string, AnyValue>;

  constructor(builder: GrammarBuilder, notation: Notation, known: Map<string, AnyValue>) {
    this.#builder = builder;
    this.#notation = notation;
    this.#known = known;
  }

  values(): AnyValue {
    const builder = this.#builder;
    const notation = this.#notation;
    const json = anyIn(builder, JSON_NOTATION, this.#known);
    const inOther = notation.containers === null ? null : anyIn(builder, notation.containers, this.#known);
    const value = builder.declare('value');
    const string =
      notation.strings === null ? this.#typed('string', json.string) : rawText(builder, notation);
    const values: AnyValue = {
      value,
      string,
      number: this.#typed('number', json.number),
      integer: this.#typed('integer', json.integer),
      boolean: this.#typed('boolean', this.#words([...notation.words.true, ...notation.words.false])),
      null: this.#typed('null', this.#words(notation.words.null)),
      object: builder.declare('object'),
      array: builder.declare('array'),
    };
    this.#known.set(notation.id, values);
    const object = inOther === null ? this.#object(json) : this.#typed('object', inOther.object);
    const array = inOther === null ? this.#array(json) : this.#typed('array', inOther.array);
    builder.define(values.object, object);
    builder.define(values.array, array);
    // Without a word for its type, the text of any value is also one of a string.
    const isText =
      notation.strings?.some(({ open, without }) => open === '' && without.length === 1) === true &&
      notation.typed('string') === '' &&
      notation.contested.size === 0;
    const { number, boolean, null: nothing } = values;
    builder.define(
      value,
      isText ? string : [values.object, values.array, string, number, boolean, nothing].join(' | '),
    );
    return values;
  }

  #typed(type: Parameters<Notation['typed']>[0], expression: Expression): Expression {
    const before = this.#notation.typed(type);
    return before === '' ? expression : this.#builder.rule(type, `${terminal(before)} ${expression}`);
  }

  #words(texts: readonly string[]): Expression {
    const [only = '', ...more] = texts;
    return more.length === 0 ? terminal(only) : this.#builder.rule('word', texts.map(terminal).join(' | '));
  }

  #inner(): Expression {
    return anyIn(this.#builder, this.#notation.inner(ANY_KNOWN), this.#known).value;
  }

  #object(json: AnyValue): Expression {
    const { open, close, comma, blanks, after, other } = this.#notation.object;
    if (other === null) return json.object;
    const space = blanks ? SPACE : '';
    const name = other.characters === 'json' ? `${json.string} ":"` : otherName(this.#builder, [], other);
    const member = joined(name, space, this.#inner(), verbatim(after('')));
    const list = listOf(this.#builder, member, comma === '' ? '' : joined(verbatim(comma), space));
    return joined(verbatim(open), space, `(${list})?`, space, verbatim(close));
  }

  #array(json: AnyValue): Expression {
    const { open, close, comma, blanks, before, after } = this.#notation.array;
    if (this.#notation.object.other === null) return json.array;
    const item = joined(verbatim(before), this.#inner(), verbatim(after));
    const list = listOf(this.#builder, item, joined(verbatim(comma), blanks ? SPACE : ''));
    return joined(verbatim(open), `(${list})?`, verbatim(close));
  }
}

/** At least one, with text between two of them. */
function listOf(builder: GrammarBuilder, item: Expression, between: Expression): Expression {
  const one = builder.rule('item', item);
  return `${one} (${joined(between, one)})*`;
}

// The order of an object's members in a grammar: that of the schema, or any, as models write arguments that
// have tags of their own. Any order takes a rule for each set of members that are still to come, so it is
// for few members, and for as many sets as a grammar has left; the others keep the schema's order.

import { SPACE } from './any-value.ts';
import type { CompileContext, Site } from './compile-context.ts';
import { joined, verbatim, terminal, type Expression } from './gbnf.ts';
import type { Notation } from './notation.ts';
import { addWord, NO_WORDS } from './words.ts';

export interface Property {
  readonly name: string;
  readonly required: boolean;
  readonly value: Expression;
}

/** The members that may come next, and whether there may be none. */
export interface Onward {
  readonly next: Expression;
  readonly mayEnd: boolean;
}

/** Members in any order are at most these many. */
const MAX_ANY_ORDER = 6;

/** The text between two members. */
export function commaOf({ comma, blanks }: Notation['object']): Expression {
  return comma === '' ? '' : joined(verbatim(comma), blanks ? SPACE : '');
}

/** Built from the last property: the names that may come next, up to the first required one. */
export function inOrder(
  context: CompileContext,
  properties: readonly Property[],
  end: Expression,
  site: Site,
): Onward {
  const { builder } = context;
  const form = site.notation.object;
  const comma = commaOf(form);
  let choices = NO_WORDS;
  let next = '';
  let mayEnd = true;
  for (const { name, required, value } of properties.toReversed()) {
    const after = next === '' ? end : builder.rule('a', `${joined(comma, next)}${mayEnd ? ` | ${end}` : ''}`);
    const member = builder.rule(
      'm',
      joined(form.blanks ? SPACE : '', value, verbatim(form.after(name)), after === '""' ? '' : after),
    );
    if (required) {
      choices = NO_WORDS;
      mayEnd = false;
    }
    choices = addWord(builder, choices, Array.from(form.before(name)), member);
    next = context.choice(choices, site, 'properties');
  }
  return { next, mayEnd };
}

/**
 * All in any order; where they are too many, first the required ones and then the others, if each group may.
 */
export function inAnyOrder(
  context: CompileContext,
  properties: readonly Property[],
  end: Expression,
  site: Site,
): Onward {
  const { orders } = context.seen;
  const cost = ({ length }: readonly Property[]): number => length * 2 ** length;
  const fits = (group: readonly Property[]): boolean =>
    group.length <= MAX_ANY_ORDER && cost(group) <= orders.left;
  const permuted = (group: readonly Property[], later: Onward): Onward => {
    orders.left -= cost(group);
    return permutations(context, group, { later, end, form: site.notation.object });
  };
  const nothing: Onward = { next: '', mayEnd: true };
  if (fits(properties)) return permuted(properties, nothing);
  const required = properties.filter((each) => each.required);
  if (!fits(required)) return inOrder(context, properties, end, site);
  const optional = properties.filter((each) => !each.required);
  const then = fits(optional) ? permuted(optional, nothing) : inOrder(context, optional, end, site);
  return fits(required) ? permuted(required, then) : inOrder(context, properties, end, site);
}

interface Permuting {
  /** Members behind all of these. */
  readonly later: Onward;
  readonly end: Expression;
  readonly form: Notation['object'];
}

/** Each set of members to come is a number, a bit for each. */
function permutations(
  { builder }: CompileContext,
  properties: readonly Property[],
  { later, end, form }: Permuting,
): Onward {
  const comma = commaOf(form);
  const members = properties.map(({ name, value }) =>
    builder.rule(
      'p',
      joined(terminal(form.before(name)), form.blanks ? SPACE : '', value, verbatim(form.after(name))),
    ),
  );
  const needs = (set: number): boolean =>
    properties.some(({ required }, i) => required && (set & (1 << i)) > 0);
  /** By set, what comes; sets are built from the smallest. */
  const onward: Onward[] = [later];
  for (let set = 1; set < 1 << properties.length; set += 1) {
    const options: Expression[] = [];
    for (const [i, member] of members.entries()) {
      if ((set & (1 << i)) === 0) continue;
      const rest = onward[set - (1 << i)] ?? later;
      const after =
        rest.next === ''
          ? end
          : builder.rule('a', `${joined(comma, rest.next)}${rest.mayEnd ? ` | ${end}` : ''}`);
      options.push(joined(member, after === '""' ? '' : after));
    }
    const free = !needs(set);
    if (free && later.next !== '') options.push(later.next);
    onward.push({ next: builder.rule('s', options.join(' | ')), mayEnd: free && later.mayEnd });
  }
  return onward.at(-1) ?? later;
}

// One run of a chat template in a budget. The interpreter is @huggingface/jinja's; every step passes
// `evaluate`, which is replaced here by a counting one. V8 cannot interrupt a native function (join, replace,
// JSON.stringify), so the text such a function will read and write is counted before the call, and no value
// grows past the bound of the output. Adds what real templates use and the library lacks: `str.format` here,
// the rest of Python's values in python.ts.

import { Environment, Interpreter } from '@huggingface/jinja';
import { overBound, type Meter } from './meter.ts';
import {
  equal,
  filterOperand,
  iterated,
  mappingKey,
  methodOf,
  ownFilter,
  pythonText,
  TEXT_FILTERS,
  withIntegerKeys,
} from './python.ts';
import {
  children,
  depthOf,
  ELEMENT,
  entries,
  functionOf,
  isList,
  isMapping,
  longestText,
  made,
  occurrences,
  scale,
  shallow,
  textOf,
  type Value,
} from './values.ts';

export type Program = Parameters<Interpreter['run']>[0];
interface Node {
  readonly type: string;
}
/** The fields of the library's nodes that are used here. */
interface Parts
  extends
    Node,
    Readonly<
      Record<
        | 'left'
        | 'right'
        | 'operand'
        | 'object'
        | 'property'
        | 'filter'
        | 'callee'
        | 'key'
        | 'iterable'
        | 'lhs',
        Node
      >
    > {
  readonly value: unknown;
  readonly operator: { readonly value: string };
  readonly test: { readonly value: string };
  readonly args: readonly Node[];
  readonly body: readonly Node[];
  readonly computed: boolean;
  readonly negate: boolean;
}
/** A node made here. */
interface MadeNode extends Node {
  readonly [part: string]: unknown;
}

const STEP = 4;
/** A type that no node of the library has. */
const RESOLVED = 'Resolved';

/** The text the template writes. Throws the template's own errors as they are, and an ApiError when a bound is reached. */
export function runTemplate(
  program: Program,
  variables: Readonly<Record<string, unknown>>,
  meter: Meter,
): string {
  let output = '';
  meter.timed(() => {
    const environment = new Environment();
    for (const [name, value] of Object.entries(variables)) environment.set(name, value);
    const interpreter = new Interpreter(environment);
    const steps = new MeteredSteps(interpreter, meter);
    interpreter.evaluate = steps.evaluate.bind(steps);
    const written: unknown = interpreter.run(program).value;
    output = typeof written === 'string' ? written : '';
  });
  return output;
}

/** Nodes whose statements are written out one after the other, and nodes that may stand among them and be long. */
const HOLDS = new Set(['Program', 'If', 'For', 'Set', 'Macro', 'CallStatement']);
const WRITES = new Set(
  'Identifier MemberExpression CallExpression FilterExpression Ternary SelectExpression BinaryExpression UnaryExpression TestExpression ObjectLiteral ArrayLiteral TupleLiteral'.split(
    ' ',
  ),
);

class MeteredSteps {
  readonly #meter: Meter;
  readonly #limit: number;
  readonly #native: (node: Node | MadeNode | null | undefined, environment: Environment) => Value;
  readonly #weigh: (value: Value) => number;
  /** Lists and mappings that stand where a block writes them out are weighed there. */
  readonly #printed = new WeakSet<Node>();
  readonly #entered = new WeakSet<Node>();
  readonly #changes: (list: Value) => void;

  constructor(interpreter: Interpreter, meter: Meter) {
    this.#meter = meter;
    this.#limit = meter.bounds.maxOutputCharacters;
    this.#native = interpreter.evaluate.bind(interpreter);
    const { weigh, changes } = scale((count) => meter.spend(count * STEP));
    this.#weigh = weigh;
    this.#changes = changes;
  }

  /** Stands in for the interpreter's own `evaluate`, which every step passes. */
  evaluate(node: Node | null | undefined, environment: Environment): Value {
    if (node === undefined || node === null) return this.#native(node, environment);
    if (node.type === RESOLVED) return (node as Parts).value as Value;
    this.#meter.spend(STEP);
    if (HOLDS.has(node.type) && !this.#entered.has(node)) {
      this.#entered.add(node);
      for (const list of blocks(node))
        for (const each of list) if (WRITES.has(each.type)) this.#printed.add(each);
    }
    const result = this.#step(node as Parts, environment);
    const text = textOf(result);
    if (text !== null ? text.length > this.#limit : this.#weigh(result) > this.#limit * 2)
      throw overBound('writes more than its bound');
    if (!this.#printed.has(node)) return result;
    this.#write(text === null ? this.#weigh(result) : text.length);
    return text === null && result.type !== 'UndefinedValue' ? made(pythonText(result)) : result;
  }

  #step(node: Parts, environment: Environment): Value {
    switch (node.type) {
      case 'BinaryExpression':
        return this.#binary(node, environment);
      case 'FilterExpression':
        return this.#filtered(this.evaluate(node.operand, environment), node.filter as Parts, environment);
      case 'FilterStatement': {
        const body = { type: 'Program', body: node.body };
        return this.#filtered(this.evaluate(body, environment), node.filter as Parts, environment);
      }
      case 'MemberExpression':
        return this.#member(node, environment);
      case 'ObjectLiteral':
        return this.#mapping(node, environment);
      case 'For': {
        const { iterable } = node;
        const select = iterable.type === 'SelectExpression' ? (iterable as Parts) : null;
        const through = this.evaluate(select === null ? iterable : select.lhs, environment);
        this.#meter.spend(shallow(through) * (textOf(through) === null ? 1 : ELEMENT));
        const each = resolved(iterated(through));
        const all = select === null ? each : { ...select, lhs: each };
        return this.#native({ ...node, iterable: all }, environment);
      }
      case 'TestExpression': {
        const operand = this.evaluate(node.operand, environment);
        if (node.test.value === 'iterable' || node.test.value === 'sequence') {
          const whole = isList(operand) || isMapping(operand) || operand.type === 'UndefinedValue';
          return made((whole || textOf(operand) !== null) !== node.negate);
        }
        this.#meter.spend(/^(?:lower|upper)$/.test(node.test.value) ? (textOf(operand)?.length ?? 1) : 1);
        return this.#native({ ...node, operand: resolved(operand) }, environment);
      }
      default:
        return this.#native(node, environment);
    }
  }

  #binary(node: Parts, environment: Environment): Value {
    const operator = node.operator.value;
    if (operator === 'and' || operator === 'or') return this.#native(node, environment);
    let left = this.evaluate(node.left, environment);
    const right = this.evaluate(node.right, environment);
    const [needle, hay] = [textOf(left), textOf(right)];
    if (isList(left) && isList(right))
      this.#meter.spend((children(left).length + children(right).length) / 8);
    else if (operator === 'in' || operator === 'not in') {
      const length = needle?.length ?? 1;
      this.#meter.spend(
        hay === null ? shallow(right) * (1 + length / ELEMENT) : hay.length * (1 + length / 64),
      );
    } else if (needle !== null && hay !== null) {
      // V8 copies joined texts when they are next read; the copy is counted there.
      this.#meter.spend(operator.endsWith('=') && needle.length === hay.length ? needle.length : 1);
      if (needle.length + hay.length > this.#limit) throw overBound('writes more than its bound');
    }
    // A text, several times.
    else if (operator === '*' && needle !== null && typeof right.value === 'number') {
      const times = Math.max(0, Math.trunc(right.value));
      this.#write(needle.length * times);
      return made(needle.repeat(times));
    }
    // A text with a list: the list is written out.
    else if (needle !== null || hay !== null || operator === '~')
      this.#write(this.#weigh(left) + this.#weigh(right));
    if (operator === '~') return made(pythonText(left) + pythonText(right));
    const compared = this.#compared(operator, left, right);
    if (compared !== null) return made(compared);
    if (isMapping(right) && typeof left.value === 'number') left = made(String(left.value));
    return this.#native(
      { type: node.type, operator: node.operator, left: resolved(left), right: resolved(right) },
      environment,
    );
  }

  /** Equality, and what is in a list or mapping; null for another operator or operand. */
  #compared(operator: string, left: Value, right: Value): boolean | null {
    const one = (each: Value): boolean => {
      if (textOf(each) === null && textOf(left) === null)
        this.#meter.spend(Math.min(this.#weigh(each), this.#weigh(left)));
      return equal(each, left);
    };
    switch (operator) {
      case '==':
        return one(right);
      case '!=':
        return !one(right);
      case 'in':
      case 'not in':
        if (isMapping(right) && mappingKey(left) === null) return operator === 'not in';
        return isList(right) ? children(right).some(one) === (operator === 'in') : null;
      default:
        return null;
    }
  }

  #filtered(given: Value, filter: Parts, environment: Environment): Value {
    const name = String(filter.type === 'CallExpression' ? (filter.callee as Parts).value : filter.value);
    // A list or mapping becomes a text.
    if (TEXT_FILTERS.has(name) && textOf(given) === null) this.#meter.spend(this.#weigh(given));
    else if (name === 'list') this.#meter.spend(shallow(given) * ELEMENT);
    const operand = filterOperand(name, given);
    if (filter.type !== 'CallExpression') {
      this.#charge(name, operand, []);
      const own = ownFilter(name, operand);
      if (own !== null) return own();
      return this.#native({ type: 'FilterExpression', operand: resolved(operand), filter }, environment);
    }
    const values: Value[] = [];
    const args = filter.args.map((arg) => {
      const literal = arg.type === 'StringLiteral' || arg.type.includes('Spread');
      const inner = arg.type === 'KeywordArgumentExpression' ? ((arg as Parts).value as Node) : arg;
      if (arg.type.includes('Spread')) throw new Error('filters take no unpacked arguments');
      const value = this.evaluate(inner, environment);
      values.push(value);
      if (literal) return arg;
      return inner === arg
        ? resolved(value)
        : { type: arg.type, key: (arg as Parts).key, value: resolved(value) };
    });
    this.#charge(name, operand, values);
    const call = { type: 'CallExpression', callee: filter.callee, args };
    return this.#native({ type: 'FilterExpression', operand: resolved(operand), filter: call }, environment);
  }

  #member(node: Parts, environment: Environment): Value {
    const object = this.evaluate(node.object, environment);
    let { property } = node;
    let name = String((property as Parts).value);
    if (property.type === 'SliceExpression') this.#meter.spend(shallow(object) * 8);
    else if (node.computed) {
      const key = this.evaluate(property, environment);
      name = String(key.value);
      const index = textOf(key) ?? (typeof key.value === 'number' ? key.value : null);
      // For Python a key of another type is absent, not an error.
      if (index === null) return made(undefined);
      property = resolved(isMapping(object) ? made(String(index)) : key);
    }
    const own = node.computed ? undefined : methodOf(object, name, this.#changes);
    if (own !== undefined) return this.#method(name, object, own);
    const found = this.#native(
      { type: node.type, object: resolved(object), property, computed: node.computed },
      environment,
    );
    const text = textOf(object);
    if (text !== null && name === 'format' && found.type === 'UndefinedValue') {
      return made((...args: unknown[]) => {
        const parts = text.split('{}');
        const filled = parts.reduce((out, part, i) => out + String(args[i - 1]) + part);
        if (args.length < parts.length - 1 || /[{}]/.test(parts.join('')))
          throw new Error('format takes {} and as many arguments');
        this.#write(filled.length);
        return filled;
      });
    }
    if (
      found.type !== 'FunctionValue' ||
      object.type === 'NamespaceValue' ||
      (isMapping(object) && entries(object).has(name))
    )
      return found;
    const method = found.value as (args: Value[], scope: Environment) => Value;
    const Kind = found.constructor as new (value: typeof method) => Value;
    return new Kind((args, scope) => {
      this.#charge(name, object, args);
      return method(args, scope);
    });
  }

  /** A function of ours, whose work is counted like that of the library's. */
  #method(name: string, object: Value, work: (args: readonly Value[]) => Value): Value {
    return functionOf((args) => {
      if (name === 'append' || name === 'pop') this.#meter.spend(shallow(object) / ELEMENT);
      else this.#charge(name, object, args);
      return work(args);
    });
  }

  #mapping(node: Parts, environment: Environment): Value {
    const integers = new Set<string>();
    const pairs = [...(node.value as ReadonlyMap<Node, Node>)].map(([key, value]): [Node, Node] => {
      const found = this.evaluate(key, environment);
      if (typeof found.value !== 'number') return [resolved(found), value];
      integers.add(String(found.value));
      return [resolved(made(String(found.value))), value];
    });
    return withIntegerKeys(this.#native({ type: node.type, value: new Map(pairs) }, environment), integers);
  }

  /** The characters and elements a filter or method will read and write, before it does. */
  #charge(name: string, operand: Value, args: readonly Value[]): void {
    const text = textOf(operand);
    const size = text === null ? this.#weigh(operand) : text.length;
    const named = args.find((arg) => arg.type === 'KeywordArgumentsValue');
    const numbers = [...args, ...(named === undefined ? [] : children(named))].map((arg) => arg.value);
    const widest = Math.max(0, ...numbers.map((value) => (typeof value === 'number' ? Math.abs(value) : 0)));
    const longest = Math.max(
      0,
      ...[...args, ...(named === undefined ? [] : children(named))].map((arg) => longestText(arg)),
    );
    for (const arg of args) this.#meter.spend(shallow(arg));
    switch (name) {
      case 'tojson':
        this.#meter.spend(size);
        this.#write(size + (size / ELEMENT) * (longest + (widest > 0 ? widest * depthOf(operand) : 0)));
        return;
      case 'join':
        this.#meter.spend(size);
        this.#write(size + longest * (text === null ? children(operand).length : text.length * ELEMENT));
        return;
      case 'indent':
        this.#write(size + (text === null ? 0 : occurrences(text, '\n') + 1) * Math.max(4, widest, longest));
        return;
      case 'replace': {
        const [from = '', to = ''] = args.map((arg) => textOf(arg) ?? '');
        const times = text === null ? 0 : occurrences(text, from);
        this.#meter.spend(size + times * ELEMENT);
        this.#write(size + times * to.length);
        return;
      }
      case 'split':
        this.#meter.spend(size + (text === null ? 0 : occurrences(text, textOf(args[0]) ?? ' ') * ELEMENT));
        return;
      case 'sort':
      case 'dictsort':
        this.#meter.spend(size * (1 + Math.ceil(Math.log2(1 + children(operand).length))));
        return;
      case 'string':
      case 'unique':
      case 'format':
        this.#write(size);
        return;
      default:
        this.#meter.spend(shallow(operand));
    }
  }

  #write(length: number): void {
    if (!(length <= this.#limit)) throw overBound('writes more than its bound');
    this.#meter.spend(length);
  }
}

/** A node that stands for a value already evaluated. */
function resolved(value: Value): MadeNode {
  return { type: RESOLVED, value };
}

/** The lists of statements in a node whose values are written out one after the other. */
function blocks(node: Node): readonly (readonly Node[])[] {
  const { body, alternate, defaultBlock } = node as Partial<
    Record<'body' | 'alternate' | 'defaultBlock', readonly Node[]>
  >;
  return [body, alternate, defaultBlock].filter((list) => Array.isArray(list));
}

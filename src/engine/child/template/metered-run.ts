// One run of a chat template in a budget. The interpreter is @huggingface/jinja's; every step of it passes `evaluate`, which
// is replaced here by one that counts. V8 cannot interrupt a native function (join, replace, JSON.stringify), so what such a
// function will read and write is counted before it is called, and no value grows past the bound of the output. One meter
// serves all attempts at a request. What the library lacks and real templates use is added here: integer keys of mappings,
// the `string` filter for every type, `str.format`.

import { createContext, runInContext } from 'node:vm';
import { Environment, Interpreter } from '@huggingface/jinja';
import { ApiError } from '../../../base/errors.ts';

export interface TemplateBounds {
  /** Milliseconds of all attempts together. */
  readonly timeoutMs: number;
  /** Characters of the output and of every string; also the weight of every list and mapping, with all it holds. */
  readonly maxOutputCharacters: number;
  /** Numbers handed out by range(), all attempts together. */
  readonly maxRange: number;
  /** Units of work of all attempts together: a character read or written is 1, an element 32, a step of the interpreter 4. */
  readonly maxWork: number;
}

export interface Meter {
  readonly bounds: TemplateBounds;
  spend(units: number): void;
  /** Units so far. */
  spent(): number;
  countRange(length: number): void;
  /** Runs synchronous code that V8 interrupts when the time of all attempts is used up. */
  timed(work: () => void): void;
}

export type Program = Parameters<Interpreter['run']>[0];
type Value = ReturnType<Interpreter['run']>;
interface Node {
  readonly type: string;
}
/** The parts of the library's nodes that are looked at here. */
interface Parts
  extends
    Node,
    Readonly<
      Record<'left' | 'right' | 'operand' | 'object' | 'property' | 'filter' | 'callee' | 'key', Node>
    > {
  readonly value: unknown;
  readonly operator: { readonly value: string };
  readonly test: { readonly value: string };
  readonly args: readonly Node[];
  readonly body: readonly Node[];
  readonly computed: boolean;
}
type Evaluate = (node: Node | null | undefined, environment: Environment) => Value;
/** A node put together here. */
interface MadeNode extends Node {
  readonly [part: string]: unknown;
}

const ELEMENT = 32;
const STEP = 4;
/** No node of the library is called so. */
const RESOLVED = 'Resolved';

export function overBound(what: string): ApiError {
  return new ApiError('template_failed', `the chat template ${what}`);
}

/** Runs synchronous code for at most so many milliseconds; false when they were over. */
export type Stopwatch = (work: () => void, timeoutMs: number) => boolean;

export function createStopwatch(): Stopwatch {
  const sandbox: { work: () => void } = { work: () => {} };
  const context = createContext(sandbox);
  return (work, timeoutMs) => {
    sandbox.work = work;
    try {
      runInContext('work()', context, { filename: 'template', timeout: timeoutMs });
      return true;
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT')
        return false;
      throw error;
    } finally {
      sandbox.work = () => {};
    }
  };
}

export function createMeter(bounds: TemplateBounds, stopwatch: Stopwatch): Meter {
  let work = 0;
  let ranges = 0;
  let left = bounds.timeoutMs;
  return {
    bounds,
    spend(units) {
      work += units;
      if (!(work <= bounds.maxWork)) throw overBound('does more work than its bound');
    },
    spent: () => work,
    countRange(length) {
      ranges += length;
      if (!(ranges <= bounds.maxRange)) throw overBound('asks for longer ranges than its bound');
    },
    timed(run) {
      const begun = performance.now();
      try {
        if (left < 1 || !stopwatch(run, Math.ceil(left)))
          throw overBound(`took longer than ${bounds.timeoutMs} ms`);
      } finally {
        left -= performance.now() - begun;
      }
    },
  };
}

/** What the template writes. Throws the template's own errors as they are, and an ApiError when a bound is reached. */
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
    meterSteps(interpreter, meter);
    const written: unknown = interpreter.run(program).value;
    output = typeof written === 'string' ? written : '';
  });
  return output;
}

function meterSteps(interpreter: Interpreter, meter: Meter): void {
  const native: (node: Node | MadeNode | null | undefined, environment: Environment) => Value =
    interpreter.evaluate.bind(interpreter);
  const limit = meter.bounds.maxOutputCharacters;
  /** A node that stands for a value already found. */
  const is = (value: Value): MadeNode => ({ type: RESOLVED, value });
  const weigh = scale((count) => meter.spend(count * STEP));
  const write = (length: number): void => {
    if (!(length <= limit)) throw overBound('writes more than its bound');
    meter.spend(length);
  };

  /** What a filter or method will read and write, before it does. */
  const charge = (name: string, operand: Value, args: readonly Value[]): void => {
    const text = textOf(operand);
    const size = text === null ? weigh(operand) : text.length;
    const named = args.find((arg) => arg.type === 'KeywordArgumentsValue');
    const numbers = [...args, ...(named === undefined ? [] : children(named))].map((arg) => arg.value);
    const widest = Math.max(0, ...numbers.map((value) => (typeof value === 'number' ? Math.abs(value) : 0)));
    const longest = Math.max(
      0,
      ...[...args, ...(named === undefined ? [] : children(named))].map((arg) => longestText(arg)),
    );
    for (const arg of args) meter.spend(shallow(arg));
    switch (name) {
      case 'tojson':
        meter.spend(size);
        write(size + (size / ELEMENT) * (longest + (widest > 0 ? widest * depthOf(operand) : 0)));
        return;
      case 'join':
        meter.spend(size);
        write(size + longest * (text === null ? children(operand).length : text.length * ELEMENT));
        return;
      case 'indent':
        write(size + (text === null ? 0 : occurrences(text, '\n') + 1) * Math.max(4, widest, longest));
        return;
      case 'replace': {
        const [from = '', to = ''] = args.map((arg) => textOf(arg) ?? '');
        const times = text === null ? 0 : occurrences(text, from);
        meter.spend(size + times * ELEMENT);
        write(size + times * to.length);
        return;
      }
      case 'split':
        meter.spend(size + (text === null ? 0 : occurrences(text, textOf(args[0]) ?? ' ') * ELEMENT));
        return;
      case 'sort':
      case 'dictsort':
        meter.spend(size * (1 + Math.ceil(Math.log2(1 + children(operand).length))));
        return;
      case 'string':
      case 'unique':
      case 'format':
        write(size);
        return;
      default:
        meter.spend(shallow(operand));
    }
  };

  const filtered = (operand: Value, filter: Parts, environment: Environment): Value => {
    const name = String(filter.type === 'CallExpression' ? (filter.callee as Parts).value : filter.value);
    if (filter.type !== 'CallExpression') {
      charge(name, operand, []);
      if (name === 'string' && textOf(operand) === null)
        return made(
          operand.type === 'UndefinedValue' ? '' : operand.type === 'NullValue' ? 'None' : operand.toString(),
        );
      return native({ type: 'FilterExpression', operand: is(operand), filter }, environment);
    }
    const values: Value[] = [];
    const args = filter.args.map((arg) => {
      const literal = arg.type === 'StringLiteral' || arg.type.includes('Spread');
      const inner = arg.type === 'KeywordArgumentExpression' ? ((arg as Parts).value as Node) : arg;
      if (arg.type.includes('Spread')) throw new Error('filters take no unpacked arguments');
      const value = metered(inner, environment);
      values.push(value);
      if (literal) return arg;
      return inner === arg ? is(value) : { type: arg.type, key: (arg as Parts).key, value: is(value) };
    });
    charge(name, operand, values);
    const call = { type: 'CallExpression', callee: filter.callee, args };
    return native({ type: 'FilterExpression', operand: is(operand), filter: call }, environment);
  };

  const binary = (node: Parts, environment: Environment): Value => {
    const operator = node.operator.value;
    if (operator === 'and' || operator === 'or') return native(node, environment);
    const [left, right] = [metered(node.left, environment), metered(node.right, environment)];
    const [needle, hay] = [textOf(left), textOf(right)];
    if (isList(left) && isList(right)) meter.spend((children(left).length + children(right).length) / 8);
    else if (operator === 'in' || operator === 'not in') {
      const length = needle?.length ?? 1;
      meter.spend(hay === null ? shallow(right) * (1 + length / ELEMENT) : hay.length * (1 + length / 64));
    } else if (needle !== null && hay !== null) {
      // Joined texts are copied when they are next read, and that is counted there.
      meter.spend(operator.endsWith('=') && needle.length === hay.length ? needle.length : 1);
      if (needle.length + hay.length > limit) throw overBound('writes more than its bound');
    }
    // A text with a list: the list is written out.
    else if (needle !== null || hay !== null || operator === '~') write(weigh(left) + weigh(right));
    return native(
      { type: node.type, operator: node.operator, left: is(left), right: is(right) },
      environment,
    );
  };

  const member = (node: Parts, environment: Environment): Value => {
    const object = metered(node.object, environment);
    let { property } = node;
    let name = String((property as Parts).value);
    if (property.type === 'SliceExpression') meter.spend(shallow(object) * 8);
    else if (node.computed) {
      const key = metered(property, environment);
      name = String(key.value);
      property = is(isMapping(object) && typeof key.value === 'number' ? made(String(key.value)) : key);
    }
    const found = native(
      { type: node.type, object: is(object), property, computed: node.computed },
      environment,
    );
    const text = textOf(object);
    if (text !== null && name === 'format' && found.type === 'UndefinedValue') {
      return made((...args: unknown[]) => {
        const parts = text.split('{}');
        const filled = parts.reduce((out, part, i) => out + String(args[i - 1]) + part);
        if (args.length < parts.length - 1 || /[{}]/.test(parts.join('')))
          throw new Error('format takes {} and as many arguments');
        write(filled.length);
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
      charge(name, object, args);
      return method(args, scope);
    });
  };

  const mapping = (node: Parts, environment: Environment): Value => {
    const pairs = [...(node.value as ReadonlyMap<Node, Node>)].map(([key, value]): [Node, Node] => {
      const found = metered(key, environment);
      return [is(typeof found.value === 'number' ? made(String(found.value)) : found), value];
    });
    return native({ type: node.type, value: new Map(pairs) }, environment);
  };

  const step = (node: Parts, environment: Environment): Value => {
    switch (node.type) {
      case 'BinaryExpression':
        return binary(node, environment);
      case 'FilterExpression':
        return filtered(metered(node.operand, environment), node.filter as Parts, environment);
      case 'FilterStatement': {
        const body = { type: 'Program', body: node.body };
        return filtered(metered(body, environment), node.filter as Parts, environment);
      }
      case 'MemberExpression':
        return member(node, environment);
      case 'ObjectLiteral':
        return mapping(node, environment);
      case 'TestExpression': {
        const operand = metered(node.operand, environment);
        meter.spend(/^(?:lower|upper)$/.test(node.test.value) ? (textOf(operand)?.length ?? 1) : 1);
        return native({ ...node, operand: is(operand) }, environment);
      }
      default:
        return native(node, environment);
    }
  };

  /** Lists and mappings that stand where a block writes them out are weighed there. */
  const printed = new WeakSet<Node>();
  const entered = new WeakSet<Node>();
  const holds = new Set(['Program', 'If', 'For', 'Set', 'Macro', 'CallStatement']);
  const writes = new Set([
    'Identifier',
    'MemberExpression',
    'CallExpression',
    'FilterExpression',
    'Ternary',
    'BinaryExpression',
  ]);
  const metered: Evaluate = (node, environment) => {
    if (node === undefined || node === null) return native(node, environment);
    if (node.type === RESOLVED) return (node as Parts).value as Value;
    meter.spend(STEP);
    if (holds.has(node.type) && !entered.has(node)) {
      entered.add(node);
      for (const list of blocks(node)) for (const each of list) if (writes.has(each.type)) printed.add(each);
    }
    const result = step(node as Parts, environment);
    const text = textOf(result);
    if (text !== null ? text.length > limit : weigh(result) > limit * 2)
      throw overBound('writes more than its bound');
    if (printed.has(node)) write(text === null ? weigh(result) : text.length);
    return result;
  };
  interpreter.evaluate = metered;
}

/** The lists of statements in a node whose values are written out one after the other. */
function blocks(node: Node): readonly (readonly Node[])[] {
  const { body, alternate, defaultBlock } = node as Partial<
    Record<'body' | 'alternate' | 'defaultBlock', readonly Node[]>
  >;
  return [body, alternate, defaultBlock].filter((list) => Array.isArray(list));
}

function scratch(): Environment {
  return new Environment();
}
/** A JavaScript value as one of the library's. */
function made(value: unknown): Value {
  return scratch().set('value', value);
}
function textOf(value?: Value): string | null {
  return typeof value?.value === 'string' ? value.value : null;
}
function isList(value: Value): boolean {
  return Array.isArray(value.value);
}
function isMapping(value: Value): boolean {
  return value.value instanceof Map;
}
function entries(value: Value): ReadonlyMap<string, Value> {
  return value.value instanceof Map ? (value.value as Map<string, Value>) : new Map();
}
function children(value: Value): readonly Value[] {
  return Array.isArray(value.value) ? (value.value as Value[]) : [...entries(value).values()];
}
/** Characters of a text, elements of a list or mapping. */
function shallow(value: Value): number {
  return textOf(value)?.length ?? 1 + (isList(value) ? children(value).length : entries(value).size);
}
function longestText(value: Value): number {
  return (
    textOf(value)?.length ??
    (isList(value)
      ? Math.max(
          0,
          ...children(value)
            .slice(0, 8)
            .map((each) => textOf(each)?.length ?? 0),
        )
      : 0)
  );
}

/**
 * Weighs a value with everything in it, each part as often as it would be written. Lists and mappings do not change once
 * made, so their weights are kept, unless a namespace is in them: that changes. What holds itself is infinitely heavy.
 */
function scale(looked: (count: number) => void): (value: Value) => number {
  const weights = new WeakMap<object, number>();
  return (value) => {
    const now = new Map<Value, number>();
    let changing = false;
    const weigh = (each: Value): number => {
      const text = textOf(each);
      if (text !== null) return text.length;
      if (!isList(each) && !isMapping(each)) return ELEMENT;
      const kept = weights.get(each);
      if (kept !== undefined) return kept;
      const seen = now.get(each);
      if (seen !== undefined) {
        changing = true;
        return seen;
      }
      now.set(each, Infinity);
      const outer = changing;
      changing = each.type === 'NamespaceValue';
      let weight = ELEMENT;
      const parts = children(each);
      looked(parts.length);
      for (const child of parts) weight += ELEMENT + weigh(child);
      for (const key of entries(each).keys()) weight += key.length;
      now.set(each, weight);
      if (!changing) weights.set(each, weight);
      changing ||= outer;
      return weight;
    };
    return weigh(value);
  };
}

function depthOf(value: Value, depth = 1): number {
  if (depth > 1000) return Infinity;
  return children(value).reduce(
    (deepest, each) =>
      isList(each) || isMapping(each) ? Math.max(deepest, depthOf(each, depth + 1)) : deepest,
    depth,
  );
}

function occurrences(text: string, part: string): number {
  if (part === '') return text.length + 1;
  let count = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count += 1;
  return count;
}

// The models of the protocol as they stand in models/*.vp, for Verifpal. Two kinds of comments say what is
// searched and how it has to end (docs/proofs.md, section "How a model is written"). The whole model has to
// withstand every query but those that show that its honest run reaches its end; a weakened one has to fall,
// or to stand, where a query says so.

import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const FOLDER = fileURLToPath(new URL('models', import.meta.url));
const WITHOUT = /^\s*\/\/ without ([a-z-]+)([:+]) (.+)$/;
const QUERY = /^(confidentiality|authentication|freshness|equivalence|unlinkability)\? /;
const STATED = /^([A-Z]\d+) \[([^\];]*)(?:; ([^\]]*))?\] (.+)$/;
const FALLS = / Falls without ([a-z, -]+)\./;
const STANDS = / Stands without ([a-z, -]+)\./;
const REACHED = ' Always reached.';
const ONCE = ' At one session.';

export interface Query {
  /** `C1`: a letter per model, and a number. */
  readonly id: string;
  /** `P4`, of docs/protocol.md, section 1. */
  readonly properties: readonly string[];
  /** `M13`, `R2`, `B8`: the requirements that carry it. */
  readonly requirements: readonly string[];
  readonly says: string;
  /** In Verifpal's language. */
  readonly query: string;
  /** The weakened models that must have an attack on it. */
  readonly fallsWithout: readonly string[];
  /** Those that have no attack on it all the same. */
  readonly standsWithout: readonly string[];
  /** It shows that the honest run reaches its end: "attacked" in every model. */
  readonly reached: boolean;
  /** Where it is not the model's number. */
  readonly sessions?: number | undefined;
}

export interface Model {
  readonly name: string;
  readonly sessions: number;
  /** The first lines of the file. */
  readonly about: string;
  readonly queries: readonly Query[];
  readonly weakenings: readonly string[];
  /** Of the weakened model, or the whole one. */
  readonly text: (without?: string) => string;
}

/** All models, in the order of their names. @throws Error where a comment is not of that form. */
export function allModels(): readonly Model[] {
  return readdirSync(FOLDER)
    .filter((file) => file.endsWith('.vp'))
    .toSorted()
    .map((file) => readModel(file.replace(/\.vp$/, ''), readFileSync(`${FOLDER}/${file}`, 'utf8')));
}

/** @throws Error where a comment is not of that form. */
export function readModel(name: string, source: string): Model {
  const lines = source.split('\n');
  const weakenings = [...new Set(lines.flatMap((line) => WITHOUT.exec(line)?.[1] ?? []))].toSorted();
  const queries = queriesOf(name, lines);
  const known = new Set(weakenings);
  const told = queries.flatMap(({ fallsWithout, standsWithout }) => [...fallsWithout, ...standsWithout]);
  for (const each of told)
    if (!known.has(each)) throw new Error(`${name}: a query names ${each}, which no line is without`);
  for (const each of weakenings)
    if (!told.includes(each)) throw new Error(`${name}: no query says what happens without ${each}`);
  return {
    name,
    sessions: Number(/^\/\/ sessions: (\d+)$/m.exec(source)?.[1] ?? 2),
    about: lines
      .slice(
        0,
        Math.max(
          0,
          lines.findIndex((line) => !line.startsWith('//')),
        ),
      )
      .map((line) => line.replace(/^\/\/ ?/, ''))
      .join('\n'),
    queries,
    weakenings,
    text(without) {
      if (without !== undefined && !known.has(without))
        throw new Error(`${name}: no line is without ${without}`);
      return weakened(lines, without).join('\n');
    },
  };
}

/** The model with these queries alone. */
export function withOnly(text: string, queries: readonly Query[]): string {
  const [before = ''] = text.split(/^queries\[$/m);
  return `${before}queries[\n${queries.map(({ query }) => `\t${query}\n`).join('')}]\n`;
}

/** One search: some queries of one model, whole or weakened, and what has to come out. */
export interface Search {
  readonly model: string;
  /** The weakened model; undefined: the whole one. */
  readonly without?: string | undefined;
  readonly queries: readonly Query[];
  readonly sessions: number;
  readonly text: string;
  /** In the form of Verifpal's code: `c0c1` is a secret that is kept, and a value that is reached. */
  readonly expected: string;
}

/** Each query of the whole model alone, then each weakened model with the queries that speak of it. */
export function searchesOf(model: Model): readonly Search[] {
  const asked = model.queries.filter(({ reached }) => !reached);
  const reached = model.queries.filter((query) => query.reached);
  const search = (queries: readonly Query[], without?: string): Search => {
    const all = [...queries, ...reached];
    return {
      model: model.name,
      without,
      queries: all,
      sessions: Math.min(...queries.map(({ sessions }) => sessions ?? model.sessions)),
      text: withOnly(model.text(without), all),
      expected: all.map((query) => `${query.query[0]}${mustFall(query, without) ? 1 : 0}`).join(''),
    };
  };
  const speaksOf = (without: string, { fallsWithout, standsWithout }: Query): boolean =>
    [...fallsWithout, ...standsWithout].includes(without);
  return [
    ...asked.map((query) => search([query])),
    ...model.weakenings.map((without) =>
      search(
        asked.filter((query) => speaksOf(without, query)),
        without,
      ),
    ),
  ];
}

function mustFall(query: Query, without?: string): boolean {
  return query.reached || (without !== undefined && query.fallsWithout.includes(without));
}

function weakened(lines: readonly string[], without: string | undefined): readonly string[] {
  const result: string[] = [];
  let last = -1;
  for (const line of lines) {
    const [, name, how, statement = ''] = WITHOUT.exec(line) ?? [];
    if (name === undefined) last = result.push(line) - 1;
    else if (name === without) {
      const [indentation = ''] = /^\s*/.exec(line) ?? [];
      if (how === '+') result.push(`${indentation}${statement}`);
      else result[last] = statement === '-' ? '' : `${indentation}${statement}`;
    }
  }
  return result;
}

function queriesOf(name: string, lines: readonly string[]): readonly Query[] {
  const queries: Query[] = [];
  let comment: string[] = [];
  for (const line of lines.slice(lines.indexOf('queries[') + 1)) {
    const text = line.trim();
    if (text.startsWith('//')) comment.push(text.replace(/^\/\/ ?/, ''));
    else {
      if (QUERY.test(text)) queries.push(stated(name, text, comment.join(' ')));
      comment = [];
    }
  }
  if (queries.length === 0) throw new Error(`${name}: no query`);
  return queries;
}

function stated(name: string, query: string, comment: string): Query {
  const match = STATED.exec(comment);
  if (match === null) throw new Error(`${name}: what is said of “${query}” is not of the form of models.ts`);
  const [, id = '', properties = '', requirements = '', said = ''] = match;
  return {
    id,
    properties: words(properties),
    requirements: words(requirements),
    says: [FALLS, STANDS, REACHED, ONCE].reduce<string>((text, part) => text.replace(part, ''), said),
    query,
    fallsWithout: words(FALLS.exec(said)?.[1]),
    standsWithout: words(STANDS.exec(said)?.[1]),
    reached: said.endsWith(REACHED),
    sessions: said.includes(ONCE) ? 1 : undefined,
  };
}

function words(text = ''): readonly string[] {
  return text.split(/[ ,]+/).filter((word) => word !== '');
}

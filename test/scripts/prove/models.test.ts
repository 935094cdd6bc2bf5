// The models of the protocol, searched for attacks by Verifpal: the whole ones have none, and each weakened
// one has the attack that it is there for (docs/proofs.md). Skips where the program is not in the cache; what
// is read of the models' comments is tested everywhere.

import { describe, expect, test } from 'vitest';
import { allModels, readModel, searchesOf } from '../../../scripts/prove/models.ts';
import { haveProver, judge } from '../../../scripts/prove/verifpal.ts';

const SEARCHES = allModels().flatMap((model) => searchesOf(model));

describe.skipIf(!haveProver())('Verifpal', () => {
  test.each(SEARCHES.map((search) => [`${search.model}, ${search.without ?? 'whole'}`, search] as const))(
    '%s',
    async (_, search) => {
      const { code, text } = await judge(search.text, { sessions: search.sessions, limitSeconds: 900 });
      expect(code, text).toBe(search.expected);
      // An attack is shown by its trace, not by a letter alone.
      expect(text.split('Attack trace:').length - 1).toBe(
        [...code].filter((letter) => letter === '1').length,
      );
    },
    1_000_000,
  );

  test('a model whose honest run fails is no model', async () => {
    const text = `attacker[active]
principal Alice[
	knows private key
	knows public one, two
	mark = MAC(key, one)
]
Alice -> Bob: mark
principal Bob[
	knows private key
	knows public two
	_ = ASSERT(mark, MAC(key, two))?
]
queries[
	confidentiality? key
]
`;
    await expect(judge(text, { sessions: 1 })).rejects.toThrow(/no verdict/);
  });

  test('a search that takes too long is no verdict', async () => {
    const [receipts] = SEARCHES.filter(({ model, without }) => model === 'receipts' && without === undefined);
    const search = judge(receipts?.text ?? '', { sessions: 2, limitSeconds: 0.05 });
    await expect(search).rejects.toThrow(/no verdict/);
  });
});

test('what the issue of the model demands is there: each of these parts, left out, is an attack', () => {
  const attacks = SEARCHES.filter(({ without = '', queries }) =>
    queries.some(({ fallsWithout }) => fallsWithout.includes(without)),
  );
  expect(attacks.map(({ model, without }) => `${model}: ${without ?? ''}`)).toEqual(
    expect.arrayContaining(['channel: exporter', 'channel: label', 'sealed: nonce', 'sealed: final-chunk']),
  );
});

test('every property is asked for by a query', () => {
  const properties = allModels().flatMap(({ queries }) => queries.flatMap((query) => query.properties));
  expect([...new Set(properties)].toSorted()).toEqual(['P1', 'P2', 'P3', 'P4', 'P4′', 'P5', 'P6', 'P6′']);
});

const SMALL = `// About.
// sessions: 3

principal Alice[
	first = HASH(one)
	// without two: first = HASH(two)
	// without three: -
	// without three+ leaks one
]
queries[
	// A1 [P1 P4′; M1 R2] It is
	// secret. Falls without three. Stands without two. At one session.
	confidentiality? first
	// A2 [] It ends. Always reached.
	confidentiality? end
]
`;

test('a comment says what a weakened model has instead, and what comes out', () => {
  const model = readModel('small', SMALL);
  expect(model.queries[0]).toEqual({
    id: 'A1',
    properties: ['P1', 'P4′'],
    requirements: ['M1', 'R2'],
    says: 'It is secret.',
    query: 'confidentiality? first',
    fallsWithout: ['three'],
    standsWithout: ['two'],
    reached: false,
    sessions: 1,
  });
  expect([model.sessions, model.weakenings]).toEqual([3, ['three', 'two']]);
  expect(model.text()).not.toContain('// without');
  expect(model.text()).toContain('\tfirst = HASH(one)\n]');
  expect(model.text('two')).toContain('\tfirst = HASH(two)\n]');
  expect(model.text('three')).toContain('[\n\n\tleaks one\n]');
  expect(searchesOf(model).map((search) => [search.without, search.sessions, search.expected])).toEqual([
    [undefined, 1, 'c0c1'],
    ['three', 1, 'c1c1'],
    ['two', 1, 'c0c1'],
  ]);
});

test.each([
  ['a weakening that no line has', SMALL.replace('without three. Stands', 'without four. Stands')],
  ['one that no query speaks of', SMALL.replace(' Stands without two.', '')],
  ['a query that says nothing', SMALL.replace('A1 [P1 P4′; M1 R2] ', '')],
  ['no query', SMALL.replaceAll('confidentiality?', '//')],
])('refused: %s', (_, source) => {
  expect(() => readModel('small', source)).toThrow(/small: /);
});

test('no model is weakened by a name it does not have', () => {
  expect(() => readModel('small', SMALL).text('four')).toThrow('no line is without four');
});

// The lock: every package with a version and one SHA-256, or it is no lock.

import { join } from 'node:path';
import { expect, test } from 'vitest';
import { toolsFolder } from '../../../../src/workshop/python/environment.ts';
import { normalized, parsePythonLock, readPythonLock } from '../../../../src/workshop/python/lock.ts';

const HASH = `--hash=sha256:${'0'.repeat(64)}`;

test('the lock of the tree is one, and has what the tools import', () => {
  const { packages, sha256 } = readPythonLock(join(toolsFolder(), '../requirements.txt'));
  const names = packages.map(({ name }) => name);
  expect(names).toEqual(
    expect.arrayContaining(['torch', 'transformers', 'peft', 'trl', 'litert-torch', 'openvino']),
  );
  expect(sha256).toMatch(/^[0-9a-f]{64}$/);
});

test('reports nothing to a vendor', () => {
  const names = readPythonLock(join(toolsFolder(), '../requirements.txt')).packages.map(({ name }) => name);
  expect(names).not.toContain('openvino-telemetry');
});

test('comments and empty lines are none of its packages; the digest is of the whole file', () => {
  const text = `# note\n\na==1.0 ${HASH}\nb-c==2 ${HASH}\n`;
  const lock = parsePythonLock('x', text);
  expect(lock.packages).toEqual([
    { name: 'a', version: '1.0' },
    { name: 'b-c', version: '2' },
  ]);
  expect(parsePythonLock('x', `${text}# more\n`).sha256).not.toBe(lock.sha256);
});

test.each([
  ['no hash', 'a==1.0'],
  ['no version', `a ${HASH}`],
  ['a range', `a>=1.0 ${HASH}`],
  ['a short hash', 'a==1.0 --hash=sha256:00'],
  ['an option of pip', '--index-url=somewhere'],
  ['an address', `a @ file:///x ${HASH}`],
  ['a package twice', `a==1 ${HASH}\na==2 ${HASH}`],
])('%s: no lock', (_what, text) => {
  expect(() => parsePythonLock('x', text)).toThrow(/^x: /);
});

test('names are compared as PEP 503 says', () => {
  expect(normalized('Ai_Edge.Litert')).toBe('ai-edge-litert');
});

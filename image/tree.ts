// A file tree in memory: everything that goes into the initramfs or the root image. Modes are
// explicit, owner is always 0:0, times are a constant of the writers, and there are no setuid bits,
// device nodes or hard links, by construction. Refuses paths that are absolute, climb, repeat or
// cannot be written in every format.

import { createReadStream } from 'node:fs';
import { badInput } from './errors.ts';

/** File content: bytes, or a file on disk too large to hold (a model). */
export type Content = Uint8Array | { readonly path: string; readonly size: number };

export type Node =
  | { readonly kind: 'directory'; readonly mode: number }
  | { readonly kind: 'file'; readonly mode: 0o644 | 0o755 | 0o444; readonly content: Content }
  | { readonly kind: 'link'; readonly target: string };

/**
 * Paths without a leading slash → nodes. The root directory is the empty path. Every parent
 * of an entry is an entry.
 */
export type Tree = Map<string, Node>;

export function newTree(): Tree {
  return new Map([['', { kind: 'directory', mode: 0o755 }]]);
}

export function addDirectory(tree: Tree, path: string, mode = 0o755): void {
  add(tree, path, { kind: 'directory', mode });
}

export function addFile(
  tree: Tree,
  path: string,
  content: Content,
  mode: 0o644 | 0o755 | 0o444 = 0o644,
): void {
  add(tree, path, { kind: 'file', mode, content });
}

export function addLink(tree: Tree, path: string, target: string): void {
  if (target === '' || target.includes('\0') || Buffer.byteLength(target) > 4095)
    throw badInput(`${path}: link target cannot be stored`);
  add(tree, path, { kind: 'link', target });
}

export function sizeOf(content: Content): number {
  return content instanceof Uint8Array ? content.length : content.size;
}

/** Throws ImageError `input` for a file that is not the size it was. */
export async function* contentBytes(content: Content): AsyncGenerator<Uint8Array> {
  if (content instanceof Uint8Array) {
    yield content;
    return;
  }
  const { path, size } = content;
  let read = 0;
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    read += chunk.length;
    if (read > size) break;
    yield chunk;
  }
  if (read !== size) throw badInput(`${path} changed while it was read: expected ${size} bytes, got ${read}`);
}

/** Entries by the bytes of their paths' components, parents before children: one order on every machine. */
export function sortedEntries(tree: Tree): readonly (readonly [string, Node])[] {
  return [...tree]
    .map(([path, node]) => ({ key: sortKey(path), path, node }))
    .sort((a, b) => Buffer.compare(a.key, b.key))
    .map(({ path, node }) => [path, node] as const);
}

/**
 * A slash sorts before every other byte, so that `a/b` comes before `a-b`, as a walk of the
 * directories would have it.
 */
function sortKey(path: string): Buffer {
  return Buffer.from(path.replaceAll('/', '\0'));
}

/** Names in a directory, by their bytes. */
export function childNames(tree: Tree): Map<string, string[]> {
  const children = new Map<string, string[]>();
  for (const [path, node] of tree) {
    if (node.kind === 'directory' && !children.has(path)) children.set(path, []);
    if (path === '') continue;
    const parent = parentOf(path);
    const names = children.get(parent) ?? [];
    names.push(path.slice(parent === '' ? 0 : parent.length + 1));
    children.set(parent, names);
  }
  for (const names of children.values()) names.sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return children;
}

export function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}

function add(tree: Tree, path: string, node: Node): void {
  checkPath(path);
  const before = tree.get(path);
  if (before !== undefined && !(before.kind === 'directory' && node.kind === 'directory'))
    throw badInput(`${path} is in the tree twice`);
  for (let parent = parentOf(path); ; parent = parentOf(parent)) {
    const found = tree.get(parent);
    if (found === undefined) tree.set(parent, { kind: 'directory', mode: 0o755 });
    else if (found.kind !== 'directory')
      throw badInput(`${parent} is not a directory, so ${path} cannot be in it`);
    if (parent === '') break;
  }
  tree.set(path, node);
}

function checkPath(path: string): void {
  const parts = path.split('/');
  const bad = parts.some(
    (part) => part === '' || part === '.' || part === '..' || Buffer.byteLength(part) > 255,
  );
  // oxlint-disable-next-line no-control-regex
  if (bad || /[\0-\x1f\x7f]/.test(path) || Buffer.from(path).toString() !== path)
    throw badInput(`${JSON.stringify(path)} is not a path that can be stored`);
}

// Memory from the system, through libc's mmap: the file of a model without a copy of its own, and the
// samples of a sound, which take only as much as they have and are given back after each request.

import koffi from 'koffi';
import { POINTER, type Pointer } from '../llama/declarations.ts';

/** include/uapi/asm-generic/mman-common.h */
const [PROT_READ, PROT_WRITE] = [1, 2];
const [MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE] = [1, 2, 0x20, 0x4000];
const MADV_DONTNEED = 4;
const FAILED = 0xffffffffffffffffn;

/** The bytes of an open file, for as long as `unmap` was not called. */
export function mapFile(
  fd: number,
  bytes: number,
): { readonly pointer: Pointer; readonly unmap: () => void } {
  const pointer = map(bytes, { protection: PROT_READ, flags: MAP_SHARED, fd });
  const munmap = koffi.load(null).func('munmap', 'int', [POINTER, 'size_t']);
  return { pointer, unmap: () => void munmap(pointer, bytes) };
}

/** Zeros until they are written; `forget` makes them zeros again. */
export function reserve(bytes: number): { readonly pointer: Pointer; readonly forget: () => void } {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const pointer = map(bytes, { protection: PROT_READ | PROT_WRITE, flags, fd: -1 });
  const madvise = koffi.load(null).func('madvise', 'int', [POINTER, 'size_t', 'int']);
  return { pointer, forget: () => void madvise(pointer, bytes, MADV_DONTNEED) };
}

/** Samples where they are, without a copy. */
export function samplesAt(pointer: Pointer, count: number): Float32Array {
  return new Float32Array(koffi.view(pointer, count * Float32Array.BYTES_PER_ELEMENT));
}

interface Mapping {
  readonly protection: number;
  readonly flags: number;
  readonly fd: number;
}

function map(bytes: number, { protection, flags, fd }: Mapping): Pointer {
  const types = [POINTER, 'size_t', 'int', 'int', 'int', 'int64'];
  const address: unknown = koffi.load(null).func('mmap', POINTER, types)(
    null,
    bytes,
    protection,
    flags,
    fd,
    0,
  );
  if (typeof address !== 'bigint' || address === FAILED || address === -1n || address === 0n)
    throw new Error('the system gave no memory');
  return address;
}

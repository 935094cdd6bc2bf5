// Errors of the operating system in words for an operator.

import { getSystemErrorMap } from 'node:util';

/** "no such file or directory (ENOENT)". */
export function systemReason(error: unknown): string {
  const { code, errno } = error as NodeJS.ErrnoException;
  const words = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
  return words === undefined ? (code ?? 'unknown error') : `${words} (${code})`;
}

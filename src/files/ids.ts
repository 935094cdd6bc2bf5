// Ids of files and batches: the milliseconds they were made at, then 80 random bits. In the order of their ids
// they are in the order of their making, so a page of a list can go on after an id that is gone.

import { randomBytes } from 'node:crypto';

export type IdKind = 'file-' | 'batch_';

const TIME_DIGITS = 12;
const BODY = /^[0-9a-f]{32}$/;

export function newId(kind: IdKind, now: number): string {
  return (
    kind +
    Math.max(0, Math.floor(now)).toString(16).padStart(TIME_DIGITS, '0') +
    randomBytes(10).toString('hex')
  );
}

/** Whether it is an id of that kind; it is then also a safe name of a file. */
export function isId(kind: IdKind, value: string): boolean {
  return value.startsWith(kind) && BODY.test(value.slice(kind.length));
}

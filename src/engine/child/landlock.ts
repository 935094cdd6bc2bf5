// Landlock (landlock(7), Linux 5.13 and later): this process and whatever it becomes by execve may from now
// on use the files it is granted and no others. seccomp sees numbers and no paths, so a process that must
// open files by name is confined by both. For good, like seccomp.

import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { nativeAlloc } from './llama/library.ts';

/** The same numbers on x86-64 and arm64. */
const [CREATE_RULESET, ADD_RULE, RESTRICT_SELF] = [444, 445, 446];
const CREATE_RULESET_VERSION = 1;
const RULE_PATH_BENEATH = 1;
const O_PATH = 0o10000000;

const EXECUTE = 1n << 0n;
const WRITE_FILE = 1n << 1n;
const READ_FILE = 1n << 2n;
const READ_DIR = 1n << 3n;
const TRUNCATE = 1n << 14n;
/** Access rights by version of the interface; what a version does not know cannot be taken away. */
const HANDLED: readonly bigint[] = [0n, (1n << 13n) - 1n, (1n << 14n) - 1n, (1n << 15n) - 1n];

export interface FileGrants {
  /** Folders and files whose contents may be read and run. */
  readonly programs: readonly string[];
  readonly read: readonly string[];
  readonly write: readonly string[];
}

/** False where the system has no Landlock; throws when it has and refuses. Needs PR_SET_NO_NEW_PRIVS. */
export function restrictFiles({ programs, read, write }: FileGrants): boolean {
  if (process.platform !== 'linux') return false;
  const syscall = koffi.load(null).func('syscall', 'long', ['long', 'ulong', 'ulong', 'ulong', 'ulong']);
  const version = Number(syscall(CREATE_RULESET, 0, 0, CREATE_RULESET_VERSION, 0));
  if (version < 1) return false;
  const handled = HANDLED[Math.min(version, HANDLED.length - 1)]!;
  // struct landlock_ruleset_attr { __u64 handled_access_fs; }
  const attributes = nativeAlloc(8);
  new DataView(attributes.memory).setBigUint64(0, handled, true);
  const ruleset = Number(syscall(CREATE_RULESET, attributes.pointer, 8, 0, 0));
  if (ruleset < 0) throw new Error('Landlock was refused by the kernel');
  const grant = (path: string, rights: bigint): void => {
    let fd: number;
    try {
      fd = openSync(path, O_PATH);
    } catch {
      // Not on this system, so there is no need for it.
      return;
    }
    // struct landlock_path_beneath_attr { __u64 allowed_access; __s32 parent_fd; } packed
    const rule = nativeAlloc(12);
    const view = new DataView(rule.memory);
    view.setBigUint64(0, rights & handled, true);
    view.setInt32(8, fd, true);
    const answer = Number(syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule.pointer, 0));
    closeSync(fd);
    if (answer !== 0) throw new Error(`Landlock cannot grant ${path}`);
  };
  for (const path of programs)
    grant(path, path.endsWith('/') ? READ_FILE | READ_DIR | EXECUTE : READ_FILE | EXECUTE);
  for (const path of read) grant(path, READ_FILE);
  for (const path of write) grant(path, WRITE_FILE | TRUNCATE);
  if (Number(syscall(RESTRICT_SELF, ruleset, 0, 0, 0)) !== 0)
    throw new Error('Landlock was refused by the kernel');
  return true;
}

// Landlock and the seccomp filter for processes that open files by name, as a process feels them. Runs dist/.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';

const dist = new URL('../../../../dist/src/engine/child/', import.meta.url);
const work = mkdtempSync(join(tmpdir(), 'assay-landlock-'));
afterAll(() => rmSync(work, { recursive: true }));

test.skipIf(process.platform !== 'linux')(
  'only what was granted is opened, by the process and by what it starts',
  () => {
    const [granted, other] = [join(work, 'granted'), join(work, 'other')];
    writeFileSync(granted, 'granted');
    writeFileSync(other, 'other');
    const script = `
    import { readFileSync, writeFileSync, openSync } from 'node:fs';
    import { spawnSync } from 'node:child_process';
    const { hardenProcess } = await import(${JSON.stringify(new URL('harden.js', dist).href)});
    const { restrictFiles } = await import(${JSON.stringify(new URL('landlock.js', dist).href)});
    const { confineProcess } = await import(${JSON.stringify(new URL('confine.js', dist).href)});
    const attempt = (act) => { try { return String(act()); } catch (error) { return error.code; } };
    hardenProcess(process.ppid);
    const done = restrictFiles({ programs: ['/bin/', '/usr/bin/', '/lib/', '/lib64/', '/usr/lib/', '/nowhere/'], read: [${JSON.stringify(granted)}], write: [${JSON.stringify(other)}] });
    console.log(JSON.stringify([
      done,
      attempt(() => readFileSync(${JSON.stringify(granted)}, 'utf8')),
      attempt(() => readFileSync(${JSON.stringify(other)}, 'utf8')),
      attempt(() => writeFileSync(${JSON.stringify(granted)}, 'x')),
      attempt(() => { writeFileSync(${JSON.stringify(other)}, 'changed'); return 'written'; }),
      attempt(() => openSync(${JSON.stringify(join(work, 'new'))}, 'wx')),
      attempt(() => readFileSync('/etc/hostname', 'utf8')),
      attempt(() => readFileSync('/proc/' + process.ppid + '/environ')),
      spawnSync('/bin/cat', [${JSON.stringify(other)}], { stdio: 'pipe' }).status,
      confineProcess('files'),
      attempt(() => readFileSync(${JSON.stringify(granted)}, 'utf8')),
      attempt(() => readFileSync(${JSON.stringify(other)}, 'utf8')),
      spawnSync('/bin/cat', [${JSON.stringify(granted)}], { stdio: 'pipe' }).error?.code,
    ]));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout || 'null'), stderr).toEqual([
      true,
      'granted',
      'EACCES',
      'EACCES',
      'written',
      'EACCES',
      'EACCES',
      'EACCES',
      1,
      true,
      'granted',
      'EACCES',
      'EPERM',
    ]);
    expect(readFileSync(other, 'utf8')).toBe('changed');
  },
);

test.skipIf(process.platform !== 'linux')(
  'while a model with adapters loads its files are opened by name; once it serves none is, nor a program started',
  () => {
    const [granted, other] = [join(work, 'adapter'), join(work, 'another')];
    writeFileSync(granted, 'granted');
    writeFileSync(other, 'other');
    const script = `
    import { readFileSync } from 'node:fs';
    import { spawnSync } from 'node:child_process';
    const { hardenProcess } = await import(${JSON.stringify(new URL('harden.js', dist).href)});
    const { restrictFiles } = await import(${JSON.stringify(new URL('landlock.js', dist).href)});
    const { confineProcess } = await import(${JSON.stringify(new URL('confine.js', dist).href)});
    const attempt = (act) => { try { return String(act()); } catch (error) { return error.code; } };
    const reads = () => [${JSON.stringify(granted)}, ${JSON.stringify(other)}].map((path) => attempt(() => readFileSync(path, 'utf8')));
    hardenProcess(process.ppid);
    restrictFiles({ programs: ['/bin/', '/usr/bin/', '/lib/', '/lib64/', '/usr/lib/'], read: [${JSON.stringify(granted)}], write: [] });
    const loading = [confineProcess('load-files'), ...reads(), spawnSync('/bin/true').error?.code];
    const serving = [confineProcess('serve'), ...reads(), spawnSync('/bin/true').error?.code];
    console.log(JSON.stringify([...loading, ...serving, attempt(() => confineProcess('serve'))]));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
      encoding: 'utf8',
    });
    expect(JSON.parse(stdout || 'null'), stderr).toEqual([
      true,
      'granted',
      'EACCES',
      'EPERM',
      true,
      'EPERM',
      'EPERM',
      'EPERM',
      // No filter is added any more.
      'false',
    ]);
  },
);

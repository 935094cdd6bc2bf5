// Go 1.26 into the cache, where no Go here is new enough for clients/go: the module `golang.org/toolchain`,
// which an older Go downloads like any other, by its hash. Tests and benches find it there.
//   node --import tsx scripts/go-toolchain.ts

import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { cacheFolder } from './real-models/install.ts';

const VERSION = 'v0.0.1-go1.26.0.linux-amd64';
/** As `go mod download` says it, and the checksum database has it. */
const SUM = 'h1:1p2G5COR51f8Q3EQ4HLJQDDL2ytLEqfL/yTawB0Jr8w=';
const FOLDER = join(cacheFolder(), `go-${VERSION}`);
const INSTALLED = ['go', '/usr/local/go/bin/go'];

/** The command of a Go that has crypto/hpke (Go 1.26); undefined where none is new enough. */
export function goTool(): string | undefined {
  return [...INSTALLED, join(FOLDER, 'bin/go')].find((command) => {
    const [major, minor] = versionOf(command);
    return major > 1 || (major === 1 && minor >= 26);
  });
}

function versionOf(command: string): readonly [number, number] {
  const { stdout } = spawnSync(command, ['version'], {
    encoding: 'utf8',
    env: { ...process.env, GOTOOLCHAIN: 'local' },
  });
  const [, major = '0', minor = '0'] = /go version go(\d+)\.(\d+)/.exec(stdout ?? '') ?? [];
  return [Number(major), Number(minor)];
}

function install(): void {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Error(`no toolchain is pinned for ${process.platform}-${process.arch}`);
  const loader = INSTALLED.find((command) => versionOf(command)[0] > 0);
  if (loader === undefined) throw new Error('there is no Go that could fetch a newer one');
  mkdirSync(cacheFolder(), { recursive: true });
  const work = mkdtempSync(join(cacheFolder(), '.go-'));
  try {
    writeFileSync(join(work, 'go.mod'), 'module fetched\n');
    const { status, stdout, stderr } = spawnSync(
      loader,
      ['mod', 'download', '-json', '-modcacherw', `golang.org/toolchain@${VERSION}`],
      {
        cwd: work,
        encoding: 'utf8',
        env: { ...process.env, GOTOOLCHAIN: 'local', GOMODCACHE: join(work, 'modules') },
      },
    );
    if (status !== 0) throw new Error(stderr.slice(-2000));
    const { Dir: folder, Sum: sum } = JSON.parse(stdout) as { readonly Dir: string; readonly Sum: string };
    if (sum !== SUM) throw new Error(`golang.org/toolchain has the sum ${sum}, ${SUM} is expected`);
    const whole = join(work, 'whole');
    cpSync(folder, whole, { recursive: true });
    // Files of modules are never executable.
    for (const programs of [join(whole, 'bin'), join(whole, 'pkg/tool/linux_amd64')])
      for (const name of readdirSync(programs)) chmodSync(join(programs, name), 0o755);
    renameSync(whole, FOLDER);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href && goTool() === undefined) {
  install();
  if (goTool() === undefined) throw new Error('the Go that was fetched does not run');
}

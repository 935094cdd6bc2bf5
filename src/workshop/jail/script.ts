// The shell script that builds a jail from inside new namespaces, as their first process, and stays it: the
// kernel ends every process of the namespace with it. A root of its own in memory has the system's
// libraries, what a job may read, read-only, and one folder it may write. Every path comes in as an
// argument and is never part of the script's text.

/**
 * Arguments: ROOT OUT UID TMP_BYTES, then for each mount SOURCE TARGET IDENTITY (device:inode, `-`: any),
 * `--`, cgroup.procs files, `--`, the command with its limits. UID `-`: the user stays as it is.
 */
export const JAIL_SCRIPT = `
set -eu
umask 022
root=$1 out=$2 uid=$3 tmp=$4
shift 4
mount --make-rprivate /
mount -t tmpfs -o size=4m,mode=755,nosuid,nodev jail "$root"
cd "$root"
mkdir -p job/in job/out tmp proc dev dev/shm usr etc .old
for each in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$each" ]; then ln -s "$(readlink "/$each")" "$each"
  elif [ -d "/$each" ]; then mkdir "$each"; mount --bind "/$each" "$each"; mount -o remount,bind,ro,nosuid,nodev "$each"
  fi
done
mount --bind /usr usr
mount -o remount,bind,ro,nosuid,nodev usr
for each in ld.so.cache localtime; do
  if [ -f "/etc/$each" ]; then : > "etc/$each"; mount --bind "/etc/$each" "etc/$each"; mount -o remount,bind,ro,nosuid,nodev "etc/$each"; fi
done
for each in alternatives ssl; do
  if [ -d "/etc/$each" ]; then mkdir "etc/$each"; mount --bind "/etc/$each" "etc/$each"; mount -o remount,bind,ro,nosuid,nodev "etc/$each"; fi
done
user=$uid
[ "$uid" = - ] && user=0
echo "job:x:$user:$user::/tmp:/bin/false" > etc/passwd
echo "job:x:$user:" > etc/group
for each in null zero full random urandom; do : > "dev/$each"; mount --bind "/dev/$each" "dev/$each"; done
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o "size=$tmp,mode=1777,nosuid,nodev" tmp tmp
mount -t tmpfs -o "size=$tmp,mode=1777,nosuid,nodev" shm dev/shm
mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro,nosuid,nodev,noexec proc/sys
mount --bind "$out" job/out
mount -o remount,bind,nosuid,nodev,noexec job/out
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir -p ".$2"; else mkdir -p ".$(dirname "$2")"; [ -e ".$2" ] || : > ".$2"; fi
  mount --bind "$1" ".$2"
  mount -o remount,bind,ro,nosuid,nodev ".$2"
  if [ "$3" != - ] && [ "$(stat -c %d:%i ".$2")" != "$3" ]; then echo 'an input was replaced' >&2; exit 125; fi
  shift 3
done
shift
while [ "$1" != -- ]; do echo 0 > "$1"; shift; done
shift
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
mount -o remount,ro,nosuid,nodev,size=4m,mode=755 /
set +e
if [ "$uid" = - ]; then
  setpriv --no-new-privs --inh-caps=-all --bounding-set=-all prlimit "$@" &
else
  setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all prlimit "$@" &
fi
wait $!
exit $?
`;

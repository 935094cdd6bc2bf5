# Sets `device` and `sectors` to the disk with serial $1, else to the partition whose GUID begins as digest $2 does, or
# `device` to nothing. The host chooses serials and tables: they are trusted for nothing but where to look.
find_disk() {
  device=''
  set +f
  for block in /sys/block/vd*; do
    [ -r "$block/serial" ] || continue
    serial=''
    IFS= read -r serial < "$block/serial"
    [ "$serial" = "$1" ] || continue
    [ -z "$device" ] || refuse "two disks have the serial $1"
    device=/dev/${block##*/}
    IFS= read -r sectors < "$block/size"
  done
  [ -n "$device" ] || find_partition "$2"
  set -f
}

# As UEFI lays a GUID out: the first three groups are little-endian. Entries of 128 bytes begin at sector 2.
find_partition() {
  guid=$(echo "$1" | $bb sed -E 's/^(..)(..)(..)(..)(..)(..)(..)(..)(.{16}).*/\4\3\2\1\6\5\8\7\9/')
  for block in /sys/block/vd* /sys/block/sd* /sys/block/nvme*; do
    [ -r "$block/size" ] || continue
    number=$($bb dd if="/dev/${block##*/}" bs=512 skip=2 count=32 2> /dev/null | $bb hexdump -v -e '128/1 "%02x" "\n"' | $bb grep -n -E "^.{32}$guid" | $bb cut -d : -f 1)
    case "$number" in '') continue ;; *[!0-9]*) refuse "two partitions have the GUID $guid" ;; esac
    for part in "$block"/*/partition; do
      [ -r "$part" ] || continue
      IFS= read -r own < "$part"
      [ "$own" = "$number" ] || continue
      [ -z "$device" ] || refuse "two partitions have the GUID $guid"
      part=${part%/partition}
      device=/dev/${part##*/}
      IFS= read -r sectors < "$part/size"
    done
  done
}

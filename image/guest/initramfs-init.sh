#!/bin/busybox sh
# PID 1 of the initramfs: opens the root image under dm-verity with the root hash of the measured command line, and goes there.
# Everything else is a constant of this file. Whatever is missing, repeated, malformed or altered ends the boot.

bb=/bin/busybox

refuse() {
  echo "assay: refused to boot: $1" > /dev/console
  $bb poweroff -f
  while :; do $bb sleep 3600; done
}

hex64() {
  case "$1" in *[!0-9a-f]*) return 1 ;; esac
  [ ${#1} -eq 64 ]
}

count() {
  case "$1" in '' | 0* | *[!0-9]*) return 1 ;; esac
  [ ${#1} -le 9 ]
}

$bb mount -t proc -o nosuid,nodev,noexec proc /proc || refuse 'no /proc'
$bb mount -t sysfs -o nosuid,nodev,noexec sysfs /sys || refuse 'no /sys'
$bb mount -t devtmpfs -o nosuid,noexec,mode=0755 devtmpfs /dev || refuse 'no /dev'
exec < /dev/null > /dev/console 2>&1

# The command line is measured; still, a parameter that could be read two ways is refused.
set -f
IFS= read -r line < /proc/cmdline
case "$line" in *[\"\'\\]*) refuse 'the command line has quotes' ;; esac
root='' blocks='' config=''
seen_root=0 seen_blocks=0 seen_config=0
for word in $line; do
  case "$word" in
    assay.root=*) root=${word#*=} seen_root=$((seen_root + 1)) ;;
    assay.blocks=*) blocks=${word#*=} seen_blocks=$((seen_blocks + 1)) ;;
    assay.cfg=*) config=${word#*=} seen_config=$((seen_config + 1)) ;;
    assay* | init=* | rdinit=*) refuse "the command line has a parameter that is not allowed: ${word%%=*}" ;;
  esac
done
[ $seen_root -eq 1 ] || refuse "assay.root is given $seen_root times"
[ $seen_blocks -eq 1 ] || refuse "assay.blocks is given $seen_blocks times"
[ $seen_config -eq 1 ] || refuse "assay.cfg is given $seen_config times"
hex64 "$root" || refuse 'assay.root is not 64 lower-case hex digits'
count "$blocks" || refuse 'assay.blocks is not a positive number'
hex64 "$config" || refuse 'assay.cfg is not 64 lower-case hex digits'

for module in @MODULES@; do
  $bb insmod "/lib/modules/$module.ko" 2> /dev/null || case "$module" in
    # Off their own hardware these find no device.
    tdx-guest | sev-guest) ;;
    *) refuse "module $module does not load" ;;
  esac
done

@FINDDISK@
find_disk assay-root "$root"
if [ -z "$device" ]; then
  # Not a direct boot: the disk of a cloud, or of a machine that boots it by itself. Its drivers find their devices in their own time.
  for module in @CLOUDMODULES@; do
    $bb insmod "/lib/modules/$module.ko" 2> /dev/null
  done
  tries=0
  while [ -z "$device" ] && [ $tries -lt 300 ]; do
    $bb usleep 100000
    tries=$((tries + 1))
    find_disk assay-root "$root"
  done
fi
[ -n "$device" ] || refuse 'there is no disk with the serial assay-root, and no partition of the root hash'
[ "$sectors" -gt $((blocks * 8)) ] || refuse 'the root disk is smaller than assay.blocks says'

DM_DISABLE_UDEV=1 /usr/sbin/dmsetup create assay-root --readonly --table \
  "0 $((blocks * 8)) verity 1 $device $device 4096 4096 $blocks $blocks sha256 $root @SALT@ 1 panic_on_corruption" \
  > /dev/null || refuse 'the root image does not open'
$bb mount -t erofs -o ro,nodev,nosuid /dev/mapper/assay-root /root || refuse 'the root image does not mount'

for place in proc sys dev; do
  $bb mount -o move "/$place" "/root/$place" || refuse "/$place does not move"
done
exec $bb switch_root -c /dev/console /root /sbin/init

#!/bin/busybox sh
# PID 1 of the appliance: closes the kernel, checks the measured configuration, opens model disks, brings the network up, starts
# the root part and the API server, and powers off when either ends. The console, which the host reads, gets this script's
# own lines and the server's until it listens; nothing after that.

bb=/bin/busybox
PATH=/nonexistent
umask 022
ulimit -c 0
# Connections are descriptors; the kernel gives PID 1 no more than 4096. The server makes do with what it gets, and says so.
ulimit -n 65536

say() {
  echo "assay: $1"
}

refuse() {
  echo "assay: refused to start: $1"
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

address() {
  case "$1" in '' | *[!0-9.]* | *..* | .* | *.) return 1 ;; esac
  [ ${#1} -le 15 ]
}

@FINDDISK@
# Copies the text of disk $device, at most $1 KiB and padded with NULs, to $2.
read_disk() {
  [ "$sectors" -le $(($1 * 2)) ] || refuse "the disk for $2 is over $1 KiB"
  $bb dd if="$device" bs=4096 2> /dev/null | $bb tr -d '\000' > "$2" || refuse "the disk for $2 cannot be read"
}

set_kernel() {
  echo "$2" > "/proc/sys/$1" || refuse "kernel setting $1 cannot be set"
}

exec < /dev/null > /dev/console 2>&1
set -f
say 'root image verified'

# --- the kernel -------------------------------------------------------------------------------------------------------------
$bb mount -o remount,nosuid,nodev,noexec,hidepid=2 proc /proc || refuse 'no /proc'
$bb mount -t securityfs -o nosuid,nodev,noexec securityfs /sys/kernel/security || refuse 'no securityfs'
$bb mount -t configfs -o nosuid,nodev,noexec configfs /sys/kernel/config || refuse 'no configfs'
$bb mount -t tmpfs -o nosuid,nodev,noexec,mode=0755,size=16m tmpfs /run || refuse 'no /run'
$bb mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=64m tmpfs /tmp || refuse 'no /tmp'
$bb mkdir /dev/shm && $bb mount -t tmpfs -o nosuid,nodev,noexec,mode=1777,size=90% tmpfs /dev/shm || refuse 'no /dev/shm'

#@lockdown
IFS= read -r lockdown < /sys/kernel/security/lockdown
case "$lockdown" in *'[confidentiality]'*) ;; *) refuse 'the kernel is not locked down' ;; esac
#@end
set_kernel kernel/modules_disabled 1
set_kernel kernel/kexec_load_disabled 1
set_kernel kernel/unprivileged_bpf_disabled 1
set_kernel kernel/kptr_restrict 2
set_kernel kernel/dmesg_restrict 1
set_kernel kernel/perf_event_paranoid 3
set_kernel kernel/yama/ptrace_scope 3
set_kernel kernel/sysrq 0
set_kernel kernel/io_uring_disabled 2
set_kernel kernel/core_pattern ''
set_kernel fs/suid_dumpable 0
set_kernel vm/unprivileged_userfaultfd 0
set_kernel user/max_user_namespaces 0
set_kernel net/core/bpf_jit_harden 2
set_kernel net/ipv4/conf/all/accept_redirects 0
set_kernel net/ipv4/conf/default/accept_redirects 0
set_kernel net/ipv4/conf/all/accept_source_route 0
set_kernel net/ipv4/conf/all/rp_filter 1
set_kernel net/ipv6/conf/all/disable_ipv6 1
set_kernel net/ipv6/conf/default/disable_ipv6 1
[ "$($bb wc -l < /proc/swaps)" -eq 1 ] || refuse 'there is swap'

# --- measured configuration -------------------------------------------------------------------------------------------------
IFS= read -r line < /proc/cmdline
config=''
for word in $line; do
  case "$word" in assay.cfg=*) config=${word#*=} ;; esac
done
$bb mkdir -p /run/assay /run/models
find_disk assay-config "$config"
[ -n "$device" ] || refuse 'there is no disk with the serial assay-config, and no partition of its digest'
read_disk 1024 /run/assay/measured
sum=$($bb sha256sum < /run/assay/measured)
sum=${sum%% *}
[ "$sum" = "$config" ] || refuse "the configuration disk has sha256 $sum, the measured command line says $config"

$bb mount -t tmpfs -o nosuid,nodev,noexec,mode=0755,size=1m tmpfs /run/models || refuse 'no /run/models'
exec 3< /run/assay/measured
IFS= read -r line <&3
[ "$line" = '# assay measured configuration 1' ] || refuse 'the configuration is not of version 1'
body=0
while IFS= read -r line <&3; do
  case "$line" in
    ---) body=1 && break ;;
    'model '*)
      set -- $line
      [ $# -eq 4 ] || refuse 'a model line of the configuration is malformed'
      case "$2" in '' | *[!a-z0-9._-]* | .*) refuse 'a model name of the configuration is malformed' ;; esac
      hex64 "$3" && count "$4" || refuse "the root hash or size of model $2 is malformed"
      find_disk "m-$(echo "$3" | $bb cut -c 1-16)" "$3"
      [ -n "$device" ] || refuse "the disk of model $2 is missing (serial m-$(echo "$3" | $bb cut -c 1-16))"
      [ "$sectors" -gt $(($4 * 8)) ] || refuse "the disk of model $2 is smaller than the configuration says"
      DM_DISABLE_UDEV=1 /usr/sbin/dmsetup create "model-$2" --readonly --table \
        "0 $(($4 * 8)) verity 1 $device $device 4096 4096 $4 $4 sha256 $3 @SALT@ 1 panic_on_corruption" \
        > /dev/null || refuse "the disk of model $2 does not open"
      $bb mkdir "/run/models/$2" || refuse "model $2 is configured twice"
      $bb mount -t erofs -o ro,nodev,nosuid,noexec "/dev/mapper/model-$2" "/run/models/$2" || refuse "the disk of model $2 does not mount"
      say "model $2 verified"
      ;;
    *) refuse 'the configuration has a line that is not known' ;;
  esac
done
[ $body -eq 1 ] || refuse 'the configuration has no server part'
$bb cat <&3 > /run/assay/server.toml
exec 3<&-
$bb mount -o remount,ro /run/models

# --- operator configuration: not measured, so it can only say where we are, and only in these words ----------------------------
ip='' gateway='' dns=''
operator=''
find_disk assay-operator @OPERATOR@
if [ -n "$device" ]; then
  read_disk 64 /run/assay/operator
  # Zeros: the disk's own place for it, which nothing was written to.
  [ -s /run/assay/operator ] || device=''
fi
if [ -n "$device" ]; then
  exec 3< /run/assay/operator
  IFS= read -r line <&3
  [ "$line" = '# assay operator configuration 1' ] || refuse 'the operator configuration is not of version 1'
  body=0
  while IFS= read -r line <&3; do
    case "$line" in
      ---) body=1 && break ;;
      'address '*/*) ip=${line#address } && address "${ip%/*}" && count "${ip#*/}" && [ "${ip#*/}" -le 32 ] || refuse 'operator: address is malformed' ;;
      'gateway '*) gateway=${line#gateway } && address "$gateway" || refuse 'operator: gateway is malformed' ;;
      'dns '*) dns=${line#dns } && address "$dns" || refuse 'operator: dns is malformed' ;;
      *) refuse 'the operator configuration has a line that is not known' ;;
    esac
  done
  [ $body -eq 1 ] || refuse 'the operator configuration has no server part'
  $bb cat <&3 > /run/assay/operator.toml
  exec 3<&-
  operator='--operator-config /run/assay/operator.toml'
fi

# --- network ----------------------------------------------------------------------------------------------------------------
$bb ip link set lo up
tries=0
while [ ! -d /sys/class/net/eth0 ] && [ $tries -lt 300 ]; do
  $bb usleep 100000
  tries=$((tries + 1))
done
[ -d /sys/class/net/eth0 ] || refuse 'there is no network interface'
$bb ip link set eth0 up
if [ -n "$ip" ]; then
  $bb ip address add "$ip" dev eth0 || refuse 'the address cannot be set'
  [ -z "$gateway" ] || $bb ip route add default via "$gateway" || refuse 'the gateway cannot be set'
  [ -z "$dns" ] || echo "nameserver $dns" > /run/resolv.conf
else
  $bb udhcpc -i eth0 -f -q -n -t 10 -s /opt/assay/dhcp.sh > /dev/null 2>&1 || refuse 'no address by DHCP'
fi

# --- the two processes --------------------------------------------------------------------------------------------------------
$bb mkdir -p /run/attestd /run/data
# The server's own: what an audit log fills is never what the rest of /run needs. It takes memory only as it is written.
$bb mount -t tmpfs -o nosuid,nodev,noexec,mode=0700,uid=1000,gid=1000,size=256m tmpfs /run/data || refuse 'no /run/data'
$bb mkfifo -m 0600 /run/assay/log /run/assay/ready
# What the server says before it serves may be needed to see why it does not; afterwards nothing of it reaches the console.
(
  exec < /run/assay/log
  while IFS= read -r line; do
    echo "$line"
    case "$line" in *'"msg":"listening"'*) break ;; esac
  done
  say 'the console is silent from here on'
  exec $bb cat > /dev/null
) &

clean="$bb env -i HOME=/run/data TMPDIR=/tmp NODE_ENV=production"
# uid 0 owns configfs; the group makes the socket the server's. Neither process has a capability.
(
  $clean /usr/bin/setpriv --regid=1000 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
    /usr/bin/node --max-old-space-size=64 /opt/assay/dist/src/attestd/main.js /run/attestd/socket 1000 /sys/kernel/config/tsm/report < /dev/null > /run/assay/ready 2> /dev/null
  say 'the root part ended, powering off'
  $bb poweroff -f
) &
IFS= read -r line < /run/assay/ready
#@test-start
#@end
$clean /usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  /usr/bin/node /opt/assay/dist/src/cli/main.js serve --config /run/assay/server.toml $operator < /dev/null > /run/assay/log 2>&1 &
server=$!

# Waiting reaps whatever was orphaned on the way, too.
wait $server
say 'the server ended, powering off'
$bb poweroff -f
while :; do $bb sleep 3600; done

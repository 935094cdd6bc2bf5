#!/bin/busybox sh
# Called by udhcpc with what the DHCP server said. That server is the host's: every value is checked before it is used, and
# the worst it can do is leave us without a network.

bb=/bin/busybox
[ "$1" = bound ] || exit 0

address() {
  case "$1" in '' | *[!0-9.]* | *..* | .* | *.) return 1 ;; esac
  [ ${#1} -le 15 ]
}

set -f
address "$ip" || exit 1
case "$mask" in '' | *[!0-9]*) mask=24 ;; esac
[ "$mask" -le 32 ] || exit 1
$bb ip address add "$ip/$mask" dev eth0 || exit 1
set -- $router
! address "$1" || $bb ip route add default via "$1"
set -- $dns
! address "$1" || echo "nameserver $1" > /run/resolv.conf
exit 0

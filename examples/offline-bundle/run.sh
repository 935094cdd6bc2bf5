#!/bin/sh
# Keeps the evidence of a server as a file, then judges the file where no network is.
#   sh examples/offline-bundle/run.sh https://127.0.0.1:8443 kept.json --policy .assay/policy.json --allow-simulated
# The second command opens no connection: everything the judgement needs, endorsements too, is in the file. It can run on another machine.

set -eu
url=$1
file=$2
shift 2
# Not npx: outside of the checkout it would ask a registry for a name that is not ours there.
verify="$(dirname "$0")/../../attestation/bin/assay-verify.js"
node "$verify" "$url" --save "$file" "$@" >&2
node "$verify" evidence < "$file"

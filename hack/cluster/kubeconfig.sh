#!/usr/bin/env bash
# Prints the path of a cluster's admin kubeconfig.
#
#   kubeconfig.sh [--name NAME]
#
#   export KUBECONFIG=$(hack/cluster/kubeconfig.sh)

set -euo pipefail
source "$(dirname "$0")/lib.sh"

take_name "$@"
use_cluster "$name"
[[ -f $KUBECONFIG ]] || die "cluster $NAME is not up; start it with up.sh --name $NAME"
echo "$KUBECONFIG"

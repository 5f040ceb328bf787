#!/usr/bin/env bash
# The operator against a real control plane with simulated nodes and the real Kueue, with the RBAC that ships.
#
#   integration.sh [FILTER…]     FILTER: only tests whose names contain it
#
# KEEP=1 leaves the cluster up for a look. FINETUNE_IT_ALL=1 kills the operator at every write instead of at some (half an hour on two cores);
# FINETUNE_IT_SEED=N chooses other ones, FINETUNE_IT_SCENARIO=NAME sweeps one scenario alone.
# CLUSTER=NAME gives the cluster another name than `it`. Logs of the operator lie under target/tmp.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
cluster=${CLUSTER:-it}

finish() {
  local code=$?
  [[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
  exit "$code"
}
trap finish EXIT

[[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
hack/cluster/up.sh --name "$cluster" --nodes kwok:2
hack/cluster/kueue.sh up --name "$cluster"
environment=$(hack/cluster/as-operator.sh --name "$cluster")
eval "$environment"
page=$(hack/test/live-page.sh environment)
eval "$page"

run_tests() { cargo test --quiet --test integration -- --include-ignored "$@"; }
if (($#)); then
  run_tests --test-threads 1 --nocapture "$@"
  exit
fi
status=0
run_tests --test-threads 4 --skip alone:: --skip audit:: || status=1
run_tests --test-threads 1 --nocapture alone:: || status=1
run_tests audit:: || status=1
exit "$status"

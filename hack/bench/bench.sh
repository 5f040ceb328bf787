#!/usr/bin/env bash
# What runs cost: requests, time beside plain Jobs, CPU and memory of the operator; and what the REST gateway adds to lists and creates.
# On a real control plane with simulated nodes.
#
#   bench.sh
#
#   RUNS=100    runs at once            ROUNDS=3   rounds of runs and of plain Jobs, in turns
#   PAUSE=20    seconds of work a save  IDLE=60    seconds of silence that are listened to at the end
#   LIVES=100   runs that are paused, resumed, stopped and restarted after the rounds; then as many Deployments
#   JOBS=10000  jobs the REST gateway lists, before the operator runs; 0 leaves the gateway out
#   KEEP=1      leaves the cluster up for a look
#
# Runs FINETUNE_BENCH_OPERATOR if that is set, else target/release/finetune-operator if it is newer than the sources, else a dev build:
# its CPU and memory are not honest.
# Nothing else should run on the machine meanwhile. The log of the operator is target/tmp/bench-operator.log.

set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
cluster=bench

finish() {
  local code=$?
  [[ -n ${KEEP:-} ]] || hack/cluster/down.sh --name "$cluster"
  exit "$code"
}
trap finish EXIT

# Built first, so that no compiler runs beside what is measured.
cargo bench --quiet --profile dev --bench runs --no-run
release=target/release/finetune-operator
if [[ -n ${FINETUNE_BENCH_OPERATOR:-} ]]; then
  echo "operator: $FINETUNE_BENCH_OPERATOR" >&2
elif [[ -x $release && -z $(find src Cargo.toml Cargo.lock -type f -newer "$release" -print -quit) ]]; then
  export FINETUNE_BENCH_OPERATOR=$release
else
  echo "warning: no release build of these sources (cargo build --release); CPU and memory of a dev build say little" >&2
fi

DURABLE=1 hack/cluster/up.sh --name "$cluster" --nodes kwok:10
environment=$(hack/cluster/as-operator.sh --name "$cluster")
eval "$environment"
echo "load of the machine before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores" >&2
cargo bench --quiet --profile dev --bench runs
